"""A measured share, mean or ratio with its 95 % interval and the number of cases behind it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan, sqrt

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument, InvalidType

Z = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its 95 % interval, and the number of cases it rests on."""

    value: float
    low: float
    high: float
    n: int


def share(outcomes: Bool[Tensor, "example"]) -> Estimate:
    """The share that is true, with the interval of Wilson 1927.

    Raises:
        InvalidArgument: no outcome.
        InvalidType: outcomes that are not bool.
    """
    if outcomes.dtype != torch.bool:
        raise InvalidType(
            f"a share is of outcomes that are True or False, got {outcomes.dtype}: take mean_share, or compare"
        )
    if len(outcomes) == 0:
        raise InvalidArgument("a share of 0 outcomes was asked for: give at least one")
    return wilson(outcomes.double().mean().item(), len(outcomes))


def mean_share(shares: Float[Tensor, "example"]) -> Estimate:
    """The mean of shares, one for each case, with the interval of Wilson 1927 as if each were all or none.

    Shares between vary less than that, so the interval is at least as wide as it should be, also where all are alike
    and a bootstrap has no width.

    Raises:
        InvalidArgument: no share, or one outside [0, 1].
    """
    if len(shares) == 0 or not bool(((shares >= 0) & (shares <= 1)).all()):
        raise InvalidArgument(f"the shares {shares.tolist()[:5]} were given: give at least one, all from 0 to 1")
    return wilson(shares.double().mean().item(), len(shares))


def wilson(p: float, n: int) -> Estimate:
    """A share p of n cases with the 95 % interval of Wilson 1927.

    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), with z = 1.96; an end at 0 or 1 where p is.

    Example:
        >>> wilson(0.0, 10).high
        0.2775327998628892
    """
    centre, half = p + Z * Z / (2 * n), Z * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    low, high = (centre - half) / scale, (centre + half) / scale
    return Estimate(p, low if p > 0 else 0.0, high if p < 1 else 1.0, n)


def bootstrap(
    statistic: Callable[[list[Float[Tensor, "n *d"]]], float],
    samples: Sequence[Float[Tensor, "n *d"]],
    draws: int = 500,
    seed: int = 0,
) -> Estimate:
    """A statistic of some samples, with its percentile bootstrap interval: the rows of each are drawn again, apart.

    One row has nothing to vary, so where a sample is one row the ends are NaN: nothing is known of them. A sample that
    holds NaN makes all of the estimate NaN, as far as the statistic does.

    Raises:
        InvalidArgument: an empty sample.

    Cost: `draws` evaluations of the statistic.
    """
    if not samples or any(len(rows) == 0 for rows in samples):
        raise InvalidArgument(f"samples of {[len(rows) for rows in samples]} rows were given: none may be empty")
    if any(len(rows) == 1 for rows in samples):
        return Estimate(statistic(list(samples)), nan, nan, len(samples[0]))
    generator = torch.Generator().manual_seed(seed)
    values = [
        statistic([rows[torch.randint(len(rows), (len(rows),), generator=generator)] for rows in samples])
        for _ in range(draws)
    ]
    low, high = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Estimate(statistic(list(samples)), low.item(), high.item(), len(samples[0]))
