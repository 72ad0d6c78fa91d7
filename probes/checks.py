"""What every probe and metric refuses: nothing to learn from, or numbers that are not finite."""

from numbers import Real
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument, InvalidType


def check_rows(x: Float[Tensor, "n *d"], y: Bool[Tensor, "n"]) -> None:
    """Raise `InvalidArgument` unless rows and labels match, are finite, and hold both classes.

    Examples:
        >>> check_rows(torch.randn(4, 2), torch.tensor([True, False, True, False]))
    """
    check_numbers(x, y)
    check_two(x, y)


def check_two(x: Any, y: Any) -> None:
    """Raise unless there is one bool label per row, and both occur.

    Raises:
        InvalidArgument: lengths that differ, labels of several axes, one class only.
        InvalidType: labels that are not bool.

    Examples:
        >>> check_two(torch.randn(2, 2), torch.tensor([True, False]))
    """
    check_lengths(x, y)
    check_bool(y)
    positive = int(y.sum())
    if positive in (0, len(y)):
        raise InvalidArgument(
            f"all {len(y)} labels are {bool(positive)}; rows of both classes are needed, and there is 1 class"
        )


def check_columns(x: Float[Tensor, "n *d"], y: Bool[Tensor, "n class"], train: Bool[Tensor, "n class"]) -> None:
    """Raise `InvalidArgument` unless rows are finite and each column of labels has both classes in its training rows.

    Examples:
        >>> check_columns(torch.randn(2, 2), torch.eye(2).bool(), torch.ones(2, 2).bool())
    """
    check_numbers(x, y)
    for column, (positive, n) in enumerate(zip((y & train).sum(0).tolist(), train.sum(0).tolist(), strict=True)):
        if positive in (0, n):
            raise InvalidArgument(
                f"all {n} training labels of column {column} are {bool(positive)}; "
                "rows of both classes are needed to separate them"
            )


def check_numbers(x: Any, y: Any) -> None:
    """Raise `InvalidArgument` unless there is one label per row, and every row is finite.

    Examples:
        >>> check_numbers(torch.randn(4, 2), torch.randn(4))
    """
    check_lengths(x, y)
    check_finite(x)


def check_lengths(x: Any, y: Any) -> None:
    """Raise `InvalidArgument` unless there is one label per row.

    Examples:
        >>> check_lengths(torch.randn(4, 2), torch.randn(4))
    """
    if len(x) != len(y):
        raise InvalidArgument(f"there are {len(x)} rows and {len(y)} labels; each row needs one label")


def check_finite(x: Any) -> None:
    """Raise `InvalidArgument`, with the row, unless every row is finite.

    Examples:
        >>> check_finite(torch.randn(4, 2))
    """
    if not bool(x.isfinite().all()):
        row = int((~x.isfinite()).reshape(len(x), -1).any(1).nonzero()[0])
        raise InvalidArgument(f"row {row} holds NaN or infinity")


def check_width(x: Any, width: int) -> None:
    """Raise `InvalidArgument` unless rows are as wide as those learnt from.

    Examples:
        >>> check_width(torch.randn(4, 2), 2)
    """
    if x.shape[-1] != width:
        raise InvalidArgument(
            f"the rows have width {x.shape[-1]}, and those learnt from had {width}: give activations of the same site"
        )


def check_bool(y: Any) -> None:
    """Raise unless labels are one axis of bool: whole numbers would select rows instead of marking them.

    Raises:
        InvalidType: not bool.
        InvalidArgument: several axes.

    Examples:
        >>> check_bool(torch.tensor([True, False]))
    """
    check_axis(y)
    if y.dtype != torch.bool:
        raise InvalidType(f"labels of two classes are bool, these are {y.dtype}: give y == the_positive_class")


def check_target(y: Float[Tensor, "n"]) -> None:
    """Raise `InvalidArgument` unless a continuous target is one finite number per row and varies.

    Examples:
        >>> check_target(torch.tensor([0.0, 1.5]))
    """
    check_axis(y)
    if not bool(y.isfinite().all()):
        raise InvalidArgument(f"target {int((~y.isfinite()).nonzero()[0])} is NaN or infinity")
    if len(y) == 1:
        raise InvalidArgument("only 1 sample was given: a regression needs several, whose targets differ")
    if bool((y == y[0]).all()):
        raise InvalidArgument(f"all {len(y)} targets are {float(y[0]):g}; a constant cannot be regressed on")


def check_number(name: str, value: Any) -> None:
    """Raise `InvalidType` unless what a probe was made with is a number.

    Examples:
        >>> check_number("alpha", 1.0)
    """
    if not isinstance(value, Real):
        raise InvalidType(f"{name} is {value!r}, of type {type(value).__name__}: give a number")


def check_positive(C: Any) -> None:
    """Raise `InvalidArgument` unless the inverse strength of a penalty is a number above 0.

    Examples:
        >>> check_positive(1.0)
    """
    check_number("C", C)
    if not C > 0:
        raise InvalidArgument(f"C is {C}; the inverse strength of the penalty must be above 0")


def check_axis(y: Any) -> None:
    """Raise `InvalidArgument` unless labels have one axis.

    Examples:
        >>> check_axis(torch.tensor([0, 1]))
    """
    if y.ndim != 1:
        raise InvalidArgument(f"labels have the shape {list(y.shape)}, and one per row is needed: give y.flatten()")
