"""A folder anywhere fsspec reaches, whose files appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, Final, final

import numpy as np
from jaxtyping import UInt8

from hooks.disk import PARTIAL, lock, sync_folder
from hooks.errors import InvalidArgument, MissingExtra, NotReachable

CLIENTS: Final = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests", "urllib3")
"""Packages that speak to an object store, and whose errors are no `OSError`."""


@contextmanager
def _explain_client(url: str) -> Iterator[None]:
    """Say of what a client of an object store raises that the store does not answer; leave all else as it is."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        raise _not_answering(url, error) from error


def _not_answering(url: str, error: Exception) -> NotReachable:
    return NotReachable(
        f"'{url}' does not answer ({' '.join(str(error).split())[:200]}): check the address and the network, or "
        "give a folder of this machine"
    )


@contextmanager
def _explain_failure(url: str) -> Iterator[None]:
    """Say of whatever a package raises on the way to a URL what it means, and what to do."""
    try:
        with _explain_client(url):
            yield
    except ImportError as error:
        raise MissingExtra(
            f"'{url}' is reached by a package that is not installed ({error}): pip install it, or give a folder of "
            "this machine"
        ) from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InvalidArgument(
            f"'{url}' is no URL that fsspec can reach ({error}): give a folder, or a URL such as s3://bucket/store"
        ) from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidArgument(
            f"'{url}' names no folder and no archive that is there ({error}): give a folder, or a URL such as "
            "s3://bucket/store"
        ) from error
    except NotReachable:
        raise
    except OSError as error:
        raise _not_answering(url, error) from error


@contextmanager
def _give_up_on_error(file: Any) -> Iterator[IO[bytes]]:
    """Close a file at the end of the block; on an error leave it without a name, and never try to send it again.

    A file of fsspec that is only forgotten sends what it holds when it is collected: after a lost connection a process
    would then wait at its end, for ever.
    """
    try:
        yield file
        file.close()
    except BaseException as error:
        if not (isinstance(error, OSError) or type(error).__module__.partition(".")[0] in CLIENTS):
            with suppress(Exception):
                file.discard()
        with suppress(AttributeError):  # a file in memory says itself whether it is closed
            file.closed = True
        raise


@final
class Folder:
    """A local folder, or one at an fsspec URL such as `memory://store` or `s3://bucket/store`.

    Attributes:
        url: as it was given.
        local: whether it is on a disk of this machine.

    Raises:
        MissingExtra: the package that reaches the URL is not installed.
        InvalidArgument: a URL of no known kind, or of an archive that is not there.
        NotReachable: nothing answers there.

    Examples:
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
        with _explain_failure(self.url):
            self._fs, self._path = url_to_fs(os.path.expanduser(self.url))
        self.local = isinstance(self._fs, LocalFileSystem)

    def sizes(self) -> dict[str, int]:
        """Return the files here and their bytes; nothing when the folder is not there.

        Examples:
            ```python
            Folder("store").sizes().get("manifest.json")
            ```
        """
        with nullcontext() if self.local else _explain_failure(self.url):
            self._fs.invalidate_cache()
            if not self._fs.isdir(self._path):
                return {}
            listed = self._fs.ls(self._path, detail=True)
        return {entry["name"].rpartition("/")[2]: int(entry["size"] or 0) for entry in listed}

    def free(self) -> int | None:
        """Return the free bytes of the disk the folder is or would be on; None where nobody knows.

        Examples:
            ```python
            Folder("store").free()
            ```
        """
        if not self.local:
            return None
        here = Path(self._path).absolute()
        return shutil.disk_usage(next(place for place in (here, *here.parents) if place.exists())).free

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one writer while the block lasts; the system lets go of it when the process dies.

        An object store cannot be held; nothing is done there.

        Raises:
            WrongState: another writer holds it.
            StorageFailed: it cannot be written to.

        Examples:
            ```python
            with Folder("store").lock():
                ...
            ```
        """
        with lock(self._path, "harvest") if self.local else nullcontext():
            yield

    def read_bytes(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            MissingFile: it is not there.

        Examples:
            ```python
            Folder("store").read_bytes("manifest.json")
            ```
        """
        with _explain_client(self.url):
            return self._fs.cat_file(self._at(name))

    def read_text(self, name: str) -> str:
        """Return the text of a file.

        Raises:
            MissingFile: it is not there.

        Examples:
            ```python
            Folder("store").read_text("manifest.json")
            ```
        """
        return self.read_bytes(name).decode()

    def write_text(self, name: str, text: str) -> None:
        """Write a text file that is there whole or not at all, after all files written before it.

        Examples:
            ```python
            Folder("store").write_text("note", "fog")
            ```
        """
        with self.open_to_write(name) as file:
            file.write(text.encode())
        if self.local:
            sync_folder(self._path)

    @contextmanager
    def open_to_write(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file that gets its name when the block ends well, and whose bytes are on the disk by then.

        Locally it is written under another name, synced and renamed. Elsewhere closing a file is what makes it appear.

        Examples:
            ```python
            with Folder("store").open_to_write("rows.bin") as file:
                file.write(bytes(8))
            ```
        """
        target = self._at(name)
        if not self.local:
            with _explain_failure(self.url):
                self._fs.makedirs(self._path, exist_ok=True)
                opened = self._fs.open(target, "wb")
            with _explain_client(self.url), _give_up_on_error(opened) as file:
                yield file
            return
        self._fs.makedirs(self._path, exist_ok=True)
        with open(target + PARTIAL, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(target + PARTIAL, target)

    def read(self, name: str, start: int, stop: int) -> UInt8[np.ndarray, "_"]:
        """Return bytes `start` to `stop` of a file, a copy; fewer where the file ends before.

        A local file is read and not mapped: a mapped file that is truncated meanwhile kills the process that reads it.

        Examples:
            ```python
            Folder("store").read("rows.bin", 0, 8)
            ```
        """
        if not self.local:
            with _explain_client(self.url):
                return np.frombuffer(bytearray(self._fs.cat_file(self._at(name), start=start, end=stop)), np.uint8)
        data, done = np.empty(max(0, stop - start), np.uint8), 0
        with open(self._at(name), "rb", buffering=0) as file:
            file.seek(start)
            while got := file.readinto(data[done:].data):
                done += got
        return data[:done]

    def read_places(self, name: str, starts: Sequence[int], width: int) -> UInt8[np.ndarray, "_"] | None:
        """Return `width` bytes from each place of a file, end to end; None where the file ends before one of them.

        Examples:
            ```python
            Folder("store").read_places("rows.bin", [0, 64], 8)
            ```
        """
        if not self.local:
            with _explain_client(self.url):
                parts = [self._fs.cat_file(self._at(name), start=start, end=start + width) for start in starts]
        else:
            with open(self._at(name), "rb") as file:
                parts = [os.pread(file.fileno(), width, start) for start in starts]
        whole = b"".join(parts)
        return np.frombuffer(bytearray(whole), np.uint8) if len(whole) == width * len(starts) else None

    def map(self, name: str) -> UInt8[np.ndarray, "_"]:
        """Return a local file mapped into memory, for what cannot be held there; it must not be truncated meanwhile.

        Examples:
            ```python
            Folder("store").map("rows.bin")
            ```
        """
        path = self._at(name)
        return np.memmap(path, np.uint8, "c") if os.path.getsize(path) else np.empty(0, np.uint8)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error.

        Examples:
            ```python
            Folder("store").remove("note")
            ```
        """
        with _explain_client(self.url):
            if self._fs.exists(self._at(name)):
                self._fs.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"
