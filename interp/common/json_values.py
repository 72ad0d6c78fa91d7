"""Values as JSON has them."""

import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses as objects, tensors as lists, paths absolute, no number that is not finite.

    Examples:
        >>> plain({"at": torch.ones(2), "loss": float("nan")})
        {'at': [1.0, 1.0], 'loss': None}
    """
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(of) for name, of in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, os.PathLike):
        return str(Path(value).resolve())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
