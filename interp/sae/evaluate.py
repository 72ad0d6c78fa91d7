"""How well a sparse autoencoder reconstructs, and what its latents did, over a stated number of tokens."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.sae.sae import CHUNK, SAE
from interp.sae.sparse import largest_per_latent, times_rows


@dataclass(frozen=True)
class Quality:
    """What a pass over activations found.

    `explained_variance` is 1 - E||x - x_hat||^2 / (E||x||^2 - ||E x||^2), `l0` the mean number of latents above 0,
    `dead_share` the share of latents that never were in these `tokens` tokens. `firings` and `max_activation`
    count and bound each latent.
    """

    explained_variance: float
    l0: float
    dead_share: float
    tokens: int
    firings: Int[Tensor, "latent"]
    max_activation: Float[Tensor, "latent"]

    def __str__(self) -> str:
        return (
            f"explained variance {self.explained_variance:.3f}, L0 {self.l0:.1f}, dead {self.dead_share:.1%} "
            f"of {len(self.firings)} latents, over {self.tokens:,} tokens without BOS and padding"
        )


@torch.no_grad()
def evaluate(sae: SAE, source: Iterable[Float[Tensor, "n d_model"]]) -> Quality:
    """Measure reconstruction and latents over one pass of a source (any batches of activations), summed in float64.

    Raises:
        ValueError: the source is empty, or all its activations are the same vector.

    Example:
        ```python
        print(evaluate(sae, activations_of(model, held_out_texts, resid_post[4])))
        ```
    """
    sums = _Sums(sae)
    for chunk in source:
        for x in chunk.to(sae.W_enc.device).split(CHUNK):
            sums.add(x)
    if not sums.n:
        raise ValueError("There are no activations to evaluate on: the source gave no rows.")
    return sums.quality()


class _Sums:
    """Running sums over rows of x, of its square and of the reconstruction's error."""

    def __init__(self, sae: SAE) -> None:
        self.sae, self.n = sae, 0
        self.x = torch.zeros(sae.d_in, dtype=torch.float64, device=sae.W_enc.device)
        self.x_squared = self.error = torch.zeros((), dtype=torch.float64, device=sae.W_enc.device)
        self.firings = torch.zeros(sae.d_sae, dtype=torch.long, device=sae.W_enc.device)
        self.largest = torch.zeros_like(sae.b_enc)

    def add(self, x: Tensor) -> None:
        values, indices = self.sae.encode_sparse(x)
        e = x.double() - times_rows(values, indices, self.sae.W_dec) - self.sae.b_dec
        if not self.n:
            self.origin = x.double().mean(0)  # sums are taken about a typical row: no cancellation for a large mean
        about = x.double() - self.origin
        self.x = self.x + about.sum(0)
        self.x_squared = self.x_squared + about.pow(2).sum()
        self.error = self.error + e.pow(2).sum()
        self.firings += torch.bincount(indices[values > 0], minlength=self.sae.d_sae)
        self.largest = torch.maximum(self.largest, largest_per_latent(values, indices, self.sae.d_sae))
        self.n += len(x)

    def quality(self) -> Quality:
        variance = float(self.x_squared / self.n - (self.x / self.n).pow(2).sum())
        if variance <= 0:
            raise ValueError(f"All {self.n} activations are the same vector: explained variance has no meaning.")
        return Quality(
            explained_variance=1 - float(self.error) / self.n / variance,
            l0=float(self.firings.sum()) / self.n,
            dead_share=float((self.firings == 0).double().mean()),
            tokens=self.n,
            firings=self.firings,
            max_activation=self.largest,
        )
