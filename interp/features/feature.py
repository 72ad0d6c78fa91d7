"""A feature: one latent of an autoencoder, with the evidence for what it means."""

from dataclasses import dataclass
from typing import final

from hooks import Direction
from interp.features.evidence import Evidence
from interp.features.search.score import Score
from interp.sae import SAE


@final
@dataclass(frozen=True, eq=False)
class Feature:
    """One latent, what it did on texts, and, where it was found by search, its score against the concept.

    Examples:
        ```python
        bridge = Feature(sae, latent, collect_evidence(sae, model, texts, latent), found.best)
        print(bridge)
        with intervene(model, {sae.site: add(bridge.direction, 8.0)}):
            model.generate("I am")
        ```
    """

    sae: SAE
    latent: int
    evidence: Evidence | None = None
    score: Score | None = None

    @property
    def direction(self) -> Direction:
        """Its decoder row at the autoencoder's site, with its training maximum as scale.

        Raises:
            InvalidArgument: the latent never fired in training, or the autoencoder has no site.
        """
        return self.sae.direction(self.latent)

    def __repr__(self) -> str:
        return f"Feature(latent {self.latent} of {self.sae.d_sae} at {self.sae.site})"

    def __str__(self) -> str:
        parts = [self.score, self.evidence]
        return "\n".join(str(part) for part in parts if part is not None) or f"latent {self.latent}"
