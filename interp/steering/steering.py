"""A way of steering: what a dose of it does at one site, and the same with a random direction of equal norm."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Intervention, Position, Site
from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.interventions import add
from hooks.position import everywhere
from hooks.summary import summarise


@dataclass(frozen=True)
class Steering:
    """A vector at a site and the rule by which a dose of it changes the activations there.

    `rule(vector, dose)` is the intervention; `unit` says what a dose of one is. `fingerprint` is that of the model the
    vector was read from, if known.
    """

    site: Site
    source: str
    unit: str
    vector: Float[Tensor, "d_model"]
    rule: Callable[[Tensor, float], Intervention]
    fingerprint: str | None = None

    __repr__ = summarise

    def dose(self, dose: float) -> Intervention:
        """The intervention of one dose.

        Raises:
            InvalidArgument: a dose that is not a finite number.
        """
        if not -float("inf") < dose < float("inf"):
            raise InvalidArgument(f"the dose is {dose}: give a finite number, in units of {self.unit}")
        return replace(self.rule(self.vector, dose), name=self.source, fingerprint=self.fingerprint)

    def interventions(self, dose: float) -> dict[Site | str, list[Intervention]]:
        """The same, at its site.

        Raises:
            InvalidArgument: as `dose`.
        """
        return {self.site: [self.dose(dose)]}

    def control(self, seed: Natural) -> "Steering":
        """The same rule along a random direction r of equal norm, |r| = |v|, drawn uniformly from the sphere."""
        noise = torch.randn(self.vector.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        vector = (noise * (self.vector.double().norm().cpu() / noise.norm())).to(self.vector)
        return replace(self, vector=vector, source=f"random direction of equal norm, seed {seed}")


def add_direction(direction: Direction, at: Position = everywhere) -> Steering:
    """Steer by adding a direction, x' = x + dose · s · v/|v|, where s is its largest projection in training.

    A dose of 0 changes no bit. The direction's norm does not matter, so doses of two directions compare.

    Examples:
        ```python
        with steer(model, add_direction(direction), 2.0):
            model.generate("I walked")
        ```
    """
    return Steering(
        site=direction.site,
        source=direction.source,
        unit="the direction's largest projection in training",
        vector=direction.unit * direction.scale,
        rule=lambda vector, dose: add(vector, dose, at=at),
        fingerprint=direction.fingerprint,
    )
