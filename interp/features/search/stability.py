"""Whether searching the other half of the texts would have found the same latents."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

TOP = 50


@final
@dataclass(frozen=True)
class Stability:
    """`rank` of the best latent when the other half is searched (1: it is best there too), and `correlation`.

    `correlation` is Spearman's, of the F1 that the latents which are among the 50 best on either half reach on each.
    """

    rank: int
    correlation: float

    def __str__(self) -> str:
        return (
            f"searching the other half: the best latent is number {self.rank}, rank correlation {self.correlation:.2f}"
        )


def split_half(here: Float[Tensor, "latent"], there: Float[Tensor, "latent"]) -> Stability:
    """Compare the F1 of all latents on two halves of the texts, the first the one searched.

    Example:
        >>> split_half(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.8, 0.6, 0.1])).rank
        1
    """
    best = int(here.argmax())
    rank = 1 + int((there > there[best]).sum())
    top = min(TOP, len(here))
    either = torch.cat([here.topk(top).indices, there.topk(top).indices]).unique()
    ranks = torch.stack([_ranks(f1[either]) for f1 in (here, there)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    length = ranks.norm(dim=1).prod()
    correlation = float(ranks[0] @ ranks[1] / length) if float(length) > 0 else 0.0
    return Stability(rank, correlation)


def _ranks(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks from 1, equal values sharing their mean rank."""
    ordered = values.sort().values
    low, high = torch.searchsorted(ordered, values), torch.searchsorted(ordered, values, right=True)
    return (low + high + 1).double() / 2
