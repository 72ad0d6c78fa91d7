"""Shares with intervals over groups: rows of one group rise and fall together, so groups are drawn, not rows."""

from dataclasses import dataclass
from math import sqrt
from typing import final

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

Z2 = 1.959963984540054**2


@final
@dataclass(frozen=True)
class Interval:
    """A share, the ends of its 95 % bootstrap interval, and the number of groups it rests on."""

    value: float
    low: float
    high: float
    groups: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, {self.groups} groups)"


def over_groups(
    right: Bool[Tensor, "example"], group: Int[Tensor, "example"], draws: int = 1000, seed: int = 0
) -> Interval:
    """The share of right rows, its percentile interval when groups are drawn anew with replacement.

    Where all groups have one share the bootstrap has nothing to vary, and Wilson's of as many groups stands in.

    Example:
        >>> over_groups(torch.tensor([True, True, False, False]), torch.tensor([0, 0, 1, 1])).value
        0.5
    """
    value, boot = _bootstrap(right[:, None], group, draws, seed)
    low, high = boot[:, 0].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    n, share = int(group.max()) + 1, float(value[0])
    if low == high:
        low, high = _wilson(share, n)
    return Interval(share, low, high, n)


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
    fixed = [max(share - low, high - share) for share in alike for low, high in [_wilson(share, n)]]
    widest = max(float(deviation.amax(1).quantile(0.95)), _wilson(0.0, n)[1], *fixed)
    low, high = (value - widest).clamp_min(0), (value + widest).clamp_max(1)
    return value.reshape(right.shape[1:]), low.reshape(right.shape[1:]), high.reshape(right.shape[1:])


def _bootstrap(right: Tensor, group: Tensor, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    n = int(group.max()) + 1
    hits = torch.zeros(n, right.shape[1], dtype=torch.float64).index_add_(0, group, right.double())
    size = torch.bincount(group, minlength=n).double()
    picked = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, picked, torch.ones(draws, n).double())
    return hits.sum(0) / size.sum(), (times @ hits) / (times @ size)[:, None]


def _wilson(p: float, n: int) -> tuple[float, float]:
    """The interval of Wilson 1927 of a share of n cases."""
    centre, half = p + Z2 / (2 * n), sqrt(Z2 * p * (1 - p) / n + Z2**2 / (4 * n * n))
    low, high = (centre - half) / (1 + Z2 / n), (centre + half) / (1 + Z2 / n)
    return low if p > 0 else 0.0, high if p < 1 else 1.0
