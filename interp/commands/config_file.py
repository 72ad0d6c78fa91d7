"""Settings of a command, as words on its line or in a file: a pydantic model is the one list of names, types, defaults.

1. `take_settings` gives a command the model's fields as options, and `--config`.
2. `read_config` reads the file: YAML, JSON or TOML, each name with its line.
3. The model checks both together; what the command line says overrides the file.
"""

import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
import yaml
from pydantic import BaseModel, ValidationError
from typer.models import ParameterInfo

from hooks.errors import InvalidArgument, MissingFile, nearest

Kind = TypeVar("Kind", bound=BaseModel)
Entry = tuple[str, Any, int]
"""A name, its value, and the line it is on."""
ConfigFile = Annotated[Path | None, typer.Option(help="A .yaml, .json or .toml file of these arguments.")]


def take_settings(kind: type[Kind], command: Callable[[Kind], Any]) -> Callable[..., Any]:
    """The command with an option for each field of its settings, and `--config` for a file of them.

    Examples:
        ```python
        app.command()(take_settings(TrainSettings, train))
        ```
    """

    def run(config: Path | None = None, **words: Any) -> Any:
        given = {name: value for name, value in words.items() if value not in (None, [])}
        return command(read_settings(kind, config, given))

    hints = get_type_hints(kind, include_extras=True)
    options = {name: _option(hints[name], field.default) for name, field in kind.model_fields.items()}
    options["config"] = ConfigFile
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, keyword, default=None, annotation=of) for name, of in options.items()]
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = options
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


def _option(hint: Any, default: Any) -> Any:
    """A field as an option that is None where it is not given, so that a file can give it; the help has the default."""
    base, *about = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    (info,) = (one for one in about if isinstance(one, ParameterInfo))
    if default not in (None, [], {}, False):
        info.show_default = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
    words = list[str] if get_origin(base) is dict else base
    return Annotated[words | None, info]


def read_settings(kind: type[Kind], path: Path | None, words: dict[str, Any]) -> Kind:
    """Settings from words and, for what they leave out, from a file.

    Raises:
        MissingFile: there is no such file.
        InvalidArgument: a name or value that the settings do not take.
    """
    entries = {} if path is None else read_config(path, kind)
    given = {name: value for name, (value, _) in entries.items()} | words
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        here = f"line {entries[name][1]} of {path}, {name}," if name in entries and name not in words else f"--{name}"
        said = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        if said.startswith("--"):
            raise InvalidArgument(said) from error  # it names the option itself
        raise InvalidArgument(f"{here} is {first['input']!r}: {said}") from error


def read_config(path: Path, kind: type[BaseModel]) -> dict[str, tuple[Any, int]]:
    """The settings in a file, each with its line; a hyphen in a name is an underscore.

    Raises:
        MissingFile: there is no such file.
        InvalidArgument: another kind of file, one that does not parse or is no mapping, a name that is not taken or is
            given twice.

    Examples:
        ```python
        read_config(Path("run.yaml"), TrainSettings)["tokens"]
        ```
    """
    if not path.is_file():
        raise MissingFile(f"there is no file '{path}': give a .yaml, .json or .toml file of arguments")
    readers = {".json": _json, ".yaml": _yaml, ".yml": _yaml, ".toml": _toml}
    if path.suffix not in readers:
        raise InvalidArgument(
            f"{path} ends in '{path.suffix}', and arguments are read from .yaml, .yml, .json or .toml"
        )
    found: dict[str, tuple[Any, int]] = {}
    for key, value, line in readers[path.suffix](path.read_text(encoding="utf-8"), path):
        name = key.replace("-", "_")
        if name not in kind.model_fields:
            close = nearest(name, kind.model_fields)
            raise InvalidArgument(
                f"line {line} of {path} has '{key}', which the command does not know; did you mean {close}?"
            )
        if name in found:
            raise InvalidArgument(
                f"line {line} of {path} gives '{name}' again, after line {found[name][1]}: give it once"
            )
        found[name] = value, line
    return found


def _yaml(text: str, path: Path) -> Iterator[Entry]:
    try:
        node, values = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidArgument(f"{path} is not YAML: {error}") from error
    if not isinstance(node, yaml.MappingNode):
        raise _no_mapping(path, values)
    for key, value in node.value:
        _check_once(value, path)
        yield key.value, yaml.SafeLoader("").construct_object(value, deep=True), key.start_mark.line + 1


def _check_once(node: Any, path: Path) -> None:
    """Refuse a mapping inside the file that has a name twice, which YAML's reader would take the last of."""
    seen: set[str] = set()
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value in seen:
            line = key.start_mark.line + 1
            raise InvalidArgument(f"line {line} of {path} gives '{key.value}' again: give it once")
        seen.add(key.value)
        _check_once(value, path)


def _json(text: str, path: Path) -> Iterator[Entry]:
    def once(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]] | dict[str, Any]:
        for i, (name, _) in enumerate(pairs):
            if name in [other for other, _ in pairs[:i]]:
                raise InvalidArgument(f"line {_lines(text, name)[-1]} of {path} gives '{name}' again: give it once")
        return dict(pairs)

    try:
        found = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _no_mapping(path, found)
    for name, value in found.items():
        yield name, value, _lines(text, name)[0]


def _toml(text: str, path: Path) -> Iterator[Entry]:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{path} is not TOML, or gives a name twice: {error}") from error
    for name, value in found.items():
        yield name, value, _lines(text, name)[0]


def _lines(text: str, name: str) -> list[int]:
    """The lines where a name is given a value, in JSON or TOML."""
    given = re.compile(rf'(?<![\w-])"?{re.escape(name)}"?\s*[:=\]]')
    return [text.count("\n", 0, match.start()) + 1 for match in given.finditer(text)] or [1]


def _no_mapping(path: Path, found: object) -> InvalidArgument:
    return InvalidArgument(f"{path} holds a {type(found).__name__}, and arguments are a mapping of names to values")
