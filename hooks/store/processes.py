"""The processes that share a harvest: one alone, or those `torchrun` started."""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar, final
from uuid import uuid4

import torch

Value = TypeVar("Value")
PATIENCE: Final = timedelta(days=30)
"""How long a process waits for another, which may finish long after it."""
TRY: Final = timedelta(seconds=2)
"""How long the first process is looked for where it was said to be."""
_begun_here: ContextVar[bool] = ContextVar("begun_here", default=False)


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

    Processes that it started again after one died find each other, and never what the dead ones left. Where the
    group has begun already it is that one, with a warning if torchrun may start it again.

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
    if joined:
        _warn_of_restarts()
    else:
        _join(device if device.type == "cuda" else None)
    token = _begun_here.set(not joined or _begun_here.get())
    try:
        yield Process(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        _begun_here.reset(token)
        if not joined:
            torch.distributed.destroy_process_group()


def _warn_of_restarts() -> None:
    """Say so where torchrun may start again a group that a script began by itself, and whose living may not meet."""
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    shares = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    if shares and restarts != "0" and not _begun_here.get():
        warnings.warn(
            f"torchrun may start these processes again (--max-restarts {restarts}), and they joined by a call of "
            "init_process_group, which may then wait for the dead: begin the group by hooks.store.processes.processes, "
            "or set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1",
            stacklevel=4,
        )


def _join(gpu: torch.device | None) -> None:
    """Begin the group of processes.

    torchrun keeps one store for all lives of a job, in which the addresses of processes that died are still there, and
    one that reads them waits for the dead. So the processes of one life meet under a name of their own.
    """
    backend, given = "nccl" if gpu else "gloo", dict[str, Any]()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True):
        store, rank, world = next(torch.distributed.rendezvous("env://", timeout=PATIENCE))
        name = _name_life(store, world) if rank == 0 else _ask_life(store, rank)
        given = {"store": torch.distributed.PrefixStore(name, store), "rank": rank, "world_size": world}
    torch.distributed.init_process_group(backend, device_id=gpu, timeout=PATIENCE, **given)


def _name_life(store: torch.distributed.Store, world: int) -> str:
    """Give the others a name, at a port that is open in this life only."""
    own = torch.distributed.TCPStore(
        os.environ["MASTER_ADDR"], 0, is_master=True, timeout=PATIENCE, wait_for_workers=False
    )
    name = uuid4().hex
    own.set("life", name)
    store.set("port of the first process", str(own.port))
    while own.add("asked", 0) < world - 1:
        time.sleep(0.01)
    return name


def _ask_life(store: torch.distributed.Store, rank: int) -> str:
    """Ask the first process, at the port it says last, until it is one of this life that answers."""
    while True:
        port = int(store.get("port of the first process"))
        try:
            first = torch.distributed.TCPStore(
                os.environ["MASTER_ADDR"], port, is_master=False, timeout=TRY, wait_for_workers=False
            )
            name = first.get("life").decode()
            if first.add(f"asked by {rank}", 1) == 1:
                first.add("asked", 1)
                return name
        except RuntimeError:  # nobody is there any more
            time.sleep(0.05)
