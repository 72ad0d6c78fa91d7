"""Causal tracing: where in the model a fact is looked up, by breaking the subject and restoring one place at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Site, capture
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.site import attn_out, embed, mlp_out, resid_post
from hooks.summary import summarise
from interp.common.statistics import Estimate, mean_with_interval, percentile_ends, share
from interp.memory.facts.fact import Subject
from interp.memory.tracing.corruption import corrupt_with_noise, corrupt_with_others, restore

if TYPE_CHECKING:
    from pandas import DataFrame

ROLES: Sequence[str] = ("first subject", "middle subject", "last subject", "first after", "middle after", "last prompt")
STATES, MLP, ATTENTION = "residual state", "feed-forward", "attention"
KINDS: Mapping[str, Callable[[int], Site]] = {
    STATES: resid_post.__getitem__,
    MLP: mlp_out.__getitem__,
    ATTENTION: attn_out.__getitem__,
}
BATCH = 256


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

    def __repr__(self) -> str:
        clean, corrupted = float(self.clean.mean()), float(self.corrupted.mean())
        return (
            f"Trace({self.kind}: {len(self.clean)} facts, {len(self.roles)} roles, {len(self.layers)} windows; "
            f"p(answer) {clean:.3f}, corrupted {corrupted:.3f})"
        )

    def to_pandas(self) -> "DataFrame":
        """A row for each fact, role it has and window of layers: the indirect effect and its two probabilities."""
        from pandas import DataFrame

        effect = self.indirect_effect
        return DataFrame(
            {
                "fact": fact,
                "role": self.roles[role],
                "layers": self.layers[window],
                "corrupted": float(self.corrupted[fact]),
                "restored": float(self.restored[fact, role, window]),
                "indirect effect": float(effect[fact, role, window]),
            }
            for fact, role, window in (~effect.isnan()).nonzero().tolist()
        )

    @property
    def indirect_effect(self) -> Float[Tensor, "n class layer"]:
        """p(answer | corrupted, restored) − p(answer | corrupted), for each fact."""
        return self.restored - self.corrupted[:, None, None]

    @property
    def average_indirect_effect(self) -> Float[Tensor, "class layer"]:
        """The mean indirect effect over facts."""
        return self.indirect_effect.nanmean(0)

    @property
    def recovered(self) -> Float[Tensor, "n class layer"]:
        """The indirect effect as a share of what breaking the subject cost, for each fact."""
        return self.indirect_effect / (self.clean - self.corrupted)[:, None, None]

    def interval(self, draws: int = 1000, seed: Natural = 0) -> Float[Tensor, "2 class layer"]:
        """The 95 % bootstrap interval of the average indirect effect, over facts."""
        random = torch.Generator().manual_seed(seed)
        n = len(self.clean)
        means = torch.stack(
            [self.indirect_effect[torch.randint(n, (n,), generator=random)].nanmean(0) for _ in range(draws)]
        )
        return percentile_ends(means)

    @property
    def location(self) -> "Location":
        """The role and layers with the largest average indirect effect.

        Raises:
            InvalidArgument: a trace of residual states, where restoring the last one is trivially the clean run.
        """
        if self.kind == STATES:
            raise InvalidArgument(
                "restoring the last residual state of the last token restores everything, whatever the model knows, so "
                "a trace of states names no place to edit: give one of trace_mlp or trace_attention"
            )
        average = self.average_indirect_effect.nan_to_num(-torch.inf)
        role, column = divmod(int(average.argmax()), average.shape[1])
        effect = self.indirect_effect[:, role, column]
        others = torch.cat([self.indirect_effect[:, :role], self.indirect_effect[:, role + 1 :]], dim=1).nan_to_num(0.0)
        rival = others.flatten(1)[:, int(others.mean(0).argmax())] if others.numel() else torch.zeros_like(effect)
        known = ~effect.isnan()
        lost = (self.clean - self.corrupted)[known]
        return Location(
            role=self.roles[role],
            layers=self.layers[column],
            effect=mean_with_interval(effect[known]),
            majority=share((lost > 0) & (effect[known] >= lost / 2)),
            margin=mean_with_interval((effect - rival)[known]),
        )


@dataclass(frozen=True)
class Location:
    """Where facts are: the token role and layers whose restoring recovers most, and how sure that is.

    Attributes:
        role: the token.
        layers: restored together.
        effect: the average indirect effect there.
        majority: the share of facts of which restoring there recovers at least half; a fact that breaking its subject
            costs nothing is not among them.
        margin: by how much the effect exceeds that of the best place at another role traced, fact by fact; above 0
            where no other was.
    """

    role: str
    layers: tuple[int, ...]
    effect: Estimate
    majority: Estimate
    margin: Estimate

    __repr__ = summarise

    @property
    def layer(self) -> int:
        """The middle one of the layers, which an editor of one layer takes by default."""
        return self.layers[len(self.layers) // 2]

    @property
    def sure(self) -> bool:
        """Whether the interval of the margin is above 0, over two facts or more."""
        return self.margin.n > 1 and self.margin.low > 0


def trace_states(
    model: Model,
    facts: Sequence[Subject],
    *,
    draws: int = 6,
    noise: float = 3.0,
    others: Sequence[str] = (),
    seed: Natural = 0,
    progress: bool = True,
) -> Trace:
    """Restore single residual states `resid_post`, one token role and layer at a time (Meng et al. 2022, 2.2).

    All else as `trace_mlp` says.
    """
    return trace_windows(model, facts, STATES, 1, draws=draws, noise=noise, others=others, seed=seed, progress=progress)


def trace_mlp(
    model: Model,
    facts: Sequence[Subject],
    window: Count = 4,
    *,
    draws: int = 6,
    noise: float = 3.0,
    others: Sequence[str] = (),
    seed: Natural = 0,
    progress: bool = True,
) -> Trace:
    """Restore feed-forward outputs over windows of layers.

    The subject is broken by noise of 3 σ on its token embeddings, σ being the standard deviation of the facts' subject
    embeddings; or, with `others`, by another subject of as many tokens in its place, which leaves the prompt one the
    model may have read (symmetric token replacement, Zhang and Nanda 2024, arXiv:2309.16042). Several draws are
    averaged. What is measured is the probability of the answer's first token.

    Args:
        model: the model.
        facts: prompts, subjects and answers the model knows.
        window: how many successive layers are restored together.
        draws: how often the noise, or the other subject, is drawn; each draw is the same for all that is restored.
        noise: its strength, in σ.
        others: subjects to put in a subject's place instead of noise on it.
        seed: of the draws.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no facts, a subject that its prompt does not spell, a window wider than the model, no draws; of
            `others` none has as many tokens as a subject.

    Cost: per fact one pass over a clean row and draws × (1 + roles × windows) others.

    Examples:
        ```python
        facts = [Subject("The Golden Gate Bridge is located in", "San Francisco", "Golden Gate Bridge")]
        trace_mlp(model, facts, others=["Brooklyn Bridge", "London Tower Bridge"]).location
        ```
    """
    return trace_windows(
        model, facts, MLP, window, draws=draws, noise=noise, others=others, seed=seed, progress=progress
    )


def trace_attention(
    model: Model,
    facts: Sequence[Subject],
    window: Count = 4,
    *,
    draws: int = 6,
    noise: float = 3.0,
    others: Sequence[str] = (),
    seed: Natural = 0,
    progress: bool = True,
) -> Trace:
    """Restore attention outputs over windows of layers; all else as `trace_mlp` says."""
    return trace_windows(
        model, facts, ATTENTION, window, draws=draws, noise=noise, others=others, seed=seed, progress=progress
    )


def find_roles(n_tokens: int, subject: Sequence[int]) -> list[list[int]]:
    """The columns of each role, for a prompt of `n_tokens` whose subject is at these columns.

    Examples:
        >>> find_roles(8, [2, 3, 4])
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


