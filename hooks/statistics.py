"""Measured shares, means and ratios with their 95 % intervals: Wilson's, Student's, the bootstrap of rows or groups."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum, isfinite, nan, sqrt

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument, InvalidType

Z = 1.959963984540054
ENDS = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its 95 % interval, and the number of cases it rests on.

    Examples:
        >>> print(f"{Estimate(1.004, 0.99, 1.02, 8):.2f}")
        1.00 (0.99 to 1.02)
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.ends()}{f', n = {self.n}' if self.is_bounded else ''})"

    def __format__(self, spec: str) -> str:
        """The value and its interval, all with the digits of `spec`; as `str` without one."""
        return f"{self.value:{spec}} ({self.ends(spec)})" if spec else str(self)

    @property
    def is_bounded(self) -> bool:
        """Whether there is an interval: of one case there may be none."""
        return isfinite(self.low) and isfinite(self.high)

    def ends(self, spec: str = ".3f") -> str:
        """The ends of the interval, or that there is none.

        Examples:
            >>> mean_with_interval(torch.tensor([2.0])).ends()
            'no interval: n = 1'
        """
        return f"{self.low:{spec}} to {self.high:{spec}}" if self.is_bounded else f"no interval: n = {self.n}"


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

    Shares between 0 and 1 vary less than that, so the interval is at least as wide as it should be, also where all are
    alike and a bootstrap has no width.

    Raises:
        InvalidArgument: no share, or one outside [0, 1].
    """
    if len(shares) == 0 or not bool(((shares >= 0) & (shares <= 1)).all()):
        raise InvalidArgument(f"the shares {shares.tolist()[:5]} were given: give at least one, all from 0 to 1")
    return wilson(shares.double().mean().item(), len(shares))


def wilson(p: float, n: int) -> Estimate:
    """A share p of n cases with the 95 % interval of Wilson 1927.

    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), with z = 1.96; an end at 0 or 1 where p is.

    Raises:
        InvalidArgument: a share that is not from 0 to 1, or fewer than one case.

    Examples:
        >>> wilson(0.0, 10).high
        0.2775327998628892
    """
    if not 0 <= p <= 1 or n < 1:
        raise InvalidArgument(f"a share of {p} of {n} cases was given: give a share from 0 to 1, of at least one case")
    centre, half = p + Z * Z / (2 * n), Z * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    low, high = (centre - half) / scale, (centre + half) / scale
    return Estimate(p, low if p > 0 else 0.0, high if p < 1 else 1.0, n)


def student(values: Sequence[float]) -> Estimate:
    """The mean of values with Student's 95 % interval: m ± t s / sqrt(n), with n - 1 degrees of freedom.

    The ends are NaN where there is one value.

    Raises:
        InvalidArgument: no values, or one that is not finite.

    Examples:
        >>> student([1.0, 3.0]).value
        2.0
    """
    from scipy.special import stdtrit

    n = len(values)
    if not n:
        raise InvalidArgument("an interval of no values was asked for: give at least one")
    if not all(map(isfinite, values)):
        raise InvalidArgument(f"the values {[*values]} are not all finite: they have no mean")
    mean = fsum(values) / n
    if n == 1:
        return Estimate(mean, nan, nan, n)
    half = float(stdtrit(n - 1, ENDS[1])) * sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return Estimate(mean, mean - half, mean + half, n)


def percentile_ends(drawn: Float[Tensor, "n *d"]) -> Float[Tensor, "2 *d"]:
    """The ends of the 95 % percentile interval of what was drawn; draws that are NaN are left out.

    Raises:
        InvalidArgument: nothing was drawn.

    Examples:
        >>> percentile_ends(torch.linspace(0, 1, 41)).tolist()
        [0.02500000037252903, 0.9750000238418579]
    """
    if not len(drawn):
        raise InvalidArgument("the interval of no draws was asked for: draw at least once")
    return drawn.nanquantile(torch.tensor(ENDS, dtype=drawn.dtype, device=drawn.device), dim=0)


def bootstrap(
    statistic: Callable[[list[Float[Tensor, "n *d"]]], float],
    samples: Sequence[Float[Tensor, "n *d"]],
    draws: int = 500,
    seed: int = 0,
) -> Estimate:
    """A statistic of some samples, with its percentile bootstrap interval: the rows of each are redrawn separately.

    One row has nothing to vary, so where a sample is one row the ends are NaN: nothing is known of them. A sample that
    holds NaN makes all of the estimate NaN, as far as the statistic does.

    Raises:
        InvalidArgument: no samples, an empty one, or fewer than one draw.

    Cost:
        `draws` evaluations of the statistic.
    """
    if not samples or any(len(rows) == 0 for rows in samples):
        raise InvalidArgument(f"samples of {[len(rows) for rows in samples]} rows were given: none may be empty")
    _check_draws(draws)
    if any(len(rows) == 1 for rows in samples):
        return Estimate(statistic(list(samples)), nan, nan, len(samples[0]))
    generator = torch.Generator().manual_seed(seed)
    values = [
        statistic([rows[torch.randint(len(rows), (len(rows),), generator=generator)] for rows in samples])
        for _ in range(draws)
    ]
    low, high = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor(ENDS, dtype=torch.float64))
    return Estimate(statistic(list(samples)), low.item(), high.item(), len(samples[0]))


