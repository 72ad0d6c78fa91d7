"""What the editors of several layers share: targets behind the last layer, and residuals written layer by layer."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from hooks import Model, Site
from hooks.site import mlp_act
from interp.memory.change import LowRank, least_change, leverage
from interp.memory.covariance import Covariance
from interp.memory.edit import Edit
from interp.memory.fact import Fact
from interp.memory.finish import all_reached
from interp.memory.keys import checked_output, means_at
from interp.memory.own_words import Preserve, preserved
from interp.memory.placing import Place
from interp.memory.remainder import Projection, Where
from interp.memory.value import TOKENS, Found, Objective, Search, likely_and_near, search_value, statements

Group = tuple[Fact, ...]
MANY = 20


@dataclass(frozen=True, eq=False)
class Layer:
    """What is known when one layer is to be changed.

    Attributes:
        covariance: of the layer.
        k: the groups' mean keys, with the changes of earlier layers in place.
        residual: what is still missing at the target site, z − h̄.
        left: how many layers are left to write it, this one included.
    """

    covariance: Covariance
    k: Float[Tensor, "n d_mlp"]
    residual: Float[Tensor, "n d_model"]
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
    inverse = here.covariance.solve(here.k)
    key = least_change(here.k, inverse, ridge * leverage(here.k, inverse))
    return LowRank(here.covariance.layer, key, here.residual / parts, here.k)


def grouped(facts: Sequence[Fact], token: str, told: Sequence[Fact] = ()) -> tuple[Group, ...]:
    """Facts that are written at one key, together: at the subject's last token all those of one subject.

    Args:
        facts: what to edit.
        token: where it is written.
        told: facts edited before; those of a subject that is edited again are stated again with it.
    """
    if token != TOKENS[0]:
        return tuple((fact,) for fact in facts)
    new = {fact.text for fact in facts}
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        again = [old for old in told if old.subject == fact.subject and old.text not in new]
        groups.setdefault(fact.subject, again).append(fact)
    return tuple(map(tuple, groups.values()))


def targets(
    model: Model,
    groups: Sequence[Group],
    sites: Sequence[Where],
    contexts: Sequence[str],
    preserve: Preserve,
    token: str,
    search: Search,
    objective: Objective = likely_and_near,
) -> tuple[dict[Where, Float[Tensor, "n d_model"]], list[Found]]:
    """The values z = h̄ + δ of each site that state each group of facts, in float64.

    Raises:
        RuntimeError: the new objects of more than a tenth of the groups stay below probability 0.5.

    Cost: per fact one forward pass over the contexts, and a forward and backward pass per step.
    """
    held = [h.float() for h in group_means(model, groups, contexts, sites, token)]
    found: list[Found] = []
    for i, group in enumerate(tqdm(groups, desc="searching values", disable=len(groups) < MANY)):
        kept = preserved(model, group, preserve)
        said = statements(model, group, contexts, kept, token)
        found.append(search_value(model, said, {s: h[i] for s, h in zip(sites, held, strict=True)}, search, objective))
    all_reached([group[-1] for group in groups], found, " and ".join(map(str, sites)), search)
    deltas = [torch.stack([one.deltas[site] for one in found]) for site in sites]
    z = {s: (h.double() + d.double()).cpu() for s, h, d in zip(sites, held, deltas, strict=True)}
    return z, found


@torch.no_grad()
def group_means(
    model: Model, groups: Sequence[Group], contexts: Sequence[str], places: Sequence[Where], token: str
) -> list[Float[Tensor, "n *d"]]:
    """The mean of each place at the token to edit, over facts and contexts, group by group."""
    sites = [mlp_act[place.layer] if isinstance(place, Projection) else place for place in places]
    means = means_at(model, [fact for group in groups for fact in group], contexts, sites, token)
    sizes = [len(group) for group in groups]
    means = [torch.stack([part.mean(0) for part in mean.split(sizes)]) for mean in means]
    return [
        model.mlp_output(place.layer)(mean.to(model.dtype)).float() if isinstance(place, Projection) else mean
        for place, mean in zip(places, means, strict=True)
    ]


def spread(
    model: Model,
    groups: Sequence[Group],
    place: Place,
    site: Site,
    z: Float[Tensor, "n d_model"],
    update: Callable[[Layer], LowRank],
    contexts: Sequence[str],
) -> tuple[LowRank, ...]:
    """Change layer after layer, each seeing what the ones before it did to its keys and to the target site.

    Cost: per layer and fact one forward pass over the contexts.
    """
    updates: list[LowRank] = []
    with ExitStack() as earlier:
        for number, c in enumerate(place.covariances):
            checked_output(model, [groups[0][0]], contexts, c.layer, place.token)
            k, h = group_means(model, groups, contexts, [mlp_act[c.layer], site], place.token)
            k, h = k.double().cpu(), h.double().cpu()
            updates.append(update(Layer(c, k, z - h, len(place.covariances) - number)))
            part = Edit(groups[0], "part", (updates[-1],), model.fingerprint)
            if number + 1 < len(place.covariances):
                earlier.enter_context(part.applied(model))
    return tuple(updates)
