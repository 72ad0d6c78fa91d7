"""What the editors of several layers share: targets after the last layer, and residuals written layer by layer."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Site
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.site import mlp_act
from interp.memory.editing.change import LowRank, balance_weights, measure_leverage, solve_least_change
from interp.memory.editing.checks import average_searches, check_targets_likely, measure_and_check
from interp.memory.editing.contexts import Preserve, choose_preserved, prefixes
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts, capture_lookups, check_output, list_facts
from interp.memory.editing.placement import Place, choose_placement
from interp.memory.editing.prefix_cache import Where
from interp.memory.editing.value_search import (
    TOKENS,
    Objective,
    Search,
    Statements,
    ValueSearchResult,
    likely_and_near,
    search_value,
    tokenise_statements,
)
from interp.memory.facts.fact import Fact

Group = tuple[Fact, ...]
Metric = Callable[[Covariance, Float[Tensor, "n d_mlp"]], Float[Tensor, "n d_mlp"]]
"""The keys as the change of a layer reads them: K C⁻¹ to spare usual keys, K P to keep to a subspace."""

CROWD = 100


@dataclass(frozen=True, eq=False)
class Layer:
    """What is known when one layer is to be changed.

    Attributes:
        covariance: of the layer.
        k: the groups' mean keys, with the changes of earlier layers in place.
        residual: what is still missing at the target site, δ less what earlier layers added to the mean there.
        left: how many layers are left to write it, this one included.
    """

    covariance: Covariance
    k: Float[Tensor, "n d_mlp"]
    residual: Float[Tensor, "n d_model"]
    left: int


@dataclass(frozen=True)
class SpreadRule:
    """What tells one way of writing a residual over layers from another.

    Attributes:
        name: of the editor.
        sites: of the last layer, those whose values are searched together; the last of them is written.
        parts: by what a residual is divided, of the number of layers left.
        objective: of the search.
    """

    name: str
    sites: Callable[[int], Sequence[Site]]
    parts: Callable[[int], float]
    objective: Objective = likely_and_near


def spread_facts(
    model: Model,
    facts: Facts,
    by: SpreadRule,
    *,
    covariance: Covariance | Sequence[Covariance] | None,
    layers: Sequence[int] | None,
    ridge: float,
    token: str | None,
    contexts: Sequence[str] | None,
    preserve: Preserve,
    search: Search | None,
    progress: bool = True,
) -> Edit:
    """Write facts at once into several layers, each change by ridge regression; `memit` says what the arguments are.

    Raises:
        InvalidArgument: a covariance of another model; a ridge not above 0.
        EditRefused: the targets are not reached, or the facts are not said in the end.
    """
    facts = list_facts(facts)
    check_ridge(ridge)
    place = choose_placement(model, facts, covariance, layers, token, progress=progress)
    groups = group_facts(facts, place.token)
    search = search or choose_search(len(groups))
    contexts = prefixes(model) if contexts is None else contexts
    sites = by.sites(place.covariances[-1].layer)
    said = tokenise_groups(model, groups, contexts, preserve, place.token)
    found = search_targets(model, groups, said, sites, search, by.objective, progress=progress)

    def update(here: Layer) -> LowRank:
        return solve_ridge(here, ridge, by.parts(here.left))

    updates = write_layers(model, groups, said, place, sites[-1], found, update)
    edit = Edit(facts, by.name, updates, model.fingerprint, average_searches(found))
    return measure_and_check(model, edit, place.covariances, share=0.9)


def choose_search(n: int) -> Search:
    """The search for one of `n` keys that are written together, whose δ has to be shorter the more there are.

    What is written at one key is read a little at all others, in proportion to ‖δ‖, so that each fact is disturbed by
    all the rest: decay = n / 100, at least the usual and at most 1.
    """
    return Search(decay=min(1.0, max(Search.decay, n / CROWD)))


def check_ridge(ridge: float) -> None:
    """Check that a ridge is one.

    Raises:
        InvalidArgument: a ridge not above 0.
    """
    if not ridge > 0:
        raise InvalidArgument(f"ridge={ridge}: give a share above 0, or take emmet, which writes exactly")


def solve_ridge(here: Layer, ridge: float, parts: float | int) -> LowRank:
    """ΔW = (λC + KᵀK)⁻¹ Kᵀ R / parts, λ being the ridge times the mean k̄ᵀ C⁻¹ k̄ of the facts."""
    inverse = here.covariance.solve(here.k)
    key = solve_least_change(here.k, inverse, ridge * measure_leverage(here.k, inverse))
    return LowRank(here.covariance.layer, key, here.residual / parts, here.k)


def group_facts(facts: Sequence[Fact], token: str, earlier: Sequence[Fact] = ()) -> tuple[Group, ...]:
    """Facts that are written at one key, together: at the subject's last token all those of one subject.

    Args:
        facts: what to edit.
        token: where it is written.
        earlier: facts edited before; those of a subject that is edited again are stated again with it.
    """
    if token != TOKENS[0]:
        return tuple((fact,) for fact in facts)
    new = {fact.text for fact in facts}
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        again = [old for old in earlier if old.subject == fact.subject and old.text not in new]
        groups.setdefault(fact.subject, again).append(fact)
    return tuple(map(tuple, groups.values()))


def tokenise_groups(
    model: Model, groups: Sequence[Group], contexts: Sequence[str], preserve: Preserve, token: str
) -> list[Statements]:
    """What is read of each group: its facts after every context, and the texts to keep."""
    return [
        tokenise_statements(model, group, contexts, choose_preserved(model, group, preserve), token) for group in groups
    ]


def search_targets(
    model: Model,
    groups: Sequence[Group],
    said: Sequence[Statements],
    sites: Sequence[Site],
    search: Search,
    objective: Objective = likely_and_near,
    *,
    progress: bool = True,
) -> list[ValueSearchResult]:
    """The δ at each site that together state each group of facts.

    Raises:
        EditRefused: the new objects of more than a tenth of the groups stay below probability 0.5.

    Cost: per group one forward pass over what is read, and a forward and backward pass per step.
    """
    found: list[ValueSearchResult] = []
    for one in progress_bar(said, desc="searching values", progress=progress and len(said) > 1):
        rows = zip(sites, capture_lookups(model, one, sites), strict=True)
        held: dict[Where, Tensor] = {site: h[one.alike].mean(0) for site, h in rows}
        found.append(search_value(model, one, held, search, objective))
    check_targets_likely([group[-1] for group in groups], found, " and ".join(map(str, sites)), search)
    return found


def write_layers(
    model: Model,
    groups: Sequence[Group],
    said: Sequence[Statements],
    place: Place,
    site: Site,
    found: Sequence[ValueSearchResult],
    update: Callable[[Layer], LowRank],
    metric: Metric = Covariance.solve,
) -> tuple[LowRank, ...]:
    """Change layer after layer, each seeing what the ones before it did to its keys and to the target site.

    Cost: per layer and group one forward pass over what is read, and one more per group.
    """
    delta = torch.stack([one.deltas[site] for one in found]).double().cpu()
    before = [capture_lookups(model, one, [site])[0] for one in said]
    updates: list[LowRank] = []
    with ExitStack() as earlier:
        for number, c in enumerate(place.covariances):
            check_output(model, said[0], c.layer)
            seen = [_key_and_move(model, one, c, site, h, metric) for one, h in zip(said, before, strict=True)]
            k, moved = map(torch.stack, zip(*seen, strict=True))
            updates.append(update(Layer(c, k, delta - moved, len(place.covariances) - number)))
            part = Edit(groups[0], "part", (updates[-1],), model.fingerprint)
            if number + 1 < len(place.covariances):
                earlier.enter_context(part.applied(model))
    return tuple(updates)


def _key_and_move(
    model: Model, said: Statements, c: Covariance, site: Site, before: Float[Tensor, "example d_model"], metric: Metric
) -> tuple[Float[Tensor, "d_mlp"], Float[Tensor, "d_model"]]:
    """The mean key of a layer over the texts that look it up alike, and how far the site has moved in their mean."""
    k, h = (rows[said.alike].double().cpu() for rows in capture_lookups(model, said, [mlp_act[c.layer], site]))
    w = balance_weights(k, metric(c, k))
    return w @ k, w @ (h - before[said.alike].double().cpu())
