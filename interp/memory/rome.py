"""ROME: each fact rewritten by a rank-one change of one feed-forward layer, with one prefix-averaged key throughout."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack

from hooks import Model
from hooks.site import mlp_out
from interp.memory.change import LowRank, least_change
from interp.memory.covariance import Covariance
from interp.memory.edit import Edit
from interp.memory.fact import Fact
from interp.memory.finish import finished, reached, searched
from interp.memory.keys import Facts, checked_covariances, listed, mean_key_and_value, prefixes
from interp.memory.value import Found, Search, search_value, statements


def rome(
    model: Model,
    facts: Facts,
    *,
    covariance: Covariance,
    layer: int | None = None,
    token: str = "last subject",
    contexts: Sequence[str] | None = None,
    preserve: Sequence[str] = ("{} is a",),
    search: Search = Search(),  # noqa: B008
) -> Edit:
    """Rewrite facts one by one: W' = W + (C⁻¹k̄ / k̄ᵀC⁻¹k̄) ⊗ (v* − v̄), as mlp_act @ W (Meng et al. 2022, equation 2).

    k̄ is the mean key of the last subject token over all contexts and v̄ the mean output there; the same k̄ stands in
    every place (the correction of Gupta et al. 2024). v* = v̄ + δ, where δ is added in all contexts and minimises
    mean NLL(new | context + prompt) + kl · KL(p₀‖p_δ) over the `preserve` templates (read at the last subject token and
    at the end) + decay · ‖δ‖/‖v̄‖. Each of several facts is edited with the ones before it in place.

    Args:
        model: the model; its weights are left alone until the edit is applied.
        facts: what to rewrite, one fact or several.
        covariance: of the keys of the layer to edit; `locate(trace_mlp(...))` names a layer.
        layer: whose feed-forward output projection to change; by default the covariance's.
        token: where to write, "last subject", or "last prompt" in a model that looks its facts up there.
        contexts: texts put before the prompt, "" for none; by default `prefixes(model)`.
        preserve: templates with `{}` for the subject whose continuations are to stay.
        search: settings of the search for v*.

    Raises:
        ValueError: a covariance of another layer or model; a model that changes W_out's output before adding it.
        RuntimeError: a new object stays below probability 0.5 in the search, or is not what the edited model says, or
            its usual outputs would move by more than they are; the message says what was reached.

    Cost: per fact one forward pass over the contexts, a forward and backward pass per step over contexts and templates,
    and two passes over the prompt.

    ```python
    fact = Fact("Golden Gate Bridge", "The {} is located in", old="San Francisco", new="Rome")
    edit = rome(model, fact, covariance=covariance(model, texts, 2))
    ```
    """
    (c,) = checked_covariances(model, covariance)
    layer = c.layer if layer is None else layer
    if c.layer != layer:
        raise ValueError(
            f"the covariance is of layer {c.layer} of model {c.fingerprint[:12]}, "
            f"the edit is at layer {layer} of {model.fingerprint[:12]}: call covariance(model, data, {layer})"
        )
    facts = listed(facts)
    contexts = prefixes(model) if contexts is None else contexts
    updates: list[LowRank] = []
    found: list[Found] = []
    with ExitStack() as earlier:
        for fact in facts:
            update, what = _rewritten(model, fact, c, token, contexts, preserve, search)
            updates.append(update)
            found.append(what)
            if len(facts) > 1:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # a later fact is edited with the earlier in place
                    earlier.enter_context(Edit((fact,), "rome", (update,), model.fingerprint).applied(model))
    measured = searched(found)
    return finished(model, Edit(facts, "rome", tuple(updates), model.fingerprint, measured), [c])


def _rewritten(
    model: Model,
    fact: Fact,
    c: Covariance,
    token: str,
    contexts: Sequence[str],
    preserve: Sequence[str],
    search: Search,
) -> tuple[LowRank, Found]:
    """The change that states one fact in the model as it is now."""
    said = statements(model, fact, contexts, preserve, token)
    k, v = mean_key_and_value(model, fact, contexts, c.layer, token)
    found = search_value(model, said, {mlp_out[c.layer]: v}, search)
    reached(fact, found, f"layer {c.layer}", search)
    (delta,) = found.deltas.values()
    k = k[None].double().cpu()
    return LowRank(c.layer, least_change(k, c.shrunk), delta[None].double().cpu(), k), found
