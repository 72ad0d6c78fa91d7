"""Texts that an objective is large for and that a language model finds likely: evolutionary prompt optimisation."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Tokens, capture, capture_gradients
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.site import embed
from hooks.temporary import Temporary
from interp.visualisation.objective import Objective
from interp.visualisation.writer import Writer

WEIGHTS: Final = tuple(10 ** (-1 + 2 * i / 7) for i in range(8))
"""λ of the population, in standard deviations of f for each nat: eight from .1 to 10, by equal factors."""
BATCH: Final = 128
Ids: TypeAlias = Int[Tensor, "batch pos"]


@final
@dataclass(frozen=True, eq=False)
class TextFront:
    """Texts of which no other is both larger in the objective and likelier, one for each weight λ of likelihood.

    Attributes:
        objective: what was to be large, at the last token.
        weights: λ, from the least to the greatest, in the unit of f for each nat.
        texts: for each, the text with the largest `f(t) − λ·CE(t)` of all that were read.
        ids: their tokens, without the special ones.
        values: f, the objective at the last token.
        cross_entropies: CE, the mean of the tokens' negative log-probabilities, in nats.
        begun: the largest value among the texts it began from.
        read: how many texts were read.
        frontier: all texts read of which no other is both larger and likelier, from the likeliest to the largest;
            those between two weights, too.
    """

    objective: Objective
    weights: tuple[float, ...]
    texts: tuple[str, ...]
    ids: Int[Tensor, "n pos"]
    values: Float[Tensor, "n"]
    cross_entropies: Float[Tensor, "n"]
    begun: float
    read: int
    frontier: "ScoredTexts"

    def __repr__(self) -> str:
        rows = sorted(
            {*zip(self.values.tolist(), self.cross_entropies.tolist(), self.texts, strict=True)}, reverse=True
        )
        head = f"TextFront({self.objective}, {self.read} texts read, begun at {self.begun:.3g})"
        return "\n".join(
            [head, *(f"  {value:8.3g}  {ce:5.2f} nats  {text!r}" for value, ce, text in sorted(rows, reverse=True)[:6])]
        )


def evolve_texts(
    model: Model,
    objective: Objective,
    *,
    length: Count = 8,
    steps: Count = 100,
    children: Count = 16,
    choices: Count = 256,
    restart: Count = 50,
    weights: Sequence[float] = WEIGHTS,
    texts: Sequence[str] = (),
    seed: Natural = 0,
    progress: bool = True,
) -> TextFront:
    """Return fluent texts whose last token an objective is large at (Thompson et al. 2024, arXiv:2402.01702).

    For each weight λ one text is kept, the one with the largest `f(t) − λ·CE(t)`, where CE is the text's mean negative
    log-probability. In each step every text has children, which differ from it in one token: at a place drawn at
    random, one of the tokens that the gradient with respect to the token's one-hot vector promises most of. All
    children compete for all weights. After `restart` steps the population begins again from one of its texts, so that
    it leaves a local optimum. Only texts that are read as the same tokens again count.

    What makes a direction large is not what it is for: read the result with `compare_with_texts`, next to real texts
    and to the same of a random direction.

    Args:
        model: a causal language model.
        objective: what is to be large, such as `along(direction)` or `latent(sae.encode, site, number)`; a dictionary
            whose silent latents have no slope is climbed by its values before they are cut.
        length: of the texts, in tokens.
        steps: of the evolution.
        children: of each text in a step.
        choices: how many of the tokens that promise most are drawn from.
        restart: steps between two restarts.
        weights: λ, in standard deviations of f over the tokens of the texts it begins from.
        texts: to begin from, their first `length` tokens; by default words at random.
        seed: of what is drawn.
        progress: show a bar.

    Raises:
        InvalidArgument: no weight, one that is negative or not finite, a text shorter than `length`, a tokenizer that
            puts special tokens after a text.

    Cost: `steps` × (`children` + 3) × the number of weights forward passes of one text.

    Examples:
        ```python
        front = evolve_texts(model, along(sae.direction(7)), length=6)
        front.texts[0]
        ```
    """
    if not weights or not all(math.isfinite(one) and one >= 0 for one in weights):
        raise InvalidArgument(f"weights={tuple(weights)}: give at least one, each finite and not below 0")
    writer = Writer(model, torch.Generator().manual_seed(seed))
    first = writer.begin(length, len(weights), texts)
    unit = values_at_tokens(model, objective, writer.tokens(first)).double().std().clamp_min(1e-12)
    lam = torch.tensor(sorted(weights), dtype=torch.float64) * unit
    population = _select(lam, measure_texts(model, objective, writer, first))
    best, begun, read = population, float(population.values.max()), len(lam)
    frontier = find_frontier(population)
    for step in progress_bar(range(1, steps + 1), desc=str(objective), progress=progress):
        promise = writer.promise(*_slopes(model, objective, writer, population.ids, lam))
        made = writer.children(population.ids, promise, children, choices)
        if len(made):
            found = measure_texts(model, objective, writer, made)
            population, best, read = _select(lam, population, found), _select(lam, best, found), read + len(made)
            frontier = find_frontier(frontier, found)
        if step % restart == 0:
            chosen = [int(torch.randint(len(lam), (), generator=writer.random))] * len(lam)
            population = best[torch.tensor(chosen)]
    written = tuple(writer.write(best.ids))
    values, ce = best.values.float(), best.cross_entropies.float()
    return TextFront(objective, tuple(lam.tolist()), written, best.ids, values, ce, begun, read, frontier)


@dataclass(frozen=True, eq=False)
class ScoredTexts:
    """Texts with f at their last token, and CE."""

    ids: Ids
    values: Float[Tensor, "batch"]
    cross_entropies: Float[Tensor, "batch"]

    def __getitem__(self, rows: Tensor) -> "ScoredTexts":
        return ScoredTexts(self.ids[rows], self.values[rows], self.cross_entropies[rows])


def _join(groups: Sequence[ScoredTexts]) -> ScoredTexts:
    return ScoredTexts(
        *(torch.cat([getattr(one, name) for one in groups]) for name in ("ids", "values", "cross_entropies"))
    )


def _select(lam: Float[Tensor, "n"], *groups: ScoredTexts) -> ScoredTexts:
    """For each λ the text with the largest `f − λ·CE`; of equal ones the first."""
    every = _join(groups)
    return every[(every.values[None] - lam[:, None] * every.cross_entropies[None]).argmax(1)]


def find_frontier(*groups: ScoredTexts) -> ScoredTexts:
    """Those of which no other is both larger and likelier, from the likeliest to the largest."""
    every = _join(groups)
    every = every[every.values.argsort(descending=True, stable=True)]
    every = every[every.cross_entropies.argsort(stable=True)]
    before = every.values.cummax(0).values.roll(1)
    before[0] = -torch.inf
    return every[every.values > before]


def measure_texts(model: Model, objective: Objective, writer: Writer, ids: Ids) -> ScoredTexts:
    """f at the last token of each text, and its CE."""
    values, ce = [], []
    for part in ids.split(BATCH):
        with torch.no_grad(), _activations(model, objective) as held:
            logits = model.run(writer.tokens(part))
        values.append(objective.score(held[-1][:, -1:].flatten(2), None).double().cpu())
        ce.append(writer.cross_entropy(logits, part).double().cpu())
    return ScoredTexts(ids, torch.cat(values), torch.cat(ce))


def values_at_tokens(model: Model, objective: Objective, tokens: Tokens) -> Float[Tensor, "n"]:
    """The objective at each token of some texts, the special ones left out."""
    acts = capture(model, tokens, [objective.site])[objective.site].flatten(2)
    return objective.score(acts[tokens.content.to(acts.device)][:, None], None).cpu()


def _slopes(
    model: Model, objective: Objective, writer: Writer, ids: Ids, lam: Float[Tensor, "batch"]
) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, "batch pos vocab"]]:
    """The gradient of `Σ f − λ·CE` to each token's embedding, and `(λ/n) log p(v|t_<p)` of each token at its place."""
    seen: list[Tensor] = []
    with _activations(model, objective) as held:

        def marks(logits: Float[Tensor, "batch pos vocab"]) -> Float[Tensor, ""]:
            values = objective.score(held[-1][:, -1:].flatten(2), None)
            seen.append(logits.detach())
            return (values - lam.to(logits) * writer.cross_entropy(logits, ids)).sum()

        found = capture_gradients(model, writer.tokens(ids), [embed], marks)
    return found.gradients[embed][:, len(writer.before) :], lam[:, None, None] * writer.log_shares(seen[-1]).to(lam)


@contextmanager
def _activations(model: Model, objective: Objective) -> Iterator[list[Tensor]]:
    """The activations at the objective's site of the passes inside the block."""
    held: list[Tensor] = []
    with Temporary() as changes:
        model.tap(objective.site).attach_during(changes, held.append)
        yield held
