"""Write docs/defaults.md: every number that is used where nothing is said, read from the code.

python docs/write_defaults.py
"""

import dataclasses
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "defaults.md"
CORES = (
    "hooks",
    "probes",
    "interp.lenses",
    "interp.sae",
    "interp.directions",
    "interp.features",
    "interp.circuits",
    "interp.steering",
    "interp.memory",
)
HEAD = """# Defaults and constants

What a result rests on where nothing else is said: the numbers and switches that public functions and classes take by
default, and the constants of each file. Written from the code by `python docs/write_defaults.py`; a test compares the
two, so that none changes without this page. Where a number is a paper's, [methods](methods.md) names it.
"""


def modules(package: str) -> Iterator[ModuleType]:
    """A package and all files in it."""
    top = importlib.import_module(package)
    yield top
    for found in pkgutil.walk_packages(top.__path__, f"{package}."):
        yield importlib.import_module(found.name)


def is_setting(value: object) -> bool:
    """A number, a switch, a tuple that has one, or an object with a number."""
    if isinstance(value, tuple):
        return any(map(is_setting, value))
    inside = (one for one in _fields(value).values() if not isinstance(one, bool))
    return isinstance(value, bool | int | float) or any(map(is_setting, inside))


def text_of(value: object) -> str:
    """A setting in a line; of an object those fields that are settings."""
    found = _fields(value)
    inside = ", ".join(f"{name}={text_of(one)}" for name, one in found.items() if is_setting(one))
    return f"{type(value).__name__}({inside})" if found else repr(value)


def _fields(value: object) -> dict[str, object]:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return {}
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def defaults_of(thing: Any) -> dict[str, str]:
    """The numbers and switches that a function or class takes by default."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {one.name: text_of(one.default) for one in parameters if is_setting(one.default)}


def callables(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public functions, classes and methods that a file defines."""
    for name, thing in sorted(vars(module).items()):
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield name, thing
        if inspect.isclass(thing):
            for method, function in sorted(vars(thing).items()):
                plain = getattr(function, "__func__", function)
                if not method.startswith("_") and inspect.isfunction(plain):
                    yield f"{name}.{method}", plain


def rows(package: str) -> Iterator[str]:
    """A row for each file and function that has any."""
    for module in modules(package):
        file = f"{module.__name__.replace('.', '/')}.py"
        constants = {name: text_of(value) for name, value in vars(module).items() if name.lstrip("_").isupper()}
        constants = {name: text for name, text in constants.items() if is_setting(getattr(module, name))}
        own = {name: text for name, text in constants.items() if _is_set_in(module, name)}
        if own:
            yield f"| `{file}` | | {_shown(own)} |"
        for name, thing in callables(module):
            if found := defaults_of(thing):
                yield f"| `{file}` | `{name}` | {_shown(found)} |"


def _is_set_in(module: ModuleType, name: str) -> bool:
    source = inspect.getsource(module)
    return any(
        line.startswith((f"{name} =", f"{name}:", f"{name},")) or f", {name} =" in line for line in source.splitlines()
    )


def _shown(found: dict[str, str]) -> str:
    return ", ".join(f"`{name}={text}`" for name, text in found.items()).replace("|", "\\|")


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for package in CORES:
        table = ["| file | name | default |", "| --- | --- | --- |", *rows(package)]
        parts.append(f"## `{package}`\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(), encoding="utf-8")
