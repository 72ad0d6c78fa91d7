"""The border of a package: what its public names refuse, in which words, and what it costs them."""

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NewType, Protocol, TypeVar, runtime_checkable

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from hooks.border import Natural, Share, guard, guard_function
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


def test_every_keyword_and_one_that_is_none_of_them_are_refused_in_words() -> None:
    with pytest.raises(InvalidType, match="called wrongly.*'odd'"):
        guard_function(by_place)(1, b=2, c=3, d=9, odd=1)


@runtime_checkable
class Reads(Protocol):
    """What is looked for in a value."""

    def read(self) -> str:
        """A text."""
        ...


class Writes(Protocol):
    """What only a type checker looks for."""

    def write(self) -> str:
        """A text."""
        ...


Number = NewType("Number", int)
Kind = TypeVar("Kind")
SOME: Any = Share


def taking(hint: Any) -> Callable[[Any], Any]:
    """A guarded function of one argument, which it gives back."""

    def take(x: Any) -> Any:
        return x

    take.__annotations__["x"] = hint
    return guard_function(take)


def refuses(hint: Any, value: Any) -> bool:
    try:
        taking(hint)(value)
    except InvalidArgument:
        return True
    return False


LONG, LONGER = [1] * 63, [1] * 64
OF_A_KIND: list[tuple[Any, list[Any], list[Any]]] = [
    (Number, [3, "three", None], []),
    (Any, [3, "three", None], []),
    (Kind, [3, "three", None], []),
    (Writes, [3, "three", None], []),
    (Reads, [io.StringIO("fog")], [3, "fog"]),
    (object, [3, "a/b"], []),
    (None, [None], [3, "None"]),
    (int | None, [3, None], ["3", 3.5]),
    (type[Exception], [ValueError, int], [3, ValueError("x")]),
    (Callable[[int], int], [abs, Box], [3, "abs"]),
    (SOME | None, [None, 0, 1, 1.0, 0.5], [-0.01, 1.01, "half", [0.5], True]),
    (Natural, [0, 7], [-1, 0.5, "0"]),
    (tuple[str, ...], [("a", "b"), "ab", ()], [["a"], 3]),
    (tuple[int, ...], [(1, 2), ()], ["12", [1, 2]]),
    (Mapping[str, int], [{}, {"a": 1}, {"a": 1, "b": "x"}], [{"a": "x"}, {1: 1}, [("a", 1)]]),
    (Sequence[int], [[], [1, 2], (1,), [*LONGER, "x"]], [[1, "x"], ["x", 1], [*LONG, "x"], "12", {1: 2}]),
    (Sequence[bool], [[True], [1, 0], torch.ones(2).tolist()], [3]),
    (Sequence[Float[Tensor, "d"]], [[X[0]], [[1.0, 2.0]]], [3]),
    (list[str], [["a"], [], "ab"], [["a", 1], ("a",), {"a"}]),
    (set[int], [{1}, set()], [{"x"}, [1]]),
    (str | Sequence[str], ["a", ["a"], iter(["a"]), {"a": 1}], [3, None]),
    (str | int, ["a", 3], [["a"], None]),
]


@pytest.mark.parametrize(("hint", "fit", "unfit"), OF_A_KIND, ids=[str(hint)[:60] for hint, *_ in OF_A_KIND])
def test_a_value_is_taken_exactly_where_it_is_of_the_kind_that_is_said(
    hint: Any, fit: list[Any], unfit: list[Any]
) -> None:
    assert [value for value in fit if refuses(hint, value)] == []
    assert [value for value in unfit if not refuses(hint, value)] == []


def test_a_stream_is_not_used_up_by_looking_at_it() -> None:
    assert list(taking(Iterable[int])(iter([1, 2, 3]))) == [1, 2, 3]


def test_text_becomes_a_path_only_where_nothing_but_a_path_is_taken() -> None:
    for hint in (Path, Path | None):
        assert taking(hint)("a/b") == Path("a/b") and isinstance(taking(hint)("a/b"), Path)
    for hint in (Path | str, str, object, Any):
        assert isinstance(taking(hint)("a/b"), str)


def test_each_of_any_number_of_arguments_is_looked_at() -> None:
    def many(*counts: int, **shares: Share) -> int:
        return len(counts) + len(shares)

    guarded = guard_function(many)
    assert guarded() == 0 and guarded(1, 2, low=0.5, high=1) == 4
    for args, kwargs, said in (((1, 2, "x"), {}, "counts"), (("x", 1), {}, "counts"), ((1,), {"a": 0.5, "b": 2}, "b")):
        with pytest.raises(InvalidArgument, match=said if said == "counts" else "takes shares as"):
            guarded(*args, **kwargs)


def test_a_swap_is_guessed_only_where_each_fits_the_other_and_no_text_would_fit_both() -> None:
    def named(name: str, n: int) -> None: ...

    def either(name: int | str, values: list[float]) -> None: ...

    def size(n: int, scores: list[float]) -> None: ...

    with pytest.raises(InvalidType, match="takes name as a str, got 3, an int"):
        guard_function(named)(3, "fog")
    with pytest.raises(InvalidType, match="takes name as an int or a str, got a list"):
        guard_function(either)([0.5], 3)
    with pytest.raises(InvalidType, match="takes n and scores, and they were given the other way round"):
        guard_function(size)([0.5], 3)


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (int, "x" * 38, f"'{'x' * 38}', a str"),
        (int, "x" * 39, f"'{'x' * 36}…, a str"),
        (int, 2.5, r"got 2\.5$"),
        (int, None, "got None$"),
        (int, [1], "got a list$"),
        (None, 3, "takes x as a None, got 3, an int"),
        (type[Exception], 3, "takes x as a type of an Exception, got 3, an int"),
        (Callable[[int], int], 3, "takes x as a function, got 3, an int"),
        (tuple[int, Share], [5, 0.5], "takes x as a tuple of an int and a number from 0 to 1, got a list"),
        (tuple[Share, ...], [0.5, 2.0], "takes as each of x a number from 0 to 1, got 2.0"),
    ],
)
def test_what_was_given_is_shown_in_a_few_words(hint: Any, value: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        taking(hint)(value)


def test_public_methods_of_every_sort_are_guarded_once_and_private_ones_and_protocols_not() -> None:
    class Maker:
        def __init__(self) -> None:
            self.made = 0

        @staticmethod
        def of(n: int) -> int:
            return n

        @classmethod
        def named(cls, n: int) -> str:
            return f"{cls.__name__} {n}"

        def _count(self, n: int) -> int:
            return n

        @staticmethod
        def _of(n: int) -> int:
            return n

    before = Reads.read
    names: dict[str, Any] = {"Maker": Maker, "Reads": Reads, "number": 3}
    guard(names, names)
    assert Maker.of(3) == 3 and Maker.named(3) == "Maker 3"
    calls: list[tuple[Callable[..., Any], str]] = [(Maker.of, "Maker.of"), (Maker.named, "Maker.named")]
    for call, called in calls:
        with pytest.raises(InvalidType, match=f"{called} takes n as an int, got 'x', a str"):
            call("x")
    hidden: list[Callable[..., Any]] = [Maker()._count, Maker._of]  # pyright: ignore[reportPrivateUsage]
    assert [call("x") for call in hidden] == ["x", "x"]
    assert Reads.read is before and names["number"] == 3
    once = guard_function(by_place)
    assert guard_function(once) is once