def mean_with_interval(values: Float[Tensor, "example"], seed: int = 0) -> Estimate:
    """The mean of numbers, one for each case, with its percentile bootstrap interval.

    Raises:
        InvalidArgument: no number.
    """
    return bootstrap(lambda drawn: float(drawn[0].mean()), [values.double()], seed=seed)


def share_over_groups(
    right: Bool[Tensor, "example"], group: Int[Tensor, "example"], draws: int = 1000, seed: int = 0
) -> Estimate:
    """The share of right rows, with its percentile interval when groups are drawn again with replacement.

    Where all groups have one share the bootstrap has nothing to vary, and Wilson's of as many groups is taken. Numbers
    of groups may have gaps: only those that have rows count.

    Raises:
        InvalidArgument: no rows, not a group for each, negative groups, or fewer than one draw.

    Examples:
        >>> share_over_groups(torch.tensor([True, True, False, False]), torch.tensor([0, 0, 1, 1])).value
        0.5
    """
    group = _check_groups(right, group, draws)
    value, boot = _group_shares(right[:, None], group, draws, seed)
    return _group_estimate(float(value[0]), boot[:, 0], group)


def mean_over_groups(
    values: Float[Tensor, "example"], group: Int[Tensor, "example"], draws: int = 1000, seed: int = 0
) -> Estimate:
    """The mean of numbers, with its percentile interval when groups are drawn again with replacement.

    The ends are NaN where there is one group.

    Raises:
        InvalidArgument: as `share_over_groups`.

    Examples:
        >>> mean_over_groups(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 0, 1])).value
        2.0
    """
    group = _check_groups(values, group, draws)
    value, boot = _group_shares(values[:, None], group, draws, seed)
    n = int(group.max()) + 1
    low, high = percentile_ends(boot[:, 0]).tolist() if n > 1 else (nan, nan)
    return Estimate(float(value[0]), low, high, n)


