"""The TopK sparse autoencoder, with sparse gradients written out by hand."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear

from interp.sae.median import geometric_median
from interp.sae.sae import CHUNK, SAE, Step
from interp.sae.sparse import Transposed, row_dots, times_rows, total_per_latent


class TopK(SAE):
    """The k largest latents reconstruct x; the dead ones learn from what is left over (Gao et al. 2024, section 2).

        f     = TopK(ReLU(W_enc (x - b_dec) + b_enc))
        x_hat = f W_dec + b_dec,        e = x - x_hat
        L     = E||e||^2 / V  +  alpha E||e - e_hat||^2 / V_e,        e_hat = f_aux W_dec

    V = E||x - E x||^2 is measured once, on the sample given to `initialise`; V_e is the same for e, on each batch.
    f_aux keeps the `k_aux` largest of the dead latents (Gao et al., appendix A.2); e and V_e are held constant in
    the second term, which is 0 where no latent is dead. Rows of W_dec have unit norm and W_enc starts as its
    transpose. One batch costs one dense product, the encoder's; all the others are sparse.

    `k_aux` is half of `d_in` unless given, `aux_coefficient` is alpha, and `seed` draws the first decoder.

    ```python
    sae = TopK(d_in=256, d_sae=2048, k=32)
    report = train(sae, activations_of(model, texts, resid_post[4]))
    f = sae.encode(x)                      # Float["n latent"], at most 32 of each row above 0
    ```
    """

    architecture: ClassVar[str] = "topk"
    unit_norm_decoder: ClassVar[bool] = True

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: int,
        *,
        k_aux: int | None = None,
        aux_coefficient: float = 1 / 32,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_sae)
        if not 1 <= k <= d_sae:
            raise ValueError(f"k is {k}; it must lie between 1 and d_sae = {d_sae}.")
        self.k, self.aux_coefficient = k, aux_coefficient
        self.k_aux = max(1, d_in // 2) if k_aux is None else k_aux
        rows = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed))
        rows /= rows.norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(rows)
        # A view of a (latent, d_model) block: the sparse gradient comes out in that order.
        self.W_enc = nn.Parameter(rows.clone().T)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("variance", torch.ones(()))

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = TopK(ReLU(W_enc (x - b_dec) + b_enc)), dense: at most k of each row above 0."""
        pre = self._pre(self.checked(x))
        kept = pre.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, kept.indices, kept.values.relu())

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n d_model"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The same latents as k values and k indices per row, a value being 0 where the ReLU cut it."""
        kept = [self._pre(self.checked(rows)).topk(self.k, sorted=False) for rows in x.split(CHUNK)]
        return torch.cat([k.values for k in kept]).relu_(), torch.cat([k.indices for k in kept])

    @torch.no_grad()
    def initialise(self, x: Float[Tensor, "n d_model"]) -> None:
        """Set V to the sample's variance E||x - E x||^2, and b_dec, if it is still 0, to its geometric median."""
        x = self.checked(x)
        variance = (x - x.mean(0)).pow(2).sum(1).mean()
        if variance <= 0:
            raise ValueError(f"All {len(x)} activations are the same vector: there is nothing to reconstruct.")
        if not bool(self.b_dec.any()):
            self.b_dec.copy_(geometric_median(x))
        self.get_buffer("variance").copy_(variance)

    @torch.no_grad()
    def gradients(self, x: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """Fill `.grad` with the exact gradient of L on this batch and return what the batch did."""
        centred = x - self.b_dec
        pre = linear(centred, self.W_enc.T, self.b_enc)
        values, indices = pre.topk(self.k, sorted=False)
        values.relu_()
        e = centred - times_rows(values, indices, self.W_dec)
        squared_error = e.pow(2).sum(1).mean()
        variance = self.get_buffer("variance")
        g = e * (-2 / (len(x) * variance))  # dL/dx_hat

        for_latents = self._backward(g, centred, values, indices)
        aux_loss, for_dead = self._auxiliary(e, centred, pre, dead)
        W_dec, W_enc, b_enc = (a if b is None else a + b for a, b in zip(for_latents, for_dead, strict=True))
        self.W_dec.grad, self.W_enc.grad, self.b_enc.grad = W_dec, W_enc.T, b_enc
        self.b_dec.grad = g.sum(0) - self.W_enc @ b_enc  # b_dec is added to x_hat and taken from x
        return Step(squared_error / variance + aux_loss, squared_error, values, indices)

    def _auxiliary(
        self,
        e: Float[Tensor, "n d_model"],
        centred: Float[Tensor, "n d_model"],
        pre: Float[Tensor, "n latent"],
        dead: Bool[Tensor, "latent"],
    ) -> tuple[Float[Tensor, ""], tuple[Tensor | None, Tensor | None, Tensor | None]]:
        """The term alpha E||e - e_hat||^2 / V_e and its gradients, e_hat being what the dead latents make of e."""
        latents = dead.nonzero().flatten()
        e_variance = (e - e.mean(0)).pow(2).sum(1).mean()
        if not len(latents) or not self.aux_coefficient or e_variance == 0:
            return e.new_zeros(()), (None, None, None)
        values, places = pre[:, latents].topk(min(self.k_aux, len(latents)), sorted=False)
        values.relu_()
        indices = latents[places]
        left = e - times_rows(values, indices, self.W_dec)
        scale = self.aux_coefficient / e_variance
        g = left * (-2 * scale / len(e))
        return scale * left.pow(2).sum(1).mean(), self._backward(g, centred, values, indices)

    def _backward(
        self,
        g: Float[Tensor, "n d_model"],
        centred: Float[Tensor, "n d_model"],
        values: Float[Tensor, "n ..."],
        indices: Int[Tensor, "n ..."],
    ) -> tuple[Float[Tensor, "latent d_model"], Float[Tensor, "latent d_model"], Float[Tensor, "latent"]]:
        """Gradients of W_dec, of W_enc transposed and of b_enc, from g, the loss's gradient at one decoding."""
        g_values = row_dots(g, indices, self.W_dec) * (values > 0)
        by_latent = Transposed(indices, self.d_sae)
        return (
            by_latent.times(values, g),
            by_latent.times(g_values, centred),
            total_per_latent(g_values, indices, self.d_sae),
        )

    def _pre(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        return linear(x - self.b_dec, self.W_enc.T, self.b_enc)

    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Float[Tensor, "..."]]]:
        """The entry `k`, the two settings that fix what SAELens computes, and the four weights."""
        config = {"k": self.k, "rescale_acts_by_decoder_norm": False, "apply_b_dec_to_input": True}
        return config, {name: getattr(self, name).detach() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}

    @classmethod
    def from_saelens(cls, config: dict[str, Any], weights: dict[str, Float[Tensor, "..."]]) -> "TopK":
        """The same function, with SAELens's two options folded into the weights.

        Without `apply_b_dec_to_input` the encoder reads x itself: b_enc absorbs W_enc b_dec. With
        `rescale_acts_by_decoder_norm` latents are measured in units of x: each decoder row's norm moves into the
        encoder.
        """
        W_enc, b_enc, W_dec, b_dec = (weights[name].float() for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
        if not config.get("apply_b_dec_to_input", True):
            b_enc = b_enc + b_dec @ W_enc
        if config.get("rescale_acts_by_decoder_norm", False):
            norm = W_dec.norm(dim=1)
            W_enc, b_enc, W_dec = W_enc * norm, b_enc * norm, W_dec / norm[:, None]
        sae = cls(*W_enc.shape, k=int(config["k"]))
        with torch.no_grad():
            for name, weight in (("W_enc", W_enc), ("b_enc", b_enc), ("W_dec", W_dec), ("b_dec", b_dec)):
                getattr(sae, name).copy_(weight)
        return sae
