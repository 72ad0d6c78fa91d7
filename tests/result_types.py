"""The types of all public results: every dataclass that a public function or method of the library returns."""

import collections.abc
import dataclasses
import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Iterator

import interp

ROOMS = ("hooks", "hooks.store", "probes", "interp.circuits.edges", "interp.circuits.heads")
MORE = ("interp.circuits.interchange", "interp.circuits.known", "interp.graphs.feature_circuits")
LONG = re.compile(r"Tensor|ndarray|tuple\[|[Mm]apping|[Dd]ict\[|[Ll]ist\[|Sequence|Callable|Module|Iterable")


def public_packages() -> tuple[str, ...]:
    """Every package whose names are public."""
    found = [f"interp.{one.name}" for one in pkgutil.iter_modules(interp.__path__) if one.ispkg]
    return (*ROOMS, *found, *MORE)


def result_types(packages: typing.Iterable[str]) -> list[type]:
    """Every dataclass that a public function, or a public method of a public class, of these packages returns."""
    found: dict[type, None] = {}
    for package in packages:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", []):
            for function in _functions(getattr(module, name)):
                try:
                    kind = typing.get_type_hints(inspect.unwrap(function)).get("return")
                except NameError:  # a name that only a type checker knows
                    continue
                found |= dict.fromkeys(_dataclasses(kind))
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


def _functions(value: object) -> list[types.FunctionType]:
    if inspect.isclass(value):
        return [one for name, one in vars(value).items() if inspect.isfunction(one) and not name.startswith("_")]
    return [value] if inspect.isfunction(value) else []


def _dataclasses(hint: object) -> Iterator[type]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for one in typing.get_args(hint):
        yield from _dataclasses(one)


def floods(kind: type) -> bool:
    """Whether a type prints itself field by field, as dataclasses do, although a field can be long."""
    made = inspect.unwrap(kind.__repr__).__code__.co_filename == "<string>"  # by dataclasses
    return made and any(LONG.search(str(one.type)) or _nested(one.type) for one in dataclasses.fields(kind))


def _nested(hint: object) -> bool:
    return any(floods(one) for one in _dataclasses(hint))


def lacks_table(kind: type) -> bool:
    """Whether a type holds a list of dataclasses, or a mapping to some, and gives no table of them."""
    hints = typing.get_type_hints(kind).values()
    rows = [one for hint in hints for many in _many(hint) for one in _dataclasses(many)]
    return any(len(dataclasses.fields(one)) > 1 for one in rows) and not hasattr(kind, "to_pandas")


def _many(hint: object) -> tuple[object, ...]:
    """Of what a field holds many: the items of a tuple of any length, the values of a mapping."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    listed = origin is tuple and inside[-1:] == (...,)
    return inside[:1] if listed else inside[1:] if origin is collections.abc.Mapping else ()
