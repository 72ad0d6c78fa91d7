"""The border of a package: arguments of its public names are checked once against their annotations, before any work.

A package ends with `guard(globals(), __all__)`: its functions, and the constructors and methods of its classes, then
refuse what their signatures do not take. Code inside the library calls the functions themselves, unchecked.
"""

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import torch
from jaxtyping import AbstractArray

from hooks.errors import InvalidArgument, InvalidType, UnknownName, nearest

VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@dataclass(frozen=True)
class Bounds:
    """The numbers that an argument takes, as metadata of its annotation: `Annotated[float, Bounds(0, inf, "above 0")]`.

    `low` itself is taken only where `closed` says so.
    """

    low: float | int
    high: float | int
    said: str
    closed: bool = True

    def holds(self, value: float | int) -> bool:
        """Whether the number is one of them."""
        return (self.low <= value if self.closed else self.low < value) and value <= self.high


_LARGEST = sys.float_info.max

Share: TypeAlias = Annotated[float | int, Bounds(0, 1, "a number from 0 to 1")]
Finite: TypeAlias = Annotated[float | int, Bounds(-_LARGEST, _LARGEST, "a finite number")]
Positive: TypeAlias = Annotated[float | int, Bounds(0, _LARGEST, "a finite number above 0", closed=False)]
NotNegative: TypeAlias = Annotated[float | int, Bounds(0, _LARGEST, "a finite number, 0 or more")]
Count: TypeAlias = Annotated[int, Bounds(1, _LARGEST, "a whole number, 1 or more")]
Natural: TypeAlias = Annotated[int, Bounds(0, _LARGEST, "a whole number, 0 or more")]

Test: TypeAlias = Callable[[Any], bool]


def guard(names: dict[str, Any], exported: Iterable[str]) -> None:
    """Put a check of arguments on the functions and classes among `names` that are exported.

    Args:
        names: a module's `globals()`.
        exported: its `__all__`.

    Cost: some microseconds a call.

    Examples:
        ```python
        __all__ = ["capture", "load"]

        guard(globals(), __all__)
        ```
    """
    for name in exported:
        thing = names[name]
        if inspect.isclass(thing) and not getattr(thing, "_is_protocol", False):
            _guard_class(thing)
        elif inspect.isfunction(thing):
            names[name] = guard_function(thing)


def guard_function(function: Callable[..., Any], called: str = "") -> Callable[..., Any]:
    """The function with a check of its arguments before it.

    Raises:
        InvalidType: at a call, for an argument of another kind, one too many, or one missing.
        UnknownName: at a call, for a word that is none of those an annotation lists.
        InvalidArgument: at a call, for a number outside what its annotation says.

    Examples:
        >>> def double(n: int) -> int: return 2 * n
        >>> guard_function(double)("two")
        Traceback (most recent call last):
        hooks.errors.InvalidType: double takes n as an int, got 'two', a str
    """
    if getattr(function, "_border", False):
        return function
    plan = _Plan(function, called or function.__name__)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = plan.check(args, kwargs)
        return function(*args, **kwargs) if given is None else function(*given.args, **given.kwargs)

    wrapper._border = True  # type: ignore[attr-defined]
    return wrapper


def _guard_class(kind: type) -> None:
    """Check the constructor, and the methods that are public and the class's own.

    Estimators, which have `fit`, check what they are given themselves, as scikit-learn requires.
    """
    if hasattr(kind, "fit"):
        return
    for name, member in list(vars(kind).items()):
        public = name == "__init__" or not name.startswith("_")
        if isinstance(member, types.FunctionType) and public and name not in UNGUARDED:
            called = kind.__name__ if name == "__init__" else f"{kind.__name__}.{name}"
            setattr(kind, name, guard_function(member, called))
        elif isinstance(member, classmethod | staticmethod) and public and not inspect.isbuiltin(member.__func__):
            around = type(member)
            setattr(kind, name, around(guard_function(member.__func__, f"{kind.__name__}.{name}")))


UNGUARDED = frozenset(
    {"forward", "encode", "decode", "loss", "note", "constrain", "extend", "places", "read_at", "from_column"}
)
"""Methods that a training step or a pass calls, whose arguments were checked where the run began."""


