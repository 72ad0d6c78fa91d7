"""The transcoder: sparse latents of what a feed-forward layer reads, that reconstruct what it writes."""

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from interp.sae.architectures.sae import Objective, Step
from interp.sae.architectures.transcoding import Transcoding


class Transcoder(Transcoding):
    """A wide, sparse stand-in for a feed-forward layer x -> y (Dunefsky et al. 2024, arXiv:2406.11944).

        f     = ReLU(x W_enc + b_enc),        y_hat = f W_dec + b_dec
        L     = E||y - y_hat||^2  +  lambda E sum_i f_i ||W_dec,i||

    The penalty is weighed by decoder norms, as in the April 2024 form of the autoencoder, so that rows need no
    norm of their own. `coefficient` is lambda, `d_out` is `d_in` unless given. Its directions belong at the site
    that is written.

    ```python
    train(Transcoder(model.d_model, 4096), pairs_of(model, texts, mlp_in[3], mlp_out[3]))
    ```
    """

    architecture: ClassVar[str] = "transcoder"

    def __init__(
        self, d_in: int, d_sae: int, *, d_out: int | None = None, coefficient: float | int = 1.0, seed: int = 0
    ) -> None:
        super().__init__(d_in, d_sae, d_out=d_out, coefficient=coefficient, seed=seed)

    def objective(self) -> "TranscoderObjective":
        """Squared error and a weighed L1 penalty."""
        return TranscoderObjective(self)


class TranscoderObjective(Objective[Transcoder]):
    """L = E||y - y_hat||^2 + lambda E sum_i f_i ||W_dec,i||, as `Transcoder` says."""

    def loss(self, rows: Float[Tensor, "n _"], dead: Bool[Tensor, "latent"]) -> Step:  # noqa: ARG002
        """E||y - y_hat||^2 + lambda E sum_i f_i ||W_dec,i||."""
        sae = self.sae
        x, y = sae.parts(rows)
        f = sae.encode(x)
        squared_error = (y - sae.decode(f)).pow(2).sum(1).mean()
        sparsity = (f @ sae.W_dec.norm(dim=1)).mean()
        return Step.of(squared_error + self.sparsity_share * sae.coefficient * sparsity, squared_error, f)
