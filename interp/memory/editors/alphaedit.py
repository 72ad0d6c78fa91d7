"""AlphaEdit: changes confined to where the layer's usual keys have little energy, edit after edit."""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.border import NotNegative
from hooks.errors import InvalidArgument
from hooks.site import resid_post
from interp.memory.editing.change import LowRank, group_by_layer
from interp.memory.editing.checks import average_searches, measure_and_check
from interp.memory.editing.contexts import Preserve, prefixes
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts, list_facts
from interp.memory.editing.multi_layer import (
    Group,
    Layer,
    choose_search,
    group_facts,
    search_targets,
    tokenise_groups,
    write_layers,
)
from interp.memory.editing.placement import choose_placement
from interp.memory.editing.value_search import TOKENS, Search


def alphaedit(
    model: Model,
    facts: Facts,
    *,
    covariance: Covariance | Sequence[Covariance] | None = None,
    layers: Sequence[int] | None = None,
    earlier: Sequence[Edit] = (),
    energy: NotNegative = 0.1,
    ridge: NotNegative = 0.01,
    token: str | None = None,
    contexts: Sequence[str] | None = None,
    preserve: Preserve = None,
    search: Search | None = None,
    progress: bool = True,
) -> Edit:
    """Write facts in the null space of what is known: ΔWˡ = P (P(KᵀK + KₚᵀKₚ)P + λI)⁻¹ P Kᵀ R, as mlp_act @ W.

    P = U₀U₀ᵀ, where the columns of U₀ are the eigenvectors of C of the smallest eigenvalues that together hold at most
    the share `energy` of its trace, which is free of scale; Kₚ are the keys of earlier edits, whose values stay as they
    were written. Targets z and the layers are `memit`'s. A subject that was edited before has its earlier facts stated
    again with the new one, and its key written again.

    Args:
        model: the model; its weights are left alone until the edit is applied.
        facts: what to rewrite, one fact or several.
        covariance: of the keys of each layer to edit; by default over texts the model writes itself, measured once.
        layers: whose output projections to change; by default the covariances', or where `locate` says.
        earlier: edits that are applied to the model and to be kept.
        energy: how much of the usual keys' energy the space may hold; 0 for none at all. A smaller space is quieter and
            holds less of a fact's key, so that what is written must be larger: on the bundled model a tenth moves usual
            outputs least, two fifths as much as a fiftieth does.
        ridge: λ as a share of the mean ‖P k̄‖² of the facts.
        token: where to write, "last subject" or "last prompt"; by default where `locate` says.
        contexts: texts put before the prompt, "" for none; by default `prefixes(model)`.
        preserve: templates with `{}` for the subject whose continuations are to stay, or a function that gives those of
            a fact; by default what the model says of the subject by itself.
        search: settings of the search for z; by default `choose_search` of the number of keys, with those of `earlier`.
        progress: show a bar over several facts.

    Raises:
        InvalidArgument: a covariance of another model; an energy outside [0, 1); a ridge not above 0; no space that
            quiet.
        EditRefused: more than a tenth of the objects stay below probability 0.5; less than nine tenths of the facts
            are said in the end; a layer's usual outputs would move by more than they are.

    Cost: as `memit`, and one eigendecomposition for each covariance, which keeps it.

    Fang et al. 2025, arXiv:2410.02355, equation 12.

    Examples:
        ```python
        first = alphaedit(model, facts[:100], covariance=c)
        first.apply(model)
        second = alphaedit(model, facts[100:], covariance=c, earlier=[first])
        ```
    """
    facts = list_facts(facts)
    if not 0 <= energy < 1 or not ridge > 0:
        raise InvalidArgument(f"energy={energy}, ridge={ridge}: give an energy from 0 to below 1 and a ridge above 0")
    place = choose_placement(model, facts, covariance, layers, token, progress=progress)
    groups = group_facts(facts, place.token, [fact for edit in earlier for fact in edit.facts])
    contexts = prefixes(model) if contexts is None else contexts
    basis = {c.layer: find_null_space(c, energy) for c in place.covariances}
    at = resid_post[place.covariances[-1].layer]
    said = tokenise_groups(model, groups, contexts, preserve, place.token)
    search = search or choose_search(len(groups) + sum(len(group_facts(edit.facts, place.token)) for edit in earlier))
    found = search_targets(model, groups, said, [at], search, progress=progress)

    def update(here: Layer) -> LowRank:
        layer = here.covariance.layer
        again = {_name_key(group, place.token) for group in groups}
        kept = collect_keys(earlier, layer, here.k.shape[1], place.token, again)
        key = solve_confined(here.k, kept, basis[layer], ridge)
        return LowRank(layer, key, here.residual / here.left, here.k)

    def projected(c: Covariance, k: Float[Tensor, "n d_mlp"]) -> Float[Tensor, "n d_mlp"]:
        return k @ basis[c.layer] @ basis[c.layer].T

    updates = write_layers(model, groups, said, place, at, found, update, projected)
    edit = Edit(facts, "alphaedit", updates, model.fingerprint, average_searches(found))
    return measure_and_check(model, edit, place.covariances, share=0.9)


