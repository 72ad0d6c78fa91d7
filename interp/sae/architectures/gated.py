"""The gated sparse autoencoder: whether a latent is on, and how strongly, are read separately."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.sae.architectures.chunked_gradients import BatchSums, encode_chunks, sum_of_squares, zero_where_off
from interp.sae.architectures.initialisation import random_rows
from interp.sae.architectures.objective import Objective, Step
from interp.sae.architectures.sae import SAE, weight
from interp.sae.numerics.ranking import Encoder


class Gated(SAE):
    """A gate under a penalty chooses latents; a magnitude without one is their size (Rajamanoharan et al. 2024a).

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
    centred: ClassVar[bool] = True

    def __init__(self, d_in: int, d_sae: int, *, coefficient: float | int = 1.0, seed: int = 0) -> None:
        super().__init__(d_in, d_sae)
        self.coefficient = weight("coefficient", coefficient)
        self.W_dec = nn.Parameter(random_rows(d_sae, d_in, seed))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())
        self.b_gate, self.b_mag, self.r_mag = (nn.Parameter(torch.zeros(d_sae)) for _ in range(3))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = 1[pi + b_gate > 0] ReLU(exp(r_mag) pi + b_mag)."""
        return self.gated_magnitudes(self.pi(self._input(x)))

    def settings(self) -> dict[str, Any]:
        """What the constructor takes, the sizes and the seed apart."""
        return {"coefficient": self.coefficient}

    def pi(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """What gate and magnitude both read: pi = (x - b_dec) W_enc."""
        return (x - self.b_dec) @ self.W_enc

    def gated_magnitudes(self, pi: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n latent"]:
        """The magnitudes that the gate lets through, f = 1[pi + b_gate > 0] ReLU(exp(r_mag) pi + b_mag)."""
        on = (pi + self.b_gate > 0).to(pi.dtype)
        return on * (self.r_mag.exp() * pi + self.b_mag).relu()

    def objective(self) -> "GatedObjective":
        """Squared error, an L1 penalty on the gate, and the gate's own squared error."""
        return GatedObjective(self)


class GatedObjective(Objective[Gated]):
    """L = E||x - x_hat||^2 + lambda E||g||_1 + E||x - g sg(W_dec) - sg(b_dec)||^2, as `Gated` says."""

    betas: ClassVar[tuple[float, float]] = (0.0, 0.999)
    unit_norm_decoder: ClassVar[bool] = True

    def loss(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:  # noqa: ARG002
        """E||x - x_hat||^2 + lambda E||g||_1 + E||x - g sg(W_dec) - sg(b_dec)||^2."""
        sae = self.sae
        pi = sae.pi(rows)
        f, g = sae.gated_magnitudes(pi), (pi + sae.b_gate).relu()
        squared_error = (rows - sae.decode(f)).pow(2).sum(1).mean()
        sparsity = g.sum(1).mean()
        by_gate = (rows - g @ sae.W_dec.detach() - sae.b_dec.detach()).pow(2).sum(1).mean()
        return Step.of(squared_error + self.sparsity_share * sae.coefficient * sparsity + by_gate, squared_error, f)

    @torch.no_grad()
    def gradients(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:  # noqa: ARG002
        """Fill `.grad` with the exact gradient of the loss on this batch and return what the batch did.

        dL/dpi = exp(r_mag) dL/df where f > 0, plus dL/dg where g > 0; g is the ReLU of the gate, as in `loss`.
        """
        sae = self.sae
        n, weight = len(rows), self.sparsity_share * sae.coefficient / len(rows)
        centred, scale, sums = rows - sae.b_dec, sae.r_mag.exp(), BatchSums(rows, sae.d_sae)
        W_dec, W_enc, b_dec = torch.zeros_like(sae.W_dec), torch.zeros_like(sae.W_enc.T), torch.zeros_like(sae.b_dec)
        b_gate, b_mag, r_mag, total_for_pi = (torch.zeros_like(sae.b_mag) for _ in range(4))
        for at, pi in encode_chunks(centred, Encoder(sae.W_enc.T, torch.zeros_like(sae.b_mag)), -sae.b_gate):
            x, g = centred[at], (pi.values + pi.of(sae.b_gate)).relu_()
            f = zero_where_off((pi.values * pi.of(scale)).add_(pi.of(sae.b_mag)).relu_(), g)
            error, by_gate = pi.times(f, sae.W_dec).sub_(x), pi.times(g, sae.W_dec).sub_(x)
            sums.add(pi, f, error)
            sums.loss = sums.loss + sum_of_squares(by_gate) / n + weight * g.sum()
            for_x_hat = error.mul_(2 / n)
            for_f = zero_where_off(pi.dots(for_x_hat, sae.W_dec), f)
            for_g = zero_where_off(pi.dots(by_gate.mul_(2 / n), sae.W_dec).add_(weight), g)
            b_gate += pi.total(for_g)
            b_mag += pi.total(for_f)
            for_f.mul_(pi.of(scale))
            for_pi = for_g.add_(for_f)
            r_mag += pi.total(for_f.mul_(pi.values))
            total_for_pi += pi.total(for_pi)
            pi.add_transposed(W_dec, f, for_x_hat)
            pi.add_transposed(W_enc, for_pi, x)
            b_dec += for_x_hat.sum(0)
        sae.W_dec.grad, sae.W_enc.grad, sae.b_dec.grad = W_dec, W_enc.T, b_dec - sae.W_enc @ total_for_pi
        sae.b_gate.grad, sae.b_mag.grad, sae.r_mag.grad = b_gate, b_mag, r_mag
        return sums.step()
