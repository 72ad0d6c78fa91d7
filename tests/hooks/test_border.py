"""The border of a package: what its public names refuse, in which words, and what it costs them."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from hooks.border import Share, guard, guard_function
from hooks.errors import InterpError, InvalidArgument, InvalidType
from tests import shapes


def mixed(
    x: Float[Tensor, "n d"],
    n: int,
    rate: Share = 0.5,
    names: Sequence[str] = (),
    folder: Path | None = None,
    rule: Callable[[int], int] | None = None,
) -> object:
    return folder


class Box:
    def __init__(self, size: int) -> None:
        self.size = size

    def grown(self, by: int) -> "Box":
        return Box(self.size + by)


X = torch.zeros(2, 3)
REFUSED: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((torch.zeros(2), 3), {}, r"mixed takes x as a tensor of shape \[n d\], Float, got a tensor of shape \[2\]"),
    ((X, 3.5), {}, "mixed takes n as an int, got 3.5"),
    ((X, True), {}, "mixed takes n as an int, got True, a bool"),
    ((X, 3), {"rate": 1.5}, "mixed takes rate as a number from 0 to 1, got 1.5"),
    ((X, 3), {"rate": math.nan}, "mixed takes rate as a number from 0 to 1, got nan"),
    ((3, X), {}, "mixed takes x and n, and they were given the other way round"),
    ((X, 3), {"names": [1]}, "mixed takes names as a Sequence of a str, got a list"),
    ((X, 3), {"folder": 3}, "mixed takes folder as a path, got 3, an int"),
    ((X, 3), {"rule": 3}, "mixed takes rule as a function, got 3, an int"),
    ((X, 3), {"nmaes": []}, "unexpected keyword argument 'nmaes'; did you mean 'names'"),
    ((X,), {}, "missing a required argument: 'n'"),
]


@pytest.fixture(autouse=True)
def _as_for_users() -> Any:
    with shapes.unchecked():
        yield


@pytest.mark.parametrize(("args", "kwargs", "said"), REFUSED, ids=[said[:40] for *_, said in REFUSED])
def test_what_does_not_fit_is_refused_in_these_words(args: tuple[Any, ...], kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        guard_function(mixed)(*args, **kwargs)


def test_one_of_any_number_of_arguments_that_does_not_fit_is_refused_and_no_swap_is_guessed() -> None:
    def many(name: str, *counts: int, **shares: float) -> None: ...

    for args, kwargs, said in ((("fog", "x"), {}, "counts"), (("fog",), {"low": "x"}, "shares"), ((3, 4), {}, "name")):
        with pytest.raises(InvalidArgument, match=f"many takes {said} as"):
            guard_function(many)(*args, **kwargs)


def test_another_kind_is_a_type_error_and_an_interp_error_as_well() -> None:
    with pytest.raises(TypeError) as caught:
        guard_function(mixed)(X, "three")
    assert isinstance(caught.value, InterpError) and isinstance(caught.value, InvalidType)


def test_numbers_of_numpy_are_numbers_and_a_path_may_be_written_as_text() -> None:
    assert guard_function(mixed)(X, np.int64(3), rate=np.float32(0.25), folder="a/b") == Path("a/b")


def test_a_guarded_module_checks_its_functions_constructors_and_methods_and_the_signature_stays() -> None:
    names: dict[str, Any] = {"mixed": mixed, "Box": Box}
    guard(names, ["mixed", "Box"])
    with pytest.raises(InvalidType, match="mixed takes n"):
        names["mixed"](X, None)
    with pytest.raises(InvalidType, match="Box takes size as an int, got 'big'"):
        Box("big")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidType, match=r"Box.grown takes by as an int"):
        Box(1).grown([2])  # pyright: ignore[reportArgumentType]
    assert names["mixed"].__wrapped__ is mixed and names["mixed"].__doc__ == mixed.__doc__
    assert Box(1).grown(2).size == 3


def test_a_word_that_is_no_choice_is_answered_with_the_nearest() -> None:
    def paint(colour: Literal["red", "green"]) -> None: ...

    with pytest.raises(KeyError, match="no colour is called 'gren'; did you mean 'green'"):
        guard_function(paint)("gren")


def by_place(a: int, /, b: int, c: int = 3, *, d: int = 4) -> tuple[int, ...]:
    return a, b, c, d


def with_rest(a: int, *rest: int, d: int = 4, **more: int) -> tuple[Any, ...]:
    return a, rest, d, more


@pytest.mark.parametrize("function", [by_place, with_rest])
@pytest.mark.parametrize("args", [(), (1,), (1, 2), (1, 2, 5), (1, 2, 5, 6)])
@pytest.mark.parametrize("kwargs", [{}, {"b": 2}, {"a": 1}, {"d": 9}, {"b": 2, "d": 9}, {"odd": 1}])
def test_arguments_are_paired_with_names_exactly_as_python_does(
    function: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    guarded = guard_function(function)
    try:
        right = function(*args, **kwargs)
    except TypeError:
        with pytest.raises(InvalidType, match="is called wrongly"):
            guarded(*args, **kwargs)
        return
    assert guarded(*args, **kwargs) == right
    for name in kwargs:
        with pytest.raises(InvalidType, match=" takes "):
            guarded(*args, **(kwargs | {name: "word"}))
