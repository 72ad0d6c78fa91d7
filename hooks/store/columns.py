"""Reading the columns of a store's shards, each chunk checked against its checksum."""

from itertools import accumulate
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Int, Shaped, UInt8
from torch import Tensor
from xxhash import xxh3_64_hexdigest

from hooks.errors import DamagedFile
from hooks.store.folder import Folder
from hooks.store.manifest import CHUNK, DOCUMENT, DTYPES, TOKEN, Manifest, Shard, entry_bytes

FEW: Final = 64
"""Of a chunk at most one row in so many is read by itself."""


@final
class Columns:
    """The columns of all shards end to end: each site's rows, token ids, document offsets.

    A chunk is `CHUNK` rows of one shard, or what is left of it.

    Attributes:
        starts: at which row of the store each chunk begins, and at the end the number of rows.

    Raises:
        DamagedFile: a file is missing or not as long as it should be.

    Examples:
        ```python
        Columns(folder, Manifest.read(folder)).chunk("token", 0)
        ```
    """

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self._folder = folder
        self._shards = manifest.shards
        self._widths = entry_bytes(manifest.settings)
        kept, dtype = manifest.settings.sites, DTYPES[manifest.settings.dtype]
        self._kinds = {site: (dtype, shape) for site, shape in kept.items()}
        self._kinds |= {TOKEN: (torch.int32, []), DOCUMENT: (torch.int64, [])}
        self._sound: set[tuple[str, int]] = set()
        self._check_sizes()  # before anything of the size the manifest claims is held in memory
        self._places = [(shard, number) for shard in manifest.shards for number in range(-(-shard.rows // CHUNK))]
        lengths = [min(CHUNK, shard.rows - number * CHUNK) for shard, number in self._places]
        self.starts = torch.tensor([0, *accumulate(lengths)])

    def __len__(self) -> int:
        """How many chunks there are."""
        return len(self._places)

    def chunk(self, column: str, number: int) -> Shaped[Tensor, "n *d"]:
        """Return the rows of one chunk, read and checked.

        Raises:
            DamagedFile: the checksum is wrong; the message names the shard.

        Examples:
            ```python
            columns.chunk("resid_post.6", 0)
            ```
        """
        shard, chunk = self._places[number]
        return self._tensor(column, self._bytes(shard, column, chunk))

    def gather(self, column: str, rows: Int[Tensor, "n"]) -> Shaped[Tensor, "n *d"]:
        """Return rows by number, each chunk visited once.

        Examples:
            ```python
            columns.gather("token", torch.tensor([5, 3]))
            ```
        """
        dtype, shape = self._kinds[column]
        found = torch.empty(len(rows), *shape, dtype=dtype)
        ordered, places = rows.sort()
        chunks, counts = (
            torch.searchsorted(self.starts, ordered, right=True).sub(1).unique_consecutive(return_counts=True)
        )
        done = 0
        for number, count in zip(chunks.tolist(), counts.tolist(), strict=True):
            part = slice(done, done + count)
            put_rows(found, places[part], self._rows(column, number, ordered[part] - self.starts[number]))
            done += count
        return found

    def offsets(self) -> Int[Tensor, "n"]:
        """Return the row at which each document begins, and at the end the number of rows.

        Examples:
            ```python
            columns.offsets().diff()  # tokens of each document
            ```
        """
        parts, first = [], 0
        for shard in self._shards:
            chunks = range(-(-shard.entries(DOCUMENT) // CHUNK))
            within = [self._tensor(DOCUMENT, self._bytes(shard, DOCUMENT, chunk)) for chunk in chunks]
            parts.append(torch.cat(within)[:-1] + first)
            first += shard.rows
        return torch.cat([*parts, torch.tensor([first])])

    def verify(self) -> None:
        """Read every byte and compare all checksums.

        Raises:
            DamagedFile: one is wrong; the message names the shard.

        Examples:
            ```python
            columns.verify()
            ```
        """
        self._check_sizes()
        for shard in self._shards:
            for column in self._widths:
                for chunk in range(-(-shard.entries(column) // CHUNK)):
                    self._bytes(shard, column, chunk)

    def _check_sizes(self) -> None:
        sizes = self._folder.sizes()
        for shard in self._shards:
            for column, width in self._widths.items():
                file, length = shard.file(column), shard.entries(column) * width
                if sizes.get(file) != length:
                    is_long = f"is {sizes[file]:,} bytes long" if file in sizes else "is missing"
                    raise DamagedFile(f"{file} {is_long}, where {length:,} were written: {self._remedy(shard)}")

    def _bytes(self, shard: Shard, column: str, chunk: int) -> UInt8[np.ndarray, "_"]:
        file, width = shard.file(column), self._widths[column]
        start = chunk * CHUNK
        stop = min(start + CHUNK, shard.entries(column))
        data = self._folder.read(file, start * width, stop * width)
        if xxh3_64_hexdigest(data.data) != self._checksum(shard, column, chunk):
            raise DamagedFile(f"{file} is corrupted in entries {start} to {stop - 1}: {self._remedy(shard)}")
        return data

    def _rows(self, column: str, number: int, within: Int[Tensor, "n"]) -> Shaped[Tensor, "n *d"]:
        """Some rows of a chunk: few of one that was checked before are read one by one."""
        shard, chunk = self._places[number]
        if (column, number) not in self._sound or len(within) * FEW > CHUNK:
            rows = self.chunk(column, number)
            self._sound.add((column, number))
            return rows.index_select(0, within)
        width, file = self._widths[column], shard.file(column)
        data = self._folder.read_places(file, ((within + chunk * CHUNK) * width).tolist(), width)
        if data is None:
            raise DamagedFile(f"{file} has become shorter since it was opened: {self._remedy(shard)}")
        return self._tensor(column, data)

    def _checksum(self, shard: Shard, column: str, chunk: int) -> str:
        sums = shard.checksums.get(column, [])
        return sums[chunk] if chunk < len(sums) else ""

    def map_chunk(self, column: str, number: int) -> Shaped[Tensor, "n *d"]:
        """Return the rows of one chunk as the memory-mapped file itself, checked once; elsewhere as `chunk` does.

        Examples:
            ```python
            columns.map_chunk("resid_post.6", 0)
            ```
        """
        rows = self.chunk(column, number)
        if not self._folder.local:
            return rows
        shard, chunk = self._places[number]
        width, start = self._widths[column], chunk * CHUNK
        whole = self._folder.map(shard.file(column))
        return self._tensor(column, whole[start * width : (start + len(rows)) * width])

    def _remedy(self, shard: Shard) -> str:
        return (
            f"shard {shard.name} of the store at {self._folder.url} is lost; remove the files whose names begin "
            f"with '{shard.name}' and harvest with the same arguments, and it alone is made again"
        )

    def _tensor(self, column: str, data: UInt8[np.ndarray, "_"]) -> Shaped[Tensor, "n *d"]:
        dtype, shape = self._kinds[column]
        return torch.from_numpy(data).view(dtype).view(-1, *shape)


def put_rows(held: Shaped[Tensor, "_ *d"], places: Int[Tensor, "n"], rows: Shaped[Tensor, "n *d"]) -> None:
    """Put rows at some places of a tensor: held[places] = rows, on bytes, which numpy copies row by row.

    Examples:
        ```python
        put_rows(torch.zeros(3, 2), torch.tensor([2]), torch.ones(1, 2))
        ```
    """
    if len(rows):
        _row_bytes(held)[places.numpy()] = _row_bytes(rows)


def _row_bytes(rows: Shaped[Tensor, "n *d"]) -> UInt8[np.ndarray, "n _"]:
    return rows.reshape(len(rows), -1).view(torch.uint8).numpy()
