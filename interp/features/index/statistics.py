"""Running statistics of every latent at once: how often, how strongly, where in a text."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

BINS = 40
PLACES = 16


class RunningStatistics:
    """Counts of activations above 0, by latent; the same whatever batches they came in.

    `counts` are the histogram's, in `BINS` equal bins (low, high] from 0 to `top`, a power of two at least as large
    as the largest; where a larger one comes, bins merge in pairs and the range doubles. `positions` counts by
    floor(log2(1 + number of the token in its text)).
    """

    def __init__(self, d_sae: int) -> None:
        self.tokens = 0
        self.fired = torch.zeros(d_sae, dtype=torch.long)
        self.total = torch.zeros(d_sae, dtype=torch.float64)
        self.squares = torch.zeros(d_sae, dtype=torch.float64)
        self.largest = torch.zeros(d_sae, dtype=torch.float64)
        self.top = torch.zeros(d_sae, dtype=torch.float64)
        self.counts = torch.zeros(d_sae, BINS, dtype=torch.long)
        self.positions = torch.zeros(d_sae, PLACES, dtype=torch.long)

    def add(self, latent: Int[Tensor, "n"], value: Float[Tensor, "n"], number: Int[Tensor, "n"], tokens: int) -> None:
        """Count activations above 0, each with its latent and the number of its token, among so many tokens."""
        d_sae, v = len(self.fired), value.double()
        self.tokens += tokens
        self.fired += torch.bincount(latent, minlength=d_sae)
        self.total += torch.bincount(latent, v, minlength=d_sae)
        self.squares += torch.bincount(latent, v * v, minlength=d_sae)
        self.largest.scatter_reduce_(0, latent, v, "amax")
        self._widen()
        place = (v / self.top[latent] * BINS).ceil().long() - 1
        self.counts += torch.bincount(latent * BINS + place, minlength=d_sae * BINS).view(d_sae, BINS)
        at = (number + 1).double().log2().floor().long().clamp(max=PLACES - 1)
        self.positions += torch.bincount(latent * PLACES + at, minlength=d_sae * PLACES).view(d_sae, PLACES)

    def _widen(self) -> None:
        needed = torch.where(self.largest > 0, 2.0 ** self.largest.clamp(min=1e-300).log2().ceil(), self.top)
        needed = torch.where(needed < self.largest, 2 * needed, needed)  # where the logarithm was rounded down
        while bool((narrow := (self.top > 0) & (self.top < needed)).any()):
            halves = self.counts[narrow].view(-1, BINS // 2, 2).sum(2)
            self.counts[narrow] = torch.cat([halves, torch.zeros_like(halves)], 1)
            self.top[narrow] *= 2
        self.top = torch.maximum(self.top, needed)

    def state(self) -> dict[str, Shaped[Tensor, "..."]]:
        """Everything counted so far."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)} | {
            "tokens": torch.tensor(self.tokens)
        }

    def restore(self, state: dict[str, Shaped[Tensor, "..."]]) -> None:
        """Go on from an earlier `state`."""
        for name, value in state.items():
            setattr(self, name, int(value) if name == "tokens" else value)
