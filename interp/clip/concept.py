"""One concept in pictures and captions: a latent of a dictionary over both towers, scored on what did not choose it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.summary import summarise
from probes import Detection
from probes.folds import number_groups
from probes.metrics import detection


@final
@dataclass(frozen=True)
class SharedLatent:
    """A latent that is a concept in both towers.

    Attributes:
        latent: its number.
        pictures: how well it finds the concept's pictures, on those it was not chosen on.
        texts: likewise captions.
        shuffled: the F1 of pictures and of captions of the latent that is chosen for shuffled labels.
    """

    latent: int
    pictures: Detection
    texts: Detection
    shuffled: tuple[float, float]

    __repr__ = summarise


def centre_rows(rows: Float[Tensor, "n d_model"], like: Float[Tensor, "_ d_model"]) -> Float[Tensor, "n d_model"]:
    """Return rows of one tower less the mean of others of it, each of length 1: the gap between towers goes.

    Examples:
        >>> centre_rows(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([[1., 0.]])
    """
    return F.normalize(rows - like.mean(0), dim=-1)


def pair_rows(
    pictures: Float[Tensor, "n d_model"] | None, texts: Float[Tensor, "n d_model"] | None
) -> Float[Tensor, "n 2 d_model"]:
    """Return rows as a crosscoder over both towers reads them; of a tower that is None, zeros, its mean.

    Raises:
        InvalidArgument: both are None, or they have other shapes.

    Examples:
        >>> pair_rows(torch.ones(2, 3), None).shape
        torch.Size([2, 2, 3])
    """
    given = [one for one in (pictures, texts) if one is not None]
    if not given or len({one.shape for one in given}) > 1:
        raise InvalidArgument(f"rows of both towers in pairs, or of one; got {[list(one.shape) for one in given]}")
    empty = torch.zeros_like(given[0])
    return torch.stack([empty if pictures is None else pictures, empty if texts is None else texts], 1)


def find_shared_latent(
    pictures: Float[Tensor, "n latent"],
    is_pictured: Bool[Tensor, "n"],
    texts: Float[Tensor, "_ latent"],
    is_said: Bool[Tensor, "_"],
    *,
    groups: tuple[Sequence[object], Sequence[object]] | None = None,
    seed: int = 0,
) -> SharedLatent:
    """Return the latent whose lesser F1 of the two towers is greatest on the first halves, scored on the second.

    Each tower has its threshold, that of the greatest F1 on the first half. Of one group, such as a picture with its
    caption or captions that read alike, no row is scored if another one chose: rows of the second halves whose group is
    in the first half of either tower are left out.

    Args:
        pictures: latents of pictures.
        is_pictured: which of them show the concept.
        texts: latents of captions.
        is_said: which of them name it.
        groups: of the pictures, and of the captions; each row is its own by default.
        seed: of the shuffled labels.

    Raises:
        InvalidArgument: a half without the concept, or with nothing else; not a group for each row, or all in the first
            half.

    Examples:
        ```python
        find_shared_latent(sae.encode(rows), shows_bridge, sae.encode(said), names_bridge)
        ```
    """
    kept = _scored_of_both(len(is_pictured), len(is_said), groups)
    latent = _choose(pictures, is_pictured, texts, is_said)
    random = torch.Generator().manual_seed(seed)
    mixed = [y[torch.randperm(len(y), generator=random)] for y in (is_pictured, is_said)]
    other = _choose(pictures, mixed[0], texts, mixed[1])

    def score(latent: int, ys: Sequence[Tensor]) -> tuple[Detection, Detection]:
        return _score(pictures[:, latent], ys[0], kept[0]), _score(texts[:, latent], ys[1], kept[1])

    by_chance = score(other, mixed)
    return SharedLatent(latent, *score(latent, (is_pictured, is_said)), (by_chance[0].f1, by_chance[1].f1))


def score_rows(
    scores: Float[Tensor, "n"], y: Bool[Tensor, "n"], *, groups: Sequence[object] | None = None
) -> Detection:
    """Return how well scores find a concept on the second half, with the threshold that is best on the first.

    Rows of the second half whose group is in the first are left out; each row is its own group by default.

    Raises:
        InvalidArgument: a half without the concept, or with nothing else; not a group for each row, or all in the first
            half.

    Examples:
        >>> y = torch.tensor([True, False, True, False])
        >>> score_rows(torch.tensor([2.0, 1.0, 3.0, 0.0]), y).f1
        1.0
    """
    return _score(scores, y, _scored(number_groups(groups, len(y)), ~_is_first(len(y))))


def _is_first(n: int) -> Bool[Tensor, "_"]:
    return torch.arange(n) < n // 2


def _scored(group: Int[Tensor, "n"], second: Bool[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """The rows of second halves whose group is in no first half."""
    return second & ~torch.isin(group, group[~second])


def _scored_of_both(
    n_pictures: int, n_texts: int, groups: tuple[Sequence[object], Sequence[object]] | None
) -> Sequence[Bool[Tensor, "_"]]:
    """For each tower the rows that are scored: a group that they share is one, on one side."""
    second = [~_is_first(n) for n in (n_pictures, n_texts)]
    if groups is None:
        return second
    for of, n in zip(groups, (n_pictures, n_texts), strict=True):
        number_groups(of, n)  # refuses another number of them
    group = number_groups([*groups[0], *groups[1]], n_pictures + n_texts)
    return _scored(group, torch.cat(second)).split([n_pictures, n_texts])


def _score(scores: Float[Tensor, "n"], y: Bool[Tensor, "n"], kept: Bool[Tensor, "n"]) -> Detection:
    """The threshold of the first half, on the rows that are kept of the second."""
    first = _is_first(len(y))
    threshold = float(_best(scores[first, None], y[first])[1])
    kept = kept.to(y.device)
    if not bool(kept.any()):
        raise InvalidArgument("every row of the second half is of a group of the first: order rows by group")
    _check_both(y[kept])
    return detection(scores[kept], y[kept], threshold)


def _choose(pictures: Tensor, is_pictured: Tensor, texts: Tensor, is_said: Tensor) -> int:
    halves = ((one[: len(one) // 2], y[: len(y) // 2]) for one, y in ((pictures, is_pictured), (texts, is_said)))
    return int(torch.minimum(*(_best(one, y)[0] for one, y in halves)).argmax())


def _best(scores: Float[Tensor, "n latent"], y: Bool[Tensor, "n"]) -> tuple[Tensor, Tensor]:
    """For each column the greatest F1 of any threshold, and that threshold."""
    _check_both(y)
    order = scores.sort(0, descending=True)
    hits = y[order.indices].double().cumsum(0)
    found = torch.arange(1, len(y) + 1, dtype=torch.double)[:, None]
    f1 = 2 * hits / (found + int(y.sum()))
    last = torch.cat([order.values[1:] < order.values[:-1], torch.ones_like(order.values[:1], dtype=torch.bool)])
    best = torch.where(last, f1, -1.0).max(0)  # equal scores fall on one side
    below = torch.cat([order.values[1:], order.values[-1:] - 1])
    value, under = (part.gather(0, best.indices[None])[0] for part in (order.values, below))
    return best.values, (value + under) / 2


def _check_both(y: Bool[Tensor, "n"]) -> None:
    if not bool(y.any()) or bool(y.all()):
        raise InvalidArgument(f"{int(y.sum())} of {len(y)} rows of a half have the concept: shuffle them, or give more")
