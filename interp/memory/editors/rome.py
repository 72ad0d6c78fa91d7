"""ROME: each fact rewritten by a rank-one change of one feed-forward layer, with one mean key throughout."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack

from hooks import Model
from hooks.progress import progress_bar
from interp.memory.editing.change import LowRank, solve_least_change
from interp.memory.editing.checks import average_searches, check_target_likely, measure_and_check
from interp.memory.editing.contexts import Preserve, prefixes
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts, list_facts
from interp.memory.editing.placement import Place, choose_placement_in_one_layer
from interp.memory.editing.single_layer import search_key_and_value
from interp.memory.editing.value_search import Search, ValueSearchResult
from interp.memory.facts.fact import Fact


def rome(
    model: Model,
    facts: Facts,
    *,
    covariance: Covariance | None = None,
    layer: int | None = None,
    token: str | None = None,
    contexts: Sequence[str] | None = None,
    preserve: Preserve = None,
    search: Search = Search(),  # noqa: B008
    progress: bool = True,
) -> Edit:
    """Rewrite facts one by one: W' = W + (C⁻¹k̄ / k̄ᵀC⁻¹k̄) ⊗ (v* − v̄), as mlp_act @ W (Meng et al. 2022, equation 2).

    k̄ is the mean key of the last subject token over all that is read, the prompt after each context and the `preserve`
    templates, so over prefixes and phrasings (of the last prompt token, over the former only), and v̄ = W k̄ + b; the
    same k̄ is in every place (the correction of Gupta et al. 2024). The mean is weighted so that each text reads
    about all of what is written (`even_weights`): with equal weights a subject at the beginning of a text, whose key is
    another, reads a tenth to a half of it. v* = v̄ + δ, where δ, added at the edited token, minimises
    mean NLL(new | context + prompt) + kl · KL(p₀‖p_δ) over the tokens of the templates, from the edited one on,
    + decay · ‖δ‖/‖v̄‖. Each of several facts is edited with the earlier ones in place.

    Args:
        model: the model; its weights are left alone until the edit is applied.
        facts: what to rewrite, one fact or several.
        covariance: of the keys of the layer to edit; by default over texts the model writes itself, measured once.
        layer: whose feed-forward output projection to change; by default the covariance's, or where `locate` says.
        token: where to write, "last subject", or "last prompt" in a model that looks its facts up there; by default
            where `locate` says.
        contexts: texts put before the prompt, "" for none; by default `prefixes(model)`.
        preserve: templates with `{}` for the subject whose continuations are to stay, or a function that gives those of
            a fact; by default what the model says of the subject by itself.
        search: settings of the search for v*.
        progress: show a bar over several facts.

    Raises:
        InvalidArgument: a covariance of another layer or model.
        EditRefused: a new object stays below probability 0.5 in the search, or is not what the edited model says, or
            its usual outputs would move by more than they are; the message says what was reached.

    Cost: per fact two passes over the contexts, a forward and backward pass per step over what follows the edited token
    in contexts and templates, and two passes over the prompt; that of `locate` and of a covariance where not given.

    Examples:
        ```python
        fact = Fact("Golden Gate Bridge", "The {} is located in", old="San Francisco", new="Rome")
        edit = rome(model, fact)
        edit = rome(model, fact, covariance=covariance(model, texts, 2), token="last subject")
        ```
    """
    facts = list_facts(facts)
    place = choose_placement_in_one_layer(model, facts, covariance, layer, token, progress=progress)
    contexts = prefixes(model) if contexts is None else contexts
    updates: list[LowRank] = []
    found: list[ValueSearchResult] = []
    with ExitStack() as earlier:
        for fact in progress_bar(facts, desc="facts", progress=progress and len(facts) > 1):
            update, what = _rewritten(model, fact, place, contexts, preserve, search)
            updates.append(update)
            found.append(what)
            if len(facts) > 1:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # a later fact is edited with the earlier in place
                    earlier.enter_context(Edit((fact,), "rome", (update,), model.fingerprint).applied(model))
    measured = average_searches(found)
    return measure_and_check(model, Edit(facts, "rome", tuple(updates), model.fingerprint, measured), place.covariances)


def _rewritten(
    model: Model, fact: Fact, place: Place, contexts: Sequence[str], preserve: Preserve, search: Search
) -> tuple[LowRank, ValueSearchResult]:
    """The change that states one fact in the model as it is now."""
    (c,) = place.covariances
    k, found = search_key_and_value(model, [fact], place, contexts, preserve, search)
    check_target_likely(fact, found, f"layer {c.layer}", search)
    (delta,) = found.deltas.values()
    k = k[None].double().cpu()
    return LowRank(c.layer, solve_least_change(k, c.solve(k)), delta[None].double().cpu(), k), found
