"""Writing one shard: each column a raw array, checksummed as it is written, and the record that makes it count."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import IO, final

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from xxhash import xxh3_64

from hooks.disk import checksum
from hooks.images import Images
from hooks.store.folder import Folder
from hooks.store.manifest import CHUNK, DOCUMENT, TOKEN, Shard, record_shard
from hooks.store.packing import Documents


@final
class Checksums:
    """The xxh3 checksum of every `CHUNK` entries of a column that comes piece by piece.

    Examples:
        ```python
        sums = Checksums(width=4)
        sums.add(memoryview(bytes(40)))
        sums.hexdigests()
        ```
    """

    def __init__(self, width: int) -> None:
        self._room = self._whole = CHUNK * width
        self._running = xxh3_64()
        self._done: list[str] = []

    def add(self, data: memoryview) -> None:
        """Take in the next bytes.

        Examples:
            ```python
            sums.add(memoryview(bytes(40)))
            ```
        """
        while data:
            piece, data = data[: self._room], data[self._room :]
            self._running.update(piece)
            self._room -= len(piece)
            if not self._room:
                self._done.append(self._running.hexdigest())
                self._running.reset()
                self._room = self._whole

    def hexdigests(self) -> list[str]:
        """Return the checksums so far, that of an unfinished chunk last.

        Examples:
            ```python
            sums.hexdigests()
            ```
        """
        return self._done if self._room == self._whole else [*self._done, self._running.hexdigest()]


@final
class ShardWriter:
    """Writes the columns of one shard batch by batch; nothing counts before `seal`.

    Examples:
        ```python
        writer = ShardWriter(folder, "00000-000000", {"resid_post.6": 1536, "token": 4, "document": 8})
        writer.add("resid_post.6", rows)
        shard = writer.seal(rows=len(rows), documents=1, read=documents_checksum(["Fog"]))
        ```
    """

    def __init__(self, folder: Folder, name: str, widths: Mapping[str, int]) -> None:
        self._folder, self._name = folder, name
        blank = Shard(name, 0, 0, {})
        self._open = ExitStack()
        self._files: dict[str, IO[bytes]] = {
            column: self._open.enter_context(folder.open_to_write(blank.file(column))) for column in widths
        }
        self._sums = {column: Checksums(width) for column, width in widths.items()}

    def add(self, column: str, rows: Shaped[Tensor, "n ..."]) -> None:
        """Append rows to a column, in its dtype on disk.

        Examples:
            ```python
            writer.add("token", ids.int())
            ```
        """
        data = raw(rows)
        self._files[column].write(data)
        self._sums[column].add(data)

    def seal(self, rows: int, documents: int, read: str) -> Shard:
        """Sync and name the files, then record the shard and the checksum of the documents that were read for it.

        Examples:
            ```python
            writer.seal(rows=100, documents=1, read=documents_checksum(["Fog"]))
            ```
        """
        self._open.close()
        sums = {column: sums.hexdigests() for column, sums in self._sums.items()}
        shard = Shard(self._name, rows, documents, sums, read)
        record_shard(self._folder, shard)
        return shard

    def drop(self, error: BaseException) -> None:
        """Give the shard up, its files unnamed.

        Examples:
            ```python
            writer.drop(error)
            ```
        """
        self._open.__exit__(type(error), error, error.__traceback__)


@final
class Sealer:
    """Seals one shard in a thread while the next is computed, so that the disk and the model work at once.

    Examples:
        ```python
        with Sealer() as sealer:
            sealer.seal(writer, rows=100, documents=1, read=documents_checksum(["Fog"]))
        ```
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[Shard] | None = None

    def __enter__(self) -> "Sealer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self._wait()

    def seal(self, writer: ShardWriter, rows: int, documents: int, read: str) -> None:
        """Begin to seal a shard, once the one before is sealed.

        Raises:
            StorageFailed: the one before could not be.

        Examples:
            ```python
            sealer.seal(writer, rows=100, documents=1, read=documents_checksum(["Fog"]))
            ```
        """
        try:
            self._wait()
        except BaseException as error:
            writer.drop(error)
            raise
        self._last = self._thread.submit(writer.seal, rows, documents, read)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()


def raw(rows: Shaped[Tensor, "n ..."]) -> memoryview:
    """Return the bytes of rows, in order.

    Examples:
        >>> raw(torch.tensor([1], dtype=torch.int32)).nbytes
        4
    """
    flat = rows.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if len(flat) else memoryview(b"")


def token_checksums(ids: Shaped[Tensor, "n"], offsets: Shaped[Tensor, "_"]) -> dict[str, list[str]]:
    """Return the checksums a shard with these token ids and document offsets has.

    Examples:
        ```python
        token_checksums(ids.int(), offsets) == {c: shard.checksums[c] for c in ("token", "document")}
        ```
    """
    sums = {TOKEN: Checksums(4), DOCUMENT: Checksums(8)}
    sums[TOKEN].add(raw(ids))
    sums[DOCUMENT].add(raw(offsets))
    return {column: one.hexdigests() for column, one in sums.items()}


def documents_checksum(documents: Documents) -> str:
    """Return the checksum of documents as they are read, in order: their texts or token ids, or pixels and masks.

    Examples:
        >>> documents_checksum(["Fog", "Sea"]) == documents_checksum(["Sea", "Fog"])
        False
    """
    if isinstance(documents, Images):
        masks = [part for named in sorted(documents.masks.items()) for part in named]
        return checksum(documents.pixels, *masks)
    if isinstance(documents, Tensor):
        return checksum(documents)
    return checksum(*(one if isinstance(one, str) else np.asarray(one, np.int64).tobytes() for one in documents))
