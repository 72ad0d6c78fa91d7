"""What a dictionary of latents is to a technique that only reads it, whichever folder trained it."""

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from hooks import Site


@runtime_checkable
class Dictionary(Protocol):
    """Sparse latents f(x) of the activations at a site, and the decoder that sums their directions: x ~ f W_dec + b.

    Every autoencoder of `interp.sae` is one.
    """

    site: Site | None
    d_sae: int
    W_dec: Tensor
    b_dec: Tensor

    @property
    def sites(self) -> Sequence[Site]:
        """The places it reads."""
        ...

    def raw(self) -> Self:
        """The same dictionary for activations as the model has them."""
        ...

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents."""
        ...

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n d_model"]:
        """What they say the activations are."""
        ...