def trace_windows(
    model: Model,
    facts: Sequence[Subject],
    kind: str,
    window: int,
    *,
    roles: Sequence[str] = ROLES,
    draws: int,
    noise: float,
    others: Sequence[str],
    seed: int,
    progress: bool,
) -> Trace:
    """Restore one kind of output over windows of layers at some roles; `trace_mlp` says the rest.

    Where a prompt ends in its subject, its last token is the subject's, or the prompt's if the former is not traced.
    """
    if not facts:
        raise InvalidArgument("no facts were given to trace: give at least one the model knows")
    if not 1 <= window <= model.n_layers:
        raise InvalidArgument(f"a window of {window} layers does not fit {model.name}, which has {model.n_layers}")
    if draws < 1 or not 0 <= noise < torch.inf:
        raise InvalidArgument(f"draws={draws} of noise={noise} σ: give at least one draw, and a noise of 0 or more")
    windows = tuple(tuple(range(i, i + window)) for i in range(model.n_layers - window + 1))
    sites = [[KINDS[kind](layer) for layer in layers] for layers in windows]
    std = 0.0 if others else noise * _embedding_std(model, facts)
    clean, corrupted, rows = [], [], []
    for number, fact in enumerate(progress_bar(facts, desc=f"tracing {kind}", progress=progress)):
        random = torch.Generator().manual_seed(seed + number)
        broken = (
            corrupt_with_others(model, fact, others, draws, random)
            if others
            else corrupt_with_noise(model, fact, std, draws, random)
        )
        found = dict(zip(ROLES, find_roles(broken.ids.shape[1], broken.columns.tolist()), strict=True))
        if "last subject" not in roles:
            found["last prompt"] = [broken.ids.shape[1] - 1]
        present = [role for role in roles if found[role]]
        spots = [(found[role], together) for role in present for together in sites]
        one, other, each = restore(model, broken, spots, BATCH)
        row = torch.full((len(roles), len(windows)), torch.nan)
        row[[roles.index(role) for role in present]] = each.view(len(present), len(windows))
        clean.append(one)
        corrupted.append(other)
        rows.append(row)
    return Trace(kind, tuple(roles), windows, torch.stack(clean), torch.stack(corrupted), torch.stack(rows))


def _embedding_std(model: Model, facts: Sequence[Subject]) -> float:
    """The standard deviation σ of all entries of the embeddings of the subjects' tokens."""
    found = [capture(model, fact.prompt, [embed]).flat(embed, fact.place) for fact in facts]
    return float(torch.cat(found).float().std())
