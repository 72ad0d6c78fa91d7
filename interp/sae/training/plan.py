"""What a run does with its batches: how many there are, in which order, and how weights follow them."""

import math
from dataclasses import asdict, dataclass
from typing import Any, final

from hooks.errors import InvalidArgument
from interp.sae.architectures.sae import check_count
from interp.sae.training.resample import Resampling
from interp.sae.training.schedule import Schedule


@final
@dataclass(frozen=True)
class Plan:
    """The arguments of `train` that all autoencoders of a run share.

    Examples:
        >>> Plan(tokens=1_000_000, batch_size=2048).steps(2048)
        489
    """

    tokens: int = 1_000_000
    batch_size: int = 2048
    schedule: Schedule = Schedule()
    clip: float | int | None = 1.0
    dead_after: int = 100_000
    resampling: Resampling | None = None
    buffer: int = 131_072
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "batch_size", "dead_after", "buffer"):
            check_count(name, getattr(self, name))
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise InvalidArgument(f"clip is {self.clip}; it must be finite and above 0, or None")

    def steps(self, batch_size: int) -> int:
        """How many batches of this size hold the tokens."""
        return -(-self.tokens // batch_size)

    def settings(self) -> dict[str, Any]:
        """Its fields by name, for a checkpoint to compare."""
        return asdict(self)
