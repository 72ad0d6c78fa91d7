"""Several figures of the same cases: intervals that hold all of them at once, and differences case by case."""

from math import nan, sqrt

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.common.statistics import Estimate, Z, draw_groups

DRAWS = 1000


def estimates_at_once(value: Float[Tensor, "column"], drawn: Float[Tensor, "n column"], n: int) -> tuple[Estimate, ...]:
    """Figures of the same n cases, with 95 % intervals that hold all of them at once: value ± c se.

    c is the 95 % quantile over draws of the largest |drawn − value| / se of any column (sup-t: Montiel Olea and
    Plagborg-Møller 2019, Journal of Applied Econometrics 34), times Student's t over the normal's z for few cases.
    Whatever is chosen among the columns afterwards, a claim that none of them is 0 is wrong once in twenty. A column
    that no draw changes goes as far as a share of n of n cases might, by Wilson 1927 with Bonferroni's z.

    Examples:
        >>> drawn = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> round(estimates_at_once(torch.zeros(1).double(), drawn, 1000)[0].high, 1)
        2.1
    """
    from scipy.special import ndtri, stdtrit

    if n < 2:
        return tuple(Estimate(one, nan, nan, n) for one in value.tolist())
    error = (drawn - value).square().mean(0).sqrt()
    moved = error > 1e-9 * value.abs()
    each = float(ndtri(1 - 0.025 / len(value)))
    half = 2 * value.abs() * each**2 / (n + each**2)
    if bool(moved.any()):
        furthest = ((drawn - value)[:, moved].abs() / error[moved]).amax(1)
        few = float(stdtrit(n - 1, 0.975)) / Z * sqrt(n / (n - 1))
        half[moved] = float(furthest.quantile(0.95)) * few * error[moved]
    ends = zip(value.tolist(), (value - half).tolist(), (value + half).tolist(), strict=True)
    return tuple(Estimate(one, low, high, n) for one, low, high in ends)


def means_at_once(
    values: Float[Tensor, "example column"], group: Int[Tensor, "example"] | None = None, seed: int = 0
) -> tuple[Estimate, ...]:
    """The mean of each column over the same cases, with intervals as `estimates_at_once`; groups are drawn together.

    Examples:
        >>> means_at_once(torch.tensor([[1.0], [3.0]]))[0].value
        2.0
    """
    each = torch.arange(len(values)) if group is None else group.unique(return_inverse=True)[1]
    n = int(each.max()) + 1
    x = values.double().cpu()
    sums = torch.zeros(n, x.shape[1], dtype=torch.float64).index_add_(0, each, x)
    size, times = torch.bincount(each, minlength=n).double(), draw_groups(n, DRAWS, seed)
    return estimates_at_once(x.mean(0), (times @ sums) / (times @ size)[:, None], n)


def shares_apart(
    one: Bool[Tensor, "example *column"], other: Bool[Tensor, "example *column"], seed: int = 0
) -> tuple[Estimate, ...]:
    """How much more often one is true than the other, case by case; intervals hold all columns at once.

    Two intervals of each alone do not know what is hard for both.

    Examples:
        >>> yes = torch.ones(8, dtype=torch.bool)
        >>> shares_apart(yes, ~yes)[0].value
        1.0
    """
    difference = one.double() - other.double()
    return means_at_once(difference.reshape(len(difference), -1), seed=seed)
