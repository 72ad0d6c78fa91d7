"""The transcoder: sparse latents of what a feed-forward layer reads, that reconstruct what it writes."""

from abc import ABC
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hooks.errors import InvalidArgument
from interp.sae.architectures.initialisation import random_rows
from interp.sae.architectures.objective import Objective, Step
from interp.sae.architectures.sae import SAE, check_count, weight
from interp.sae.data.normalisation import Normalisation


class TranscoderBase(SAE, ABC):
    """What transcoders share: f = ReLU(x W_enc + b_enc) of what a layer reads, decoded to y, what it writes.

    Rows of a source are [x, y] side by side, as `pairs_of` gives them. Decoder and encoder rows start random, with
    norms 0.1 and 1, biases at 0.
    """

    transcodes: bool = True

    def __init__(self, d_in: int, d_sae: int, *, d_out: int | None, coefficient: float | int, seed: int) -> None:
        super().__init__(d_in, d_sae)
        self.d_out, self.coefficient = d_in if d_out is None else d_out, weight("coefficient", coefficient)
        check_count("d_out", self.d_out)
        self.row_shape = (d_in + self.d_out,)
        self.W_dec = nn.Parameter(0.1 * random_rows(d_sae, self.d_out, seed))
        self.W_enc = nn.Parameter(random_rows(d_sae, d_in, seed + 1).T.contiguous())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(self.d_out))

    def settings(self) -> dict[str, Any]:
        """`d_out` and the `coefficient`."""
        return {"d_out": self.d_out, "coefficient": self.coefficient}

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f = ReLU(x W_enc + b_enc)."""
        return (self._input(x) @ self.W_enc + self.b_enc).relu()

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n d_model"]:
        """What the latents write: f W_dec + b_dec."""
        return f @ self.W_dec + self.b_dec

    def parts(self, rows: Float[Tensor, "n _"]) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "n _"]]:
        """The first `d_in` columns, which are read, and the other `d_out`, which are to be written."""
        x, y = rows.split([self.d_in, self.d_out], dim=1)
        return x, y

    def _absorb(self, normalisation: Normalisation) -> None:
        """Change the weights, so that what mapped normalised x to normalised y maps x to y.

        The normalisation is one of rows [x, y], made by `side_by_side`. W_enc <- M_x W_enc, b_enc <- b_enc -
        m_x M_x W_enc, W_dec <- W_dec M_y^-1, b_dec <- b_dec M_y^-1 + m_y.
        """
        a = self.d_in
        m, M, back = normalisation.doubles(self.W_dec.device)
        if bool(M[:a, a:].any()) or bool(M[a:, :a].any()):
            raise InvalidArgument(
                "this normalisation mixes what is read with what is written: make one by side_by_side"
            )
        with torch.no_grad():
            W_enc = M[:a, :a] @ self.W_enc.double()
            self.W_enc.copy_(W_enc)
            self.b_enc.copy_(self.b_enc - m[:a] @ W_enc)
            self.W_dec.copy_(self.W_dec.double() @ back[a:, a:])
            self.b_dec.copy_(self.b_dec.double() @ back[a:, a:] + m[a:])


class Transcoder(TranscoderBase):
    """A wide, sparse replacement of a feed-forward layer x -> y (Dunefsky et al. 2024, arXiv:2406.11944).

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
