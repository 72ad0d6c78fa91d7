"""The latents whose decoder rows point along a direction, beside what chance gives."""

from dataclasses import dataclass
from typing import final

import torch

from hooks import Direction
from hooks.direction import wide
from interp.directions.pursuit import rows_beside
from interp.sae import SAE

DRAWS = 200


@final
@dataclass(frozen=True)
class Similar:
    """Latents with the cosine of their decoder row, highest first; 95 % of random directions stay under `chance`."""

    latents: tuple[tuple[int, float], ...]
    chance: float

    def __str__(self) -> str:
        lines = [f"latent {i}: cosine {cosine:+.3f}" for i, cosine in self.latents]
        return "\n".join([*lines, f"the best latent of a random direction: cosine under {self.chance:.3f} in 95 %"])


@torch.no_grad()
def similar(sae: SAE, direction: Direction, *, top: int = 10, seed: int = 0) -> Similar:
    """Search by another direction: cos(W_dec[i], v) for all latents.

    Raises:
        ValueError: the direction was read from another model, at another site, or has another width.

    Example:
        ```python
        similar(sae, caa(model, pairs, sae.site))
        ```
    """
    rows = wide(rows_beside(sae, direction))
    unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    cosines = unit @ direction.unit.to(unit)
    # In double precision: an autoencoder's first rows may be the single-precision draws of this very seed.
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(DRAWS, rows.shape[1], generator=generator, dtype=torch.float64).to(unit)
    highest = (drawn / drawn.norm(dim=1, keepdim=True) @ unit.T).amax(1)
    best = cosines.topk(min(top, len(cosines)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Similar(tuple(pairs), float(highest.quantile(0.95)))
