"""JSON files that say what they are: kind, format and a checksum of all of it.

What is torn, changed, of another kind or lacks a field is a `DamagedFile`, which names the file and the remedy.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, final

from hooks.disk import checksum, read_bytes, write_text
from hooks.errors import DamagedFile

FORMAT: Final = 2


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


def parse_contents(path: object, kind: Kind, make: Callable[[], Result]) -> Result:
    """Make an object of what a file holds; what it refuses is damage of the file.

    Raises:
        DamagedFile: naming the file and what was refused.

    Examples:
        ```python
        parse_contents("direction.safetensors", DIRECTION, lambda: Direction(vector, site, "by hand"))
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
