"""What is kept on disk: one atomic writer, one reader that checks all of a file, one lock.

A file of this library says in its header of which kind and format it is and has a checksum of all of it. It is written
under another name, synced and renamed, so that a reader sees the whole file or the one before. What is torn, changed,
of another kind or lacks a field is a `DamagedFile`, which names the file and the cure.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, final
from uuid import uuid4

import torch
from jaxtyping import Shaped
from torch import Tensor
from xxhash import xxh3_128

from hooks.errors import DamagedFile, InterpError, MissingFile, StorageFailed, WrongState

FORMAT: Final = 2
PARTIAL: Final = ".partial"
LOCK: Final = ".lock"
BLOCK: Final = 1 << 24

Record: TypeAlias = dict[str, Any]
"""Of a file: its `bytes`, and their `checksum`."""
Result = TypeVar("Result")


@final
@dataclass(frozen=True)
class Kind:
    """One kind of file that is kept.

    Attributes:
        name: in the header.
        holds: what it holds, for errors.
        writer: what writes such files, for errors.
        fields: a dataclass or `typing_extensions.TypedDict` of what is said there.
    """

    name: str
    holds: str
    writer: str
    fields: Any

    def check(self, content: object, where: object) -> None:
        """Raise where a field is missing or of another type.

        Raises:
            DamagedFile: naming the file and the field.

        Examples:
            ```python
            Kind("note", "note", "write_note", Note).check({"text": "fog"}, "note.json")
            ```
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            TypeAdapter(self.fields).validate_json(json.dumps(content), strict=True)
        except (ValidationError, RecursionError) as error:
            raise DamagedFile(f"{where} holds no {self.holds} ({_first(error)}): {self.cure}") from error

    @property
    def cure(self) -> str:
        """What to do about a damaged file."""
        return f"put it back from a copy, or write it again by {self.writer}"

    @property
    def expected(self) -> str:
        """What to give in place of a file of another kind."""
        return f"expected a file written by {self.writer}"


def _first(error: Exception) -> str:
    lines = str(error).splitlines()
    return ", ".join(line.strip() for line in lines[1:3]) or lines[0]


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
    partial = whole.with_name(f".{whole.name}.{uuid4().hex}{PARTIAL}")
    try:
        partial.touch()
        rights = partial.stat().st_mode
        yield partial
        partial.chmod(rights)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, whole)
        sync_folder(whole.parent)
    except OSError as error:
        if isinstance(error, InterpError):
            raise
        raise StorageFailed(f"{whole} cannot be written ({error.strerror or error}): give a place that can") from error
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
    partial = whole.with_name(f".{whole.name}.{uuid4().hex}{PARTIAL}")
    try:
        partial.mkdir(parents=True)
        yield partial
        files = [file for file in partial.rglob("*") if file.is_file()]
        for file in files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        if not whole.exists() or not any(whole.iterdir()):
            os.replace(partial, whole)
        for file in files if partial.exists() else ():
            place = whole / file.relative_to(partial)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
        sync_folder(whole.parent)
    except OSError as error:
        if isinstance(error, InterpError):
            raise
        raise StorageFailed(f"{whole} cannot be written ({error.strerror or error}): give a place that can") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def append_text(path: str | Path, text: str) -> None:
    """Add lines to the end of a log, after a line that was torn on a line of their own.

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
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def lock(folder: str | Path, what: str) -> Iterator[None]:
    """Hold a folder for one writer while the block lasts; the system lets go of it when the process dies.

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
    finally:
        held.release()


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


def record(path: str | Path) -> Record:
    """Return the size of a file and the checksum of its bytes.

    Examples:
        ```python
        record("weights.safetensors")
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
        check_record("weights.safetensors", record("weights.safetensors"), "save it again")
        ```
    """
    if not Path(path).is_file():
        raise DamagedFile(f"{path} is missing: {cure}")
    if (size := Path(path).stat().st_size) != recorded["bytes"]:
        raise DamagedFile(f"{path} is {size:,} bytes long, where {recorded['bytes']:,} were written: {cure}")
    if record(path) != recorded:
        raise DamagedFile(f"{path} is not as it was written, its checksum is another: {cure}")


def json_text(kind: Kind, content: Mapping[str, Any]) -> str:
    """Return the text of a JSON file of this kind, its header included.

    Examples:
        ```python
        json_text(SETTINGS, {"seed": 0})
        ```
    """
    kept = json.loads(json.dumps(content, default=str))
    header = {"kind": kind.name, "format": FORMAT, "checksum": _json_checksum(kind, FORMAT, kept)}
    return json.dumps({**header, "content": kept}, indent=1) + "\n"


def json_content(kind: Kind, text: str | bytes, where: object) -> dict[str, Any]:
    """Return what the text of a JSON file of this kind says.

    Raises:
        DamagedFile: it is torn, changed, or of another kind or format.

    Examples:
        ```python
        json_content(SETTINGS, Path("settings.json").read_bytes(), "settings.json")
        ```
    """
    whole = parse_object(text, where, kind.cure)
    if whole.get("kind") != kind.name:
        raise DamagedFile(f"{where} holds no {kind.holds}: {kind.expected}")
    content, form = whole.get("content"), whole.get("format")
    if form != FORMAT:
        raise DamagedFile(f"{where} is of format {form!r}, and this version reads {FORMAT}: {kind.cure}")
    try:
        right = whole.get("checksum") == _json_checksum(kind, form, content)
    except RecursionError:
        right = False
    if not right or not isinstance(content, dict):
        raise DamagedFile(f"{where} is damaged, its checksum is another: {kind.cure}")
    kind.check(content, where)
    return content


def write_json(path: str | Path, kind: Kind, content: Mapping[str, Any]) -> None:
    """Write a JSON file of a kind, whole or not at all.

    Examples:
        ```python
        write_json("settings.json", SETTINGS, {"seed": 0})
        ```
    """
    write_text(path, json_text(kind, content))


def read_json(path: str | Path, kind: Kind) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn, changed, or of another kind.

    Examples:
        ```python
        read_json("settings.json", SETTINGS)["seed"]
        ```
    """
    return json_content(kind, read_bytes(path), path)


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


def parse_object(text: str | bytes, where: object, cure: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        DamagedFile: it is no JSON, not UTF-8, nested too deep, or no object.

    Examples:
        >>> parse_object('{"k": 32}', "cfg.json", "save it again")
        {'k': 32}
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{where} is damaged, it is no JSON ({error}): {cure}") from error
    if not isinstance(found, dict):
        raise DamagedFile(f"{where} is damaged, it holds a {type(found).__name__} and no JSON object: {cure}")
    return found


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


def made_of(path: object, kind: Kind, make: Callable[[], Result]) -> Result:
    """Make an object of what a file holds; what it refuses is damage of the file.

    Raises:
        DamagedFile: naming the file and what was refused.

    Examples:
        ```python
        made_of("direction.safetensors", DIRECTION, lambda: Direction(vector, site, "by hand"))
        ```
    """
    try:
        return make()
    except DamagedFile:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
        raise DamagedFile(f"{path} holds no {kind.holds} ({error}): {kind.cure}") from error


def _json_checksum(kind: Kind, form: int, content: object) -> str:
    return checksum(kind.name, str(form), json.dumps(content, sort_keys=True, separators=(",", ":")))
