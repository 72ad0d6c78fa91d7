"""EMMET: several facts written at once into one feed-forward layer, each value exactly at its key."""

from collections.abc import Sequence

import torch

from hooks import Model
from hooks.border import NotNegative
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from interp.memory.editing.change import LowRank, measure_leverage, solve_least_change
from interp.memory.editing.checks import average_searches, check_targets_likely, measure_and_check
from interp.memory.editing.contexts import Preserve, prefixes
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts, list_facts
from interp.memory.editing.multi_layer import choose_search, group_facts
from interp.memory.editing.placement import choose_placement_in_one_layer
from interp.memory.editing.single_layer import search_key_and_value
from interp.memory.editing.value_search import Search


def emmet(
    model: Model,
    facts: Facts,
    *,
    covariance: Covariance | None = None,
    layer: int | None = None,
    ridge: NotNegative = 1e-3,
    token: str | None = None,
    contexts: Sequence[str] | None = None,
    preserve: Preserve = None,
    search: Search | None = None,
    progress: bool = True,
) -> Edit:
    """Write facts at once: ΔW = ((K C⁻¹ Kᵀ + ρ I)⁻¹ K C⁻¹)ᵀ R, as mlp_act @ W (Gupta et al. 2024, arXiv:2403.14236).

    Row i of K is the mean key k̄ᵢ of fact i and row i of R its v*ᵢ − v̄ᵢ, both as `rome` finds them. With ρ = 0, of all
    ΔW with K ΔW = R it is the one of least tr(ΔWᵀ C ΔW): for one fact it is ROME.

    Args:
        model: the model; its weights are left alone until the edit is applied.
        facts: what to rewrite, one fact or several.
        covariance: of the keys of the layer to edit; by default over texts the model writes itself.
        layer: whose output projection to change; by default the covariance's, or where `locate` says.
        ridge: ρ as a share of the mean k̄ᵀ C⁻¹ k̄, with several facts; one fact is written exactly.
        token: where to write, "last subject" or "last prompt"; by default where `locate` says.
        contexts: texts put before the prompt, "" for none; by default `prefixes(model)`.
        preserve: templates with `{}` for the subject whose continuations are to stay, or a function that gives those of
            a fact; by default what the model says of the subject by itself.
        search: settings of the search for v*; by default `choose_search` of the number of keys.
        progress: show a bar over several facts.

    Raises:
        InvalidArgument: a covariance of another model; a ridge below 0; dependent keys with a ridge of 0.
        EditRefused: more than a tenth of the objects stay below probability 0.5; less than nine tenths of the facts
            are said in the end; a layer's usual outputs would move by more than they are.

    Cost: per fact as `rome`; one solve.

    Examples:
        ```python
        edit = emmet(model, facts)
        ```
    """
    facts = list_facts(facts)
    if not ridge >= 0:
        raise InvalidArgument(f"ridge={ridge}: give a share of 0 or more")
    place = choose_placement_in_one_layer(model, facts, covariance, layer, token, progress=progress)
    (c,), groups = place.covariances, group_facts(facts, place.token)
    search = search or choose_search(len(groups))
    contexts = prefixes(model) if contexts is None else contexts
    bar = progress_bar(groups, desc="facts", progress=progress and len(groups) > 1)
    pairs = [search_key_and_value(model, group, place, contexts, preserve, search) for group in bar]
    keys, found = zip(*pairs, strict=True)
    check_targets_likely([group[-1] for group in groups], found, f"layer {c.layer}", search)
    k = torch.stack(keys).double().cpu()
    inverse = c.solve(k)
    r = torch.stack([delta for one in found for delta in one.deltas.values()]).double().cpu()
    rho = 0.0 if len(groups) == 1 else ridge * measure_leverage(k, inverse)
    update = LowRank(c.layer, solve_least_change(k, inverse, rho), r, k)
    edit = Edit(facts, "emmet", (update,), model.fingerprint, average_searches(found))
    return measure_and_check(model, edit, [c], share=0.9)
