"""The nearest-neighbour language model: p = λ p_kNN + (1 − λ) p_LM, its choice, its gain and its explanation."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, capture
from hooks.border import Count, Positive, Share
from hooks.errors import InvalidArgument
from hooks.pieces import piece
from hooks.position import everywhere
from hooks.progress import progress_bar
from interp.common.statistics import Estimate, bootstrap
from interp.common.texts import list_texts
from interp.memory.outside.token_memory import TokenMemory

if TYPE_CHECKING:
    from pandas import DataFrame


def neighbour_votes(
    memory: TokenMemory, q: Float[Tensor, "n d_model"], k: int, temperature: float, d_vocab: int, within: float = inf
) -> Float[Tensor, "n vocab"]:
    """p_kNN(v) ∝ Σ over the k nearest entries of 1[v_i = v] exp(−‖q − k_i‖²/T), in float64.

    Only entries at a squared distance of `within` or less vote; where there are none, the row is zeros.

    Examples:
        ```python
        neighbour_votes(memory, states, 16, 10.0, model.d_vocab)
        ```
    """
    squared, at = memory.find(q, k)
    share = _shares(squared, temperature, within)
    return torch.zeros(len(q), d_vocab, dtype=torch.float64).scatter_add_(1, memory.tokens[at], share)


def _shares(squared: Float[Tensor, "n _"], temperature: float, within: float) -> Float[Tensor, "n _"]:
    """Each entry's share of the vote, nearest first; zeros where the nearest is too far."""
    return (-(squared - squared[:, :1]) / temperature).masked_fill(squared > within, -inf).softmax(-1).nan_to_num(0.0)


@torch.no_grad()
def predict_mixture(
    model: Model,
    memory: TokenMemory,
    text: str,
    *,
    weight: Share,
    temperature: Positive,
    k: Count = 64,
    within: float = inf,
) -> Float[Tensor, "pos vocab"]:
    """log p after every token of a text but special ones, p = λ p_kNN + (1 − λ) p_LM (Khandelwal et al. 2020, eq. 3).

    A weight of 0 gives the model's own log-probabilities, bit for bit; so does a state that no entry is near enough to.

    Args:
        model: the model.
        memory: its memory.
        text: what is read.
        weight: λ.
        temperature: T, in the units of squared distances.
        k: how many entries vote.
        within: the largest squared distance at which an entry votes; without one, entries vote everywhere.

    Raises:
        WrongModel: the memory is of another model.

    Cost: one forward pass, and the search of the memory for each token.

    Examples:
        ```python
        predict_mixture(model, memory, "The harbour of Vell is", weight=0.25, temperature=10.0)[-1].argmax()
        ```
    """
    memory.check_model(model)
    tokens = model.tokens(text)
    kept = everywhere.mask(tokens)[0]
    log_p = model.run(tokens)[0, kept].log_softmax(-1)
    if weight == 0:
        return log_p
    q = capture(model, tokens, [memory.site]).flat(memory.site).cpu()
    votes = neighbour_votes(memory, q, k, temperature, model.d_vocab, within)
    mixed = (weight * votes + (1 - weight) * log_p.double().exp().cpu()).log().to(log_p)
    return torch.where(votes.any(1, keepdim=True).to(log_p.device), mixed, log_p)


@final
@dataclass(frozen=True, eq=False, repr=False)
class _Targets:
    """Of every token of some texts that another follows: its state, its nearest entries, and p_LM of the next."""

    p_lm: Tensor
    squared: Tensor
    hit: Tensor
    text: Tensor

    def nats(self, weight: float, temperature: float, within: float) -> Float[Tensor, "n"]:
        """−log p of the token that follows."""
        if weight == 0:
            return -self.p_lm.log()
        voted = (_shares(self.squared, temperature, within) * self.hit).sum(1)
        mixed = weight * voted + (1 - weight) * self.p_lm
        return -torch.where(self.squared[:, 0] <= within, mixed, self.p_lm).log()


@torch.no_grad()
def _targets(model: Model, memory: TokenMemory, texts: Sequence[str], k: int, *, progress: bool) -> _Targets:
    memory.check_model(model)
    columns: list[list[Tensor]] = [[], [], [], []]
    for number, text in enumerate(progress_bar(list_texts(texts), desc="search", progress=progress)):
        tokens = model.tokens(text)
        kept = everywhere.mask(tokens)[0]
        ids = tokens.ids[0, kept].cpu()
        if len(ids) < 2:
            continue
        log_p = model.run(tokens)[0, kept].float().log_softmax(-1).cpu()[:-1]
        q = capture(model, tokens, [memory.site]).flat(memory.site)[:-1]
        squared, at = memory.find(q, k)
        p = log_p.gather(1, ids[1:, None])[:, 0].double().exp()
        new = (p, squared, (memory.tokens[at] == ids[1:, None]).double(), torch.full((len(p),), number))
        for column, one in zip(columns, new, strict=True):
            column.append(one)
    if not columns[0]:
        raise InvalidArgument("no text has two tokens: give longer ones")
    return _Targets(*(torch.cat(column) for column in columns))


@final
@dataclass(frozen=True)
class ChosenMixture:
    """The weight and temperature with the least loss on the texts they were chosen on; choose on texts of their own."""

    share: float
    temperature: float
    k: int
    nats: float
    within: float = inf