def balanced_accuracy_over_groups(
    right: Bool[Tensor, "example"],
    y: Bool[Tensor, "example"],
    group: Int[Tensor, "example"],
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The balanced accuracy, the mean over classes of the share of right rows, with an interval over groups.

    The interval is that of `share_over_groups`. Draws without rows of a class are left out. 1/2 is chance, whatever
    the shares of the classes.

    Raises:
        InvalidArgument: as `share_over_groups`; labels that are all alike.

    Examples:
        >>> y = torch.tensor([True, False, False, False])
        >>> balanced_accuracy_over_groups(~y, y, torch.arange(4)).value
        0.5
    """
    group = _check_groups(right, group, draws)
    _check_both(y, "labels")
    n = int(group.max()) + 1
    member = torch.stack([~y, y], 1).double()
    size = torch.zeros(n, 2, dtype=torch.float64).index_add_(0, group, member)
    hits = torch.zeros(n, 2, dtype=torch.float64).index_add_(0, group, member * right[:, None])
    times = draw_groups(n, draws, seed)
    return _group_estimate(float((hits.sum(0) / size.sum(0)).mean()), ((times @ hits) / (times @ size)).mean(1), group)


def auroc_over_groups(
    score: Float[Tensor, "example"],
    y: Bool[Tensor, "example"],
    group: Int[Tensor, "example"],
    fold: Int[Tensor, "example"],
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The share of pairs of a positive and a negative row of one fold that are in order.

    sum_ij [s_i > s_j] / n_pairs over pairs within folds, ties counting half: scores of two folds come from two probes
    and are not compared. No group is in two folds. The interval is as that of `share_over_groups`.

    Raises:
        InvalidArgument: as `share_over_groups`; scores that are NaN; no fold with rows of both classes.

    Cost:
        A number for each pair of groups of a fold.

    Examples:
        >>> y = torch.tensor([True, False, True, False])
        >>> auroc_over_groups(y.double(), y, torch.arange(4), torch.tensor([0, 0, 1, 1])).value
        1.0
    """
    group = _check_groups(score, group, draws)
    if bool(score.isnan().any()):
        raise InvalidArgument(f"{int(score.isnan().sum())} of {len(score)} scores are NaN: they are in no order")
    if not any(bool(y[fold == one].any()) and not bool(y[fold == one].all()) for one in fold.unique()):
        raise InvalidArgument(
            "no fold has rows of both classes, and only scores of one fold are compared: give fewer folds"
        )
    n = int(group.max()) + 1
    times = draw_groups(n, draws, seed)
    ordered, pairs, drawn_ordered, drawn_pairs = 0.0, 0.0, torch.zeros(draws).double(), torch.zeros(draws).double()
    for one in fold.unique():
        above, below = y & (fold == one), ~y & (fold == one)
        difference = score[above].double()[:, None] - score[below].double()
        concordant = (difference.sign() + 1) / 2
        positive, negative = times[:, group[above]], times[:, group[below]]
        ordered, pairs = ordered + float(concordant.sum()), pairs + concordant.numel()
        drawn_ordered += ((positive @ concordant) * negative).sum(1)
        drawn_pairs += positive.sum(1) * negative.sum(1)
    return _group_estimate(ordered / pairs, drawn_ordered / drawn_pairs, group)


def _group_estimate(value: float, boot: Tensor, group: Tensor) -> Estimate:
    """The percentile interval of what was drawn, Wilson's where nothing varies; draws that are NaN are left out."""
    n = int(group.max()) + 1
    low, high = percentile_ends(boot).tolist()
    if low == high:
        ends = wilson(value, n)
        low, high = ends.low, ends.high
    return Estimate(value, low, high, n)


def shares_over_groups(
    right: Bool[Tensor, "example *n"], group: Int[Tensor, "example"], draws: int = 1000, seed: int = 0
) -> tuple[Shaped[Tensor, "*n"], Shaped[Tensor, "*n"], Shaped[Tensor, "*n"]]:
    """Shares of many columns, and intervals that with 95 % hold all of them at once: value +- the max's 95 % quantile.

    The bootstrap distribution of the largest deviation over all columns allows for their number and for what they
    have in common. A column of which all groups have one share deviates as far as Wilson's interval of it. Cut to 0
    and 1.

    Raises:
        InvalidArgument: as `share_over_groups`.

    Examples:
        ```python
        value, low, high = shares_over_groups(right, group)
        ```
    """
    group = _check_groups(right, group, draws)
    flat = right.reshape(len(right), -1)
    value, boot = _group_shares(flat, group, draws, seed)
    n, deviation = int(group.max()) + 1, (boot - value).abs()
    alike = value[deviation.amax(0) == 0].unique().tolist()
    fixed = [max(p - one.low, one.high - p) for p in alike for one in [wilson(p, n)]]
    widest = max(float(deviation.amax(1).quantile(0.95)), wilson(0.0, n).high, *fixed)
    low, high = (value - widest).clamp_min(0), (value + widest).clamp_max(1)
    return value.reshape(right.shape[1:]), low.reshape(right.shape[1:]), high.reshape(right.shape[1:])


def _group_shares(right: Tensor, group: Tensor, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    n = int(group.max()) + 1
    hits = torch.zeros(n, right.shape[1], dtype=torch.float64).index_add_(0, group, right.double())
    size = torch.bincount(group, minlength=n).double()
    times = draw_groups(n, draws, seed)
    return hits.sum(0) / size.sum(), (times @ hits) / (times @ size)[:, None]


def draw_groups(n: int, draws: int, seed: int) -> Float[Tensor, "n _"]:
    """How often each of n groups is drawn, in each draw of as many with replacement.

    Raises:
        InvalidArgument: fewer than one group or draw.
    """
    if n < 1:
        raise InvalidArgument(f"{n} groups were given to draw from: give at least one")
    _check_draws(draws)
    picked = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, picked, torch.ones(draws, n).double())


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise InvalidArgument(f"draws is {draws}: an interval needs at least one, and hundreds to mean something")


def _check_groups(rows: Tensor, group: Tensor, draws: int) -> Int[Tensor, "example"]:
    """The groups numbered without gaps; raise unless there are rows, and a group from 0 on for each."""
    _check_draws(draws)
    if not len(rows) or len(rows) != len(group):
        raise InvalidArgument(
            f"{len(rows)} rows and {len(group)} groups were given: give one for each row, at least one"
        )
    if int(group.min()) < 0:
        raise InvalidArgument(f"group {int(group.min())} was given: groups are numbered from 0")
    return group.unique(return_inverse=True)[1]


def _check_both(y: Tensor, what: str) -> None:
    if bool(y.all()) or not bool(y.any()):
        raise InvalidArgument(f"the {what} are all {bool(y.all())}: give rows of both classes")