class _Plan:
    """How one function's arguments are checked, worked out at its first call, when every annotation can be read."""

    def __init__(self, function: Callable[..., Any], called: str) -> None:
        self.function, self.called = function, called
        self.tests: dict[str, tuple[Any, Test]] | None = None

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments | None:
        """Refuse what does not fit; return the arguments where some changed: a string becomes the path it names."""
        if self.tests is None:
            self._prepare()
        given = self._pair(args, kwargs)
        if given is None:
            given = self._bind(args, kwargs).arguments
        tests, written = self.tests or {}, {}
        for name, value in given.items():
            if (test := tests.get(name)) is not None and not test[1](value):
                self._refuse(name, value, given)
            if name in self.paths and isinstance(value, str):
                written[name] = Path(value)
        if not written:
            return None
        bound = self._bind(args, kwargs)
        bound.arguments.update(written)
        return bound

    def _pair(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """The arguments by name as the signature binds them, without its cost; None where that is not certain."""
        if len(args) > len(self.positional):
            return None
        given = dict(zip(self.positional, args, strict=False))
        if kwargs:
            if not (kwargs.keys() <= self.by_name and kwargs.keys().isdisjoint(given)):
                return None
            given |= kwargs
        return given if self.required <= given.keys() else None

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        try:
            return self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidType(self._misfit(error, kwargs)) from None

    def _prepare(self) -> None:
        self.signature = inspect.signature(self.function)
        every = [one for one in self.signature.parameters.values() if one.kind not in VARIADIC]
        self.positional = [one.name for one in every if one.kind is not one.KEYWORD_ONLY]
        self.by_name = {one.name for one in every if one.kind is not one.POSITIONAL_ONLY}
        self.required = {one.name for one in every if one.default is one.empty}
        hints = _hints(self.function)
        tests = {}
        self.paths = {name for name, hint in hints.items() if Path in _parts(hint) and str not in _parts(hint)}
        for name, parameter in self.signature.parameters.items():
            if name in hints:
                hint, one = hints[name], _test(hints[name])
                if parameter.kind is parameter.VAR_POSITIONAL:
                    tests[name] = hint, lambda values, one=one: all(map(one, values))
                elif parameter.kind is parameter.VAR_KEYWORD:
                    tests[name] = hint, lambda values, one=one: all(map(one, values.values()))
                else:
                    tests[name] = hint, one
        self.tests = tests

    def _misfit(self, error: TypeError, kwargs: Mapping[str, Any]) -> str:
        names = [name for name in self.signature.parameters if name not in ("self", "cls")]
        odd = [name for name in kwargs if name not in names]
        remedy = (
            f"; did you mean {nearest(odd[0], names)}?" if odd and names else f": its arguments are {', '.join(names)}"
        )
        return f"{self.called} is called wrongly, {error}{remedy}"

    def _refuse(self, name: str, value: Any, given: Mapping[str, Any]) -> None:
        hint, _ = (self.tests or {})[name]
        bound = _find_bound(hint)
        if bound is not None and isinstance(value, Real) and _kind(_bare(hint))(value):
            raise InvalidArgument(f"{self.called} takes {name} as {bound.said}, got {_show_value(value)}")
        for of, item in _each(hint, value):
            if not of.holds(item):
                raise InvalidArgument(f"{self.called} takes as each of {name} {of.said}, got {_show_value(item)}")
        choices = [c for part in _parts(hint) if get_origin(part) is Literal for c in get_args(part)]
        if choices and isinstance(value, str):
            raise UnknownName(f"no {name} is called {value!r}; did you mean {nearest(value, map(str, choices))}?")
        for other, held in given.items():
            single = not {self.signature.parameters[one].kind for one in (name, other)} & VARIADIC
            fits = single and other != name and other in (self.tests or {}) and _specific(hint)
            if fits and (self.tests or {})[name][1](held) and (self.tests or {})[other][1](value):
                raise InvalidType(f"{self.called} takes {name} and {other}, and they were given the other way round")
        raise InvalidType(f"{self.called} takes {name} as {_describe(hint)}, got {_show_value(value)}")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations that can be read; those of names that only a type checker knows are left out."""
    found = {}
    for name, note in getattr(function, "__annotations__", {}).items():
        if isinstance(note, str):
            try:
                note = eval(note, function.__globals__)  # noqa: S307
            except (NameError, TypeError, AttributeError, SyntaxError):
                continue
        found[name] = note
    found.pop("return", None)
    return found


def _test(hint: Any) -> Test:
    """Whether a value is what an annotation says."""
    bound, kind = _find_bound(hint), _kind(_bare(hint))
    if str in _parts(hint) and Sequence[str] in _parts(hint):
        return lambda value: hasattr(value, "__getitem__") or hasattr(value, "__iter__")  # texts, which `tokens` reads
    if bound is not None:
        return lambda value: kind(value) and (not isinstance(value, Real) or bound.holds(float(value)))
    return kind


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _parts(hint: Any) -> tuple[Any, ...]:
    hint = _bare(hint)
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _find_bound(hint: Any) -> Bounds | None:
    """The numbers that an annotation, or one of the kinds it joins, takes."""
    for part in (hint, *_parts(hint)):
        if get_origin(part) is Annotated:
            for note in part.__metadata__:
                if isinstance(note, Bounds):
                    return note
    return None


def _each(hint: Any, value: Any) -> Iterator[tuple[Bounds, float]]:
    """The numbers in a list, and what each has to be."""
    for part in _parts(hint):
        for of in get_args(part)[:1] if get_origin(part) not in (None, Annotated) else ():
            if (bound := _find_bound(of)) is not None and isinstance(value, Iterable):
                yield from ((bound, float(item)) for item in _items(value) if isinstance(item, Real))


def _specific(hint: Any) -> bool:
    return all(inspect.isclass(_bare(part)) and _bare(part) not in (object, str) for part in _parts(hint))


def _kind(hint: Any) -> Test:
    """Whether a value is of a kind; containers are looked into as far as their first item, tensors at their shape."""
    hint = _bare(hint)
    origin, args = get_origin(hint), get_args(hint)
    if hint in (Any, inspect.Parameter.empty, object) or isinstance(hint, typing.TypeVar | typing.ParamSpec | str):
        return lambda _: True
    if hint is None:
        return lambda value: value is None
    if origin in (Union, types.UnionType):
        kinds = [_kind(arg) for arg in args]
        return lambda value: any(kind(value) for kind in kinds)
    if origin is Literal:
        return lambda value: value in args
    if hint is float:
        return lambda value: isinstance(value, Real) and not isinstance(value, bool)
    if hint is int:
        return lambda value: isinstance(value, Integral) and not isinstance(value, bool)
    if origin is not None:
        return _container(origin, args)
    if inspect.isclass(hint):
        return _instance(hint)
    return lambda _: True


def _instance(hint: Any) -> Test:
    if getattr(hint, "_is_protocol", False) and not hint._is_runtime_protocol:
        return lambda _: True
    if issubclass(hint, Path):
        return lambda value: isinstance(value, Path | str)
    return lambda value: isinstance(value, hint)


def _container(origin: Any, args: tuple[Any, ...]) -> Test:
    if issubclass(origin, tuple):
        return lambda value: isinstance(value, tuple | str if args[:1] == (str,) else tuple)
    if issubclass(origin, Mapping) and len(args) == 2:
        keys, values = _kind(args[0]), _kind(args[1])
        return lambda value: isinstance(value, origin) and all(keys(k) and values(v) for k, v in _first(value.items()))
    if len(args) == 1:
        own = args[0] is bool or (inspect.isclass(args[0]) and issubclass(args[0], AbstractArray))
        item = _test(args[0]) if not own else lambda _: True  # labels and rows: the function checks
        letters = args[0] is str  # the function itself refuses a string in place of texts
        return lambda value: isinstance(value, origin | str if letters else origin) and all(map(item, _items(value)))
    return lambda value: isinstance(value, origin)


def _first(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        yield item
        return


def _items(value: Any) -> Iterable[Any]:
    """The items that can be looked at without using up a stream: all of a short list, the first of a long one."""
    if isinstance(value, Sequence):
        return value if len(value) <= 64 else value[:1]
    return _first(value) if isinstance(value, set | frozenset | Mapping) else ()


def _describe(hint: Any) -> str:
    """An annotation in words."""
    bound = _find_bound(hint)
    if bound is not None:
        return bound.said
    return " or ".join(dict.fromkeys(_name_hint(part) for part in _parts(hint) if part is not types.NoneType))


def _name_hint(hint: Any) -> str:
    if (bound := _find_bound(hint)) is not None:
        return bound.said
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, args))
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return f"a tensor of shape [{hint.dim_str}], {hint.dtype.__name__}"  # type: ignore[attr-defined]
    if origin is not None:
        name = "function" if origin is Callable else origin.__name__
        kinds = [_name_hint(arg) for arg in args if arg is not Ellipsis]
        inner = "" if name == "function" or not kinds else f" of {' and '.join(kinds)}"
        return f"{_article(name)}{inner}"
    name = getattr(hint, "__name__", str(hint))
    return "a path" if name == "Path" else _article(name)


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _show_value(value: Any) -> str:
    """A value short enough for a line."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    text = " ".join(repr(value).split()) if isinstance(value, str | bytes | int | float | None) else ""
    text = text if len(text) <= 40 else f"{text[:37]}…"
    kind = type(value).__name__
    return f"{text}, {_article(kind)}" if text and not isinstance(value, float | None) else text or _article(kind)
