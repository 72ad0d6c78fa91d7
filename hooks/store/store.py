"""The store: activations of a data set on disk, every number checked against its checksum before it is given out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from hooks.border import Natural
from hooks.errors import InvalidType, OutOfRange, UnknownName, nearest
from hooks.json_file import parse_contents
from hooks.site import Site, find_sites
from hooks.store.columns import Columns
from hooks.store.folder import Folder
from hooks.store.manifest import DTYPES, TOKEN, WHOLE, Manifest, check_notes
from hooks.summary import summarise

Asked: TypeAlias = Site | str | Sequence[Site | str]
"""One or more sites."""


@final
@dataclass(frozen=True, eq=False)
class StoredRows:
    """Some rows of a store.

    Attributes:
        values: the rows of each site, in the dtype on disk.
        ids: the token each row belongs to.
        number: which row of the store each is.

    Examples:
        ```python
        store[torch.tensor([5, 3])][resid_post[6]]
        ```
    """

    values: Mapping[Site, Float[Tensor, "n *d"]]
    ids: Int[Tensor, "n"]
    number: Int[Tensor, "n"]

    __repr__ = summarise

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, site: Site | str) -> Float[Tensor, "n *d"]:
        site = Site.parse(site) if isinstance(site, str) else site
        if site not in self.values:
            near = nearest(str(site), map(str, self.values))
            raise UnknownName(f"{site} was not read from the store; the nearest that was: {near}")
        return self.values[site]


@final
class ActivationStore:
    """Activations of a data set at some sites, one row for each token, made by `harvest`.

    Rows are in the order of the data. Opening it is free, and memory holds only what
    is read.

    Attributes:
        manifest: how it was made, and its shards.
        sites: what it holds.
        dtype: of the numbers on disk.
        columns: its columns, chunk by chunk.

    Raises:
        MissingFile: there is no finished store.
        DamagedFile: its manifest is damaged, or a shard is missing or truncated; later, when it is read, a shard whose
            checksum is wrong.

    Examples:
        ```python
        store = ActivationStore("store")
        store[torch.tensor([5, 3])][resid_post[6]]
        ```
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._folder = Folder(url)
        self.manifest = Manifest.read(self._folder)
        named = self.manifest.settings.sites
        self.sites = parse_contents(
            f"the store at {self.url}", WHOLE, lambda: tuple(Site.parse(name) for name in named)
        )
        self.dtype = DTYPES[self.manifest.settings.dtype]
        self.columns = Columns(self._folder, self.manifest)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return ActivationStore, (self.url,)

    def __len__(self) -> int:
        return int(self.columns.starts[-1])

    def __repr__(self) -> str:
        named = ", ".join(map(str, self.sites))
        return f"ActivationStore({self.url!r}, {len(self):,} tokens of {self.model_name} at {named}, {self.dtype})"

    @property
    def model_name(self) -> str:
        """The model it was harvested from."""
        return self.manifest.settings.model

    @property
    def fingerprint(self) -> str:
        """Of that model."""
        return self.manifest.settings.fingerprint

    @property
    def documents(self) -> Int[Tensor, "n"]:
        """The row at which each document begins, and at the end the number of rows."""
        return self.columns.offsets()

    def __getitem__(self, rows: int | slice | Sequence[int] | Shaped[Tensor, "n"]) -> StoredRows:
        """Return rows of all sites by number, or those that a mask of all rows marks.

        Raises:
            OutOfRange: a row that is not there, or a mask of another length.
            InvalidType: numbers that are not whole.

        Examples:
            ```python
            store[torch.randint(len(store), (4096,))]
            ```
        """
        number = self._numbers(rows)
        if len(number) and not 0 <= int(number.min()) <= int(number.max()) < len(self):
            raise OutOfRange(
                f"rows {int(number.min())} to {int(number.max())} were asked for, and the store at {self.url} "
                f"has rows 0 to {len(self) - 1}"
            )
        values = {site: self.columns.gather(self._column(site), number) for site in self.sites}
        return StoredRows(values, self.columns.gather(TOKEN, number), number)

    def only(self, sites: Asked) -> tuple[Site, ...]:
        """Return the sites asked for, each checked against what the store holds and named once.

        Raises:
            UnknownName: the store does not hold one of them.

        Examples:
            ```python
            store.only("resid_post.6")
            ```
        """
        found = find_sites(sites, self.sites)
        for site in found:
            if site not in self.sites:
                near = nearest(str(site), map(str, self.sites))
                raise UnknownName(f"the store at {self.url} does not hold {site}; the nearest it holds: {near}")
        return found

    def chunk(self, number: Natural, sites: Asked) -> StoredRows:
        """Return one chunk of consecutive rows, at most 8192.

        Examples:
            ```python
            store.chunk(0, resid_post[6])
            ```
        """
        values = {site: self.columns.chunk(self._column(site), number) for site in self.only(sites)}
        first, end = self.columns.starts[number : number + 2].tolist()
        return StoredRows(values, self.columns.chunk(TOKEN, number), torch.arange(first, end))

    def map_chunk(self, number: Natural, site: Site) -> Float[Tensor, "n *d"]:
        """Return the rows of a chunk as the memory-mapped file of a local store, which must not be truncated meanwhile.

        Examples:
            ```python
            store.map_chunk(0, resid_post[6])
            ```
        """
        return self.columns.map_chunk(self._column(site), number)

    def chunks(self, sites: Asked) -> Iterator[StoredRows]:
        """Yield all rows of some sites in order, chunk by chunk.

        Examples:
            ```python
            for rows in store.chunks(resid_post[6]):
                rows[resid_post[6]].mean(0)
            ```
        """
        wanted = self.only(sites)
        return (self.chunk(number, wanted) for number in range(len(self.columns)))

    def verify(self) -> None:
        """Read the whole store, all its files, and compare every checksum.

        Raises:
            DamagedFile: a shard, or what is said of the harvest, is missing, truncated or corrupted; the message names
                it.

        Examples:
            ```python
            store.verify()
            ```
        """
        check_notes(self._folder, Manifest.read(self._folder))
        self.columns.verify()

    def _numbers(self, rows: int | slice | Sequence[int] | Shaped[Tensor, "n"]) -> Int[Tensor, "_"]:
        if isinstance(rows, slice):
            return torch.from_numpy(np.arange(*rows.indices(len(self))))
        asked = torch.as_tensor(rows).reshape(-1)
        if asked.dtype == torch.bool:
            if len(asked) != len(self):
                raise OutOfRange(
                    f"a mask marks all {len(self)} rows of the store at {self.url} or leaves them out, got {len(asked)}"
                )
            return asked.nonzero()[:, 0]
        if len(asked) and (asked.is_floating_point() or asked.is_complex()):
            raise InvalidType(
                f"rows of a store are named by whole numbers or a bool mask, got {asked.dtype}: use .long()"
            )
        return asked.long()

    def _column(self, site: Site) -> str:
        """The column a site is in: its own, or that of the site whose tensor it is."""
        return self.manifest.settings.same_as.get(str(site), str(site))
