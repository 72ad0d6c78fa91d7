"""Every call held to the shapes and types its function states, as by jaxtyping itself, for a fraction of the time.

jaxtyping's import hook puts `jaxtyping.jaxtyped` on every function and dataclass. In its place this plugin puts a
decorator that compiles what a function states once, when it is first called, and not again for every closure made of
it; and that checks arguments once, and not again with the result.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import jaxtyping
from beartype.roar import BeartypeCallHintViolation

Function = Callable[..., Any]
axes = jaxtyping.jaxtyped  # as `axes("context")`, a scope in which an axis has one size
_compiled: dict[int, tuple[CodeType, Function, Function]] = {}


@contextmanager
def unchecked() -> Iterator[None]:
    """While this lasts nothing is checked, as for who uses the library."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def held(*, typechecker: Callable[[Function], Function]) -> Callable[[Any], Any]:
    """The decorator that the import hook finds as `jaxtyping.jaxtyped`."""

    def decorate(fn: Any) -> Any:
        if not inspect.isclass(fn):
            return _wrapped(fn, typechecker)
        made = vars(fn).get("__init__")
        if dataclasses.is_dataclass(fn) and made is not None and not hasattr(made, "__wrapped__"):
            fn.__init__ = _wrapped(made, typechecker)
        return fn

    return decorate


def _wrapped(fn: Any, typechecker: Callable[[Function], Function]) -> Function:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        key = id(fn.__code__)
        if key not in _compiled:
            takes, gives = _stubs(fn)
            _compiled[key] = fn.__code__, typechecker(takes), typechecker(gives)
        _, takes, gives = _compiled[key]
        with axes("context"):
            _checked(takes, *args, **kwargs)
            result = fn(*args, **kwargs)
            _checked(gives, result)
            return result

    return wrapper


def _checked(stub: Function, /, *args: Any, **kwargs: Any) -> None:
    try:
        stub(*args, **kwargs)
    except BeartypeCallHintViolation as error:
        raise jaxtyping.TypeCheckError(f"Type-check error: {error}") from None


def _stubs(fn: Any) -> tuple[Function, Function]:
    """Two functions that do nothing: one takes what the function takes, the other takes what it gives."""
    hints = {name: _read(hint, fn) for name, hint in inspect.get_annotations(fn).items()}
    gives = {"result": hints.pop("return")} if "return" in hints else {}
    bare = [
        p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else None)
        for p in inspect.signature(fn).parameters.values()
    ]
    takes = _stub(fn, str(inspect.Signature(bare)), hints)
    takes.__defaults__, takes.__kwdefaults__ = fn.__defaults__, fn.__kwdefaults__
    return takes, _stub(fn, "(result)", gives)


def _stub(fn: Any, parameters: str, hints: dict[str, Any]) -> Any:
    scope: dict[str, Any] = {}
    exec(f"def {fn.__name__}{parameters}: pass", scope)
    stub = scope[fn.__name__]
    stub.__module__, stub.__qualname__, stub.__annotations__ = fn.__module__, fn.__qualname__, hints
    return stub


def _read(hint: Any, fn: Any) -> Any:
    """A hint that is a string, read; one whose names are for the static checker alone allows anything."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, fn.__globals__)
    except (NameError, TypeError):  # such as tqdm[NoReturn]
        return Any


jaxtyping.jaxtyped = held
