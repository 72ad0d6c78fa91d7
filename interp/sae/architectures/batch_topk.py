"""The BatchTopK sparse autoencoder: k latents per row on average, more where a row needs more."""

import math
from abc import ABC
from collections.abc import Iterable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae.architectures.ksparse import KSparse, KSparseObjective
from interp.sae.data.distributed import any_process, current_process, kth_largest, minimum
from interp.sae.numerics.ranking import Encoder, Ranking
from interp.sae.numerics.sparse import Code

RATE = 0.01  # at which the threshold follows the batches


class BatchKSparse(KSparse, ABC):
    """Training keeps the n k largest latents of a batch of n rows; inference keeps those above a learnt threshold.

        f = z 1[z > theta],        z = ReLU((x - b_dec) W_enc + b_enc),        theta = E min {f > 0}

    theta is the mean over batches of the smallest latent kept (Bussmann et al. 2024, section 3), so that the latents
    of a row never depend on what else is encoded with it. It is 0, so all pass, before training; in training it is a
    running mean, which lags where weights move fast, and after it the mean over new batches by the final weights.
    """

    threshold: Float[Tensor, "latent"]

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: float | int,
        *,
        k_aux: int | None = None,
        aux_coefficient: float | int = 1 / 32,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_sae, k, k_aux=k_aux, aux_coefficient=aux_coefficient, seed=seed)
        self.register_buffer("threshold", torch.zeros(d_sae))

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = z 1[z > theta], z = ReLU((x - b_dec) W_enc + b_enc)."""
        z = self.pre(self._input(x)).relu()
        return z * (z > self.threshold)

    def objective(self) -> "BatchKSparseObjective":
        """L of `KSparse`, over nested prefixes where there are any."""
        return BatchKSparseObjective(self)


class BatchKSparseObjective(KSparseObjective[BatchKSparse]):
    """L of `KSparse`, with the n k largest of a batch; theta follows what is kept."""

    def code(self, centred: Float[Tensor, "n d_model"]) -> Code:
        """The n k largest of the batch."""
        return batch_top_k(centred, self.sae.encoder, self.sae.k, self.sae.ranking)

    @torch.no_grad()
    def follow(self, values: Float[Tensor, "n ..."]) -> None:
        """Move theta towards the smallest latent kept; onto it, the first time."""
        on = values[values > 0]
        least = minimum(
            on.min() if len(on) else on.new_tensor(math.inf)
        )  # every process calls this, also one that keeps none
        if bool(least.isfinite()):
            self.sae.threshold.lerp_(least, RATE if bool(self.sae.threshold.any()) else 1.0)

    @torch.no_grad()
    def settle(self, batches: Iterable[Float[Tensor, "n d_model"]]) -> None:
        """Set theta to E min {f > 0} over these batches."""
        set_threshold(self.sae.threshold, (self.code(rows - self.sae.b_dec).values for rows in batches))


def set_threshold(threshold: Float[Tensor, "..."], kept: Iterable[Float[Tensor, "_"]]) -> None:
    """Set a threshold to the mean over batches of the smallest latent that is on; leave it where none ever is.

    Examples:
        >>> set_threshold(threshold := torch.zeros(2), [torch.tensor([3.0, 0.0]), torch.tensor([1.0, 2.0])])
        >>> threshold.tolist()
        [2.0, 2.0]
    """
    least = [values[values > 0].min() for values in kept if bool((values > 0).any())]
    if least:
        threshold.fill_(torch.stack(least).mean())


class BatchTopK(BatchKSparse):
    """The n k largest latents of a batch of n rows reconstruct it (Bussmann et al. 2024, arXiv:2412.06410).

        f     = BatchTopK(ReLU((x - b_dec) W_enc + b_enc)) in training,  z 1[z > theta] afterwards
        x_hat = f W_dec + b_dec,        e = x - x_hat
        L     = E||e||^2 / V  +  alpha E||e - e_hat||^2 / V_e,        e_hat = f_aux W_dec

    `BatchKSparse` says how theta is learnt, `KSparse` what the second term is and how the gradients are taken.
    `k` may be a fraction.

    ```python
    report = train(BatchTopK(d_in=256, d_sae=2048, k=32), activations_of(model, texts, resid_post[4]))
    ```
    """

    architecture: ClassVar[str] = "batchtopk"


@torch.no_grad()
def batch_top_k(x: Float[Tensor, "n d_model"], by: Encoder, k: float | int, ranking: Ranking) -> Code:
    """The floor(n k) largest positive entries of x W^T + b.

    Exact: what is above a threshold guessed for somewhat more than n k is enough, if the last that is kept is above it
    too; if not, the guess is lowered, at last to 0. Ties with the last are kept.

    Examples:
        >>> from interp.sae.numerics.ranking import ExactRanking
        >>> by = Encoder(torch.eye(3), torch.zeros(3))
        >>> code = batch_top_k(torch.tensor([[3.0, 2.0, 1.0], [0.5, 0.0, -1.0]]), by, 1, ExactRanking())
        >>> code.values.tolist(), code.latents.tolist(), code.offsets.tolist()
        ([3.0, 2.0], [0, 1], [0, 2, 2])
    """
    count = int(k * len(x) * current_process().world)
    for spare in (1.25, 4.0, math.inf):
        threshold, values, places = ranking.above(x, by, min(spare * k, len(by.W)))
        last = kth_largest(values, count)
        if not any_process((last < threshold) & (threshold != 0)):  # every process calls this, whatever it guessed
            break
    kept = values >= last
    return Code.at(values[kept], places[kept], len(x), len(by.W))
