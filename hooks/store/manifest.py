"""What a store says of itself in JSON: how it was made, and the checksums of every shard."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, final

import torch

from hooks.errors import InvalidArgument, MissingFile
from hooks.store.folder import Folder

SCHEMA: Final = 1
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

        Example:
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
        name: with which its files begin; shards are ordered by name.
        rows: how many.
        documents: how many.
        checksums: of each column, xxh3 of every `CHUNK` entries.
    """

    name: str
    rows: int
    documents: int
    checksums: Mapping[str, list[str]]

    def entries(self, column: str) -> int:
        """Return how many numbers or rows a column holds: one per row, or where each document begins and the end.

        Example:
            >>> Shard("00000-000000", rows=3, documents=1, checksums={}).entries("document")
            2
        """
        return self.documents + 1 if column == DOCUMENT else self.rows

    def file(self, column: str) -> str:
        """Return the file of a column.

        Example:
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

    @property
    def data_fingerprint(self) -> str:
        """SHA-256 of the checksums of the token ids and document offsets: equal for equal tokens in equal order."""
        said = [(shard.name, shard.checksums[TOKEN], shard.checksums[DOCUMENT]) for shard in self.shards]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def write(self, folder: Folder) -> None:
        """Write the manifest, which makes the folder a store.

        Example:
            ```python
            Manifest(settings, shards).write(Folder("store"))
            ```
        """
        about = {"schema": SCHEMA, "data_fingerprint": self.data_fingerprint, **asdict(self)}
        folder.write_text(MANIFEST, json.dumps(about, indent=1))

    @staticmethod
    def read(folder: Folder) -> "Manifest":
        """Read the manifest of a store.

        Raises:
            FileNotFoundError: there is no store, or its harvest was not finished.
            ValueError: the manifest is damaged, or of a later schema.

        Example:
            ```python
            Manifest.read(Folder("store")).shards
            ```
        """
        sizes = folder.sizes()
        if MANIFEST not in sizes:
            why = "its harvest was not finished: run it again" if SETTINGS in sizes else "harvest one there first"
            raise MissingFile(f"there is no store at {folder.url}: no {MANIFEST}; {why}")
        about = _parsed(folder, MANIFEST)
        if about.pop("schema", None) != SCHEMA:
            raise InvalidArgument(
                f"the store at {folder.url} is not of schema {SCHEMA}, the one this version reads: update"
            )
        try:
            manifest = Manifest(Settings(**about["settings"]), tuple(Shard(**shard) for shard in about["shards"]))
        except (KeyError, TypeError) as error:
            raise InvalidArgument(_damaged(folder, MANIFEST)) from error
        if manifest.data_fingerprint != about["data_fingerprint"]:
            raise InvalidArgument(_damaged(folder, MANIFEST))
        return manifest


def settle(folder: Folder, settings: Settings) -> None:
    """Write the settings of a harvest down, or compare them with those of the one that began here.

    Raises:
        ValueError: they differ; the message says in what.

    Example:
        ```python
        settle(Folder("store"), settings)
        ```
    """
    if SETTINGS not in folder.sizes():
        folder.write_text(SETTINGS, json.dumps(asdict(settings), indent=1))
        return
    before = Settings(**_parsed(folder, SETTINGS))
    if differ := before.differences(settings):
        raise InvalidArgument(
            f"the harvest at {folder.url} was begun with {differ}: go on with the same, or take a new place"
        )


def finished(folder: Folder, settings: Settings) -> dict[str, Shard]:
    """Return the shards that are whole, by name: recorded, and every file as long as it should be.

    Example:
        ```python
        sorted(finished(Folder("store"), settings))
        ```
    """
    sizes = folder.sizes()
    shards = {} if MANIFEST not in sizes else {shard.name: shard for shard in Manifest.read(folder).shards}
    records = [name for name in sizes if name.endswith(".json") and name not in (MANIFEST, SETTINGS)]
    shards |= {shard.name: shard for shard in (Shard(**_parsed(folder, name)) for name in records)}
    widths = entry_bytes(settings)
    return {
        name: shard
        for name, shard in shards.items()
        if all(sizes.get(shard.file(column)) == shard.entries(column) * widths[column] for column in widths)
    }


def record(folder: Folder, shard: Shard) -> None:
    """Say that a shard is whole.

    Example:
        ```python
        record(Folder("store"), shard)
        ```
    """
    folder.write_text(shard.record, json.dumps(asdict(shard)))


def finish(folder: Folder, settings: Settings, shards: Iterable[Shard]) -> None:
    """Write the one manifest, after which the shards' own records are removed.

    Example:
        ```python
        finish(Folder("store"), settings, finished(Folder("store"), settings).values())
        ```
    """
    manifest = Manifest(settings, tuple(sorted(shards, key=lambda shard: shard.name)))
    manifest.write(folder)
    for shard in manifest.shards:
        folder.remove(shard.record)


def entry_bytes(settings: Settings) -> dict[str, int]:
    """Return the bytes of one entry of each column on disk.

    Example:
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

    Example:
        ```python
        size(settings, rows=50_000, documents=256)
        ```
    """
    widths = entry_bytes(settings)
    blank = Shard("", rows, documents, {})
    return sum(blank.entries(column) * width for column, width in widths.items())


def _parsed(folder: Folder, name: str) -> dict[str, Any]:
    try:
        return json.loads(folder.read_text(name))
    except ValueError as error:
        raise InvalidArgument(_damaged(folder, name)) from error


def _damaged(folder: Folder, name: str) -> str:
    return f"{name} of the store at {folder.url} is damaged: put it back from a copy, or harvest again"
