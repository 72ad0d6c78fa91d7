"""Hostile calls of every public name: wrong kinds, wrong numbers, other models' objects, one argument at a time.

`trials` makes the calls, `outcome` runs one and says how it ended. What is wanted: an error of the library's own, or a
result without NaN or infinity that was not asked for.
"""

import dataclasses
import importlib
import inspect
import math
import random
import re
import signal
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import torch

from hooks import Direction, Intervention, Model, Position, Site, Tokens, load
from hooks.border import _bare, _hints, _kind
from hooks.errors import InterpError
from hooks.interventions import add
from hooks.position import last
from hooks.site import resid_post
from interp.memory import Fact
from interp.sae import TopK
from tests.conftest import tiny_hf, tiny_tokenizer

TABLES = re.findall(r"^## `([\w.]+)`", (Path(__file__).parents[1] / "docs" / "api.md").read_text("utf-8"), re.M)
PACKAGES = tuple(name for name in TABLES if name not in ("interp", "interp.workbench"))  # which would serve pages
SECONDS = 2  # after which a call that was taken is let go
NUMBERS = (0, -1, 3, 10**12, 0.0, -0.5, 1e38, math.nan, math.inf, -math.inf, True)
TEXTS = ("", " ", "resid_post[2]", "no such name", "é", "\x00", "a" * 3000)
HOSTILE: tuple[Any, ...] = (
    None,
    *NUMBERS,
    *TEXTS,
    (),
    [],
    [None],
    [1, "a"],
    ["", "text"],
    {},
    {"a": 1},
    {1, 2},
    b"bytes",
    object(),
    int,
    len,
    Path("/nowhere/at/all"),
    np.zeros(3),
    np.array(["a"]),
    torch.zeros(0),
    torch.zeros(3, 5),
    torch.full((4, 32), math.nan),
    torch.ones(4, 32, dtype=torch.int64),
    torch.tensor(1.0),
)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One call: what is called, how it is named, its arguments, and which of them is hostile."""

    function: Callable[..., Any]
    name: str
    arguments: dict[str, Any]
    hostile: str


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every function and class that a package exports, each once."""
    seen = set()
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            plain = inspect.isfunction(thing) or (inspect.isclass(thing) and not inspect.isabstract(thing))
            if plain and not getattr(thing, "_is_protocol", False) and id(thing) not in seen:
                seen.add(id(thing))
                yield f"{package}.{name}", thing


def right_values() -> dict[type, Any]:
    """A right value of each type that public names take, about one tiny model."""
    model = load(tiny_hf("gpt2"), tiny_tokenizer())
    direction, sae = Direction(torch.ones(32), resid_post[1], "ones", 1.0, model.fingerprint), TopK(32, 64, k=4)
    sae.site = resid_post[1]
    found = [model, resid_post[1], direction, sae, last, model.tokens(["some text", "another"]), add(direction, 1.0)]
    kinds = (Model, Site, Direction, TopK, Position, Tokens, Intervention)
    fact = Fact("Rome", "{} is in", "Italy", "Peru")
    return dict(zip(kinds, found, strict=True)) | {str: "some text", int: 2, float: 0.5, bool: True, Fact: fact}


def trials(valid: Mapping[type, Any], per_argument: int, seed: int = 0) -> Iterator[Trial]:
    """For each argument of each public name some hostile values, the other arguments being right where that is known.

    Args:
        valid: right values, by their type.
        per_argument: how many hostile values each argument is given.
        seed: which.
    """
    chosen = random.Random(seed)
    for name, function in public():
        constructor = function.__init__ if inspect.isclass(function) else function
        constructor = getattr(constructor, "__wrapped__", constructor)
        hints = _hints(constructor)
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):
            continue
        plain = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        rest = {p.name: right(hints.get(p.name), valid, p.name) for p in plain if p.default is p.empty}
        others = [value for kind, value in valid.items() if kind not in (int, float, str)]
        for parameter in plain:
            for value in chosen.sample((*HOSTILE, *others), per_argument):
                yield Trial(function, name, rest | {parameter.name: value}, parameter.name)


def right(hint: Any, valid: Mapping[type, Any], name: str) -> Any:
    """A value that the annotation takes, or None where none is known."""
    hint = _bare(hint) if hint is not None else None
    for one in get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,):
        one = _bare(one)
        if isinstance(one, type) and one in valid:
            return valid[one]
        for value in valid.values():
            if inspect.isclass(one) and one is not object and _is(value, one):
                return value
        origin, args = get_origin(one), get_args(one)
        if origin is not None and args and inspect.isclass(origin):
            inner = right(args[0], valid, name)
            if inner is not None and not issubclass(origin, Mapping | types.FunctionType):
                return [inner, inner] if not issubclass(origin, tuple) else (inner, inner)
        if one is not None and hasattr(one, "dim_str"):
            shape = [4 if axis not in ("d_model", "d", "*d") else 32 for axis in one.dim_str.split() if axis != "..."]
            varied = torch.linspace(1, 2, math.prod(shape)).view(shape)  # what does not vary has no correlation
            for made in (varied, torch.ones(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool)):
                if _kind(one)(made):
                    return made
    return None


def _is(value: Any, kind: type) -> bool:
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that only a type checker can hold
        return False


def outcome(trial: Trial) -> str:
    """How a call ends: `refused`, `result`, `slow`, `non-finite`, or the raw error's type."""
    with _limited(), redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = trial.function(**trial.arguments)
            if inspect.isgenerator(result):
                result = next(result, None)
        except InterpError:
            return "refused"
        except TimeoutError:
            return "slow"
        except Exception as error:
            return type(error).__name__
    if dataclasses.is_dataclass(trial.function):
        return "result"  # a record of what was given
    asked = not finite(list(trial.arguments.values()))
    odd_number = isinstance(trial.arguments[trial.hostile], float)
    return "result" if finite(result) or (asked and not odd_number) else "non-finite"


def finite(value: Any, depth: int = 2) -> bool:
    """Whether a result's numbers, and those of its fields, are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(finite(getattr(value, field.name, None), depth - 1) for field in dataclasses.fields(value))
    if depth and isinstance(value, list | tuple):
        return all(finite(one, depth - 1) for one in value[:20])
    return True


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
