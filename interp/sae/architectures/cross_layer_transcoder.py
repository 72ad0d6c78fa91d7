"""The cross-layer transcoder: latents read at one feed-forward layer that write to it and to all later ones."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hooks import Direction
from hooks.errors import InvalidArgument
from interp.sae.architectures.cross_layer_objective import BatchObjective, CrossLayerObjective, ThresholdObjective
from interp.sae.architectures.cross_layer_weights import CrossLayerWeights
from interp.sae.architectures.jumprelu import jump
from interp.sae.architectures.sae import check_positive, decoder_rows, weight
from interp.sae.data.normalisation import Normalisation
from interp.sae.numerics.ranking import BLOCK
from interp.sae.numerics.sparse import times_rows


class CrossLayerTranscoder(CrossLayerWeights):
    """Latents of every feed-forward layer, each of which writes to its own layer and to later ones (Ameisen 2025).

        z^l     = x^l W_enc^l^T + b_enc^l,        a^l = z^l 1[z^l > theta^l]
        y_hat^l = sum_{i <= l} a^i W_dec^{i->l} + b_dec^l  (+ x^l W_skip^l)
        L       = E sum_l ||y^l - y_hat^l||^2  +  lambda E sum_i tanh(c ||W_dec,i|| a_i)
                  + lambda_P E sum_dead ReLU(theta_i - z_i) ||W_dec,i||

    x^l is what layer l reads and y^l what it writes. A source's rows are `[n 2*layer d_model]`, first what all layers
    read and then what all of them write, as `across` gives them. ||W_dec,i|| is the norm of a latent's decoders to all
    its layers together, E the mean over tokens. Thresholds learn as those of `JumpReLU` do. Latents are numbered
    across layers: the first d_sae / n_layers are layer 0's.

    With `k` given (BatchTopK), training keeps the n k largest latents of a batch of n tokens, of all layers together.
    There is then no tanh, the squared error is divided by the variance of y, and ||W_dec,i|| is kept at 1. At the end
    theta is the mean over batches of the smallest latent kept, by the final weights.

    Args:
        d_in: width of what a layer reads and writes.
        d_sae: latents of all layers together, as many for each.
        n_layers: feed-forward layers.
        k: latents per token, of all layers together; None for learnt thresholds.
        reach: to how many layers a latent writes, its own included; unless given, to its own and all later ones. 1
            makes transcoders of one layer each, trained together.
        coefficient: lambda; a trainer raises it from 0 (`Schedule.sparsity_warm_up`).
        bandwidth: of the kernels that thresholds learn through.
        initial_threshold: theta at the start.
        tanh_scale: c.
        pre_act_coefficient: lambda_P.
        skip: whether a linear path is learnt as well.
        seed: of the first weights.

    Examples:
        ```python
        places = [(model, site[i]) for site in (mlp_in, mlp_out) for i in range(model.n_layers)]
        clt = CrossLayerTranscoder(model.d_model, 8 * 2048, n_layers=8, k=64)
        train(clt, normalise_source(source := across(places, texts), rms_scaling(source)))
        ```
    """

    architecture: ClassVar[str] = "cross_layer_transcoder"

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        n_layers: int,
        *,
        k: float | int | None = None,
        reach: int | None = None,
        coefficient: float | int = 2.0,
        bandwidth: float | int = 1.0,
        initial_threshold: float | int = 0.03,
        tanh_scale: float | int = 4.0,
        pre_act_coefficient: float | int = 3e-6,
        skip: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_sae, n_layers, reach=reach, skip=skip, seed=seed)
        check_batch_k(k, d_sae)
        check_positive("tanh_scale", tanh_scale)
        check_positive("bandwidth", bandwidth)
        self.k, self.bandwidth, self.tanh_scale = k, bandwidth, tanh_scale
        self.initial_threshold = weight("initial_threshold", initial_threshold)
        self.coefficient = weight("coefficient", coefficient)
        self.pre_act_coefficient = weight("pre_act_coefficient", pre_act_coefficient)
        self.threshold.requires_grad_(k is None)
        self.register_buffer("variance", torch.ones(()))
        with torch.no_grad():
            self.threshold.fill_(float(initial_threshold) if k is None else 0.0)
            for D in self.decoders():
                D /= D.flatten(1).norm(dim=1)[:, None, None] * (10 if k is None else 1)

    def encode(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents of all layers, those of layer 0 first: a = z 1[z > theta]."""
        return jump(self.pre(self._input(x)).flatten(-2), self.threshold.flatten(), self.bandwidth)

    def forward(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n layer d_model"]:
        """y_hat of what the layers read."""
        return self.decode(self.encode(x)) + self.skip_path(self._input(x))

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n *d"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The latents as values and indices; dense, for one block of rows at a time, so that memory stays bounded."""
        found = [super(CrossLayerTranscoder, self).encode_sparse(rows) for rows in x.split(BLOCK)]
        width = max(values.shape[1] for values, _ in found)
        values, indices = (
            torch.cat([nn.functional.pad(part[i], (0, width - part[i].shape[1])) for part in found]) for i in (0, 1)
        )
        return values, indices

    @torch.no_grad()
    def reconstruct_sparse(
        self, x: Float[Tensor, "n *d"], values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """The reconstruction by latents that `encode_sparse` gave."""
        y_hat = self.skip_path(self._input(x)) + self.b_dec
        for i, D in enumerate(self.decoders()):
            local = indices - i * self.per_layer
            mine = (local >= 0) & (local < self.per_layer)
            written = times_rows(values * mine, local.clamp(0, self.per_layer - 1), D.flatten(1))
            y_hat[:, i : i + self.widths[i]] += written.view(len(x), -1, self.d_in)
        return y_hat

    def _absorb(self, normalisation: Normalisation) -> None:
        """As for a transcoder, layer by layer; the normalisation is of rows that hold x and then y, of every layer."""
        L = self.n_layers
        m, M, back = normalisation.doubles(self.W_dec.device)
        with torch.no_grad():
            W_enc = torch.einsum("lfe,lde->lfd", self.W_enc.double(), M[:L])
            self.W_enc.copy_(W_enc)
            self.b_enc.copy_(self.b_enc - torch.einsum("ld,lfd->lf", m[:L], W_enc))
            for i, D in enumerate(self.decoders()):
                D.copy_(torch.einsum("fld,lde->fle", D.double(), back[L + i : L + i + D.shape[1]]))
            b_dec = torch.einsum("ld,lde->le", self.b_dec.double(), back[L:]) + m[L:]
            if self.W_skip is not None:
                W_skip = M[:L] @ self.W_skip.double() @ back[L:]
                self.W_skip.copy_(W_skip)
                b_dec -= torch.einsum("ld,lde->le", m[:L], W_skip)
            self.b_dec.copy_(b_dec)

    def direction(self, latent: int, layer: int | None = None) -> Direction:
        """A latent as a direction of what a layer writes: of its own layer, or of the one given.

        Raises:
            OutOfRange: the latent does not exist, or does not write there.
            InvalidArgument: as `SAE.direction` says.
        """
        largest = self._largest(latent)
        own = latent // (self.d_sae // self.n_layers)
        at = own if layer is None else layer
        self._check_target(own, at)
        vector = decoder_rows(self, [latent])[0, at].clone()
        site = self.sites[self.n_layers + at]
        return Direction(vector, site, f"sae latent {latent}", largest * float(vector.norm()), self.fingerprint)

    def settings(self) -> dict[str, Any]:
        """What the constructor takes, the sizes and the seed apart."""
        names = ("n_layers", "k", "reach", "coefficient", "bandwidth", "initial_threshold", "tanh_scale")
        return {name: getattr(self, name) for name in (*names, "pre_act_coefficient", "skip")}

    def objective(self) -> CrossLayerObjective:
        """`ThresholdObjective` where thresholds are learnt, `BatchObjective` where `k` is given."""
        return ThresholdObjective(self) if self.k is None else BatchObjective(self)

    def _input(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return self._convert(x, (self.n_layers, self.d_in))


def check_batch_k(k: float | int | None, d_sae: int) -> None:
    """Check how many latents per token training keeps of a batch.

    Raises:
        InvalidArgument: none, or more than there are.

    Examples:
        >>> check_batch_k(64, 2048)
    """
    if k is not None and not 0 < k <= d_sae:
        raise InvalidArgument(f"k is {k}; it must be above 0 and not above d_sae = {d_sae}")
