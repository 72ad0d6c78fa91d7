"""The matching pursuit autoencoder: latents are chosen one after the other, each from what is left to explain."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.sae.architectures.sae import SAE


class MatchingPursuit(SAE):
    """Matching pursuit with a learnt dictionary (Costa et al. 2025, arXiv:2506.03093), as SAELens computes it.

        r_0 = x - b_dec,    j_t = argmax_j r_t . W_dec,j,    c_t = ReLU(r_t . W_dec,j_t),    r_t+1 = r_t - c_t W_dec,j_t
        f_j = sum of the c_t with j_t = j,        x_hat = f W_dec + b_dec

    A row is done when ||r|| < `residual_threshold` (0: never), when a step adds no latent that was off before
    (`stop_on_duplicate_support`), or after `max_iterations` steps, `d_in` unless given. The decoder is the encoder:
    W_enc is its transpose. It cannot be trained here.

    Cost: one product with the dictionary for each step.

    ```python
    sae = load("their_matching_pursuit")
    ```
    """

    architecture: ClassVar[str] = "matching_pursuit"
    centred: ClassVar[bool] = True

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        residual_threshold: float | int = 0.01,
        max_iterations: int | None = None,
        stop_on_duplicate_support: bool = True,
    ) -> None:
        super().__init__(d_in, d_sae)
        self.residual_threshold, self.max_iterations = residual_threshold, max_iterations
        self.stop_on_duplicate_support = stop_on_duplicate_support
        self.W_dec, self.b_dec = nn.Parameter(torch.zeros(d_sae, d_in)), nn.Parameter(torch.zeros(d_in))

    @property
    def W_enc(self) -> Float[Tensor, "d_model latent"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The decoder's transpose."""
        return self.W_dec.T

    def settings(self) -> dict[str, Any]:
        """When a row is done."""
        names = ("residual_threshold", "max_iterations", "stop_on_duplicate_support")
        return {name: getattr(self, name) for name in names}

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f, by one step after the other."""
        r = (self._input(x) - self.b_dec).flatten(0, -2)
        f = r.new_zeros(len(r), self.d_sae)
        support, done = f != 0, torch.zeros(len(r), dtype=torch.bool, device=r.device)
        for _ in range(self.d_in if self.max_iterations is None else self.max_iterations):
            best = (r @ self.W_dec.T).argmax(1)
            rows = self.W_dec[best]
            c = (r * rows).sum(1).relu() * ~done
            f = f.scatter_add(1, best[:, None], c[:, None])
            r = r - c[:, None] * rows
            if self.stop_on_duplicate_support:
                done = done | ((f != 0) == support).all(1)
                support = f != 0
            if self.residual_threshold > 0:
                done = done | (r.norm(dim=1) < self.residual_threshold)
            if bool(done.all()):
                break
        return f.view(*x.shape[:-1], self.d_sae)
