"""Shares with intervals over groups: rows of one group rise and fall together, so groups are drawn, not rows."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from hooks.statistics import Estimate, wilson

ENDS = (0.025, 0.975)


@final
@dataclass(frozen=True)
class Interval(Estimate):
    """An estimate whose cases are groups: its value, the ends of its 95 % bootstrap interval, the number of groups."""

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, {self.n} groups)"


def over_groups(
    right: Bool[Tensor, "example"], group: Int[Tensor, "example"], draws: int = 1000, seed: int = 0
) -> Interval:
    """The share of right rows, its percentile interval when groups are drawn again with replacement.

    Where all groups have one share the bootstrap has nothing to vary, and Wilson's of as many groups is taken.

    Example:
        >>> over_groups(torch.tensor([True, True, False, False]), torch.tensor([0, 0, 1, 1])).value
        0.5
    """
    value, boot = _bootstrap(right[:, None], group, draws, seed)
    return _interval(float(value[0]), boot[:, 0], group)


def balanced_over_groups(
    right: Bool[Tensor, "example"],
    y: Bool[Tensor, "example"],
    group: Int[Tensor, "example"],
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """The balanced accuracy, the mean of the shares of right rows of each class, its interval as `over_groups`.

    Draws without rows of a class are left out. 1/2 is chance, whatever the shares of the classes.

    Example:
        >>> y = torch.tensor([True, False, False, False])
        >>> balanced_over_groups(~y, y, torch.arange(4)).value
        0.5
    """
    n = int(group.max()) + 1
    member = torch.stack([~y, y], 1).double()
    size = torch.zeros(n, 2, dtype=torch.float64).index_add_(0, group, member)
    hits = torch.zeros(n, 2, dtype=torch.float64).index_add_(0, group, member * right[:, None])
    times = _times(n, draws, seed)
    return _interval(float((hits.sum(0) / size.sum(0)).mean()), ((times @ hits) / (times @ size)).mean(1), group)


def auroc_over_groups(
    score: Float[Tensor, "example"],
    y: Bool[Tensor, "example"],
    group: Int[Tensor, "example"],
    fold: Int[Tensor, "example"],
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """The share of pairs of a positive and a negative row of one fold that are in order, its interval as `over_groups`.

    sum_ij [s_i > s_j] / n_pairs over pairs within folds, ties counting half: scores of two folds come from two probes
    and are not compared. No group is in two folds.

    Cost: a number for each pair of groups of a fold.

    Example:
        >>> y = torch.tensor([True, False, True, False])
        >>> auroc_over_groups(y.double(), y, torch.arange(4), torch.tensor([0, 0, 1, 1])).value
        1.0
    """
    n = int(group.max()) + 1
    times = _times(n, draws, seed)
    ordered, pairs, drawn_ordered, drawn_pairs = 0.0, 0.0, torch.zeros(draws).double(), torch.zeros(draws).double()
    for one in fold.unique():
        above, below = y & (fold == one), ~y & (fold == one)
        difference = score[above].double()[:, None] - score[below].double()
        concordant = (difference.sign() + 1) / 2
        positive, negative = times[:, group[above]], times[:, group[below]]
        ordered, pairs = ordered + float(concordant.sum()), pairs + concordant.numel()
        drawn_ordered += ((positive @ concordant) * negative).sum(1)
        drawn_pairs += positive.sum(1) * negative.sum(1)
    return _interval(ordered / pairs, drawn_ordered / drawn_pairs, group)


def _interval(value: float, boot: Tensor, group: Tensor) -> Interval:
    """The percentile interval of what was drawn, Wilson's where nothing varies; draws that are NaN are left out."""
    n = int(group.max()) + 1
    low, high = boot.nanquantile(torch.tensor(ENDS, dtype=torch.float64)).tolist()
    if low == high:
        told = wilson(min(1.0, max(0.0, value)), n)
        low, high = told.low, told.high
    return Interval(value, low, high, n)


def all_at_once(
    right: Bool[Tensor, "example *n"], group: Int[Tensor, "example"], draws: int = 1000, seed: int = 0
) -> tuple[Shaped[Tensor, "*n"], Shaped[Tensor, "*n"], Shaped[Tensor, "*n"]]:
    """Shares of many columns, and intervals that with 95 % hold all of them at once: value +- the max's 95 % quantile.

    The bootstrap distribution of the largest deviation over all columns allows for their number and for what they
    have in common. A column of which all groups have one share deviates as far as Wilson's interval of it. Cut to 0
    and 1.

    Example:
        ```python
        value, low, high = all_at_once(right, group)
        ```
    """
    flat = right.reshape(len(right), -1)
    value, boot = _bootstrap(flat, group, draws, seed)
    n, deviation = int(group.max()) + 1, (boot - value).abs()
    alike = value[deviation.amax(0) == 0].unique().tolist()
    fixed = [max(share - one.low, one.high - share) for share in alike for one in [wilson(share, n)]]
    widest = max(float(deviation.amax(1).quantile(0.95)), wilson(0.0, n).high, *fixed)
    low, high = (value - widest).clamp_min(0), (value + widest).clamp_max(1)
    return value.reshape(right.shape[1:]), low.reshape(right.shape[1:]), high.reshape(right.shape[1:])


def _bootstrap(right: Tensor, group: Tensor, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    n = int(group.max()) + 1
    hits = torch.zeros(n, right.shape[1], dtype=torch.float64).index_add_(0, group, right.double())
    size = torch.bincount(group, minlength=n).double()
    times = _times(n, draws, seed)
    return hits.sum(0) / size.sum(), (times @ hits) / (times @ size)[:, None]


def _times(n: int, draws: int, seed: int) -> Float[Tensor, "n _"]:
    """How often each group is drawn, in each draw of as many groups as there are."""
    picked = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, picked, torch.ones(draws, n).double())
