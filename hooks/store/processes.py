"""The processes that share a harvest: one alone, or those `torchrun` started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, final

import torch

Value = TypeVar("Value")


@final
@dataclass(frozen=True)
class Process:
    """This process among those that work together.

    Attributes:
        rank: its number.
        world: how many there are.
    """

    rank: int
    world: int

    def total(self, n: int) -> int:
        """Return the sum of every process's `n`, once all of them have come here.

        Examples:
            >>> Process(0, 1).total(3)
            3
        """
        return sum(self.all(n))

    def all(self, value: Value) -> list[Value]:
        """Return every process's value, by rank, once all of them have come here.

        Examples:
            >>> Process(0, 1).all("fog")
            ['fog']
        """
        values = [value] * self.world
        if self.world > 1:
            torch.distributed.all_gather_object(values, value)
        return values


@contextmanager
def processes(device: torch.device) -> Iterator[Process]:
    """Join the processes that `torchrun` started, over gloo on a CPU and nccl on a GPU; without it, be alone.

    Examples:
        ```python
        with processes(model.device) as here:
            print(here.rank, "of", here.world)
        ```
    """
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not joined and not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        yield Process(0, 1)
        return
    if not joined:
        gpu = device if device.type == "cuda" else None
        backend, patience = "nccl" if gpu else "gloo", timedelta(days=30)  # one may finish long before another
        torch.distributed.init_process_group(backend, device_id=gpu, timeout=patience)
    try:
        yield Process(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        if not joined:
            torch.distributed.destroy_process_group()
