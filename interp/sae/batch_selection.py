"""What BatchTopK and Matryoshka share: the largest of a batch in training, those over a threshold afterwards."""

import math
from abc import ABC

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.sae.ksparse import KSparse
from interp.sae.parallel import anywhere, kth_largest, shared, smallest

RATE = 0.01  # at which the threshold follows the batches


class BatchSelecting(KSparse, ABC):
    """Training keeps the n k largest latents of a batch of n rows; inference keeps those above a learnt threshold.

        f = z 1[z > theta],        z = ReLU((x - b_dec) W_enc + b_enc),        theta = E min {f > 0}

    theta is the running mean of the smallest latent kept in a batch (Bussmann et al. 2024, section 3), so that the
    latents of a row never depend on what else is encoded with it. It is 0, so all pass, before training.
    """

    threshold: Float[Tensor, "latent"]

    def __init__(
        self, d_in: int, d_sae: int, k: float | int, *, k_aux: int | None, aux_coefficient: float | int, seed: int
    ) -> None:
        super().__init__(d_in, d_sae, k, k_aux=k_aux, aux_coefficient=aux_coefficient, seed=seed)
        self.register_buffer("threshold", torch.zeros(d_sae))

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = z 1[z > theta], z = ReLU((x - b_dec) W_enc + b_enc)."""
        z = self.pre(self.checked(x)).relu()
        return z * (z > self.threshold)

    def select(self, pre: Float[Tensor, "n latent"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The n k largest of the batch, as many places per row as the fullest row needs."""
        return largest_of_batch(pre, self.k)

    @torch.no_grad()
    def follow(self, values: Float[Tensor, "n ..."]) -> None:
        """Move theta towards the smallest latent kept; onto it, the first time."""
        on = values[values > 0]
        if len(on):
            self.threshold.lerp_(smallest(on.min()), RATE if bool(self.threshold.any()) else 1.0)


def largest_of_batch(
    pre: Float[Tensor, "n latent"], k: float | int
) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
    """The floor(n k) largest positive entries of a matrix, as values and indices by row, 0 in spare places.

    Exact: the w largest of each row are enough as soon as the smallest of them falls below the batch's last kept
    value in every row, so w doubles until it does.

    Example:
        >>> values, indices = largest_of_batch(torch.tensor([[3.0, 2.0, 1.0], [0.5, 0.0, -1.0]]), k=1)
        >>> values.tolist(), indices[0].tolist()
        ([[3.0, 2.0], [0.0, 0.0]], [0, 1])
    """
    n, d_sae = pre.shape
    count, width = int(k * n * shared().world), min(d_sae, 4 * math.ceil(k))
    while True:
        values, indices = pre.topk(width)
        last = kth_largest(values.detach(), count)
        beyond = values.detach()[:, -1]
        if width == d_sae or not anywhere(((beyond >= last) & (beyond > 0)).any()):
            break
        width = min(d_sae, 2 * width)
    values = torch.where(values >= last, values, 0).relu()
    needed = max(1, int((values > 0).sum(1).max()))
    return values[:, :needed].contiguous(), indices[:, :needed].contiguous()
