"""Latents whose decoder rows point along a direction, next to what chance gives; and those worth turning up."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch

from hooks import Direction
from hooks.border import Count, Natural
from hooks.direction import wide
from hooks.summary import summarise
from interp.directions.pursuit import comparable_rows
from interp.features.search.search import SearchResult
from interp.sae import SAE

if TYPE_CHECKING:
    from pandas import DataFrame

DRAWS = 200


@final
@dataclass(frozen=True)
class SimilarLatents:
    """Latents with the cosine of their decoder row, highest first; 95 % of random directions stay under `chance`."""

    latents: tuple[tuple[int, float], ...]
    chance: float

    __repr__ = summarise

    def __str__(self) -> str:
        lines = [f"latent {i}: cosine {cosine:+.3f}" for i, cosine in self.latents]
        return "\n".join([*lines, f"the best latent of a random direction: cosine under {self.chance:.3f} in 95%"])

    def to_pandas(self) -> "DataFrame":
        """A row for each latent, with the cosine of its decoder row."""
        from pandas import DataFrame

        return DataFrame(self.latents, columns=["latent", "cosine"])


@torch.no_grad()
def find_similar(sae: SAE, direction: Direction, *, top: Count = 10, seed: Natural = 0) -> SimilarLatents:
    """Search by another direction: cos(W_dec[i], v) for all latents, by what they write at the direction's site.

    Raises:
        InvalidArgument: the direction was read from another model, at another site, or has another width.

    Examples:
        ```python
        find_similar(sae, caa(model, pairs, sae.site))
        ```
    """
    rows = wide(comparable_rows(sae, direction))
    unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    cosines = sae._join(unit @ direction.unit.to(unit))
    # In double precision: an autoencoder's first rows may be the single-precision draws of this very seed.
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(DRAWS, rows.shape[1], generator=generator, dtype=torch.float64).to(unit)
    highest = torch.stack(sae._each((drawn / drawn.norm(dim=1, keepdim=True) @ unit.T).amax(1))).amax(0)
    best = cosines.topk(min(top, len(cosines)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return SimilarLatents(tuple(pairs), float(highest.quantile(0.95)))


def choose_candidates(sae: SAE, found: SearchResult, *, top: Count = 10) -> tuple[int, ...]:
    """The `top` latents that detect the concept best, then those whose rows are nearest the difference of means.

    A latent that detects a concept need not make the model say it, so that `choose_by_effect` tries both kinds. Latents
    that never fired in training are left out, and the second kind where the autoencoder writes at another site than it
    reads.

    Raises:
        InvalidArgument: the search was made in another autoencoder.

    Examples:
        ```python
        choose_by_effect(model, sae, choose_candidates(sae, found), prompts, Names(("Golden Gate Bridge",)))
        ```
    """
    telling = [one.latent for one in found.latents[:top] if one.latent is not None]
    means = next((one.direction for one in found.baselines if one.direction is not None), None)
    near = find_similar(sae, means, top=top).latents if means is not None and means.site == sae.sites[-1] else ()
    writing = [latent for latent, _ in near]
    return tuple(i for i in dict.fromkeys([*telling, *writing]) if float(sae.max_activation[i]) > 0)
