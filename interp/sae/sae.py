"""What every sparse autoencoder is: an encoder to sparse latents, a decoder of directions, and where it was trained."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hooks import Direction, Site

CHUNK = 8192  # rows encoded at once, so that dense latents of a large input never exist together


@dataclass(frozen=True)
class Step:
    """What one batch of training did: its loss, its mean squared error E||x - x_hat||^2, and its sparse code."""

    loss: Float[Tensor, ""]
    squared_error: Float[Tensor, ""]
    values: Float[Tensor, "n ..."]
    indices: Int[Tensor, "n ..."]


class SAE(nn.Module, ABC):
    """A sparse autoencoder: latents f(x) >= 0, mostly 0, and a reconstruction x_hat = f W_dec + b_dec.

    An architecture says how it encodes, what its loss's gradients are, and how it is written in SAELens's format.
    After training it also knows where it belongs: `site`, the `model_name` and `fingerprint` of its model, the
    `dataset`, and `max_activation`, for every latent the largest value on training data: the unit of clamping.
    """

    architecture: ClassVar[str]
    unit_norm_decoder: ClassVar[bool]
    W_enc: Float[Tensor, "d_model latent"]
    W_dec: Float[Tensor, "latent d_model"]
    b_enc: Float[Tensor, "latent"]
    b_dec: Float[Tensor, "d_model"]
    max_activation: Float[Tensor, "latent"]

    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__()
        for name, width in (("d_in", d_in), ("d_sae", d_sae)):
            if width < 1:
                raise ValueError(f"{name} is {width}; a sparse autoencoder needs at least 1.")
        self.d_in, self.d_sae = d_in, d_sae
        self.site: Site | None = None
        self.model_name: str | None = None
        self.fingerprint: str | None = None
        self.dataset: str | None = None
        self.register_buffer("max_activation", torch.zeros(d_sae))

    @abstractmethod
    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents f(x), dense."""

    @abstractmethod
    def initialise(self, x: Float[Tensor, "n d_model"]) -> None:
        """Set what is read off the data before training, from a sample of it."""

    @abstractmethod
    def gradients(self, x: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """Fill `.grad` of every parameter with the gradient of the loss on one batch, given which latents are dead."""

    @abstractmethod
    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Float[Tensor, "..."]]]:
        """The architecture's own entries of SAELens's `cfg.json`, and its weights under SAELens's names."""

    @classmethod
    @abstractmethod
    def from_saelens(cls, config: dict[str, Any], weights: dict[str, Float[Tensor, "..."]]) -> "SAE":
        """The same function as an autoencoder that SAELens saved with this configuration and these weights."""

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n d_model"]:
        """The reconstruction x_hat = f W_dec + b_dec."""
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """The reconstruction of x: `decode(encode(x))`."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n d_model"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The latents as values and indices, as many per row as the fullest row needs; spare places hold value 0."""
        dense = [self.encode(rows) for rows in x.split(CHUNK)]
        width = max(1, *(int((f > 0).sum(1).max()) for f in dense if len(f)))
        kept = [f.topk(min(width, self.d_sae), sorted=False) for f in dense]
        return torch.cat([k.values for k in kept]), torch.cat([k.indices for k in kept])

    def direction(self, latent: int) -> Direction:
        """Latent i as a direction: the vector W_dec[i], whose scale is the length it adds at its training maximum.

        Raises:
            IndexError: the latent does not exist.
            ValueError: the autoencoder has no site or no largest activations yet, or the latent never fired.
        """
        if not 0 <= latent < self.d_sae:
            raise IndexError(f"Latent {latent} does not exist; this autoencoder has latents 0 to {self.d_sae - 1}.")
        if self.site is None:
            raise ValueError("This autoencoder has no site yet: train it on activations_of(model, data, site) first.")
        if not bool(self.max_activation.any()):
            raise ValueError(
                "This autoencoder does not know its largest activations, the scale of its directions: measure them by "
                "sae.max_activation.copy_(evaluate(sae, source).max_activation)."
            )
        largest = float(self.max_activation[latent])
        if largest <= 0:
            raise ValueError(f"Latent {latent} never fired on the training data, so its direction has no scale.")
        vector = self.W_dec[latent].detach().clone()
        scale = largest * float(vector.norm())
        return Direction(vector, self.site, f"sae latent {latent}", scale, self.fingerprint)

    def checked(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """Activations in the autoencoder's own precision; `ValueError` for another width, NaN or infinity."""
        if x.shape[-1] != self.d_in:
            raise ValueError(f"This autoencoder reads {self.d_in} dimensions{self._at()}; it was given {x.shape[-1]}.")
        if not bool(x.isfinite().all()):
            row = int((~x.isfinite()).reshape(-1, self.d_in).any(1).nonzero()[0])
            raise ValueError(f"Activations{self._at()} hold NaN or infinity, first in row {row}.")
        return x.to(self.W_enc.dtype)

    def _at(self) -> str:
        return f" at {self.site}" if self.site else ""