def choose_mixture(
    model: Model,
    memory: TokenMemory,
    texts: Sequence[str],
    *,
    k: Count = 64,
    weights: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    temperatures: Sequence[float] | None = None,
    within: Sequence[float] = (inf,),
    progress: bool = True,
) -> ChosenMixture:
    """Choose λ and T, and how near an entry must be to vote, on texts that are neither in the memory nor reported on.

    By default temperatures go from a thousandth of the median squared distance of the k nearest entries to ten times
    it: without one, distances of wide states saturate the vote.

    Raises:
        InvalidArgument: no texts, weights outside 0 to 1, or a temperature that is not above 0.

    Cost: one forward pass and one search per text.

    Examples:
        ```python
        choose_mixture(model, memory, held_out)
        ```
    """
    if not weights or not all(0 <= one <= 1 for one in weights):
        raise InvalidArgument(f"weights are {list(weights)}: give shares from 0 to 1")
    found = _targets(model, memory, texts, k, progress=progress)
    tried = choose_temperatures(found.squared) if temperatures is None else list(temperatures)
    if not tried or not all(one > 0 for one in tried):
        raise InvalidArgument(f"temperatures are {tried}: give numbers above 0")
    losses = {(w, t, r): float(found.nats(w, t, r).mean()) for w in weights for t in tried for r in within}
    best = min(losses, key=lambda one: (losses[one], one))
    return ChosenMixture(float(best[0]), float(best[1]), k, losses[best], float(best[2]))


def choose_temperatures(squared: Float[Tensor, "n _"]) -> list[float]:
    """Temperatures around the median squared distance of nearest entries, those at no distance left out.

    Examples:
        >>> choose_temperatures(torch.tensor([[0.0, 4.0]]))[3]
        4.0
    """
    apart = squared[squared > 1e-6 * squared.max()]
    middle = float(apart.median()) if len(apart) else 1.0
    return [middle * 10.0**i for i in (-3, -2, -1, 0, 0.5, 1)]


@final
@dataclass(frozen=True, eq=False, repr=False)
class MixtureGain:
    """Perplexity with a memory over that of the model alone; each with an interval over texts.

    Attributes:
        model: the model's own perplexity.
        ratio: that with the memory over it.
        shuffled: the same when the memory's tokens are shuffled.
        random: the same when its keys are random.
    """

    model: Estimate
    ratio: Estimate
    shuffled: Estimate
    random: Estimate

    def __repr__(self) -> str:
        return (
            f"MixtureGain(perplexity {self.model}; with the memory times {self.ratio}; tokens shuffled "
            f"{self.shuffled}; random keys {self.random})"
        )

    def to_pandas(self) -> "DataFrame":
        """A row for each memory."""
        from pandas import DataFrame

        rows = {"memory": self.ratio, "tokens shuffled": self.shuffled, "random keys": self.random}
        return DataFrame({"memory": n, "ratio": e.value, "low": e.low, "high": e.high} for n, e in rows.items())


def measure_mixture(
    model: Model, memory: TokenMemory, texts: Sequence[str], mixture: ChosenMixture, *, progress: bool = True
) -> MixtureGain:
    """Measure what a memory does to the perplexity of texts that it does not hold, next to two memories of nothing.

    Raises:
        InvalidArgument: no texts.
        WrongModel: the memory is of another model.

    Cost: three forward passes and searches per text.

    Examples:
        ```python
        measure_mixture(model, memory, test, choose_mixture(model, memory, held_out)).ratio
        ```
    """
    own: list[Tensor] = []
    ratios = []
    for one in (memory, memory.shuffle(), memory.with_random_keys()):
        found = _targets(model, one, texts, mixture.k, progress=progress)
        n = int(found.text.max()) + 1
        pairs = [found.nats(weight, mixture.temperature, mixture.within) for weight in (mixture.share, 0.0)]
        sums = torch.zeros(n, 3, dtype=torch.float64)
        sums.index_add_(0, found.text, torch.stack([*pairs, torch.ones_like(pairs[0])], 1))
        own = [sums[sums[:, 2] > 0]]
        ratios.append(bootstrap(lambda rows: _per_token(rows[0][:, 0] - rows[0][:, 1], rows[0][:, 2]), own))
    return MixtureGain(bootstrap(lambda rows: _per_token(rows[0][:, 1], rows[0][:, 2]), own), *ratios)


def _per_token(nats: Tensor, tokens: Tensor) -> float:
    return float((nats.sum() / tokens.sum()).exp())


@final
@dataclass(frozen=True)
class Vote:
    """One entry's part in a prediction: its number, document and token, its distance, and its share of the vote."""

    entry: int
    document: int
    token: str
    squared: float
    share: float


@torch.no_grad()
def explain_vote(
    model: Model, memory: TokenMemory, text: str, *, temperature: Positive, k: Count = 64
) -> tuple[Vote, ...]:
    """Which entries vote for what after the last token of a text, the nearest first; shares sum to 1.

    Raises:
        WrongModel: the memory is of another model.

    Examples:
        ```python
        explain_vote(model, memory, "The harbour of Vell is", temperature=10.0)[0]
        ```
    """
    memory.check_model(model)
    q = capture(model, text, [memory.site]).flat(memory.site)[-1:]
    squared, at = memory.find(q, k)
    share = (-(squared - squared[:, :1]) / temperature).softmax(-1)
    return tuple(
        Vote(i, int(memory.document[i]), piece(model.tokenizer, int(memory.tokens[i])), d, s)
        for i, d, s in zip(at[0].tolist(), squared[0].tolist(), share[0].tolist(), strict=True)
    )


def flip_weight(p_old: Share, p_new: Share, q_old: Share, q_new: Share) -> float | None:
    """λ* = (p_old − p_new)/(p_old − p_new + q_new − q_old), above which a stored answer overtakes the model's.

    p is the model's probability and q the memory's, of the old and the new answer. None where no weight does.

    Examples:
        >>> round(flip_weight(0.8, 0.1, 0.0, 0.7), 6)
        0.5
    """
    gap, votes = p_old - p_new, q_new - q_old
    return gap / (gap + votes) if gap + votes > 0 and votes > 0 else None
