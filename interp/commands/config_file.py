"""A file that holds a command's arguments: YAML or JSON, by the names the command has for them."""

import json
from pathlib import Path
from typing import Any

import typer

from hooks.errors import InvalidArgument, MissingFile, nearest


def arguments_file(context: Any, path: Path | None) -> Path | None:
    """The callback of an option `--config`: arguments in the file stand in for those not on the command line.

    `context` is the command line that typer is reading. A wrong file ends the command with one sentence and exit
    code 2, as every mistake does.

    Example:
        ```python
        config: Annotated[Path | None, typer.Option(callback=arguments_file, is_eager=True)] = None
        ```
    """
    if path is not None:
        parameters = {p.name: bool(getattr(p, "multiple", False)) for p in context.command.params if p.name}
        try:
            context.default_map = checked(read(path), parameters, str(path))
        except (ValueError, OSError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None
    return path


def read(path: Path) -> dict[str, Any]:
    """The arguments in a .json, .yaml or .yml file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, one that does not parse, or one that is no mapping.

    Example:
        ```python
        read(Path("run.yaml"))["tokens"]
        ```
    """
    if not path.is_file():
        raise MissingFile(f"there is no file '{path}': give a .yaml or .json file of arguments")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidArgument(f"{path} is not JSON: {error}") from error
    elif path.suffix in (".yaml", ".yml"):
        import yaml

        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidArgument(f"{path} is not YAML: {error}") from error
    else:
        raise InvalidArgument(f"{path} ends in '{path.suffix}', and arguments are read from .yaml, .yml or .json")
    if not isinstance(found, dict):
        raise InvalidArgument(f"{path} holds a {type(found).__name__}, and arguments are a mapping of names to values")
    return {str(name): value for name, value in found.items()}


def checked(given: dict[str, Any], parameters: dict[str, bool], where: str) -> dict[str, Any]:
    """Arguments by parameter, lists where a parameter may be repeated.

    Raises:
        ValueError: a name that the command does not have, the nearest being named; one spelt in two ways.

    Example:
        >>> checked({"batch-size": 512, "k": 8}, {"batch_size": False, "k": True}, "run.yaml")
        {'batch_size': 512, 'k': [8]}
    """
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in parameters or name == "config":
            close = nearest(name, [p for p in parameters if p not in ("config", "help")])
            raise InvalidArgument(f"{where} has '{key}', which the command does not know; did you mean {close}?")
        if name in found:
            raise InvalidArgument(f"{where} gives '{name}' twice, with a hyphen and without: give it once")
        if isinstance(value, dict):
            value = [f"{setting}={json.dumps(of)}" for setting, of in value.items()]
        if parameters[name] and not isinstance(value, list):
            value = [value]
        if isinstance(value, list) and not parameters[name]:
            raise InvalidArgument(f"{where} has a list for '{key}', which takes one value")
        found[name] = value
    return found
