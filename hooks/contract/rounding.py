"""How much rounding explains, and by how much two tensors differ.

Rounding explains 4 u(n), where u(n) = eps(dtype) + sqrt(n) eps(float32): one rounding of the result, and n products
summed in float32.
"""

from collections.abc import Mapping
from math import inf

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks.site import Site

Values = Mapping[Site, Shaped[Tensor, "batch ..."]]
SLACK = 4.0
"""How many units of rounding are allowed."""


def unit(dtype: torch.dtype, n: int = 1) -> float:
    """Return the relative error that computing a sum of n products leaves: eps(dtype) + sqrt(n) eps(float32).

    Examples:
        >>> unit(torch.bfloat16) > 0.0078
        True
    """
    return torch.finfo(dtype).eps + n**0.5 * torch.finfo(torch.float32).eps


def miss(left: Float[Tensor, "batch pos *d"], *right: Float[Tensor, "batch pos *d"]) -> float:
    """Return max over tokens of ‖left - Σ right‖ / (‖left‖ + Σ‖right‖); infinite where a value is not finite.

    Examples:
        >>> miss(torch.ones(1, 1, 4), 3 * torch.ones(1, 1, 4))
        0.5
    """
    if any(one.shape != left.shape for one in right):
        return inf
    flat = [one.float().flatten(2) for one in (left, *right)]
    total = torch.stack([one.norm(dim=-1) for one in flat]).sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    error = (flat[0] - torch.stack(flat[1:]).sum(dim=0)).norm(dim=-1) / total
    return float(error.max()) if bool(error.isfinite().all()) else inf


def change(clean: Float[Tensor, "n _"], other: Float[Tensor, "n _"]) -> float:
    """Return max over rows of ‖other - clean‖ / ‖clean‖; infinite where a value is not finite.

    Examples:
        >>> change(torch.ones(2, 4), 3 * torch.ones(2, 4))
        2.0
    """
    if clean.shape != other.shape:
        return inf
    clean, other = clean.float(), other.float()
    error = (other - clean).norm(dim=1) / clean.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return float(error.max()) if bool(error.isfinite().all()) else inf
