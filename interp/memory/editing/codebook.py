"""A codebook at one feed-forward layer: where the layer's key is near a stored one, the stored value goes out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hooks import Model
from hooks.site import mlp_act


@dataclass(frozen=True, eq=False)
class Codebook:
    """At each token, v = values[j] for the nearest stored key j if ‖k − keys[j]‖ ≤ radius[j], else v = W k + b.

    A token whose key is near none is left alone, bit for bit.
    """

    layer: int
    keys: Float[Tensor, "n d_mlp"]
    values: Float[Tensor, "n d_model"]
    radius: Float[Tensor, "n"]

    def attach(self, model: Model) -> Callable[[], None]:
        """Let the codebook answer on every forward pass; what is returned ends that."""

        def answer(_: nn.Module, args: tuple[Tensor, ...], v: Tensor) -> Tensor | None:
            near, j = self.nearest(args[0])
            if not bool(near.any()):
                return None
            return torch.where(near[..., None], self.values.to(v)[j], v)

        return model.module(mlp_act[self.layer]).register_forward_hook(answer).remove

    def nearest(self, k: Float[Tensor, "*n d_mlp"]) -> tuple[Bool[Tensor, "*n"], Tensor]:
        """Whether a stored key is near enough, and the number of the nearest one relative to its radius."""
        flat, keys = k.reshape(-1, k.shape[-1]).float(), self.keys.to(k.device).float()
        distance = torch.cdist(flat, keys, compute_mode="donot_use_mm_for_euclid_dist")
        share, j = (distance / self.radius.to(k.device).float()).min(1)
        return (share <= 1).reshape(k.shape[:-1]), j.reshape(k.shape[:-1])

    def overlaps(self, other: "Codebook") -> bool:
        """Whether some key would be near to entries of both."""
        if self.layer != other.layer:
            return False
        distance = torch.cdist(self.keys.float(), other.keys.float())
        return bool((distance < self.radius[:, None] + other.radius[None]).any())

    def control(self, random: torch.Generator) -> "Codebook":
        """The same keys with random values of equal norm."""
        noise = torch.randn(self.values.shape, generator=random)
        values = noise * self.values.float().norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
        return Codebook(self.layer, self.keys, values, self.radius)
