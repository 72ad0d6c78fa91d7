"""Causal tracing: where in the model a fact passes, by breaking the subject and restoring one place at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from hooks import Activations, Intervention, Model, Site, capture, intervene
from hooks.interventions import Rows
from hooks.position import everywhere, substring
from hooks.site import attn_out, embed, mlp_out, resid_post
from interp.memory.fact import Query

ROLES = ("first subject", "middle subject", "last subject", "first after", "middle after", "last prompt")
STATES = "residual state"


@dataclass(frozen=True)
class Subject(Query):
    """A query whose subject is to be broken: the subject is spelt in the prompt, without its article."""

    subject: str


@dataclass(frozen=True, eq=False)
class Trace:
    """What restoring did: `restored[n, role, layer]` is the mean probability of the answer over noise draws.

    `layers[i]` are the layers restored together in column i. A role that a prompt lacks is NaN, and left out of means.
    """

    kind: str
    roles: tuple[str, ...]
    layers: tuple[tuple[int, ...], ...]
    clean: Float[Tensor, "n"]
    corrupted: Float[Tensor, "n"]
    restored: Float[Tensor, "n class layer"]

    @property
    def indirect_effect(self) -> Float[Tensor, "n class layer"]:
        """p(answer | broken, restored) − p(answer | broken), for each fact."""
        return self.restored - self.corrupted[:, None, None]

    @property
    def average_indirect_effect(self) -> Float[Tensor, "class layer"]:
        """The mean indirect effect over facts."""
        return self.indirect_effect.nanmean(0)

    @property
    def recovered(self) -> Float[Tensor, "n class layer"]:
        """The indirect effect as a share of what breaking the subject cost, for each fact."""
        return self.indirect_effect / (self.clean - self.corrupted)[:, None, None]

    def interval(self, draws: int = 1000, seed: int = 0) -> Float[Tensor, "2 class layer"]:
        """The 95 % bootstrap interval of the average indirect effect, over facts."""
        random = torch.Generator().manual_seed(seed)
        n = len(self.clean)
        means = torch.stack(
            [self.indirect_effect[torch.randint(n, (n,), generator=random)].nanmean(0) for _ in range(draws)]
        )
        return torch.nanquantile(means, torch.tensor([0.025, 0.975]), dim=0)


@dataclass(frozen=True)
class Location:
    """Where facts are: the token role and layers whose restoring recovers most, and how sure that is.

    `majority` is the share of facts of which restoring there recovers at least half; `margin` is by how much its
    average indirect effect exceeds that of the best other role.
    """

    role: str
    layers: tuple[int, ...]
    effect: float
    majority: float
    margin: float

    @property
    def layer(self) -> int:
        """The middle one of the layers, which an edit takes by default."""
        return self.layers[len(self.layers) // 2]


def trace_states(
    model: Model,
    facts: Sequence[Subject],
    *,
    draws: int = 6,
    noise: float = 3.0,
    seed: int = 0,
    progress: bool = False,
) -> Trace:
    """Restore single residual states `resid_post`, one token role and layer at a time (Meng et al. 2022, 2.2).

    All else as `trace_mlp` says.
    """
    return _trace(model, facts, STATES, resid_post.__getitem__, 1, draws, noise, seed, progress)


def trace_mlp(
    model: Model,
    facts: Sequence[Subject],
    window: int = 4,
    *,
    draws: int = 6,
    noise: float = 3.0,
    seed: int = 0,
    progress: bool = False,
) -> Trace:
    """Restore feed-forward outputs over windows of layers.

    The subject is broken by noise of 3 σ on its token embeddings, σ being the standard deviation of the facts' subject
    embeddings; several draws are averaged. What is measured is the probability of the answer's first token.

    Args:
        model: the model.
        facts: prompts, subjects and answers the model knows.
        window: how many successive layers are restored together.
        draws: how often the noise is drawn; each draw is the same for all that is restored.
        noise: its strength, in σ.
        seed: of the noise.
        progress: whether to show a bar.

    Raises:
        ValueError: no facts, a subject that its prompt does not spell, a window wider than the model, no draws.

    Cost: per fact, one clean pass and one pass over draws × roles rows for each window.

    ```python
    locate(trace_mlp(model, [Subject("The Golden Gate Bridge is located in", "San Francisco", "Golden Gate Bridge")]))
    ```
    """
    return _trace(model, facts, "feed-forward", mlp_out.__getitem__, window, draws, noise, seed, progress)


def trace_attention(
    model: Model,
    facts: Sequence[Subject],
    window: int = 4,
    *,
    draws: int = 6,
    noise: float = 3.0,
    seed: int = 0,
    progress: bool = False,
) -> Trace:
    """Restore attention outputs over windows of layers; all else as `trace_mlp` says."""
    return _trace(model, facts, "attention", attn_out.__getitem__, window, draws, noise, seed, progress)


def locate(trace: Trace) -> Location:
    """The role and layers with the largest average indirect effect.

    Raises:
        ValueError: a trace of residual states, where restoring the last one is trivially the clean run.
    """
    if trace.kind == STATES:
        raise ValueError(
            "restoring the last residual state of the last token restores everything, whatever the model knows, so a "
            "trace of states names no place to edit: give one of trace_mlp or trace_attention"
        )
    effect = trace.average_indirect_effect.nan_to_num(-torch.inf)
    role, column = divmod(int(effect.argmax()), effect.shape[1])
    others = torch.cat([effect[:role], effect[role + 1 :]])
    at = trace.recovered[:, role, column]
    at = at[~at.isnan()]
    return Location(
        role=trace.roles[role],
        layers=trace.layers[column],
        effect=float(effect[role, column]),
        majority=float((at >= 0.5).double().mean()),
        margin=float(effect[role, column] - others.max()),
    )


def roles_of(n_tokens: int, subject: Sequence[int]) -> list[list[int]]:
    """The columns of each role, for a prompt of `n_tokens` whose subject stands at these columns.

    >>> roles_of(8, [2, 3, 4])
    [[2], [3], [4], [5], [6], [7]]
    """
    first, last, end = subject[0], subject[-1], n_tokens - 1
    return [
        [first] if first != last else [],
        list(range(first + 1, last)),
        [last],
        [last + 1] if last + 1 < end else [],
        list(range(last + 2, end)),
        [end] if end != last else [],
    ]


def _trace(
    model: Model,
    facts: Sequence[Subject],
    kind: str,
    site: Callable[[int], Site],
    window: int,
    draws: int,
    noise: float,
    seed: int,
    progress: bool,
) -> Trace:
    if not facts:
        raise ValueError("no facts were given to trace: give at least one the model knows")
    if not 1 <= window <= model.n_layers:
        raise ValueError(f"a window of {window} layers does not fit {model.name}, which has {model.n_layers}")
    if draws < 1 or not 0 <= noise < torch.inf:
        raise ValueError(f"draws={draws} of noise={noise} σ: give at least one draw, and a noise of 0 or more")
    windows = tuple(tuple(range(i, i + window)) for i in range(model.n_layers - window + 1))
    std = noise * _embedding_std(model, facts)
    rows = [
        _trace_one(model, fact, site, windows, std, draws, seed + number)
        for number, fact in enumerate(tqdm(facts, desc=f"tracing {kind}", disable=not progress))
    ]
    clean, corrupted, restored = (torch.stack(column) for column in zip(*rows, strict=True))
    return Trace(kind, ROLES, windows, clean, corrupted, restored)


def _embedding_std(model: Model, facts: Sequence[Subject]) -> float:
    """The standard deviation σ of all entries of the embeddings of the subjects' tokens."""
    found = [capture(model, fact.prompt, [embed]).flat(embed, substring(fact.subject)) for fact in facts]
    return float(torch.cat(found).std())


