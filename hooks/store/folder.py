"""A folder anywhere fsspec reaches, whose files appear whole or not at all."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, final

import numpy as np
from jaxtyping import UInt8

from hooks.errors import WrongState

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial"


@final
class Folder:
    """A local folder, or one at an fsspec URL such as `memory://store` or `s3://bucket/store`.

    Attributes:
        url: as it was given.
        local: whether it is on a disk of this machine, where files can be memory-mapped.

    Example:
        ```python
        folder = Folder("memory://store")
        folder.write_text("note", "fog")
        folder.read_text("note")
        ```
    """

    def __init__(self, url: str | Path) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.url = str(url)
        self._fs, self._path = url_to_fs(os.path.expanduser(self.url))
        self.local = isinstance(self._fs, LocalFileSystem)
        self._mapped = lru_cache(maxsize=4096)(self._map)

    def sizes(self) -> dict[str, int]:
        """Return the files here and their bytes; nothing when the folder is not there.

        Example:
            ```python
            Folder("store").sizes().get("manifest.json")
            ```
        """
        self._fs.invalidate_cache()
        if not self._fs.isdir(self._path):
            return {}
        listed = self._fs.ls(self._path, detail=True)
        return {entry["name"].rsplit("/", 1)[-1]: int(entry["size"] or 0) for entry in listed}

    def free(self) -> int | None:
        """Return the free bytes of the disk the folder is or would be on; None where nobody knows.

        Example:
            ```python
            Folder("store").free()
            ```
        """
        if not self.local:
            return None
        here = Path(self._path).absolute()
        return shutil.disk_usage(next(place for place in (here, *here.parents) if place.exists())).free

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one writer while the block lasts; the system lets go of it when the process dies.

        An object store cannot be held, nor a folder on Windows; nothing is done there.

        Raises:
            RuntimeError: another writer holds it.

        Example:
            ```python
            with Folder("store").held():
                ...
            ```
        """
        if not self.local or sys.platform == "win32":
            yield
            return
        self._fs.makedirs(self._path, exist_ok=True)
        handle = os.open(self._path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WrongState(
                    f"another harvest is writing to {self.url}: wait until it ends, or take a new place"
                ) from error
            yield
        finally:
            os.close(handle)

    def read_text(self, name: str) -> str:
        """Return the text of a file.

        Raises:
            FileNotFoundError: it is not there.

        Example:
            ```python
            Folder("store").read_text("manifest.json")
            ```
        """
        return self._fs.cat_file(self._at(name)).decode()

    def write_text(self, name: str, text: str) -> None:
        """Write a text file that is there whole or not at all, after all files written before it.

        Example:
            ```python
            Folder("store").write_text("note", "fog")
            ```
        """
        with self.writing(name) as file:
            file.write(text.encode())
        if self.local:
            _sync_folder(self._path)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file that gets its name when the block ends well, and whose bytes are on the disk by then.

        Locally it is written under another name, synced and renamed. Elsewhere closing a file is what makes it appear.

        Example:
            ```python
            with Folder("store").writing("rows.bin") as file:
                file.write(bytes(8))
            ```
        """
        self._fs.makedirs(self._path, exist_ok=True)
        target = self._at(name)
        if not self.local:
            with self._fs.open(target, "wb") as file:
                yield file
            return
        with open(target + PARTIAL, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(target + PARTIAL, target)

    def read(self, name: str, start: int, stop: int) -> UInt8[np.ndarray, "_"]:
        """Return bytes `start` to `stop` of a file: locally a view of the memory-mapped file, elsewhere a copy.

        Writing to the view leaves the file as it is.

        Example:
            ```python
            Folder("store").read("rows.bin", 0, 8)
            ```
        """
        if self.local:
            return self._mapped(name)[start:stop]
        return np.frombuffer(bytearray(self._fs.cat_file(self._at(name), start, stop)), np.uint8)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error.

        Example:
            ```python
            Folder("store").remove("note")
            ```
        """
        if self._fs.exists(self._at(name)):
            self._fs.rm_file(self._at(name))

    def _map(self, name: str) -> UInt8[np.ndarray, "_"]:
        path = self._at(name)
        return np.memmap(path, np.uint8, "c") if os.path.getsize(path) else np.empty(0, np.uint8)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"


def _sync_folder(path: str) -> None:
    """Make renames outlast a power cut, where folders can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        handle: Any = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
