"""Rows of a store in random order and bounded memory: chunks in random order, mixed in a buffer."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, final

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.site import Site
from hooks.store.columns import put_rows
from hooks.store.store import ActivationStore, Asked, StoredRows

Item = TypeVar("Item")
Columns = Mapping[Site | str, Shaped[Tensor, "n ..."]]


@final
class ShuffledRows(IterableDataset[StoredRows]):
    """One pass over a store in random order, each row once, in batches.

    Chunks of up to 8192 consecutive rows are read in random order, and each stretch of `buffer` rows of them is
    permuted as a whole: a batch is a uniformly random sample of such a stretch, so it mixes about `buffer` / 8192
    places of the data. Memory holds the buffer and a few batches, however large the store. A buffer as large as the
    store shuffles it perfectly. A `torch.utils.data.DataLoader` with `batch_size=None` takes it; its workers share
    the chunks.

    Args:
        store: an open store.
        sites: one or more sites it holds; rows of several belong together.
        batch_size: rows of a batch; the last may have fewer.
        buffer: rows that are mixed, rounded up to whole batches.
        seed: the same seed, the same order.
        ahead: batches prepared in a thread while the caller works.

    Raises:
        UnknownName: a site the store does not hold.
        InvalidArgument: a number below 1.
        DamagedFile: when it is read, a corrupted shard.

    Examples:
        ```python
        for epoch in range(3):
            for batch in ShuffledRows(store, resid_post[6], seed=epoch):
                batch[resid_post[6]].float()
        ```
    """

    def __init__(
        self,
        store: ActivationStore,
        sites: Asked,
        *,
        batch_size: int = 4096,
        buffer: int = 131_072,
        seed: Natural = 0,
        ahead: int = 2,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("buffer", buffer), ("ahead", ahead)):
            if number < 1:
                raise InvalidArgument(f"{name} must be at least 1, got {number}")
        self.store, self.sites = store, store.only(sites)
        self.batch_size, self.buffer, self.seed, self.ahead = batch_size, buffer, seed, ahead

    def __iter__(self) -> Iterator[StoredRows]:
        generator = torch.Generator().manual_seed(self.seed)
        worker = get_worker_info()
        order = torch.randperm(len(self.store.columns), generator=generator)
        if worker is not None:
            order = order[worker.id :: worker.num_workers]
            generator.manual_seed(self.seed + (worker.id + 1) * 1_000_003)
        size = min(self.buffer, len(self.store))
        chunks = (self._columns(number) for number in order.tolist())
        batches = mix_rows(chunks, buffer=size, batch_size=self.batch_size, generator=generator)
        rows = (
            StoredRows({site: batch[site] for site in self.sites}, batch["ids"], batch["number"]) for batch in batches
        )
        return prefetch(rows, self.ahead)

    def _columns(self, number: int) -> Columns:
        rows = self.store.chunk(number, self.sites)
        return {**rows.values, "ids": rows.ids, "number": rows.number}


def mix_rows(
    chunks: Iterator[Columns], *, buffer: int, batch_size: int, generator: torch.Generator
) -> Iterator[dict[Site | str, Shaped[Tensor, "n ..."]]]:
    """Permute each stretch of `buffer` rows, holding no more than that many.

    A sweep visits the places of the buffer in random order. The rows at the places a batch takes are given out, and
    the next rows of the stream put there, for the next sweep: so what one sweep takes in, in order, the next gives
    out in random order.

    Examples:
        ```python
        batches = mix_rows(iter([{"x": torch.arange(10)}]), buffer=8, batch_size=4, generator=torch.Generator())
        ```
    """
    incoming = _Incoming(chunks)
    size = -(-buffer // batch_size) * batch_size
    held: dict[Site | str, Tensor] = {}
    fresh = incoming.put(held, torch.arange(size), size)
    while len(fresh):
        order, sweep = fresh[torch.randperm(len(fresh), generator=generator)], []
        for places in order.split(batch_size):
            yield {column: rows.index_select(0, places) for column, rows in held.items()}
            sweep.append(incoming.put(held, places, size))
        fresh = torch.cat(sweep)


@final
class _Incoming:
    """A stream of chunks that is put into a buffer as many rows at a time as there is place for."""

    def __init__(self, chunks: Iterator[Columns]) -> None:
        self._chunks = chunks
        self._rest: Columns = {}
        self._left = self._taken = 0

    def put(self, held: dict[Site | str, Tensor], places: Int[Tensor, "n"], size: int) -> Int[Tensor, "_"]:
        """Put the next rows there, and return the places filled: fewer at the end of the stream."""
        filled = 0
        while filled < len(places) and self._more():
            n = min(self._left, len(places) - filled)
            for column, rows in self._rest.items():
                if column not in held:
                    held[column] = rows.new_empty(size, *rows.shape[1:])
                put_rows(held[column], places[filled : filled + n], rows[self._taken : self._taken + n])
            self._taken, self._left, filled = self._taken + n, self._left - n, filled + n
        return places[:filled]

    def _more(self) -> bool:
        while not self._left:
            rest = next(self._chunks, None)
            if rest is None:
                return False
            self._rest, self._taken, self._left = rest, 0, len(next(iter(rest.values())))
        return True


def prefetch(items: Iterator[Item], ahead: int) -> Iterator[Item]:
    """Yield the same items, the next `ahead` of them made in a thread meanwhile.

    Examples:
        >>> list(prefetch(iter("fog"), ahead=2))
        ['f', 'o', 'g']
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[Item | object]] = deque(thread.submit(next, items, end) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # pyright: ignore[reportReturnType]
