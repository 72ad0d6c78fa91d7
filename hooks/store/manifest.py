"""What a store says of itself in JSON: how it was made, and the checksums of every shard."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, final

import torch
from annotated_types import Ge

from hooks.errors import DamagedFile, MissingFile, WrongModel
from hooks.json_file import Kind, json_content, json_text, parse_contents
from hooks.store.folder import Folder

CHUNK: Final = 8192
"""Rows under one checksum; also what is read at once."""
MANIFEST: Final = "manifest.json"
SETTINGS: Final = "settings.json"
TOKEN: Final = "token"
DOCUMENT: Final = "document"
DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@final
@dataclass(frozen=True)
class Settings:
    """How a store is made; the same settings on the same data give the same store.

    Attributes:
        model: its name.
        fingerprint: of the model.
        sites: the shape of one row of each site.
        same_as: sites that are another one's very tensor, which is stored once.
        dtype: of the numbers on disk.
        packing: how documents were laid out for the model.
        at: which tokens became rows.
        documents_per_shard: documents of a shard; the last may have fewer.
    """

    model: str
    fingerprint: str
    sites: Mapping[str, list[int]]
    same_as: Mapping[str, str]
    dtype: str
    packing: str
    at: str
    documents_per_shard: int

    def differences(self, other: "Settings") -> str:
        """Say in which fields other settings differ; empty where they agree. The model's name does not count.

        Examples:
            ```python
            manifest.settings.differences(others)
            ```
        """
        mine, theirs = asdict(self), asdict(other)
        return ", ".join(
            f"{name} {mine[name]!r} and not {theirs[name]!r}"
            for name in mine
            if name != "model" and mine[name] != theirs[name]
        )


@final
@dataclass(frozen=True)
class Shard:
    """One shard: the rows of some consecutive documents.

    Attributes:
        name: what the names of its files begin with; shards are ordered by name.
        rows: how many.
        documents: how many.
        checksums: of each column, xxh3 of every `CHUNK` entries.
        read: the checksum of its documents as they were read: texts or token ids, in order.
    """

    name: str
    rows: Annotated[int, Ge(0)]
    documents: Annotated[int, Ge(0)]
    checksums: Mapping[str, list[str]]
    read: str = ""

    def entries(self, column: str) -> int:
        """Return how many numbers or rows a column holds: one per row, or where each document begins and the end.

        Examples:
            >>> Shard("00000-000000", rows=3, documents=1, checksums={}).entries("document")
            2
        """
        return self.documents + 1 if column == DOCUMENT else self.rows

    def file(self, column: str) -> str:
        """Return the file of a column.

        Examples:
            >>> Shard("00000-000000", 3, 1, {}).file("token")
            '00000-000000.token.bin'
        """
        return f"{self.name}.{column}.bin"

    @property
    def record(self) -> str:
        """The file that says the shard is whole, until the manifest does."""
        return f"{self.name}.json"


@final
@dataclass(frozen=True)
class Manifest:
    """A whole store: its settings and its shards in order."""

    settings: Settings
    shards: tuple[Shard, ...]
    data_fingerprint: str

    @staticmethod
    def of(settings: Settings, shards: Iterable[Shard]) -> "Manifest":
        """Return the manifest of shards, in order.

        Examples:
            ```python
            Manifest.of(settings, shards).write(Folder("store"))
            ```
        """
        ordered = tuple(sorted(shards, key=lambda shard: shard.name))
        return Manifest(settings, ordered, Manifest._data_fingerprint(ordered))

    @staticmethod
    def _data_fingerprint(shards: Iterable[Shard]) -> str:
        """SHA-256 of the checksums of the token ids and document offsets: equal for equal tokens in equal order."""
        said = [(shard.name, shard.checksums[TOKEN], shard.checksums[DOCUMENT]) for shard in shards]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def write(self, folder: Folder) -> None:
        """Write the manifest, which makes the folder a store.

        Examples:
            ```python
            Manifest.of(settings, shards).write(Folder("store"))
            ```
        """
        folder.write_text(MANIFEST, json_text(WHOLE, asdict(self)))

    @staticmethod
    def read(folder: Folder) -> "Manifest":
        """Read the manifest of a store.

        Raises:
            MissingFile: there is no store, or its harvest was not finished.
            DamagedFile: the manifest is torn, changed, or of another format.

        Examples:
            ```python
            Manifest.read(Folder("store")).shards
            ```
        """
        sizes = folder.sizes()
        if MANIFEST not in sizes:
            why = "its harvest was not finished: run it again" if SETTINGS in sizes else "harvest one there first"
            raise MissingFile(f"there is no store at {folder.url}: no {MANIFEST}; {why}")
        about, where = _parse(folder, MANIFEST, WHOLE), f"{MANIFEST} of the store at {folder.url}"
        settings = Settings(**about["settings"])
        manifest = parse_contents(
            where, WHOLE, lambda: Manifest.of(settings, [Shard(**shard) for shard in about["shards"]])
        )
        parse_contents(where, WHOLE, lambda: entry_bytes(settings))
        return manifest


WHOLE: Final = Kind("hooks.store", "store", "harvest", Manifest)
BEGUN: Final = Kind("hooks.store.settings", "settings of a store", "harvest", Settings)
ONE: Final = Kind("hooks.store.shard", "record of a shard", "harvest", Shard)


def settle(folder: Folder, settings: Settings) -> None:
    """Write the settings of a harvest down, or compare them with those of the one that began here.

    Raises:
        WrongModel: they differ; the message says in what.
        DamagedFile: what began here cannot be read.

    Examples:
        ```python
        settle(Folder("store"), settings)
        ```
    """
    if SETTINGS not in folder.sizes():
        folder.write_text(SETTINGS, json_text(BEGUN, asdict(settings)))
        return
    check_settings(folder, Settings(**_parse(folder, SETTINGS, BEGUN)), settings)


def check_settings(folder: Folder, before: Settings, settings: Settings) -> None:
    """Raise where a harvest is to go on with other settings than those it was begun with.

    Raises:
        WrongModel: they differ; the message says in what.

    Examples:
        ```python
        check_settings(folder, Manifest.read(folder).settings, settings)
        ```
    """
    if differ := before.differences(settings):
        raise WrongModel(
            f"the harvest at {folder.url} was begun with {differ}: go on with the same, or take a new place"
        )


def check_notes(folder: Folder, manifest: Manifest) -> None:
    """Raise where the settings written when a harvest began, or a shard's own record, say other than the manifest.

    Raises:
        DamagedFile: one is missing, torn or changed; the message names it.

    Examples:
        ```python
        check_notes(Folder("store"), Manifest.read(Folder("store")))
        ```
    """
    sizes, cure = folder.sizes(), "harvest with the same arguments, and it is written again"
    if SETTINGS not in sizes:
        raise DamagedFile(f"{SETTINGS} of the store at {folder.url} is missing: {cure}")
    if differ := manifest.settings.differences(Settings(**_parse(folder, SETTINGS, BEGUN))):
        raise DamagedFile(
            f"{SETTINGS} of the store at {folder.url} does not say what {MANIFEST} says ({differ}): remove it, {cure}"
        )
    shards = {shard.record: shard for shard in manifest.shards}
    for name in shards.keys() & sizes.keys():
        if Shard(**_parse(folder, name, ONE)) != shards[name]:
            raise DamagedFile(f"{name} of the store at {folder.url} does not say what {MANIFEST} says: remove it")


def find_whole_shards(folder: Folder, settings: Settings) -> dict[str, Shard]:
    """Return the shards that are whole, by name: recorded, and every file as long as it should be.

    Examples:
        ```python
        sorted(find_whole_shards(Folder("store"), settings))
        ```
    """
    sizes = folder.sizes()
    shards = {} if MANIFEST not in sizes else {shard.name: shard for shard in Manifest.read(folder).shards}
    records = [name for name in sizes if name.endswith(".json") and name not in (MANIFEST, SETTINGS)]
    shards |= {shard.name: shard for shard in (Shard(**_parse(folder, name, ONE)) for name in records)}
    widths = entry_bytes(settings)
    return {
        name: shard
        for name, shard in shards.items()
        if all(sizes.get(shard.file(column)) == shard.entries(column) * widths[column] for column in widths)
    }


def record_shard(folder: Folder, shard: Shard) -> None:
    """Say that a shard is whole.

    Examples:
        ```python
        record_shard(Folder("store"), shard)
        ```
    """
    folder.write_text(shard.record, json_text(ONE, asdict(shard)))


def finish(folder: Folder, settings: Settings, shards: Iterable[Shard]) -> None:
    """Write the one manifest, after which the shards' own records are removed.

    Examples:
        ```python
        finish(Folder("store"), settings, find_whole_shards(Folder("store"), settings).values())
        ```
    """
    manifest = Manifest.of(settings, shards)
    manifest.write(folder)
    for shard in manifest.shards:
        folder.remove(shard.record)


def entry_bytes(settings: Settings) -> dict[str, int]:
    """Return the bytes of one entry of each column on disk.

    Examples:
        ```python
        sum(entry_bytes(settings).values())
        ```
    """
    size = DTYPES[settings.dtype].itemsize
    stored = {site: shape for site, shape in settings.sites.items() if site not in settings.same_as}
    widths = {site: size * int(torch.Size(shape).numel()) for site, shape in stored.items()}
    return {**widths, TOKEN: 4, DOCUMENT: 8}


def size(settings: Settings, rows: int, documents: int) -> int:
    """Return the bytes of a shard.

    Examples:
        ```python
        size(settings, rows=50_000, documents=256)
        ```
    """
    widths = entry_bytes(settings)
    blank = Shard("", rows, documents, {})
    return sum(blank.entries(column) * width for column, width in widths.items())


def _parse(folder: Folder, name: str, kind: Kind) -> dict[str, Any]:
    return json_content(kind, folder.read_bytes(name), f"{name} of the store at {folder.url}")
