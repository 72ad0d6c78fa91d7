"""Traffic: the bytes that processes exchange, counted as they are handed to torch, and the formula of a step's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final, final

import torch
from torch import Tensor

from hooks.border import Count, Natural, NotNegative
from hooks.summary import summarise
from hooks.temporary import Temporary

VALUE: Final = 8
"""Bytes of one kept latent on its way: its value in float32 and its number in 32 bits."""
FLOAT: Final = 4


@final
@dataclass
class Traffic:
    """What this process received while it was counted.

    An all-gather among W receives W - 1 times what each gives, an all-reduce by a ring 2 (W - 1) / W times its tensor,
    a reduce-scatter and, in the mean of all processes, a broadcast (W - 1) / W times theirs. Python objects (names,
    checksums) are counted apart, by calls.

    Attributes:
        received: bytes, by this count.
        tensors: how many exchanges of tensors there were.
        objects: how many exchanges of Python objects.
        by: bytes by the name of the exchange.
    """

    received: float = 0.0
    tensors: int = 0
    objects: int = 0
    by: dict[str, float] = field(default_factory=dict)

    __repr__ = summarise

    def note(self, name: str, size: float | int) -> None:
        """Count one exchange of a tensor.

        Examples:
            >>> traffic = Traffic()
            >>> traffic.note("all_reduce", 8)
            >>> traffic.received
            8.0
        """
        self.tensors += 1
        self.received += size
        self.by[name] = self.by.get(name, 0.0) + size


_GIVEN: Final[dict[str, tuple[int, Callable[[int], float]]]] = {
    "all_gather": (1, lambda W: W - 1),
    "all_gather_into_tensor": (1, lambda W: W - 1),
    "all_reduce": (0, lambda W: 2 * (W - 1) / W),
    "broadcast": (0, lambda W: (W - 1) / W),
    "reduce_scatter_tensor": (1, lambda W: (W - 1) / W),
}
"""Which argument is what a process gives, and how many times that it receives."""
_NAMED: Final = ("tensor", "input_tensor", "input")


@contextmanager
def count_traffic() -> Iterator[Traffic]:
    """Count what this process receives from others inside the block, by the calls of `torch.distributed`.

    What torch's own parts exchange without these calls (DTensor, DDP) is not seen.

    Examples:
        ```python
        with count_traffic() as traffic:
            objective.gradients(rows, dead)
        traffic.received
        ```
    """
    dist: Any = torch.distributed
    traffic, inside = Traffic(), [False]
    with Temporary() as changes:
        for name, (place, times) in _GIVEN.items():
            real = getattr(dist, name)
            counting = _counting(real, name, place, times, traffic, inside)
            changes.make(lambda n=name, c=counting: setattr(dist, n, c), lambda n=name, r=real: setattr(dist, n, r))
        real = dist.all_gather_object
        objects = _of_objects(real, traffic, inside)
        changes.make(
            lambda: setattr(dist, "all_gather_object", objects), lambda: setattr(dist, "all_gather_object", real)
        )
        yield traffic


def sharded_step_bytes(n: Count, d: Count, k: Count, world: Count, *, k_aux: Natural = 0) -> float:
    """Return the bytes that a process receives in one step of a `ShardedTopK`, of n rows of d, k on, in W processes.

        8 n k (W - 1)  +  2 (W - 1) / W · 4 (n d + d + 1),     and with the auxiliary loss  8 n k_aux (W - 1)
                                                               and 2 (W - 1) / W · 4 n d more

    The k largest of each process, the reconstruction, and b_dec's gradient and the norm of all.

    Examples:
        >>> round(sharded_step_bytes(131_072, 8_192, 64, 64) / 1e9, 2)
        12.68
    """
    kept, ring = VALUE * n * (k + k_aux) * (world - 1), 2 * (world - 1) / world
    sums = n * d * (2 if k_aux else 1) + d + 1
    return kept + ring * FLOAT * sums


def cross_layer_step_bytes(
    n: Count, d: Count, layers: Count, latents: Count, world: Count, *, k: NotNegative = 0
) -> float:
    """Return the bytes that a process receives in one step of a `ShardedCrossLayerTranscoder` in W processes.

        2 (W - 1) / W · 4 (n layers d + 3)  +  4 (W - 1) latents / W,     and where a batch keeps n k latents
                                                                          5 n k (W - 1) / W more, about

    The reconstruction of n rows of d at each layer, the loss, L0 and the norm of all, and each latent's largest value.
    With `k` each process sends what exceeds a threshold guessed for a quarter more than its part of the n k; where one
    process holds more of them than another, all send as many as it.

    Examples:
        >>> round(cross_layer_step_bytes(4_096, 2_304, 26, 2**20, 8) / 1e9, 2)
        1.72
    """
    ring = 2 * (world - 1) / world * FLOAT * (n * layers * d + 3)
    return ring + FLOAT * (world - 1) / world * (latents + 1.25 * k * n)


def _counting(
    real: Any, name: str, place: int, times: Callable[[int], float], traffic: Traffic, inside: list[bool]
) -> Any:
    @wraps(real)
    def counted(*args: Any, **kwargs: Any) -> Any:
        given = args[place] if len(args) > place else next(kwargs[one] for one in _NAMED if one in kwargs)
        if isinstance(given, Tensor) and not inside[0]:
            world = torch.distributed.get_world_size(kwargs.get("group"))
            traffic.note(name, given.numel() * given.element_size() * times(world))
        return real(*args, **kwargs)

    return counted


def _of_objects(real: Any, traffic: Traffic, inside: list[bool]) -> Any:
    @wraps(real)
    def counted(*args: Any, **kwargs: Any) -> Any:
        traffic.objects += 1
        inside[0] = True  # it gathers tensors of its own
        try:
            return real(*args, **kwargs)
        finally:
            inside[0] = False

    return counted
