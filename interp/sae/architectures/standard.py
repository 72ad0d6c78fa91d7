"""The standard sparse autoencoder: ReLU latents, and an L1 penalty weighed by decoder norms."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.sae.architectures.chunked_gradients import BatchSums, encode_chunks, zero_where_off
from interp.sae.architectures.initialisation import random_rows
from interp.sae.architectures.objective import Objective, Step
from interp.sae.architectures.sae import SAE, weight
from interp.sae.numerics.ranking import Encoder


class Standard(SAE):
    """ReLU latents that pay for the length they add (Anthropic, Circuits Updates, April 2024).

        f     = ReLU(x W_enc + b_enc),        x_hat = f W_dec + b_dec
        L     = E||x - x_hat||^2  +  lambda E sum_i f_i ||W_dec,i||

    Decoder rows keep no norm: the penalty is the same however length is shared between f_i and W_dec,i. Rows start
    with norm 0.1, W_enc as the transpose, biases at 0. `coefficient` is lambda; 5 suits activations scaled to
    E||x|| = sqrt(d), which `expected_norm` does.

    ```python
    source = activations_of(model, texts, resid_post[4])
    train(sae := Standard(d_in=256, d_sae=2048), normalise_source(source, expected_norm(source)), lr=5e-5)
    ```
    """

    architecture: ClassVar[str] = "standard"

    def __init__(self, d_in: int, d_sae: int, *, coefficient: float | int = 5.0, seed: int = 0) -> None:
        super().__init__(d_in, d_sae)
        self.coefficient = weight("coefficient", coefficient)
        self.W_dec = nn.Parameter(0.1 * random_rows(d_sae, d_in, seed))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = ReLU(x W_enc + b_enc)."""
        return (self._input(x) @ self.W_enc + self.b_enc).relu()

    def settings(self) -> dict[str, Any]:
        """The `coefficient`."""
        return {"coefficient": self.coefficient}

    def objective(self) -> "StandardObjective":
        """Squared error and a weighed L1 penalty."""
        return StandardObjective(self)


class StandardObjective(Objective[Standard]):
    """L = E||x - x_hat||^2 + lambda E sum_i f_i ||W_dec,i||, as `Standard` says."""

    def loss(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:  # noqa: ARG002
        """E||x - x_hat||^2 + lambda E sum_i f_i ||W_dec,i||."""
        sae = self.sae
        f = sae.encode(rows)
        squared_error = (rows - sae.decode(f)).pow(2).sum(1).mean()
        sparsity = (f @ sae.W_dec.norm(dim=1)).mean()
        return Step.of(squared_error + self.sparsity_share * sae.coefficient * sparsity, squared_error, f)

    @torch.no_grad()
    def gradients(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:  # noqa: ARG002
        """Fill `.grad` with the exact gradient of the loss on this batch and return what the batch did.

        dL/df = g W_dec^T + (lambda / n) ||W_dec|| where f > 0, with g = dL/dx_hat, and 0 elsewhere.
        """
        sae = self.sae
        n, weight = len(rows), self.sparsity_share * sae.coefficient / len(rows)
        norms, sums = sae.W_dec.norm(dim=1), BatchSums(rows, sae.d_sae)
        W_dec, W_enc = torch.zeros_like(sae.W_dec), torch.zeros_like(sae.W_enc.T)
        b_enc, totals, b_dec = torch.zeros_like(sae.b_enc), torch.zeros_like(sae.b_enc), torch.zeros_like(sae.b_dec)
        for at, z in encode_chunks(rows, Encoder(sae.W_enc.T, sae.b_enc), torch.zeros_like(sae.b_enc)):
            f, x = z.values.relu_(), rows[at]
            error = z.times(f, sae.W_dec).add_(sae.b_dec).sub_(x)
            sums.add(z, f, error)
            g = error.mul_(2 / n)
            for_f = zero_where_off(z.dots(g, sae.W_dec).add_(z.of(weight * norms)), f)
            z.add_transposed(W_dec, f, g)
            z.add_transposed(W_enc, for_f, x)
            b_enc += z.total(for_f)
            totals += z.total(f)
            b_dec += g.sum(0)
        W_dec.addcmul_(sae.W_dec, (weight * totals / norms)[:, None])
        sae.W_dec.grad, sae.W_enc.grad, sae.b_enc.grad, sae.b_dec.grad = W_dec, W_enc.T, b_enc, b_dec
        sums.loss = weight * totals @ norms
        return sums.step()
