"""Breaks in a curve over training, against every smooth curve that rises no faster than the checkpoints can show."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.emergence.track import Track

SLOWEST, WIDTHS = 3.0, (3.0, 4.5, 7.0, 12.0)
"""Intervals between checkpoints that a smooth rise from 10 to 90 % takes at least, and those that are tried."""


@dataclass(frozen=True)
class Break:
    """The best place for a break in a curve.

    Attributes:
        index: of the first point after it.
        step: of that point.
        size: how far the two lines are apart there, in the metric's units.
        p: the probability of as good a break in smooth data with the same noise, by parametric bootstrap.
    """

    index: int
    step: int
    size: float
    p: float

    __repr__ = summarise


def find_break(
    steps: Sequence[int],
    values: Float[Tensor, "n"],
    *,
    floor: float = 0.0,
    draws: Count = 199,
    seed: Natural = 0,
) -> Break:
    """Find the best break of a curve over log steps, and how often smooth data with its noise would show as good a one.

    Smooth is the best of a + b x + c σ(k(x − m)) and of a + b x + c log(1 + e^{k(x − m)}), the shape of log σ, whose
    rise or bend takes three intervals between points or more. Broken is the best pair of lines, each with three
    points or more. The statistic is log(RSS_smooth / RSS_broken). Its null is drawn by parametric bootstrap: the best
    smooth curve plus normal noise as large as its residuals. At p ≤ 0.05 one smooth curve in twenty is called broken,
    so of many curves ask for p ≤ 0.05 divided by their number.

    Args:
        steps: of the checkpoints; step 0 is taken as half of the next one.
        values: of the metric.
        floor: the least standard error of a value, where it is known to be noisier than its residuals are.
        draws: of the bootstrap.
        seed: of it.

    Raises:
        InvalidArgument: fewer than eight checkpoints, another number of values, or steps out of order.

    Cost: milliseconds to a second.

    Examples:
        >>> steps, y = [2**i for i in range(16)], torch.zeros(16, dtype=torch.float64)
        >>> y[9:] = 1.0
        >>> found = find_break(steps, y + 0.01 * torch.randn(16, generator=torch.Generator().manual_seed(0)))
        >>> found.step, found.p < 0.05
        (512, True)
    """
    if len(steps) != len(values) or len(steps) < 8 or list(steps) != sorted({*steps}):
        raise InvalidArgument(
            f"{len(steps)} steps and {len(values)} values: give eight checkpoints or more, in order, each with a value"
        )
    smooth, broken = _designs(tuple(steps))
    y = values.double()
    fit, rss0 = _best_fit(smooth, y)
    sigma = max((rss0 / (len(y) - 5)) ** 0.5, floor, 1e-9)
    observed, at = _statistic(smooth, broken, y[None] + 0, floor)
    noise = torch.randn(draws, len(y), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    null, _ = _statistic(smooth, broken, fit + sigma * noise, floor)
    index = 3 + int(at[0])
    p = (1 + int((null >= observed[0]).sum())) / (1 + draws)
    return Break(index, int(steps[index]), _gap(steps, y, index), p)


def _log_steps(steps: Sequence[int]) -> Float[Tensor, "n"]:
    first = max(1, min((s for s in steps if s > 0), default=1)) / 2
    return torch.tensor([log(max(float(s), first)) for s in steps], dtype=torch.float64)


@lru_cache(maxsize=64)
def _designs(steps: tuple[int, ...]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Orthonormal bases of every smooth curve's columns and of every pair of lines."""
    x = _log_steps(steps)
    gap = (x[-1] - x[0]) / (len(x) - 1)
    one, smooth, broken = torch.ones_like(x), [], []
    for width in WIDTHS:
        slope = 2 * log(9) / (width * gap)
        for m in torch.linspace(float(x[0] - 2 * gap), float(x[-1] + 2 * gap), 3 * len(x)):
            for bend in (torch.sigmoid(slope * (x - m)), torch.nn.functional.softplus(slope * (x - m))):
                smooth.append(torch.stack([one, x - x.mean(), bend], 1))
    for k in range(3, len(x) - 2):
        after = (torch.arange(len(x)) >= k).double()
        broken.append(torch.stack([one, x - x.mean(), after, after * (x - x[k])], 1))
    return torch.linalg.qr(torch.stack(smooth)).Q, torch.linalg.qr(torch.stack(broken)).Q


def _best_fit(bases: Float[Tensor, "..."], y: Float[Tensor, "n"]) -> tuple[Float[Tensor, "n"], float]:
    parts = torch.einsum("bnk,n->bk", bases, y)
    best = int(parts.square().sum(1).argmax())
    fit = bases[best] @ parts[best]
    return fit, float((y - fit).square().sum())


def _statistic(
    smooth: Tensor, broken: Tensor, y: Float[Tensor, "n _"], floor: float
) -> tuple[Float[Tensor, "n"], Tensor]:
    """log(RSS_smooth / RSS_broken) of each row, and which break is best."""
    whole, n = y.square().sum(1), y.shape[1]
    explained = torch.einsum("bnk,dn->dbk", smooth, y).square().sum(-1).amax(1)
    of_breaks = torch.einsum("bnk,dn->dbk", broken, y).square().sum(-1)
    least = n * max(floor, 1e-6) ** 2
    rss = [(whole - part).clamp(min=0) + least for part in (explained, of_breaks.amax(1))]
    return (rss[0] / rss[1]).log(), of_breaks.argmax(1)


def _gap(steps: Sequence[int], y: Float[Tensor, "n"], index: int) -> float:
    """How far two lines, one on each side, are apart half way between the points at a break."""
    x = _log_steps(steps)
    middle, ends = (x[index] + x[index - 1]) / 2, []
    for part in (slice(0, index), slice(index, len(y))):
        A = torch.stack([torch.ones_like(x[part]), x[part] - middle], 1)
        ends.append(float(torch.linalg.lstsq(A, y[part][:, None]).solution[0]))
    return ends[1] - ends[0]


def find_changes(track: Track, *, draws: Count = 199, seed: Natural = 0) -> dict[str, Break]:
    """Find the best break of every metric of a track; of m metrics, p ≤ 0.05 / m keeps false alarms at one in twenty.

    The noise of a value is at least what its own interval says.

    Raises:
        InvalidArgument: fewer than eight checkpoints.

    Cost: a second for each metric.

    Examples:
        ```python
        find_changes(track)["exact match"].p
        ```
    """
    found = {}
    for name, of in track.metrics.items():
        errors = torch.tensor([(e.high - e.low) / 4 for e in of]).nan_to_num(0.0)
        values = track.values(name)
        found[name] = find_break(track.steps, values, floor=float(errors.median()) / 4, draws=draws, seed=seed)
    return found
