"""What every probe and metric refuses: nothing to learn from, or numbers that are none."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument, InvalidType


def check_rows(x: Float[Tensor, "n *d"], y: Bool[Tensor, "n"]) -> None:
    """Raise `ValueError` unless rows and labels match, are finite, and hold both classes.

    Example:
        >>> check_rows(torch.randn(4, 2), torch.tensor([True, False, True, False]))
    """
    check_labelled(x, y)
    positive = int(y.sum())
    if positive in (0, len(y)):
        raise InvalidArgument(
            f"All {len(y)} labels are {bool(positive)}; rows of both classes are needed to tell them apart."
        )


def check_labelled(x: Any, y: Any) -> None:
    """Raise unless there is one bool label per row, and every row is finite; one class only is no fault.

    Raises:
        ValueError: lengths that differ, labels of several axes, NaN or infinity.
        TypeError: labels that are not bool.

    Example:
        >>> check_labelled(torch.randn(2, 2), torch.tensor([True, True]))
    """
    check_numbers(x, y)
    check_bool(y)


def check_columns(x: Float[Tensor, "n *d"], y: Bool[Tensor, "n class"], train: Bool[Tensor, "n class"]) -> None:
    """Raise `ValueError` unless rows are finite and each column of labels has both classes in its training rows.

    Example:
        >>> check_columns(torch.randn(2, 2), torch.eye(2).bool(), torch.ones(2, 2).bool())
    """
    check_numbers(x, y)
    for column, (positive, n) in enumerate(zip((y & train).sum(0).tolist(), train.sum(0).tolist(), strict=True)):
        if positive in (0, n):
            raise InvalidArgument(
                f"All {n} training labels of column {column} are {bool(positive)}; "
                "rows of both classes are needed to tell them apart."
            )


def check_numbers(x: Any, y: Any) -> None:
    """Raise `ValueError` unless there is one label per row, and every row is finite.

    Example:
        >>> check_numbers(torch.randn(4, 2), torch.randn(4))
    """
    if len(x) != len(y):
        raise InvalidArgument(f"There are {len(x)} rows and {len(y)} labels; each row needs one label.")
    if not bool(x.isfinite().all()):
        row = int((~x.isfinite()).reshape(len(x), -1).any(1).nonzero()[0])
        raise InvalidArgument(f"Row {row} holds NaN or infinity.")


def check_width(x: Any, width: int) -> None:
    """Raise `ValueError` unless rows are as wide as those learnt from.

    Example:
        >>> check_width(torch.randn(4, 2), 2)
    """
    if x.shape[-1] != width:
        raise InvalidArgument(
            f"The rows have width {x.shape[-1]}, and those learnt from had {width}: give activations of the same site."
        )


def check_bool(y: Any) -> None:
    """Raise unless labels are one axis of bool: whole numbers would select rows instead of marking them.

    Raises:
        TypeError: not bool.
        ValueError: several axes.

    Example:
        >>> check_bool(torch.tensor([True, False]))
    """
    _check_axis(y)
    if y.dtype != torch.bool:
        raise InvalidType(f"Labels of two classes are bool, these are {y.dtype}: give y == the_positive_class.")


def check_classes(y: Any) -> None:
    """Raise unless labels are whole numbers of at least two kinds.

    Raises:
        TypeError: not whole numbers.
        ValueError: several axes, or all alike.

    Example:
        >>> check_classes(torch.tensor([0, 2, 1]))
    """
    check_whole(y)
    if len(y.unique()) < 2:
        raise InvalidArgument(
            f"All {len(y)} labels are {y.unique().tolist()}; rows of several classes are needed to tell them apart."
        )


def check_whole(y: Any) -> None:
    """Raise unless labels are one axis of whole numbers.

    Raises:
        TypeError: not whole numbers.
        ValueError: several axes.

    Example:
        >>> check_whole(torch.tensor([0, 0]))
    """
    _check_axis(y)
    if y.dtype.is_floating_point or y.dtype.is_complex or y.dtype == torch.bool:
        raise InvalidType(f"Labels of several classes are whole numbers, these are {y.dtype}: give y.long().")


def check_target(y: Float[Tensor, "n"]) -> None:
    """Raise `ValueError` unless a continuous target is one finite number per row and varies.

    Example:
        >>> check_target(torch.tensor([0.0, 1.5]))
    """
    _check_axis(y)
    if not bool(y.isfinite().all()):
        raise InvalidArgument(f"Target {int((~y.isfinite()).nonzero()[0])} is NaN or infinity.")
    if bool((y == y[0]).all()):
        raise InvalidArgument(f"All {len(y)} targets are {float(y[0]):g}; a constant cannot be regressed on.")


def _check_axis(y: Any) -> None:
    if y.ndim != 1:
        raise InvalidArgument(f"Labels have the shape {list(y.shape)}, and one per row is needed: give y.flatten().")
