"""The waves of a clock: how much of a + b mod n is in a few frequencies, and what is left without them."""

from dataclasses import dataclass
from math import pi

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.summary import summarise


@dataclass(frozen=True)
class Waves:
    """Progress measures of a clock (Nanda et al. 2023, arXiv:2301.05217), in nats per sum.

    Attributes:
        frequencies: those whose waves of a + b explain most of the logits.
        full: the loss on all sums.
        restricted: with the waves of these frequencies alone.
        excluded: on trained sums, without them.
        chance: log n, what a model that knows nothing loses.
        gini: of the power over frequencies, 0 if flat, near 1 if a few have all.
    """

    frequencies: tuple[int, ...]
    full: float
    restricted: float
    excluded: float
    chance: float
    gini: float

    __repr__ = summarise


def measure_waves(
    logits: Float[Tensor, "n n n"], trained: Bool[Tensor, "n n"] | None = None, *, count: Count = 5
) -> Waves:
    """Measure how far a clock's logits are waves of a + b.

    For a frequency k the part of the logits along cos(w_k(a + b)) and sin(w_k(a + b)), w_k = 2πk/n, is what a model
    that adds angles writes. Restricted: the mean of the logits and these parts alone; excluded: all but these parts.

    Args:
        logits: for each a and b, those of every c.
        trained: which sums were seen; all by default.
        count: of frequencies to keep.

    Raises:
        InvalidArgument: no cube of logits, or more frequencies than there are.

    Examples:
        >>> n, w = 7, 2 * pi / 7
        >>> a, b, c = torch.meshgrid(*[torch.arange(7.0)] * 3, indexing="ij")
        >>> found = measure_waves(20 * torch.cos(w * (a + b - c)), count=1)
        >>> found.frequencies, round(found.excluded / found.chance, 3)
        ((1,), 1.0)
    """
    n = logits.shape[0]
    if tuple(logits.shape) != (n, n, n) or count > n // 2:
        raise InvalidArgument(
            f"logits of {tuple(logits.shape)} and {count} frequencies: give n by n by n, n // 2 at most"
        )
    x = logits.double().reshape(n * n, n)
    a, b = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    total = (a + b).flatten()
    x = x - x.mean(1, keepdim=True)
    parts, powers = [], []
    for k in range(1, n // 2 + 1):
        angle = 2 * pi * k * total.double() / n
        basis = torch.stack([angle.cos(), angle.sin()], 1) * (2**0.5 / n)
        part = basis @ (basis.T @ x)
        parts.append(part)
        powers.append(float(part.square().sum()))
    order = sorted(range(len(powers)), key=lambda i: -powers[i])[:count]
    kept = torch.stack([parts[i] for i in order]).sum(0)
    right, mean = total % n, x.mean(0, keepdim=True)
    seen = torch.ones(n * n, dtype=torch.bool) if trained is None else trained.flatten()
    loss = lambda y, rows: float(F.cross_entropy(y[rows], right[rows]))  # noqa: E731
    every = torch.ones(n * n, dtype=torch.bool)
    return Waves(
        tuple(sorted(i + 1 for i in order)), loss(x, every), loss(kept + mean, every), loss(x - kept, seen),
        float(torch.tensor(float(n)).log()), _gini(torch.tensor(powers)),
    )  # fmt: skip


def _gini(power: Float[Tensor, "n"]) -> float:
    """1 less twice the area under the Lorenz curve."""
    ordered = power.sort().values
    n = len(ordered)
    weights = torch.arange(1, n + 1)
    return float((2 * (weights * ordered).sum() / (n * ordered.sum().clamp(min=1e-30))) - (n + 1) / n)
