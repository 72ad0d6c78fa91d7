"""The value that states a fact: a change δ at one place or two, searched by gradient through the frozen model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Model, Position, Tokens
from hooks.border import Count, NotNegative, Positive
from hooks.errors import EditRefused, InvalidArgument
from interp.common.completion import log_probs, tokens_after
from interp.common.texts import join_words
from interp.memory.editing.prefix_cache import Remainder, Where, read_prefixes
from interp.memory.facts.fact import Fact, fill_template, last_token_before

TOKENS = ("last subject", "last prompt")
FLAT, LITTLE, NEARLY = 15, 0.05, 5.0


@dataclass(frozen=True)
class Search:
    """How v* = v̄ + δ is searched, in units of v̄, so that one setting serves layers and models of any scale.

    Attributes:
        steps: Adam's steps at most.
        learning_rate: of Adam, in units of the root mean square of the entries of v̄.
        kl: the weight of KL(p₀‖p_δ).
        decay: the weight of ‖δ‖/‖v̄‖.
        clamp: the longest δ, in units of ‖v̄‖.
        stop: the loss in nats at which the search ends, arg max saying the new object in every context; once it does,
            NLL is within five times of it and the least loss has not fallen by a twentieth in fifteen steps, it ends
            as well.
    """

    steps: Count = 40
    learning_rate: Positive = 0.1
    kl: NotNegative = 5.0
    decay: NotNegative = 0.1
    clamp: Positive = 4.0
    stop: NotNegative = 5e-2


@dataclass(frozen=True, eq=False)
class ValueSearchResult:
    """The change δ at each place that together state the fact, and what they reached."""

    deltas: Mapping[Where, Float[Tensor, "d_model"]]
    probability: float
    kl: float
    steps: int


@dataclass(frozen=True)
class SearchState:
    """How far a search is: losses in nats, the size ‖δ‖/‖v̄‖, and whether arg max says the new object everywhere."""

    nll: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    size: Float[Tensor, ""]
    said: bool


Objective = Callable[[SearchState, Search], tuple[Float[Tensor, ""], bool]]
"""From the state of a search to its loss, and whether that is good enough to stop."""


@dataclass(frozen=True, eq=False)
class Statements:
    """The new fact stated in every context, and the prompts whose continuations are to stay, in one batch.

    Attributes:
        tokens: the statements, then the preserved prompts.
        target: the tokens of the new object; none in the preserved prompts.
        kept: the tokens of the preserved texts, from the edited one on, after which the prediction is to stay.
        at: the token to which δ is added.
        alike: the texts whose edited token is looked up with the key to write: all that name the subject, or the
            statements alone where the prompt's last token is edited.
    """

    tokens: Tokens
    target: Bool[Tensor, "batch pos"]
    kept: Bool[Tensor, "batch pos"]
    at: Position
    alike: Bool[Tensor, "batch"]


def find_edit_end(token: str, fact: Fact, context: str = "") -> int:
    """The character after the token an edit writes at, the subject's last or the prompt's last, in a text of the fact.

    Raises:
        InvalidArgument: another token.
    """
    if token not in TOKENS:
        raise InvalidArgument(f"token={token!r}: choose {TOKENS[0]!r} or {TOKENS[1]!r}")
    if token == TOKENS[0]:
        return len(context) + fact.prompt.index("{}") + len(fact.subject)
    return len(context + fact.text)


def tokenise_statements(
    model: Model, facts: Sequence[Fact], contexts: Sequence[str], preserve: Sequence[str], token: str = "last subject"
) -> Statements:
    """Tokenise what `search_value` reads: facts of one subject after every context, and the preserved texts.

    Raises:
        InvalidArgument: no contexts, no preserved templates, a template without exactly one `{}`.
    """
    if not contexts or not preserve:
        raise InvalidArgument(
            f"{len(contexts)} contexts and {len(preserve)} preserved templates: give at least one of each"
        )
    pairs = [(fact, context) for fact in facts for context in contexts]
    stated = [context + fact.text for fact, context in pairs]
    kept = [fill_template(template, facts[0].subject) for template in preserve]
    ends = [find_edit_end(token, fact, context) for fact, context in pairs]
    kept_ends = [template.index("{}") + len(facts[0].subject) for template in preserve]
    ends += kept_ends if token == TOKENS[0] else [*map(len, kept)]
    tokens = model.tokens([join_words(text, fact.new) for (fact, _), text in zip(pairs, stated, strict=True)] + kept)
    at = last_token_before(ends)
    after = at.mask(tokens).cumsum(1).bool() & tokens.content
    stays = torch.arange(len(tokens), device=after.device)[:, None] >= len(stated)
    alike = ~stays[:, 0] | (token == TOKENS[0])
    return Statements(tokens, tokens_after(tokens, [*map(len, stated), *map(len, kept)]), after & stays, at, alike)


def likely_and_near(state: SearchState, search: Search) -> tuple[Float[Tensor, ""], bool]:
    """L = NLL + kl · KL + decay · ‖δ‖/‖v̄‖, until the object is said and L < stop (Meng et al. 2022, equation 4)."""
    loss = state.nll + search.kl * state.kl + search.decay * state.size
    return loss, state.said and float(loss.detach()) < search.stop


def search_value(
    model: Model,
    said: Statements,
    v: Mapping[Where, Float[Tensor, "d_model"]],
    search: Search = Search(),  # noqa: B008
    objective: Objective = likely_and_near,
) -> ValueSearchResult:
    """Search the δ that, added at each place to the token `said.at` in every text, makes the model say the new object.

    Minimises mean NLL(new | context + prompt) + kl · mean KL(p₀‖p_δ) + decay · ‖δ‖/‖v̄‖ by Adam, projecting on
    ‖δ‖ ≤ clamp · ‖v̄‖ (Meng et al. 2022, equation 4; the KL over all of `said.kept`, the norm relative). A search that
    its steps end gives the δ of least loss of those that say the object in every context, or the last where none does.

    Args:
        model: the model.
        said: what to say and what to keep.
        v: the places to change, with what they hold; its norm is the unit of δ.
        search: the settings.
        objective: another loss, or another condition to stop.

    Raises:
        EditRefused: the loss is no longer finite.

    Cost: a forward and a backward pass over `said` per step, the latter down to the site only.
    """
    task = _read_task(model, said, v)
    deltas = {site: torch.zeros_like(value, dtype=torch.float32, requires_grad=True) for site, value in v.items()}
    adam = torch.optim.Adam(
        [{"params": [d], "lr": search.learning_rate * task.units[at] / len(d) ** 0.5} for at, d in deltas.items()]
    )
    losses: list[float] = []
    best: tuple[float, ValueSearchResult] | None = None
    while True:
        with torch.enable_grad():
            state, nll = task.measure(model, deltas)
            loss, enough = objective(state, search)
        if not bool(torch.isfinite(loss)):
            raise EditRefused(
                f"the search for v* met a loss of {float(loss)} at step {len(losses)}: lower its learning rate"
            )
        here = {site: d.detach().clone() for site, d in deltas.items()}
        found = ValueSearchResult(here, float((-nll.detach()).exp().mean()), float(state.kl.detach()), len(losses))
        losses.append(float(loss.detach()))
        if state.said and (best is None or losses[-1] < best[0]):
            best = losses[-1], found
        if enough:
            return found
        if found.steps == search.steps or _flat(losses, state, search):
            return found if best is None else best[1]
        for d, grad in zip(deltas.values(), torch.autograd.grad(loss, [*deltas.values()]), strict=True):
            d.grad = grad
        adam.step()
        _project(deltas, {site: search.clamp * unit for site, unit in task.units.items()})


@dataclass(frozen=True, eq=False)
class _Task:
    """What a search reads at each step, and what it compares with.

    Attributes:
        left: the texts from the edited token on.
        target: the tokens of the new objects.
        kept: the tokens whose predictions are to stay.
        before: log-probabilities at these, unedited.
        units: ‖v̄‖ of each place.
    """

    left: Remainder
    target: Bool[Tensor, "batch pos"]
    kept: Bool[Tensor, "batch pos"]
    before: Float[Tensor, "n vocab"]
    units: Mapping[Where, float]

    def measure(
        self, model: Model, deltas: Mapping[Where, Float[Tensor, "d_model"]]
    ) -> tuple[SearchState, Float[Tensor, "n"]]:
        """The state with these changes in place, and NLL(new) of each text that states a fact.

        Cost: one forward pass over the texts from the edited token on.
        """
        n = int(self.target.any(1).sum())
        with freeze_weights(model), self.left.add_deltas(model, deltas):
            logits = self.left.logits(model)
        ids, target = self.left.ids[:n], self.target[:n]
        nll = -log_probs(logits[:n], ids, target)
        now = logits[self.kept].float().log_softmax(-1)
        kl = F.kl_div(now, self.before, log_target=True, reduction="batchmean")
        size = torch.stack([d.norm() / self.units[site] for site, d in deltas.items()]).sum()
        return SearchState(nll.mean(), kl, size, _agrees(logits[:n], ids, target)), nll


@torch.no_grad()
def _read_task(model: Model, said: Statements, v: Mapping[Where, Float[Tensor, "d_model"]]) -> _Task:
    left = read_prefixes(model, said.tokens, said.at.mask(said.tokens))
    target, kept = left.of(said.target), left.of(said.kept)
    before = left.logits(model)[kept].float().log_softmax(-1)
    return _Task(left, target, kept, before, {site: float(value.float().norm()) for site, value in v.items()})


@torch.no_grad()
def _project(deltas: Mapping[Where, Float[Tensor, "d_model"]], most: Mapping[Where, float]) -> None:
    """Shorten each δ to at most its bound."""
    for site, d in deltas.items():
        d.mul_(min(1.0, most[site] / max(float(d.norm()), 1e-30)))


def _flat(losses: Sequence[float], state: SearchState, search: Search) -> bool:
    """Whether the object is said, likely, and the loss falls no more."""
    likely = state.said and float(state.nll.detach()) < NEARLY * search.stop
    return likely and len(losses) > FLAT and min(losses[-FLAT:]) > (1 - LITTLE) * min(losses[:-FLAT])


def _agrees(
    logits: Float[Tensor, "batch pos vocab"], ids: Int[Tensor, "batch pos"], target: Bool[Tensor, "batch pos"]
) -> bool:
    """Whether arg max gives every token of the new object after the true ones before it."""
    return bool((logits[:, :-1].argmax(-1) == ids[:, 1:])[target[:, 1:]].all())


@contextmanager
def freeze_weights(model: Model) -> Iterator[None]:
    """No gradient for the weights inside the block, so that a backward pass stops at the site that is searched."""
    trained = [p for p in model.hf.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
