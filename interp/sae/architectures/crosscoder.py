"""The crosscoder: one set of latents for several layers, or for the same layer of two models."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hooks import Direction
from hooks.errors import OutOfRange
from interp.sae.architectures.initialisation import random_rows
from interp.sae.architectures.objective import Objective, Step
from interp.sae.architectures.sae import SAE, check_count, weight
from interp.sae.data.normalisation import Normalisation


class Crosscoder(SAE):
    """Latents read from all layers at once and written to each (Lindsey et al. 2024, Sparse Crosscoders).

        f     = ReLU(sum_l a^l W_enc^l + b_enc),        a_hat^l = f W_dec^l + b_dec^l
        L     = E sum_l ||a^l - a_hat^l||^2  +  lambda E sum_i f_i sum_l ||W_dec,i^l||

    "Layers" are whatever places `across` reads: sites of one model, or one site of two models, of which the second
    was trained on from the first. There the L1-of-norms penalty lets a latent be the first model's own, the
    second's, or shared: `shares` says which. Rows of one latent start alike in all layers, with norm 0.1, W_enc as
    the transpose. `coefficient` is lambda.

    ```python
    places = [(before, resid_post[4]), (after, resid_post[4])]
    train(diff := Crosscoder(before.d_model, 4096, n_layers=2), across(places, texts))
    ```
    """

    architecture: ClassVar[str] = "crosscoder"

    def __init__(self, d_in: int, d_sae: int, n_layers: int, *, coefficient: float | int = 1.0, seed: int = 0) -> None:
        super().__init__(d_in, d_sae)
        check_count("n_layers", n_layers)
        self.n_layers, self.coefficient = n_layers, weight("coefficient", coefficient)
        self.row_shape = (n_layers, d_in)
        rows = 0.1 * random_rows(d_sae, d_in, seed)
        self.W_dec = nn.Parameter(rows[:, None].repeat(1, n_layers, 1))
        self.W_enc = nn.Parameter(self.W_dec.detach().permute(1, 2, 0).contiguous())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(n_layers, d_in))

    def encode(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = ReLU(sum_l a^l W_enc^l + b_enc)."""
        return (self._input(x).flatten(-2) @ self.W_enc.flatten(0, 1) + self.b_enc).relu()

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n layer d_model"]:
        """The reconstructions a_hat^l = f W_dec^l + b_dec^l."""
        return (f @ self.W_dec.flatten(1)).unflatten(-1, self.b_dec.shape) + self.b_dec

    def norms(self) -> Float[Tensor, "latent layer"]:
        """||W_dec,i^l||: how strongly each latent writes to each layer."""
        return self.W_dec.norm(dim=2)

    def shares(self) -> Float[Tensor, "latent layer"]:
        """||W_dec,i^l|| / sum_l ||W_dec,i^l||: near 1 where a latent is one layer's, or one model's, own."""
        norms = self.norms().detach()
        return norms / norms.sum(1, keepdim=True)

    def direction(self, latent: int, layer: int = 0) -> Direction:
        """Latent i as a direction of one layer: the vector W_dec[i, l]; for two models, of model l.

        Raises:
            OutOfRange: the latent or the layer does not exist.
            InvalidArgument: as for every autoencoder.
        """
        if not 0 <= layer < self.n_layers:
            raise OutOfRange(f"layer {layer} does not exist; this crosscoder has layers 0 to {self.n_layers - 1}")
        largest = self._largest(latent)
        vector = self.W_dec[latent, layer].detach().clone()
        scale = largest * float(vector.norm())
        site = self.sites[layer] if layer < len(self.sites) else self.sites[0]
        prints = self.fingerprint.split(" ") if self.fingerprint else [None]
        return Direction(vector, site, f"sae latent {latent}", scale, prints[min(layer, len(prints) - 1)])

    def settings(self) -> dict[str, Any]:
        """`n_layers` and the `coefficient`."""
        return {"n_layers": self.n_layers, "coefficient": self.coefficient}

    def _input(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Activations of all layers, checked as everywhere."""
        return self._convert(x, (self.n_layers, self.d_in))

    def objective(self) -> "CrosscoderObjective":
        """Squared error of all layers and a penalty of L1 norms."""
        return CrosscoderObjective(self)

    def _absorb(self, normalisation: Normalisation) -> None:
        """As for every autoencoder, layer by layer."""
        m, M, back = normalisation.doubles(self.W_dec.device)
        with torch.no_grad():
            W_enc = M @ self.W_enc.double()
            self.W_enc.copy_(W_enc)
            self.b_enc.copy_(self.b_enc - torch.einsum("ld,ldf->f", m, W_enc))
            self.W_dec.copy_(torch.einsum("fld,lde->fle", self.W_dec.double(), back))
            self.b_dec.copy_(torch.einsum("ld,lde->le", self.b_dec.double(), back) + m)


class CrosscoderObjective(Objective[Crosscoder]):
    """L = E sum_l ||a^l - a_hat^l||^2 + lambda E sum_i f_i sum_l ||W_dec,i^l||, as `Crosscoder` says."""

    def loss(self, rows: Float[Tensor, "n layer d_model"], dead: Bool[Tensor, "latent"]) -> Step:  # noqa: ARG002
        """E sum_l ||a^l - a_hat^l||^2 + lambda E sum_i f_i sum_l ||W_dec,i^l||."""
        sae = self.sae
        f = sae.encode(rows)
        squared_error = (rows - sae.decode(f)).pow(2).sum((1, 2)).mean()
        sparsity = (f @ sae.norms().sum(1)).mean()
        return Step.of(squared_error + self.sparsity_share * sae.coefficient * sparsity, squared_error, f)
