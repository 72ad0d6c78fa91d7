"""EMMET: several facts written at once into one feed-forward layer, each value exactly at its key."""

from collections.abc import Sequence

import torch

from hooks import Model
from hooks.site import mlp_out
from interp.memory.change import LowRank, least_change, leverage
from interp.memory.covariance import Covariance
from interp.memory.edit import Edit
from interp.memory.finish import finished, reached, searched
from interp.memory.keys import Facts, checked_covariances, listed, mean_key_and_value, prefixes
from interp.memory.value import Found, Search, search_value, statements


def emmet(
    model: Model,
    facts: Facts,
    *,
    covariance: Covariance,
    ridge: float = 1e-3,
    token: str = "last subject",
    contexts: Sequence[str] | None = None,
    preserve: Sequence[str] = ("{} is a",),
    search: Search = Search(),  # noqa: B008
) -> Edit:
    """Write facts at once: ΔW = ((K C⁻¹ Kᵀ + ρ I)⁻¹ K C⁻¹)ᵀ R, as mlp_act @ W (Gupta et al. 2024, arXiv:2403.14236).

    Row i of K is the mean key k̄ᵢ of fact i and row i of R its v*ᵢ − v̄ᵢ, both as `rome` finds them. With ρ = 0, of all
    ΔW with K ΔW = R it is the one of least tr(ΔWᵀ C ΔW): for one fact it is ROME.

    Args:
        model: the model; its weights are left alone until the edit is applied.
        facts: what to rewrite, one fact or several.
        covariance: of the keys of the layer to edit, which it names.
        ridge: ρ as a share of the mean k̄ᵀ C⁻¹ k̄, with several facts; one fact is written exactly.
        token: where to write, "last subject" or "last prompt".
        contexts: texts put before the prompt, "" for none; by default `prefixes(model)`.
        preserve: templates with `{}` for the subject whose continuations are to stay.
        search: settings of the search for v*.

    Raises:
        ValueError: a covariance of another model; a ridge below 0; dependent keys with a ridge of 0.
        RuntimeError: a new object stays below probability 0.5 in the search; less than nine tenths of the facts are
            said in the end; a layer's usual outputs would move by more than they are.

    Cost: per fact as `rome`; one solve.

    ```python
    edit = emmet(model, facts, covariance=covariance(model, texts, 2))
    ```
    """
    (c,), facts = checked_covariances(model, covariance), listed(facts)
    if not ridge >= 0:
        raise ValueError(f"ridge={ridge}: give a share of 0 or more")
    contexts = prefixes(model) if contexts is None else contexts
    keys, found = [], list[Found]()
    for fact in facts:
        k, v = mean_key_and_value(model, fact, contexts, c.layer, token)
        said = statements(model, fact, contexts, preserve, token)
        found.append(search_value(model, said, {mlp_out[c.layer]: v}, search))
        reached(fact, found[-1], f"layer {c.layer}", search)
        keys.append(k)
    k = torch.stack(keys).double().cpu()
    r = torch.stack([delta for one in found for delta in one.deltas.values()]).double().cpu()
    rho = 0.0 if len(facts) == 1 else ridge * leverage(k, c.shrunk)
    update = LowRank(c.layer, least_change(k, c.shrunk, rho), r, k)
    return finished(model, Edit(facts, "emmet", (update,), model.fingerprint, searched(found)), [c], share=0.9)
