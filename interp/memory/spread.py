"""What the editors of several layers share: targets behind the last layer, and residuals written layer by layer."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Site
from interp.memory.change import LowRank, least_change, leverage
from interp.memory.covariance import Covariance
from interp.memory.edit import Edit
from interp.memory.fact import Fact
from interp.memory.finish import reached
from interp.memory.keys import mean_at, mean_key_and_value
from interp.memory.value import Found, Objective, Search, likely_and_near, search_value, statements


@dataclass(frozen=True, eq=False)
class Layer:
    """What is known when one layer is to be changed.

    Attributes:
        covariance: of the layer.
        k: the facts' mean keys, with the changes of earlier layers in place.
        residual: what is still missing at the target site, z − h̄.
        left: how many layers are left to write it, this one included.
    """

    covariance: Covariance
    k: Float[Tensor, "example d_mlp"]
    residual: Float[Tensor, "example d_model"]
    left: int


def above_zero(ridge: float) -> float:
    """The ridge, if it is one.

    Raises:
        ValueError: a ridge not above 0.
    """
    if not ridge > 0:
        raise ValueError(f"ridge={ridge}: give a share above 0, or take emmet, which writes exactly")
    return ridge


def ridged(here: Layer, ridge: float, parts: float | int) -> LowRank:
    """ΔW = (λC + KᵀK)⁻¹ Kᵀ R / parts, λ being the ridge times the mean k̄ᵀ C⁻¹ k̄ of the facts."""
    c = here.covariance.shrunk
    key = least_change(here.k, c, ridge * leverage(here.k, c))
    return LowRank(here.covariance.layer, key, here.residual / parts, here.k)


def targets(
    model: Model,
    facts: Sequence[Fact],
    sites: Sequence[Site],
    contexts: Sequence[str],
    preserve: Sequence[str],
    token: str,
    search: Search,
    objective: Objective = likely_and_near,
) -> tuple[dict[Site, Float[Tensor, "example d_model"]], list[Found]]:
    """The values z = h̄ + δ of each site that state each fact, in float64.

    Cost: per fact one forward pass over the contexts, and a forward and backward pass per step.
    """
    z: dict[Site, list[Tensor]] = {site: [] for site in sites}
    found: list[Found] = []
    for fact in facts:
        held = dict(zip(sites, mean_at(model, fact, contexts, sites, token), strict=True))
        said = statements(model, fact, contexts, preserve, token)
        found.append(search_value(model, said, held, search, objective))
        reached(fact, found[-1], " and ".join(map(str, sites)), search)
        for site in sites:
            z[site].append((held[site].double() + found[-1].deltas[site].double()).cpu())
    return {site: torch.stack(values) for site, values in z.items()}, found


def spread(
    model: Model,
    facts: Sequence[Fact],
    covariances: Sequence[Covariance],
    site: Site,
    z: Float[Tensor, "example d_model"],
    update: Callable[[Layer], LowRank],
    contexts: Sequence[str],
    token: str,
) -> tuple[LowRank, ...]:
    """Change layer after layer, each seeing what the ones before it did to its keys and to the target site.

    Cost: per layer and fact two forward passes over the contexts.
    """
    updates: list[LowRank] = []
    with ExitStack() as earlier:
        for number, c in enumerate(covariances):
            keys = [mean_key_and_value(model, fact, contexts, c.layer, token)[0] for fact in facts]
            now = [mean_at(model, fact, contexts, [site], token)[0] for fact in facts]
            k, h = (torch.stack(rows).double().cpu() for rows in (keys, now))
            updates.append(update(Layer(c, k, z - h, len(covariances) - number)))
            part = Edit(tuple(facts), "part", (updates[-1],), model.fingerprint)
            if number + 1 < len(covariances):
                earlier.enter_context(part.applied(model))
    return tuple(updates)
