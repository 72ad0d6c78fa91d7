"""The temporal autoencoder: what attention predicts from the context, and sparse latents of what is new."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from hooks.errors import InvalidArgument
from interp.sae.architectures.sae import SAE

EPSILON = 1e-6


class Temporal(SAE):
    """Latents of what attention over earlier positions does not predict (arXiv:2511.01836), as SAELens computes them.

        z     = ReLU(lambda r W_enc),        p = ReLU(attention(z of earlier positions, z))
        r     <- r - a p W_dec,              a = <p W_dec, r> / ||p W_dec||^2        for each layer, from c x - b_dec
        f     = ReLU(lambda r W_enc),        its k largest,        lambda = 1 / (4 d_in)
        x_hat = ((f + sum a p) W_dec + b_dec) / c

    It reads whole sequences, [..., pos, d_model]: a list of rows is refused, since its positions would be taken for one
    text. `encode` and `decode` are of what is new alone; `forward` is the whole. `scale` is c; `k` None keeps all
    latents; `tied` makes the decoder's transpose the encoder; `subtracts_bias` says whether x or x - b_dec is read. It
    cannot be trained here.

    ```python
    sae = load("their_temporal")
    sae.encode(acts[resid_post[12]])         # batch, pos, latent
    ```
    """

    architecture: ClassVar[str] = "temporal"

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        n_heads: int = 8,
        n_layers: int = 1,
        bottleneck: int = 64,
        k: int | None = None,
        tied: bool = True,
        subtracts_bias: bool = True,
        scale: float | int = 1.0,
    ) -> None:
        super().__init__(d_in, d_sae)
        if d_sae % (bottleneck * n_heads):
            raise InvalidArgument(
                f"d_sae is {d_sae}, bottleneck {bottleneck} and n_heads {n_heads}: d_sae must be a multiple of their "
                "product"
            )
        self.n_heads, self.n_layers, self.bottleneck, self.k = n_heads, n_layers, bottleneck, k
        self.tied, self.subtracts_bias, self.scale = tied, subtracts_bias, scale
        self.W_dec, self.b_dec = nn.Parameter(torch.zeros(d_sae, d_in)), nn.Parameter(torch.zeros(d_in))
        if not tied:
            self.encoder = nn.Parameter(torch.zeros(d_in, d_sae))
        widths = {"q_target": d_sae // bottleneck, "k_ctx": d_sae // bottleneck, "v_ctx": d_sae, "c_proj": d_sae}
        layers = ({name: nn.Linear(d_sae, width) for name, width in widths.items()} for _ in range(n_layers))
        self.attn_layers = nn.ModuleList(nn.ModuleDict(layer) for layer in layers)

    @property
    def W_enc(self) -> Float[Tensor, "d_model latent"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The encoder; the decoder's transpose where they are tied."""
        return self.W_dec.T if self.tied else self.encoder

    def settings(self) -> dict[str, Any]:
        """What the constructor takes, the sizes apart."""
        names = ("n_heads", "n_layers", "bottleneck", "k", "tied", "subtracts_bias", "scale")
        return {name: getattr(self, name) for name in names}

    def encode(self, x: Float[Tensor, "*n pos d_model"]) -> Float[Tensor, "*n pos latent"]:
        """The latents f of what is new at each position."""
        return self._codes(x)[0]

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n d_model"]:
        """What latents write: (f W_dec + b_dec) / c."""
        return super().decode(f) / self.scale

    def forward(self, x: Float[Tensor, "*n pos d_model"]) -> Float[Tensor, "*n pos d_model"]:
        """The reconstruction by both, what is new and what the context predicted."""
        new, expected = self._codes(x)
        return self._restore(self.decode(new + expected), x)

    def _codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim < 3:
            raise InvalidArgument(
                f"a Temporal autoencoder reads sequences, [batch, pos, {self.d_in}], and was given {tuple(x.shape)}: "
                "give activations of whole texts, not a list of rows"
            )
        r = (self._input(x) * self.scale - self.b_dec * self.subtracts_bias).flatten(0, -3)
        expected = r.new_zeros(*r.shape[:-1], self.d_sae)
        for layer in self.attn_layers:
            z = self._latents(r)
            p = self._attention(layer, pad(z[:, :-1], (0, 0, 1, 0)), z).relu()
            written = p @ self.W_dec
            a = (written * r).sum(-1, keepdim=True) / (written.norm(dim=-1, keepdim=True) + EPSILON).pow(2)
            expected, r = expected + a * p, r - a * written
        f = self._latents(r)
        if self.k is not None:
            best = f.topk(self.k, dim=-1)
            f = torch.zeros_like(f).scatter(-1, best.indices, best.values)
        shape = (*x.shape[:-1], self.d_sae)
        return f.view(shape), expected.view(shape)

    def _latents(self, r: Tensor) -> Tensor:
        return ((r / (4 * self.d_in)) @ self.W_enc).relu()

    def _attention(self, layer: nn.Module, context: Tensor, target: Tensor) -> Tensor:
        """Causal attention from the latents at each position to those before it."""

        def project(name: str, z: Tensor) -> Tensor:
            part = layer.get_submodule(name)
            return linear(z, part.get_parameter("weight"), part.get_parameter("bias"))

        sources = {"q_target": target, "k_ctx": context, "v_ctx": context}
        q, k, v = (project(name, z).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for name, z in sources.items())
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        return project("c_proj", mixed.transpose(1, 2).flatten(-2))
