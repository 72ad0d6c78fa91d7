"""How the learning rate and the sparsity penalty go over a run."""

import math
from dataclasses import dataclass
from typing import Final, final

from hooks.errors import InvalidArgument, nearest

SHAPES: Final = ("linear", "cosine")


@final
@dataclass(frozen=True)
class Schedule:
    """The rate rises over the first part of a run and falls to 0 over the last; the penalty rises as it begins.

        rate(t)     = min(1, t / warm_up) fall((t - 1 + decay) / decay),        t = the share of the run that is over
        sparsity(t) = min(1, t / sparsity_warm_up)

    with fall(u) = 1 before the decay begins, then 1 - u ("linear") or (1 + cos pi u) / 2 ("cosine"). Each is a share
    of the peak. The shares here are those of Anthropic's April 2024 update. `Schedule(0, 0)` is a constant
    rate; `Schedule(decay=0.95, shape="cosine")` falls from the end of the warm-up on.

    Examples:
        >>> [round(Schedule(warm_up=0.5, decay=0.5).rate(t / 4), 2) for t in range(5)]
        [0.02, 0.52, 1.0, 0.5, 0.0]
    """

    warm_up: float | int = 0.05
    decay: float | int = 0.2
    shape: str = "linear"
    sparsity_warm_up: float | int = 0.05

    def __post_init__(self) -> None:
        for name in ("warm_up", "decay", "sparsity_warm_up"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidArgument(f"{name} is {getattr(self, name)}; it is a share of the run, from 0 to 1")
        if self.warm_up + self.decay > 1:
            raise InvalidArgument(
                f"warm_up is {self.warm_up} and decay {self.decay}: together they are longer than the run, of which "
                "both are shares"
            )
        if self.shape not in SHAPES:
            raise InvalidArgument(f"no decay has the shape '{self.shape}'; did you mean {nearest(self.shape, SHAPES)}?")

    def rate(self, t: float | int) -> float:
        """The learning rate's share of its peak when a share t of the run is over; 1/50 of the way up at first."""
        rising = min(1.0, (t + 0.02 * self.warm_up) / self.warm_up) if self.warm_up and t < self.warm_up else 1.0
        if not self.decay or t <= 1 - self.decay:
            return rising
        left = max(0.0, (1 - t) / self.decay)
        return rising * (left if self.shape == "linear" else (1 - math.cos(math.pi * left)) / 2)

    def sparsity(self, t: float | int) -> float:
        """The penalty's share of its weight when a share t of the run is over, the present batch included."""
        return min(1.0, t / self.sparsity_warm_up) if self.sparsity_warm_up else 1.0
