"""The suite's own check of shapes: it refuses what jaxtyping refuses, and it is on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor

from hooks import Direction, capture
from interp.sae import TopK
from probes import Ridge
from tests import shapes
from tests.shapes import axes, held

WIDE, TALL, SQUARE = torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 2)


@cache
def table(check: Any) -> dict[str, Callable[..., Any]]:
    """Functions of every kind under one of the two checks."""

    @check(typechecker=beartype)
    def product(a: Float[Tensor, "n d"], b: Float[Tensor, "d m"], *, give: Any = None) -> Float[Tensor, "n m"]:
        return a @ b if give is None else give

    @check(typechecker=beartype)
    def counted(name: str, /, *rows: Int[Tensor, "n"], times: int = 1, **more: float) -> int:
        return len(rows) * times

    @check(typechecker=beartype)
    def every(a: Float[Tensor, "n d"], n: int) -> Iterator[Float[Tensor, "d"]]:
        yield from a[:n]

    @contextmanager
    @check(typechecker=beartype)
    def inside(a: Float[Tensor, "*n d"]) -> Iterator[int]:
        yield a.shape[-1]

    @check(typechecker=beartype)
    @dataclass(frozen=True)
    class Pair:
        left: Float[Tensor, "n d"]
        right: Float[Tensor, "n d"]
        name: str = "pair"

        @check(typechecker=beartype)
        def joined(self, other: "Tensor") -> Float[Tensor, "m d"]:
            return torch.cat([self.left, other])

        @staticmethod
        @check(typechecker=beartype)
        def of(a: Float[Tensor, "n d"]) -> "Unknown":  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
            return Pair(a, a)

    @check(typechecker=beartype)
    def closed(a: Float[Tensor, "n d"]) -> Callable[..., Any]:
        @check(typechecker=beartype)
        def inner(b: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
            return a + b

        return inner

    return {
        "product": product,
        "counted": counted,
        "every": lambda *args: list(every(*args)),
        "inside": lambda *args: inside(*args).__enter__(),
        "Pair": Pair,
        "joined": lambda a, other: Pair(a, a).joined(other),
        "of": lambda a: Pair.of(a).right,
        "closed": lambda a, b: closed(a)(b),
    }


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("product", (WIDE, TALL), {}),
    ("product", (WIDE,), {"b": TALL}),
    ("product", (WIDE, WIDE), {}),
    ("product", (WIDE, TALL), {"give": SQUARE}),
    ("product", (WIDE, TALL), {"give": WIDE}),
    ("product", (WIDE, TALL.long()), {}),
    ("product", (WIDE, [1.0]), {}),
    ("product", (WIDE,), {}),
    ("product", (WIDE, TALL), {"gives": 1}),
    ("counted", ("a", WIDE[0].long(), WIDE[1].long()), {"times": 2, "stub": 1.0}),
    ("counted", ("a", WIDE[0].long(), TALL[0].long()), {}),
    ("counted", ("a", WIDE[0]), {}),
    ("counted", (1,), {}),
    ("counted", ("a",), {"times": 1.5}),
    ("counted", ("a",), {"more": "b"}),
    ("every", (WIDE, 2), {}),
    ("every", (WIDE[0], 2), {}),
    ("every", (WIDE, 2.0), {}),
    ("inside", (WIDE,), {}),
    ("inside", (torch.tensor(1.0),), {}),
    ("Pair", (WIDE, WIDE), {}),
    ("Pair", (WIDE, TALL), {}),
    ("Pair", (WIDE, WIDE, 3), {}),
    ("joined", (WIDE, WIDE), {}),
    ("joined", (WIDE, WIDE.double()), {}),
    ("of", (WIDE,), {}),
    ("of", (WIDE[0],), {}),
    ("closed", (WIDE, WIDE), {}),
    ("closed", (WIDE, WIDE[0]), {}),
    ("closed", (SQUARE, torch.zeros(1, 2)), {}),
]


def outcome(check: Any, call: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Any:
    """What a call gives, or the error it ends in."""
    name, args, kwargs = call
    try:
        found = table(check)[name](*args, **kwargs)
    except (TypeError, RuntimeError) as error:
        return type(error)
    return [part.tolist() for part in found] if isinstance(found, list | Tensor) else str(found)


def test_calls_are_refused_where_jaxtyping_refuses_them_and_give_what_they_give() -> None:
    verdicts = []
    for call in CALLS:
        ours, theirs = outcome(held, call), outcome(axes, call)
        assert ours == theirs, call
        verdicts.append(ours)
    assert sum(verdict is TypeCheckError for verdict in verdicts) == 17


def test_functions_of_equal_code_are_each_held_to_their_own_shape() -> None:
    def rows(axes: str) -> Callable[..., int]:
        scope: dict[str, Any] = {"Shape": Float[Tensor, axes]}
        exec("def rows(a: Shape) -> int: return len(a)", scope)
        return held(typechecker=beartype)(scope["rows"])

    any_, three = rows("n d"), rows("3 d")
    assert any_(WIDE) == 2 and three(TALL) == 3
    with pytest.raises(TypeCheckError, match="dimension size 2 does not equal 3"):
        three(WIDE)


@pytest.mark.parametrize("fn", [capture, Direction.__init__, Direction.cosine, Ridge.fit, TopK.decode])
def test_every_function_of_the_packages_is_held(fn: Any) -> None:
    assert fn.__code__.co_filename == shapes.__file__
