"""The TopK sparse autoencoder: the k largest latents of each row."""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.errors import InvalidArgument
from interp.sae.architectures.ksparse import KSparse, KSparseObjective
from interp.sae.numerics.sparse import Code


class TopK(KSparse):
    """The k largest latents reconstruct x; the dead ones learn from what is left over (Gao et al. 2024, section 2).

        f     = TopK(ReLU((x - b_dec) W_enc + b_enc))
        x_hat = f W_dec + b_dec,        e = x - x_hat
        L     = E||e||^2 / V  +  alpha E||e - e_hat||^2 / V_e,        e_hat = f_aux W_dec

    as `KSparse` says, which holds the gradients. `k_aux` is half of `d_in` unless given, `aux_coefficient` is
    alpha, and `seed` draws the first decoder.

    ```python
    sae = TopK(d_in=256, d_sae=2048, k=32)
    report = train(sae, activations_of(model, texts, resid_post[4]))
    f = sae.encode(x)                      # Float["n latent"], at most 32 of each row above 0
    ```
    """

    architecture: ClassVar[str] = "topk"

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
        if k != int(k):
            raise InvalidArgument(f"k is {k}; TopK keeps a whole number of each row: take BatchTopK for {k} on average")
        self.k: int = int(k)

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = TopK(ReLU((x - b_dec) W_enc + b_enc)), dense: at most k of each row above 0."""
        pre = self.pre(self._input(x))
        kept = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n d_model"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The same latents as k values and k indices per row, a value being 0 where the ReLU cut it."""
        code = self.top_k(self._input(x) - self.b_dec)
        return code.values.view(len(x), self.k), code.latents.view(len(x), self.k)

    def top_k(self, centred: Float[Tensor, "n d_model"]) -> Code:
        """The k largest of each row of x - b_dec, after the ReLU."""
        code = self.ranking.of_rows(centred, self.encoder, self.k)
        code.values.relu_()
        return code

    def objective(self) -> "TopKObjective":
        """L of `KSparse`."""
        return TopKObjective(self)


class TopKObjective(KSparseObjective[TopK]):
    """L of `KSparse`, with the k largest of each row."""

    @torch.no_grad()
    def code(self, centred: Float[Tensor, "n d_model"]) -> Code:
        """The k largest of each row."""
        return self.sae.top_k(centred)
