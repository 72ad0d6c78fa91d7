"""Texts that were made for an objective next to real ones: how large it is for them, and how likely they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, stream
from hooks.border import Count, Natural, NotNegative
from hooks.errors import InvalidArgument
from interp.visualisation.objective import along, random_direction
from interp.visualisation.text_evolution import ScoredTexts, TextFront, evolve_texts, measure_texts
from interp.visualisation.writer import Writer


@final
@dataclass(frozen=True)
class TextComparison:
    """The largest made text that is likely enough, next to the real token with the largest value.

    Attributes:
        value: of the made text.
        cross_entropy: of it, in nats for each token.
        text: as it is written.
        greatest: of the objective at a token of the real texts, read in its own context.
        natural_text: that token and those before it, as many as the made text has.
        natural_value: of the objective for this piece read alone.
        natural_cross_entropy: of this piece read alone.
        quantile: the share of real tokens whose value is below the made text's.
        within: how many nats less likely than the real piece a made text may be.
    """

    value: float
    cross_entropy: float
    text: str
    greatest: float
    natural_text: str
    natural_value: float
    natural_cross_entropy: float
    quantile: float
    within: float

    @property
    def exceeds(self) -> bool:
        """Whether the made text is larger in the objective than every real token, and likely enough."""
        return self.value > self.greatest and self.cross_entropy <= self.natural_cross_entropy + self.within

    def __repr__(self) -> str:
        return (
            f"TextComparison({self.text!r} {self.value:.3g} at {self.cross_entropy:.2f} nats; the greatest of real "
            f"texts {self.natural_text!r} {self.greatest:.3g}, {self.natural_cross_entropy:.2f} nats; above "
            f"{self.quantile:.2%} of real tokens)"
        )


def compare_with_texts(
    model: Model, front: TextFront, texts: Sequence[str], *, within: NotNegative = 2.0
) -> TextComparison:
    """Return what evolved texts are next to real ones: the largest at most `within` nats less likely than the best.

    If none is as likely as that, the likeliest is taken.

    Args:
        model: the model.
        front: by `evolve_texts` on it.
        texts: real ones, hundreds at least.
        within: nats for each token.

    Raises:
        InvalidArgument: no text of as many tokens as those that were made.

    Cost: one forward pass over the texts.

    Examples:
        ```python
        compare_with_texts(model, front, texts)
        ```
    """
    writer = Writer(model, torch.Generator().manual_seed(0))
    values, piece = _read(model, front, texts)
    alone = measure_texts(model, front.objective, writer, piece)
    ce = float(alone.cross_entropies[0])
    made = _largest_likely(front.frontier, ce + within)
    value = float(made.values[0])
    return TextComparison(
        value,
        float(made.cross_entropies[0]),
        writer.write(made.ids)[0],
        float(values.max()),
        writer.write(piece)[0],
        float(alone.values[0]),
        ce,
        float((values < value).double().mean()),
        within,
    )


def _read(model: Model, front: TextFront, texts: Sequence[str]) -> tuple[Float[Tensor, "n"], Int[Tensor, "1 pos"]]:
    """The objective at every token of the texts, and the piece of a made text's length that ends at the greatest."""
    length, site = front.ids.shape[1], front.objective.site
    values, peak, piece = [], -torch.inf, None
    for acts in stream(model, list(texts), [site]):
        content = acts.tokens.content
        row, column = content.nonzero(as_tuple=True)
        found = front.objective.score(acts[site].flatten(2)[row, column][:, None], None).float().cpu()
        values.append(found)
        number = content.long().cumsum(1)[row, column]  # of a token in its text, from 1
        whole = found.masked_fill(number.cpu() < length, -torch.inf)
        if len(whole) and float(whole.max()) > peak:
            best = int(whole.argmax())
            peak, end = float(whole[best]), int(column[best])
            piece = acts.tokens.ids[row[best], end - length + 1 : end + 1][None].cpu()
    if piece is None:
        raise InvalidArgument(f"no text has {length} tokens, as those that were made: give longer texts")
    return torch.cat(values), piece


def _largest_likely(frontier: ScoredTexts, most: float) -> ScoredTexts:
    """The last that is likely enough of those in order of CE and value, or the likeliest."""
    return frontier[torch.tensor([max(1, int((frontier.cross_entropies <= most).sum())) - 1])]


def evolve_texts_for_random(
    model: Model,
    front: TextFront,
    *,
    steps: Count = 100,
    children: Count = 16,
    seed: Natural = 0,
    progress: bool = True,
) -> TextFront:
    """Return what the same evolution makes for a direction at random at the same site: the control of a `TextFront`.

    Args:
        model: the model.
        front: by `evolve_texts` on it.
        steps: of the evolution.
        children: of each text in a step.
        seed: of the direction and of what is drawn.
        progress: show a bar.

    Cost: that of `evolve_texts`.

    Examples:
        ```python
        evolve_texts_for_random(model, front)
        ```
    """
    objective = along(random_direction(model, front.objective.site, seed))
    length = front.ids.shape[1]
    return evolve_texts(model, objective, length=length, steps=steps, children=children, seed=seed, progress=progress)
