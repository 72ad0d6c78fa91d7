"""Processes that share a batch: each takes its rows, gradients are averaged, and what a batch decides is decided once.

`torchrun` starts them; without it there is one process, and everything here is the identity.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Final

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.store.processes import Process
from interp.sae.data.source import Source
from interp.sae.numerics.top_k import kth

ALONE: Final = Process(0, 1)
_sharing: ContextVar[Process] = ContextVar("sharing", default=ALONE)


@contextmanager
def share_batch(here: Process) -> Iterator[None]:
    """While this lasts, the rows that a process holds are its share of a batch.

    Examples:
        >>> with share_batch(Process(0, 1)):
        ...     average(torch.tensor(3.0)).item()
        3.0
    """
    token = _sharing.set(here)
    try:
        yield
    finally:
        _sharing.reset(token)


def current_process() -> Process:
    """This process among those that share the batch.

    Examples:
        >>> current_process().world
        1
    """
    return _sharing.get()


def local_rows(rows: Float[Tensor, "n *d"]) -> Float[Tensor, "_ *d"]:
    """This process's rows of a batch.

    Raises:
        InvalidArgument: the processes cannot share it equally.

    Examples:
        >>> len(local_rows(torch.zeros(4, 2)))
        4
    """
    here = current_process()
    if len(rows) % here.world:
        raise InvalidArgument(
            f"a batch of {len(rows)} rows cannot be shared equally by {here.world} processes: choose a batch_size that "
            f"is a multiple of {here.world}, and a source of at least as many rows"
        )
    return rows.chunk(here.world)[here.rank]


def average(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The mean over the processes that share a batch: of means over their rows, the batch's mean.

    Examples:
        >>> average(torch.tensor(3.0)).item()
        3.0
    """
    here = current_process()
    if here.world == 1:
        return x
    x = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x)
    return x / here.world


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, in one exchange.

    Examples:
        ```python
        average_gradients([*sae.parameters()])
        ```
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    whole = average(torch.cat([grad.flatten() for grad in grads]))
    for grad, mean in zip(grads, whole.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view(grad.shape))


def batch_variance(e: Float[Tensor, "n d_model"]) -> Float[Tensor, ""]:
    """E||e - E e||^2 over the rows of all processes that share a batch.

    Examples:
        >>> batch_variance(torch.tensor([[0.0], [2.0]])).item()
        1.0
    """
    return average((e - average(e.mean(0))).pow(2).sum(1).mean())


def kth_largest(values: Float[Tensor, "_"], k: int) -> Float[Tensor, ""]:
    """The k-th largest value of all processes that share a batch; minus infinity where they hold fewer.

    Examples:
        >>> kth_largest(torch.tensor([3.0, 1.0, 2.0]), 2).item()
        2.0
    """
    here = current_process()
    if here.world > 1:
        most = int(_reduce(torch.tensor(len(values), device=values.device), dist.ReduceOp.MAX))
        mine = torch.nn.functional.pad(values, (0, most - len(values)), value=-torch.inf)
        parts = [torch.empty_like(mine) for _ in range(here.world)]
        dist.all_gather(parts, mine)
        values = torch.cat(parts)
    if len(values) < k:
        return values.new_tensor(-torch.inf)
    return kth(values, k)


def minimum(x: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The least of the processes' values.

    Examples:
        >>> minimum(torch.tensor(3.0)).item()
        3.0
    """
    return _reduce(x, dist.ReduceOp.MIN)


def maximum(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The greatest of the processes' values, entry by entry.

    Examples:
        >>> maximum(torch.tensor([3.0, 4.0])).tolist()
        [3.0, 4.0]
    """
    return _reduce(x, dist.ReduceOp.MAX)


def any_process(x: Bool[Tensor, ""]) -> bool:
    """Whether it holds in any of the processes.

    Examples:
        >>> any_process(torch.tensor(True))
        True
    """
    return bool(_reduce(x.float(), dist.ReduceOp.MAX))


def _reduce(x: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
    if current_process().world == 1:
        return x
    x = x.clone()
    dist.all_reduce(x, how)
    return x


def distribute_source(source: Source, here: Process, device: torch.device) -> Source:
    """The same source, its forward passes shared by the processes: each makes every world-th batch, and gets all.

    A source that cannot be begun in the middle is read whole by every process.

    Examples:
        ```python
        with processes(device) as here:
            train_on(distribute_source(activations_of(model, texts, site), here, device))
        ```
    """
    every = source.every
    if every is None or here.world == 1:
        return source

    def batches(start: int, step: int) -> Iterator[Tensor]:
        own = every(start + here.rank * step, here.world * step)
        while True:
            found = _exchange(next(own, None), here, device)
            yield from found
            if len(found) < here.world:
                return

    return replace(source, batches=lambda: batches(0, 1), every=batches)


def _exchange(chunk: Tensor | None, here: Process, device: torch.device) -> list[Tensor]:
    """The chunks of all processes in order, up to the first that has none."""
    shapes: list[torch.Size | None] = [None] * here.world
    dist.all_gather_object(shapes, None if chunk is None else chunk.shape)
    held = [shape for shape in shapes if shape is not None]
    if not held:
        return []
    place = torch.zeros(max(shape[0] for shape in held), *held[0][1:], device=device)
    if chunk is not None:
        place[: len(chunk)] = chunk
    parts = [torch.empty_like(place) for _ in range(here.world)]
    dist.all_gather(parts, place)
    return [part[: shape[0]] for part, shape in zip(parts, held, strict=False)]
