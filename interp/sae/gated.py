"""The gated sparse autoencoder: whether a latent is on, and how strongly, are read apart."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.sae.initial import random_rows
from interp.sae.sae import SAE, Step


class Gated(SAE):
    """A gate chooses latents under the penalty, a magnitude free of it says how large (Rajamanoharan et al. 2024a).

        pi    = (x - b_dec) W_enc
        f     = 1[pi + b_gate > 0] ReLU(exp(r_mag) pi + b_mag),        x_hat = f W_dec + b_dec
        g     = ReLU(pi + b_gate)
        L     = E||x - x_hat||^2  +  lambda E||g||_1  +  E||x - g sg(W_dec) - sg(b_dec)||^2

    sg holds its argument constant. Rows of W_dec have unit norm, W_enc starts as its transpose; Adam's first beta
    is 0, as in the paper (section 3, appendix E). `coefficient` is lambda.

    ```python
    train(Gated(d_in=256, d_sae=2048, coefficient=0.5), activations_of(model, texts, resid_post[4]), lr=5e-5)
    ```
    """

    architecture: ClassVar[str] = "gated"
    unit_norm_decoder: ClassVar[bool] = True
    centred: ClassVar[bool] = True
    betas: ClassVar[tuple[float, float]] = (0.0, 0.999)

    def __init__(self, d_in: int, d_sae: int, *, coefficient: float | int = 1.0, seed: int = 0) -> None:
        super().__init__(d_in, d_sae)
        self.coefficient = coefficient
        self.W_dec = nn.Parameter(random_rows(d_sae, d_in, seed))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())
        self.b_gate, self.b_mag, self.r_mag = (nn.Parameter(torch.zeros(d_sae)) for _ in range(3))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = 1[pi + b_gate > 0] ReLU(exp(r_mag) pi + b_mag)."""
        return self._gated(self._pi(self.checked(x)))

    def loss(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:  # noqa: ARG002
        """E||x - x_hat||^2 + lambda E||g||_1 + E||x - g sg(W_dec) - sg(b_dec)||^2."""
        pi = self._pi(rows)
        f, g = self._gated(pi), (pi + self.b_gate).relu()
        squared_error = (rows - self.decode(f)).pow(2).sum(1).mean()
        sparsity = g.sum(1).mean()
        by_gate = (rows - g @ self.W_dec.detach() - self.b_dec.detach()).pow(2).sum(1).mean()
        return Step.of(squared_error + self.sparsity_share * self.coefficient * sparsity + by_gate, squared_error, f)

    def settings(self) -> dict[str, Any]:
        """The `coefficient`."""
        return {"coefficient": self.coefficient}

    def _pi(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        return (x - self.b_dec) @ self.W_enc

    def _gated(self, pi: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n latent"]:
        on = (pi + self.b_gate > 0).to(pi.dtype)
        return on * (self.r_mag.exp() * pi + self.b_mag).relu()