@torch.no_grad()
def _trace_one(
    model: Model, fact: Subject, site: Callable[[int], Site], windows: Sequence[Sequence[int]],
    std: float, draws: int, seed: int,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "class layer"]]:  # fmt: skip
    """Clean, broken and restored probability of the answer's first token, for one fact."""
    layers = sorted({layer for window in windows for layer in window})
    clean = capture(model, fact.prompt, [site(layer) for layer in layers])
    subject = substring(fact.subject, occurrence=-1).mask(clean.tokens)[0].nonzero().flatten()
    n_tokens = int(clean.tokens.mask.sum())
    asked = roles_of(n_tokens, subject.tolist())
    answer = _first_token(model, fact)
    random = torch.Generator().manual_seed(seed)
    spoilt = std * torch.randn(draws, len(subject), model.d_model, generator=random).to(model.device)

    def probability(roles: Sequence[Sequence[int]], window: Sequence[int]) -> Float[Tensor, "class"]:
        ids = clean.tokens.ids.expand(draws * len(roles), -1)
        plan: dict[Site | str, Intervention] = {embed: _spoil(spoilt.repeat(len(roles), 1, 1), subject)}
        mask = torch.zeros(draws * len(roles), n_tokens, dtype=torch.bool, device=model.device)
        for i, columns in enumerate(roles):
            mask[i * draws : (i + 1) * draws, list(columns)] = True
        for layer in window if bool(mask.any()) else ():
            plan[site(layer)] = _restore(clean, site(layer), mask)
        with intervene(model, plan):
            last = model.run(ids)[:, -1].softmax(-1)[:, answer]
        return last.view(len(roles), draws).mean(1).cpu()

    (broken,) = probability([[]], [])
    restored = torch.full((len(asked), len(windows)), torch.nan)
    present = [i for i, columns in enumerate(asked) if columns]
    for column, window in enumerate(windows):
        restored[present, column] = probability([asked[i] for i in present], window)
    return model.run(clean.tokens)[0, -1].softmax(-1)[answer].cpu(), broken, restored


def _first_token(model: Model, fact: Subject) -> int:
    n = int(model.tokens(fact.prompt).mask.sum())
    return int(model.tokens(f"{fact.prompt} {fact.answer}").ids[0, n])


def _spoil(noise: Float[Tensor, "batch pos d_model"], subject: Int[Tensor, "pos"]) -> Intervention:
    """Add a row's own noise to each token of the subject."""

    def fn(a: Tensor, rows: Rows) -> Tensor:
        place = (rows.column[:, None] == subject[None]).int()
        chosen = noise[rows.row, place.argmax(1)] * place.any(1)[:, None]
        return a + chosen.to(a)

    return Intervention("spoil", everywhere, fn)


def _restore(clean: Activations, site: Site, mask: Tensor) -> Intervention:
    """Put the clean value back, in each row at its own columns."""
    value = clean[site][0]

    def fn(a: Tensor, rows: Rows) -> Tensor:
        return torch.where(mask[rows.row, rows.column][:, None], value[rows.column].to(a), a)

    return Intervention("restore", everywhere, fn)
