"""Rows and labels as probes take them: tensors, or the arrays that scikit-learn's pipelines hand on."""

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Tensor | np.ndarray


def tensor(given: Any) -> Any:
    """Return a tensor as it is, and an array as a tensor that shares its memory where it can.

    Example:
        >>> tensor(np.ones(2))
        tensor([1., 1.], dtype=torch.float64)
    """
    if isinstance(given, Tensor):
        return given.detach()
    return torch.as_tensor(given if given.flags.writeable else given.copy())
