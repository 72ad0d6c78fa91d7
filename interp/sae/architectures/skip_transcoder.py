"""The skip transcoder: a transcoder next to a linear map, which takes over what needs no latents."""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.sae.architectures.objective import Objective, Step, measure_variance
from interp.sae.architectures.transcoder import TranscoderBase
from interp.sae.data.normalisation import Normalisation


class SkipTranscoder(TranscoderBase):
    """A transcoder with a linear path from input to output (Paulo et al. 2025, arXiv:2501.18823).

        f     = ReLU(x W_enc + b_enc),        y_hat = f W_dec + b_dec + x W_skip^T
        L     = E||y - y_hat||^2 / V  +  lambda E sum_i f_i ||W_dec,i|| / V,        V = E||y - E y||^2

    V is measured once, on the sample given to `initialise`: the first term is the share of variance unexplained.
    W_skip starts at 0. `decode` is the latents' part, f W_dec + b_dec; `forward` is all of y_hat.

    ```python
    train(SkipTranscoder(model.d_model, 4096), pairs_of(model, texts, mlp_in[3], mlp_out[3]))
    ```
    """

    architecture: ClassVar[str] = "skip_transcoder"

    def __init__(
        self, d_in: int, d_sae: int, *, d_out: int | None = None, coefficient: float | int = 1.0, seed: int = 0
    ) -> None:
        super().__init__(d_in, d_sae, d_out=d_out, coefficient=coefficient, seed=seed)
        self.W_skip = nn.Parameter(torch.zeros(self.d_out, d_in))
        self.register_buffer("variance", torch.ones(()))

    def forward(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n _"]:
        """What is written for x: f W_dec + b_dec + x W_skip^T."""
        return self.decode(self.encode(x)) + self._convert(x, (self.d_in,)) @ self.W_skip.T

    @torch.no_grad()
    def reconstruct_sparse(
        self, x: Float[Tensor, "n d_model"], values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."]
    ) -> Float[Tensor, "n _"]:
        """What is written for x, by latents that `encode_sparse` gave."""
        return super().reconstruct_sparse(x, values, indices) + self._convert(x, (self.d_in,)) @ self.W_skip.T

    def _absorb(self, normalisation: Normalisation) -> None:
        """As for every transcoder, and W_skip^T <- M_x W_skip^T M_y^-1, whose image of m_x leaves b_dec."""
        super()._absorb(normalisation)
        a = self.d_in
        m, M, back = normalisation.doubles(self.W_dec.device)
        with torch.no_grad():
            W_skip = (M[:a, :a] @ self.W_skip.T.double() @ back[a:, a:]).T
            self.W_skip.copy_(W_skip)
            self.b_dec.copy_(self.b_dec - W_skip @ m[:a])

    def objective(self) -> "SkipTranscoderObjective":
        """The share of variance unexplained and a weighed L1 penalty."""
        return SkipTranscoderObjective(self)


class SkipTranscoderObjective(Objective[SkipTranscoder]):
    """L = (E||y - y_hat||^2 + lambda E sum_i f_i ||W_dec,i||) / V, as `SkipTranscoder` says."""

    @torch.no_grad()
    def initialise(self, rows: Float[Tensor, "n _"]) -> None:
        """Set V to the sample's variance of y."""
        self.sae.get_buffer("variance").copy_(measure_variance(self.sae, rows))

    def loss(self, rows: Float[Tensor, "n _"], dead: Bool[Tensor, "latent"]) -> Step:  # noqa: ARG002
        """(E||y - y_hat||^2 + lambda E sum_i f_i ||W_dec,i||) / V."""
        sae = self.sae
        x, y = sae.parts(rows)
        f = sae.encode(x)
        squared_error = (y - sae.decode(f) - x @ sae.W_skip.T).pow(2).sum(1).mean()
        sparsity = (f @ sae.W_dec.norm(dim=1)).mean()
        total = squared_error + self.sparsity_share * sae.coefficient * sparsity
        return Step.of(total / sae.get_buffer("variance"), squared_error, f)
