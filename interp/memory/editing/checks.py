"""The end of every editor: the edit is applied once, and refused if the model still does not say its facts."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from hooks import Model
from hooks.errors import EditRefused
from interp.common.completion import says, score
from interp.memory.editing.change import group_by_layer
from interp.memory.editing.covariance import Covariance
from interp.memory.editing.edit import Edit
from interp.memory.editing.value_search import Search, ValueSearchResult
from interp.memory.facts.fact import Fact

EXPLODED, LIKELY = 1.0, 0.5


def check_target_likely(fact: Fact, found: ValueSearchResult, where: str, search: Search) -> None:
    """Refuse a value that does not make the new object likely.

    Raises:
        EditRefused: the new object stays below probability 0.5 in the search; the message says what was reached.
    """
    if not found.probability >= LIKELY:
        sizes = ", ".join(f"‖δ‖ = {float(delta.norm()):.3g} at {site}" for site, delta in found.deltas.items())
        raise EditRefused(
            f"{fact.text!r} reached {fact.new!r} with probability {found.probability:.3f} only, "
            f"after {found.steps} steps at {where} ({sizes}, clamp {search.clamp:g} × ‖v‖): "
            "take another layer or method (in Python, trace_mlp says which layers hold the fact, and Search takes more "
            "steps or a wider clamp)"
        )


def check_targets_likely(
    facts: Sequence[Fact], found: Sequence[ValueSearchResult], where: str, search: Search, share: float = 0.9
) -> None:
    """Refuse values of several facts of which too few make the new object likely.

    Raises:
        EditRefused: less than `share` of them do; the message is that of the first that does not.
    """
    short = [i for i, one in enumerate(found) if not one.probability >= LIKELY]
    if len(found) - len(short) < share * len(found):
        check_target_likely(facts[short[0]], found[short[0]], where, search)


def measure_and_check(model: Model, edit: Edit, covariances: Sequence[Covariance] = (), *, share: float = 1.0) -> Edit:
    """The edit, with what it reached in the weights: probability of the new objects, share said, size of the change.

    The size is ‖ΔW‖/‖W‖ of each layer, and √(tr(ΔWᵀCΔW)/tr(WᵀCW)), by how much the layer's usual outputs move.

    Args:
        model: the model, without the edit.
        edit: the edit, not yet applied.
        covariances: of the layers it changes, where they are known.
        share: the least share of the facts that arg max has to say, token by token.

    Raises:
        EditRefused: fewer facts are said, or a layer's usual outputs would move by more than they are.

    Cost: two forward passes over the prompts.
    """
    sizes = {**_norms(model, edit), **_effects(model, edit, covariances)}
    for layer in (c.layer for c in covariances):
        if not sizes[f"relative_effect_{layer}"] <= EXPLODED:
            raise EditRefused(
                f"the change of layer {layer} would move what it writes for usual tokens by "
                f"{sizes[f'relative_effect_{layer}']:.2f} times as much as it writes: "
                "give the covariance more text, the search a smaller clamp, or edit fewer facts at once"
            )
    prompts, objects = [fact.text for fact in edit.facts], [fact.new for fact in edit.facts]
    with edit.applied(model):
        agreed = says(model, prompts, objects)
        probabilities = score(model, prompts, objects).exp()
    if sum(agreed) < share * len(agreed):
        first = agreed.index(False)
        raise EditRefused(_unsaid(model, edit, first, float(probabilities[first]), agreed))
    return replace(
        edit,
        measured={
            **edit.measured,
            **sizes,
            "edited_probability": float(probabilities.mean()),
            "edited_share": float(torch.tensor(agreed).double().mean()),
        },
    )


@torch.no_grad()
def _norms(model: Model, edit: Edit) -> dict[str, float]:
    """‖ΔW‖/‖W‖ of each layer."""
    return {
        f"relative_norm_{layer}": float(change.delta.norm() / model.w_out(layer).double().norm())
        for layer, change in group_by_layer(edit.weights).items()
    }


@torch.no_grad()
def _effects(model: Model, edit: Edit, covariances: Sequence[Covariance]) -> dict[str, float]:
    """√(tr(ΔWᵀCΔW)/tr(WᵀCW)) of each layer: root mean squares over the keys C was estimated on."""
    changes, found = group_by_layer(edit.weights), {}
    for c in covariances:
        weights = changes[c.layer].delta, model.w_out(c.layer).double().cpu()
        moved, written = ((w * (c.matrix @ w)).sum() for w in weights)
        found[f"relative_effect_{c.layer}"] = float((moved.clamp_min(0) / written).sqrt())
    return found


def _unsaid(model: Model, edit: Edit, first: int, probability: float, agreed: Sequence[bool]) -> str:
    fact, sought = edit.facts[first], edit.measured.get("target_probability")
    return (
        f"with the {edit.method} edit in place {model.name} still does not say {fact.new!r} after {fact.text!r} "
        f"({sum(agreed)} of {len(agreed)} facts are said): it has probability {probability:.3f} there"
        + ("" if sought is None else f", and {sought:.3f} where its value was searched")
        + "; give contexts more like the prompt, another layer, another method"
        + (", or fewer facts at once" if len(edit.facts) > 1 else "")
    )


def average_searches(found: Sequence[ValueSearchResult]) -> dict[str, float]:
    """What the searches of an edit measured, on average."""
    n = len(found)
    return {
        "target_probability": sum(f.probability for f in found) / n,
        "reached_share": sum(f.probability >= LIKELY for f in found) / n,
        "kl": sum(f.kl for f in found) / n,
        "steps": sum(f.steps for f in found) / n,
    }
