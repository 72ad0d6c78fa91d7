"""For every latent the items of largest total weight in a stream too long to keep: weighted Misra-Gries summaries."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


class HeaviestItems:
    """At most `kept` items per latent, each with a weight that is at most `slack[latent]` too small.

    When more items than that have come, the weight of the first that does not fit is taken off all of them (Misra and
    Gries 1982; merged as in Agarwal et al. 2012). So an item with more than 1 / (kept + 1) of a latent's weight is
    never lost, and `slack` is at most that share; with no more items than fit, weights are exact.
    """

    def __init__(self, d_sae: int, items: int, kept: int) -> None:
        self.items, self.kept = items, kept
        self.key = torch.zeros(0, dtype=torch.long)
        self.weight = torch.zeros(0, dtype=torch.float64)
        self.slack = torch.zeros(d_sae, dtype=torch.float64)

    def add(self, latent: Int[Tensor, "n"], item: Int[Tensor, "n"], weight: Float[Tensor, "n"]) -> None:
        """Add weights above 0 of items, each to its latent's."""
        if not len(latent):
            return
        keys, place = torch.cat([self.key, latent * self.items + item]).unique(return_inverse=True)
        weights = torch.bincount(place, torch.cat([self.weight, weight.double()]), minlength=len(keys))
        falling = weights.argsort(descending=True, stable=True)
        falling = falling[(keys[falling] // self.items).argsort(stable=True)]  # by latent, heaviest first
        keys, weights = keys[falling], weights[falling]
        owner = keys // self.items
        rank = torch.arange(len(keys)) - torch.searchsorted(owner, owner)
        over = rank == self.kept
        off = torch.zeros_like(self.slack)
        off[owner[over]] = weights[over]
        self.slack += off
        weights = weights - off[owner]
        stay = (rank < self.kept) & (weights > 0)
        self.key, self.weight = keys[stay], weights[stay]

    def of(self, latent: int) -> tuple[Int[Tensor, "..."], Float[Tensor, "..."]]:
        """A latent's items and their weights, heaviest first."""
        first, end = torch.searchsorted(self.key // self.items, torch.tensor([latent, latent + 1])).tolist()
        return self.key[first:end] % self.items, self.weight[first:end]

    def state(self) -> dict[str, Shaped[Tensor, "..."]]:
        """Everything kept so far."""
        return {"key": self.key, "weight": self.weight, "slack": self.slack}

    def restore(self, state: dict[str, Shaped[Tensor, "..."]]) -> None:
        """Go on from an earlier `state`."""
        self.key, self.weight, self.slack = state["key"], state["weight"], state["slack"]
