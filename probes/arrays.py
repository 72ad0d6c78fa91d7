"""Rows as probes take them: tensors, or whatever NumPy reads as a table; and results in the kind that was given."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from hooks.direction import wide
from hooks.errors import InvalidArgument, InvalidType

Array: TypeAlias = Tensor | np.ndarray


@runtime_checkable
class _Tabular(Protocol):
    """What NumPy can read: a data frame, a series."""

    def __array__(self) -> np.ndarray: ...


Table: TypeAlias = _Tabular | Sequence[Any]


def tensor(given: Any) -> Any:
    """Return a tensor as it is, and an array as a tensor that shares its memory where it can.

    Examples:
        >>> tensor(np.ones(2))
        tensor([1., 1.], dtype=torch.float64)
    """
    if isinstance(given, Tensor):
        return given.detach()
    array = np.asarray(given)
    return torch.as_tensor(array if array.flags.writeable else array.copy())


def floats(given: Any) -> Any:
    """Return rows as a tensor of floating numbers; whole numbers and half precision become float32.

    Raises:
        InvalidArgument: a single row, or a column without its axis.
        InvalidType: complex numbers.

    Examples:
        >>> floats(np.ones((2, 1), dtype=int))
        tensor([[1.],
                [1.]])
    """
    rows = tensor(given)
    if rows.ndim < 2:
        raise InvalidArgument(f"rows have the shape [n, width], got {list(rows.shape)}: give x[None] for one row")
    if rows.is_complex():
        raise InvalidType(f"rows are real numbers, got {rows.dtype}: give x.real, or x.abs()")
    return wide(rows)


def like(given: object, result: Shaped[Tensor, "..."]) -> Any:
    """Return a result as a tensor where a tensor was given, and as an array where it was not.

    Examples:
        >>> like([[1.0]], torch.ones(2, dtype=torch.float64))
        array([1., 1.])
    """
    return result if isinstance(given, Tensor) else result.cpu().numpy()
