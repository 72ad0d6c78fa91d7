"""The disk: one atomic writer, checksums, one lock, and readers of other libraries' files that name what is damaged.

A file is written under another name, synced and renamed, so that a reader sees the whole file or the one before.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from uuid import uuid4

import torch
from jaxtyping import Shaped
from torch import Tensor
from xxhash import xxh3_128

from hooks.errors import DamagedFile, InterpError, InvalidArgument, MissingFile, StorageFailed, WrongState

PARTIAL: Final = ".partial"
LOCK: Final = ".lock"
BLOCK: Final = 1 << 24

Record: TypeAlias = dict[str, Any]
"""Of a file: its `bytes`, and their `checksum`."""
Result = TypeVar("Result")


@contextmanager
def _write_partial(whole: Path) -> Iterator[Path]:
    """Give the path to write to until all is there; what the system refuses is a `StorageFailed` that names `whole`."""
    try:
        yield whole.with_name(f".{whole.name}.{uuid4().hex}{PARTIAL}")
    except OSError as error:
        if isinstance(error, InterpError):
            raise
        raise StorageFailed(f"{whole} cannot be written ({error.strerror or error}): give a place that can") from error


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def write_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, which gets its name when the block ends well and its bytes are on the disk.

    Raises:
        StorageFailed: the folder cannot be written to, or the disk is full.

    Examples:
        ```python
        with write_file("page.html") as partial:
            partial.write_text("fog")
        ```
    """
    whole = Path(path)
    with _write_partial(whole) as partial:
        try:
            partial.touch()
            rights = partial.stat().st_mode
            yield partial
            partial.chmod(rights)
            _sync_file(partial)
            os.replace(partial, whole)
            sync_folder(whole.parent)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Examples:
        ```python
        write_text("page.html", "fog")
        ```
    """
    with write_file(path) as partial:
        partial.write_bytes(text.encode())


@contextmanager
def write_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty folder to write to, whose files get their places in `path` when the block ends well.

    A folder that is not there yet, or is empty, appears whole or not at all; in another each file does.

    Raises:
        StorageFailed: it cannot be written to, or the disk is full.

    Examples:
        ```python
        with write_folder("exported") as partial:
            hf.save_pretrained(partial)
        ```
    """
    whole = Path(path)
    with _write_partial(whole) as partial:
        try:
            partial.mkdir(parents=True)
            yield partial
            files = [file for file in partial.rglob("*") if file.is_file()]
            for file in files:
                _sync_file(file)
            if not whole.exists() or not any(whole.iterdir()):
                os.replace(partial, whole)
            for file in files if partial.exists() else ():
                place = whole / file.relative_to(partial)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
            sync_folder(whole.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def check_new_folder(path: str | Path) -> None:
    """Refuse a folder that holds something, which what is written would mix with.

    Raises:
        InvalidArgument: it holds something, or is a file.

    Examples:
        ```python
        check_new_folder("exported")
        ```
    """
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidArgument(f"{path} is there already and is no empty folder: name one to be made")


def append_text(path: str | Path, text: str) -> None:
    """Add lines to the end of a log; where its last line was torn, they begin on a new one.

    Raises:
        StorageFailed: it cannot be written to, or the disk is full.

    Examples:
        ```python
        append_text("curve.jsonl", "{}" + chr(10))
        ```
    """
    try:
        with Path(path).open("a+b") as file:
            if size := file.seek(0, os.SEEK_END):
                file.seek(size - 1)
                text = text if file.read(1) == b"\n" else f"\n{text}"
            file.write(text.encode())
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written ({error.strerror or error}): give a place that can") from error


def sync_folder(path: str | Path) -> None:
    """Make renames in a folder outlast a power cut, where folders can be opened.

    Examples:
        ```python
        sync_folder("store")
        ```
    """
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(path, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def lock(folder: str | Path, what: str) -> Iterator[None]:
    """Hold a folder for one writer while the block lasts; the system lets go of it when the process dies.

    A folder that was not there before, and into which a block that ends in an error wrote nothing, is removed again.

    Raises:
        WrongState: another writer holds it.
        StorageFailed: the folder cannot be written to.

    Examples:
        ```python
        with lock("store", "harvest"):
            ...
        ```
    """
    from filelock import FileLock, Timeout

    made = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        held = FileLock(Path(folder) / LOCK)
        held.acquire(timeout=0)
    except Timeout as error:
        raise WrongState(f"another {what} is writing to {folder}: wait until it ends, or take a new place") from error
    except OSError as error:
        raise StorageFailed(f"{folder} cannot be written ({error.strerror or error}): give a place that can") from error
    try:
        yield
    except BaseException:
        if made and [file.name for file in Path(folder).iterdir()] == [LOCK]:
            _remove(Path(folder) / LOCK, made)
        raise
    finally:
        held.release()


def _remove(file: Path, folders: list[Path]) -> None:
    """Remove a file, and the folders that are empty without it; what cannot be removed stays."""
    with suppress(OSError):
        file.unlink()
        for folder in folders:
            folder.rmdir()


def checksum(*parts: str | bytes | memoryview | Shaped[Tensor, "..."]) -> str:
    """Return the 128 bits of xxh3 over texts, bytes, and tensors with their types and shapes.

    Examples:
        >>> checksum("fog", torch.zeros(2)) == checksum("fog", torch.zeros(1, 2))
        False
    """
    running = xxh3_128()
    for part in parts:
        if isinstance(part, Tensor):
            running.update(f"{part.dtype}{tuple(part.shape)}".encode())
            for piece in part.detach().reshape(-1).split(BLOCK):
                running.update(piece.cpu().contiguous().view(torch.uint8).numpy().data)
        else:
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            running.update(f"{len(data)} ".encode())
            running.update(data)
    return running.hexdigest()


def record_file(path: str | Path) -> Record:
    """Return the size of a file and the checksum of its bytes.

    Examples:
        ```python
        record_file("weights.safetensors")
        ```
    """
    running, size = xxh3_128(), 0
    with Path(path).open("rb") as file:
        while piece := file.read(BLOCK):
            running.update(piece)
            size += len(piece)
    return {"bytes": size, "checksum": running.hexdigest()}


def check_record(path: str | Path, recorded: Record, cure: str) -> None:
    """Raise where a file is not the one that was recorded.

    Raises:
        DamagedFile: it is missing, of another length, or changed.

    Examples:
        ```python
        check_record("weights.safetensors", record_file("weights.safetensors"), "save it again")
        ```
    """
    if not Path(path).is_file():
        raise DamagedFile(f"{path} is missing: {cure}")
    if (size := Path(path).stat().st_size) != recorded["bytes"]:
        raise DamagedFile(f"{path} is {size:,} bytes long, where {recorded['bytes']:,} were written: {cure}")
    if record_file(path) != recorded:
        raise DamagedFile(f"{path} is not as it was written, its checksum is another: {cure}")


def read_bytes(path: str | Path) -> bytes:
    """Read a whole file.

    Raises:
        MissingFile: there is no such file.

    Examples:
        ```python
        read_bytes("cfg.json")
        ```
    """
    if not Path(path).is_file():
        raise MissingFile(f"there is no file {str(path)!r}: check its name and folder")
    return Path(path).read_bytes()


def read_pickled(path: str | Path, cure: str) -> Any:
    """Read a file that torch wrote: tensors, numbers, texts and containers of them, and no code.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn or changed, by the checksums of its archive, or holds something else.

    Examples:
        ```python
        read_pickled("ae.pt", "download it again")
        ```
    """
    import zipfile

    if not Path(path).is_file():
        raise MissingFile(f"there is no file {str(path)!r}: check its name and folder")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if (bad := archive.testzip()) is not None:
                    raise DamagedFile(f"{path} is damaged, the checksum of '{bad}' in it is another: {cure}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except InterpError:
        raise
    except Exception as error:  # bytes that are no pickle fail in as many ways as there are bytes
        said = str(error).splitlines() or [type(error).__name__]
        raise DamagedFile(f"{path} is no file of tensors ({said[0]}): {cure}") from error


def read_foreign(path: object, cure: str, make: Callable[[], Result]) -> Result:
    """Make an object of a file of another library; what is raised from within Python or torch is damage of the file.

    Raises:
        DamagedFile: naming the file and what was raised. Errors of this library are raised as they are.

    Examples:
        ```python
        read_foreign("cfg.json", "download it again", lambda: config["k"])
        ```
    """
    try:
        return make()
    except InterpError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DamagedFile(f"{path} is not as its library writes it ({said}): {cure}") from error


def read_state(path: str | Path, fields: Collection[str], cure: str) -> dict[str, Any]:
    """Read the state of a training that torch wrote: by name, these at least.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn or changed, or lacks one of them.

    Examples:
        ```python
        read_state("state.pt", ("model", "step"), "remove it to begin again")
        ```
    """
    state = read_pickled(path, cure)
    if not isinstance(state, dict):
        raise DamagedFile(f"{path} is no state of a training, it holds a {type(state).__name__}: {cure}")
    if lost := sorted(set(fields) - state.keys()):
        raise DamagedFile(f"{path} is no state of a training, it holds no {', '.join(lost)}: {cure}")
    return state


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read a log of one JSON object for each line; a last line that is torn, as a kill leaves it, is left out.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: another line is no JSON object; the message names it.

    Examples:
        ```python
        read_log("log.jsonl")[-1]["loss"]
        ```
    """
    lines, found = read_bytes(path).split(b"\n"), []
    for number, line in enumerate(lines[:-1], 1):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise DamagedFile(f"line {number} of {path} was changed: remove it, or put the file back from a copy")
        found.append(said)
    return found
