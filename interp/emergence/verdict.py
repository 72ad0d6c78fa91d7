"""The verdict: a jump of the metric, a jump of the model, or nothing that the questions there are can show."""

from dataclasses import dataclass
from typing import Literal

from hooks.border import Share
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.emergence.changes import Break, find_break
from interp.emergence.track import Track

Conclusion = Literal["the metric's", "the model's", "no jump", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """Whose a jump is.

    Attributes:
        said: "the metric's" if the discontinuous metric jumps and the continuous one is smooth; "the model's" if the
            continuous one breaks, too; "no jump"; "unknown" where the discontinuous one never leaves what guessing and
            its number of questions can show.
        steepest: the share of the discontinuous metric's rise that falls within two intervals between checkpoints.
        discontinuous: the best break of the one.
        continuous: of the other.
        resolution: how far above guessing the discontinuous metric has to come before it shows anything.
    """

    said: Conclusion
    steepest: float
    discontinuous: Break
    continuous: Break
    resolution: float

    __repr__ = summarise

    def __str__(self) -> str:
        return (
            f"{self.said}: {self.steepest:.0%} of the rise of the discontinuous metric within two intervals "
            f"(break p = {self.discontinuous.p:.3f}); the continuous one breaks with p = {self.continuous.p:.3f} at "
            f"step {self.continuous.step}"
        )


def judge(
    track: Track,
    discontinuous: str = "exact match",
    continuous: str = "log p of a token",
    *,
    chance: Share = 0.0,
) -> Verdict:
    """Judge whose a jump is, from two metrics of one behaviour.

    A jump is half of the whole rise or more within two intervals between checkpoints; a break is one of `find_break`
    at p ≤ 0.05. None of n questions right leaves 3 / n possible (the rule of three): a rise by less says nothing. Where
    guesses are right now and then, neither does a value that guessing reaches at one of m checkpoints with probability
    0.05: the metric has to be above the 1 − 0.05 / m quantile of Binomial(n, chance) / n somewhere.

    Args:
        track: with both.
        discontinuous: such as exact match.
        continuous: such as log p, from the same outputs.
        chance: the share of right answers of one that guesses, such as 1 / 32 where 32 labels are likely alike.

    Raises:
        UnknownName: a metric was not measured.
        InvalidArgument: fewer than eight checkpoints.

    Cost: two seconds.

    Examples:
        ```python
        judge(track).said
        ```
    """
    hard, n = track.values(discontinuous), track.metrics[discontinuous][0].n
    if len(hard) < 8:
        raise InvalidArgument(f"{len(hard)} checkpoints: give eight or more")
    soft = track.values(continuous)
    errors = [(e.high - e.low) / 4 for e in track.metrics[continuous]]
    floor = sorted(errors)[len(errors) // 2] / 4
    breaks = [find_break(track.steps, hard), find_break(track.steps, soft, floor=floor if floor == floor else 0.0)]
    rise = float(hard.max() - hard.min())
    steepest = float((hard[2:] - hard[:-2]).max()) / rise if rise > 0 else 0.0
    resolution = _resolution(n, chance, len(hard))
    if rise <= 3 / n or float(hard.max()) <= chance + resolution:
        said: Conclusion = "unknown"
    elif steepest < 0.5:
        said = "no jump"
    else:
        said = "the model's" if breaks[1].p <= 0.05 else "the metric's"
    return Verdict(said, steepest, breaks[0], breaks[1], resolution)


def _resolution(n: int, chance: float, m: int) -> float:
    """What n questions cannot tell from guessing, at the best of m checkpoints: 3 / n, or more where guesses hit."""
    from scipy.stats import binom

    return max(3 / n, float(binom.isf(0.05 / m, n, chance)) / n - chance)