def find_null_space(covariance: Covariance, energy: float) -> Float[Tensor, "d_mlp n"]:
    """U₀: the eigenvectors of C whose eigenvalues, from the smallest up, sum to at most `energy` of the trace.

    Raises:
        InvalidArgument: there is none.
    """
    values, vectors = covariance.spectrum
    held = values.clamp_min(0).cumsum(0) / values.clamp_min(0).sum()
    quiet = held <= max(energy, 1e-12)
    if not bool(quiet.any()):
        raise InvalidArgument(
            f"every direction of the keys of layer {covariance.layer} holds more than {energy:g} of their energy "
            f"(the least {float(held[0]):.2g}): give a larger energy, or another layer"
        )
    return vectors[:, quiet]


def solve_confined(
    k: Float[Tensor, "example d_mlp"],
    kept: Float[Tensor, "n d_mlp"],
    basis: Float[Tensor, "d_mlp _"],
    ridge: float,
) -> Float[Tensor, "example d_mlp"]:
    """The left factor K U₀ (U₀ᵀ(KᵀK + KₚᵀKₚ)U₀ + λI)⁻¹ U₀ᵀ, which is in the space of U₀."""
    inside, before = k @ basis, kept @ basis
    penalty = float(ridge * inside.square().sum(1).mean())
    rows = torch.cat([inside, before])
    gram = rows @ rows.T + penalty * torch.eye(len(rows), dtype=torch.float64)
    first = torch.eye(len(rows), dtype=torch.float64)[:, : len(inside)]
    return torch.linalg.solve(gram, first).T @ rows @ basis.T


def collect_keys(
    edits: Sequence[Edit], layer: int, d_mlp: int, token: str, again: Collection[str]
) -> Float[Tensor, "n d_mlp"]:
    """The keys at which these edits write into a layer, except those that are written again.

    At the subject's last token `again` are subjects, at the prompt's last token prompts.

    Raises:
        InvalidArgument: an edit that does not say its keys.
    """
    found = [torch.zeros(0, d_mlp, dtype=torch.float64)]
    for edit in edits:
        change = group_by_layer(edit.weights).get(layer)
        if change is None:
            continue
        if change.at is None:
            raise InvalidArgument(
                f"an earlier edit of layer {layer} does not say its keys, so they cannot be kept: leave it out"
            )
        groups, at = group_facts(edit.facts, token), change.at
        written = groups if len(groups) == len(at) else [(fact,) for fact in edit.facts]
        if len(written) == len(at):
            at = at[[_name_key(group, token) not in again for group in written]]
        found.append(at.double().cpu())
    return torch.cat(found)


def _name_key(group: Group, token: str) -> str:
    """What identifies the key of these facts: their subject, or the prompt whose last token it is."""
    return group[0].subject if token == TOKENS[0] else group[0].text
