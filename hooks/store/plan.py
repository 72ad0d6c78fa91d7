"""What a harvest will take: tokens, bytes, time from a short probe, and whether the disk has room."""

import time
from dataclasses import dataclass
from typing import Final, final

from hooks.capture import stream
from hooks.errors import InvalidArgument, StorageFailed
from hooks.plurals import count_of
from hooks.site import Site
from hooks.store.documents import length, sample
from hooks.store.job import Job, duplicates
from hooks.store.manifest import DOCUMENT, Settings, entry_bytes

SAMPLED: Final = 64
"""Documents the plan looks at."""


@final
@dataclass(frozen=True)
class Plan:
    """An estimate of a harvest, from some of its documents and one forward pass.

    Attributes:
        url: where the store will be.
        documents: how many there are; None for a stream that does not say.
        tokens_per_document: rows that one document gives on average.
        bytes_per_token: on disk, all sites together, with the token's id.
        tokens_per_second: of one process, forward pass only.
        processes: how many share the work.
        tokens_done: rows that are in the store already.
        free: bytes free on the disk; None where nobody knows.
    """

    url: str
    documents: int | None
    tokens_per_document: float
    bytes_per_token: int
    tokens_per_second: float
    processes: int
    tokens_done: int
    free: int | None

    @property
    def tokens(self) -> int | None:
        """Rows of the whole store: at least those that are there already."""
        if self.documents is None:
            return None
        return max(self.tokens_done, round(self.documents * self.tokens_per_document))

    @property
    def bytes(self) -> int | None:
        """Bytes of the whole store."""
        if self.tokens is None or self.documents is None:
            return None
        return self.tokens * self.bytes_per_token + 8 * self.documents

    @property
    def bytes_to_write(self) -> int | None:
        """Bytes that are not there yet."""
        if self.bytes is None or self.tokens is None:
            return None
        return 0 if self.tokens_done >= self.tokens else self.bytes - self.tokens_done * self.bytes_per_token

    @property
    def seconds(self) -> float | None:
        """Time for what is not there yet."""
        if self.tokens is None or not self.tokens_per_second:
            return None
        return max(0, self.tokens - self.tokens_done) / (self.tokens_per_second * self.processes)

    def __str__(self) -> str:
        room = "unknown" if self.free is None else _size(self.free)
        speed = f"{self.tokens_per_second:,.0f} tokens/s" + (
            f" in each of {self.processes}" if self.processes > 1 else ""
        )
        there = f" ({self.tokens_done:,} of them there already)" if self.tokens_done else ""
        if self.tokens is None or self.bytes is None or self.documents is None:
            return (
                f"to {self.url}: a stream of unknown length, about {self.tokens_per_document:,.0f} tokens a document, "
                f"{self.bytes_per_token:,} bytes per token, {speed}{there}; free on the disk: {room}"
            )
        took = "an unknown time" if self.seconds is None else _time(self.seconds)
        return (
            f"to {self.url}: about {self.tokens:,} tokens{there} of {count_of(self.documents, 'document')}, "
            f"{_size(self.bytes)}, {took} at {speed}; free on the disk: {room}"
        )

    def check_room(self) -> None:
        """Raise where the disk cannot hold what is to be written.

        Raises:
            StorageFailed: it does not fit.

        Examples:
            ```python
            plan.check_room()
            ```
        """
        if self.free is not None and self.bytes_to_write is not None:
            check_disk_space(self.url, self.bytes_to_write, self.free)


def check_disk_space(url: str, wanted: int, free: int | None) -> None:
    """Raise where fewer bytes are free than wanted.

    Examples:
        ```python
        check_disk_space("store", 10, free=None)
        ```
    """
    if free is not None and wanted > free:
        raise StorageFailed(
            f"{_size(wanted)} do not fit on the disk of {url}, which has {_size(free)} free: "
            "store fewer sites or documents, a smaller dtype, or elsewhere"
        )


@final
@dataclass(frozen=True)
class HarvestSample:
    """What some documents and one batch showed.

    Attributes:
        tokens_per_document: rows that one document gives on average.
        tokens_per_second: forward pass and conversion.
        same_as: sites that are another one's very tensor.
    """

    tokens_per_document: float
    tokens_per_second: float
    same_as: dict[Site, Site]


def probe(job: Job) -> HarvestSample:
    """Look at some documents, and run the model on one batch of them.

    Raises:
        InvalidArgument: the data are empty.

    Cost: the tokens of 64 documents, and two forward passes: of one row to warm up, and of one batch.

    Examples:
        ```python
        probe(job).tokens_per_second
        ```
    """
    some = sample(job.data, SAMPLED, job.model)
    if not len(some):
        raise InvalidArgument("got no documents: the dataset is empty")
    placed = job.place(some)
    if placed is None:
        raise InvalidArgument(f"the {len(some)} documents looked at have no tokens: give documents with text")
    ids, _ = job.select_rows(placed, len(some))
    same = duplicates(next(stream(job.model, placed.tokens[:1], job.sites)), job.sites)
    began = time.perf_counter()
    rows = job.rows(next(job.batches(placed)), job.sites[-1])
    seconds = time.perf_counter() - began
    return HarvestSample(len(ids) / len(some), len(rows) / seconds, same)


def estimate(
    job: Job, probed: HarvestSample, settings: Settings, *, documents: int | None, processes: int, tokens_done: int
) -> Plan:
    """Make a plan of what a probe showed.

    Examples:
        ```python
        print(estimate(job, probed, settings, documents=None, processes=1, tokens_done=0))
        ```
    """
    widths = entry_bytes(settings)
    return Plan(
        url=job.folder.url,
        documents=length(job.data) if documents is None else documents,
        tokens_per_document=probed.tokens_per_document,
        bytes_per_token=sum(widths[column] for column in widths if column != DOCUMENT),
        tokens_per_second=probed.tokens_per_second,
        processes=processes,
        tokens_done=tokens_done,
        free=job.folder.free(),
    )


def _size(n: int) -> str:
    """Bytes in a unit one can read."""
    value, units = float(n), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


def _time(seconds: float) -> str:
    """Seconds in a unit one can read."""
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"
