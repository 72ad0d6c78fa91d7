"""Rows and labels as probes take them: tensors, or the arrays that scikit-learn's pipelines hand on."""

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hooks.direction import wide
from hooks.errors import InvalidArgument

Array: TypeAlias = Tensor | np.ndarray


def tensor(given: Any) -> Any:
    """Return a tensor as it is, and an array as a tensor that shares its memory where it can.

    Example:
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
        ValueError: a single row, or a column without its axis.

    Example:
        >>> floats(np.ones((2, 1), dtype=int))
        tensor([[1.],
                [1.]])
    """
    rows = tensor(given)
    if rows.ndim < 2:
        raise InvalidArgument(f"Rows have the shape [n, width], got {list(rows.shape)}: give x[None] for one row.")
    return wide(rows)


def classes(given: Any) -> Any:
    """Return labels as a tensor; an array of 0 and 1, which scikit-learn makes of bool, is bool again.

    Example:
        >>> classes(np.array([0, 1]))
        tensor([False,  True])
    """
    labels = tensor(given)
    if isinstance(given, np.ndarray) and given.dtype.kind in "iu" and np.isin(given, (0, 1)).all():
        return labels.bool()
    return labels
