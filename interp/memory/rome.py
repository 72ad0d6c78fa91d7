"""ROME: one fact rewritten by a rank-one change of a feed-forward layer, with one prefix-averaged key throughout."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, capture
from hooks.site import mlp_act, mlp_out
from interp.memory.completion import forced, score, spelt
from interp.memory.covariance import Covariance
from interp.memory.edit import Edit, LowRank
from interp.memory.fact import Fact
from interp.memory.value import Found, Search, place, search_value, statements

OPENERS = ("The", "In", "When", "It", "People", "A", "My", "As", "One", "We")


def prefixes(model: Model, n: int = 10, seed: int = 0) -> tuple[str, ...]:
    """Short beginnings in the model's own words, after which a prompt is read in different contexts.

    The first is empty. Cost: one generation of ten tokens for a batch of `n`.
    """
    openers = [OPENERS[i % len(OPENERS)] for i in range(n - 1)]
    told = model.generate(openers, max_new_tokens=10, temperature=1.0, seed=seed) if openers else []
    whole = [f"{opener}{rest}".split("\n")[0].rstrip(" .,;:") for opener, rest in zip(openers, told, strict=True)]
    return ("", *(f"{text}. " for text in whole))


def solve(
    k: Float[Tensor, "d_mlp"], delta: Float[Tensor, "d_model"], c: Float[Tensor, "d_mlp d_mlp"]
) -> tuple[Float[Tensor, "d_mlp"], Float[Tensor, "d_model"]]:
    """The factors of ΔW = u ⊗ δ with u = C⁻¹k / (kᵀC⁻¹k): of all ΔW with kᵀΔW = δ, the one of least tr(ΔWᵀ C ΔW).

    Meng et al. 2022, equation 2, in the orientation k @ W; float64.
    """
    inverse = torch.linalg.solve(c.double(), k.double())
    return inverse / (k.double() @ inverse), delta.double()


def rome(
    model: Model,
    fact: Fact,
    *,
    covariance: Covariance,
    layer: int | None = None,
    token: str = "last subject",
    contexts: Sequence[str] | None = None,
    preserve: Sequence[str] = ("{} is a",),
    search: Search = Search(),  # noqa: B008
) -> Edit:
    """Rewrite one fact: W' = W + (C⁻¹k̄ / k̄ᵀC⁻¹k̄) ⊗ (v* − v̄), in the orientation mlp_act @ W (Meng et al. 2022).

    k̄ is the mean key of the last subject token over all contexts and v̄ the mean output there; the same k̄ stands in
    every place (the correction of Gupta et al. 2024). v* = v̄ + δ, where δ is added in all contexts and minimises
    mean NLL(new | context + prompt) + kl · KL(p₀‖p_δ) over the `preserve` templates (read at the last subject token and
    at the end) + decay · ‖δ‖/‖v̄‖².

    Args:
        model: the model; its weights are left alone until the edit is applied.
        fact: what to rewrite.
        covariance: of the keys of the layer to edit; `locate(trace_mlp(...))` names a layer.
        layer: whose feed-forward output projection to change; by default the covariance's.
        token: where to write, "last subject", or "last prompt" in a model that looks its facts up there.
        contexts: texts put before the prompt, "" for none; by default `prefixes(model)`.
        preserve: templates with `{}` for the subject whose continuations are to stay.
        search: settings of the search for v*.

    Raises:
        ValueError: a covariance of another layer or model; a model that changes W_out's output before adding it.
        RuntimeError: the new object stays below probability 0.5 in the search, or is not what the edited model says;
            the message says what was reached.

    Cost: one forward pass over the contexts, a forward and backward pass per step over contexts and templates, and two
    passes over the prompt.

    ```python
    fact = Fact("Golden Gate Bridge", "The {} is located in", old="San Francisco", new="Rome")
    edit = rome(model, fact, covariance=covariance(model, texts, 2))
    ```
    """
    layer = covariance.layer if layer is None else layer
    if covariance.layer != layer or covariance.fingerprint != model.fingerprint:
        raise ValueError(
            f"the covariance is of layer {covariance.layer} of model {covariance.fingerprint[:12]}, "
            f"the edit is at layer {layer} of {model.fingerprint[:12]}: call covariance(model, data, {layer})"
        )
    contexts = prefixes(model) if contexts is None else contexts
    said = statements(model, fact, contexts, preserve, token)
    k, v = mean_key_and_value(model, fact, contexts, layer, token)
    found = search_value(model, said, mlp_out[layer], v, search)
    if found.probability < 0.5:
        raise RuntimeError(
            f"{fact.text!r} reached {fact.new!r} with probability {found.probability:.3f} only, "
            f"after {found.steps} steps at layer {layer} "
            f"(‖δ‖ = {float(found.delta.norm()):.2f}, clamp {search.clamp} × ‖v‖ = {float(v.norm()):.2f}): "
            "choose a layer where trace_mlp finds the fact, or give the search more steps or a wider clamp"
        )
    u, delta = solve(k.cpu(), found.delta.cpu(), covariance.shrunk)
    edit = Edit((fact,), "rome", (LowRank(layer, u[None], delta[None]),), model.fingerprint, _measured(found, v))
    return _checked(model, edit)


def mean_key_and_value(
    model: Model, fact: Fact, contexts: Sequence[str], layer: int, token: str = "last subject"
) -> tuple[Float[Tensor, "d_mlp"], Float[Tensor, "d_model"]]:
    """k̄ and v̄ = W k̄ + b: the layer's mean key and mean output at the token to edit, over the contexts.

    Raises:
        ValueError: the layer's output is not W k + b, so that changing W would not change it by δ.

    Cost: one forward pass over the contexts, up to the layer.
    """
    templates = [context + fact.prompt for context in contexts]
    acts = capture(model, [context + fact.text for context in contexts], [mlp_act[layer], mlp_out[layer]])
    at = place(token, fact.subject, templates)
    k, v = acts.flat(mlp_act[layer], at).mean(0), acts.flat(mlp_out[layer], at).mean(0)
    with torch.no_grad():
        written = model.mlp_output(layer)(k)
    off = float((written - v).norm() / v.norm())
    if not off < 2 * torch.finfo(model.dtype).eps ** 0.5:
        raise ValueError(
            f"mlp_out.{layer} of {model.name} differs by {off:.1%} from what its output projection gives (it is "
            "normalised or scaled behind it), so a change of that weight is not a change of mlp_out: "
            "rome does not edit this family"
        )
    return k, v


def _measured(found: Found, v: Float[Tensor, "d_model"]) -> dict[str, float]:
    return {
        "target_probability": found.probability,
        "kl": found.kl,
        "steps": float(found.steps),
        "relative_norm": float(found.delta.norm() / v.norm()),
    }


def _checked(model: Model, edit: Edit) -> Edit:
    """The edit, with the probability it gives the new object in the weights; refused if greedy choice disagrees."""
    (fact,) = edit.facts
    with edit.applied(model):
        said = forced(model, [fact.text], [fact.new])
        probability = float(score(model, [fact.text], [fact.new]).exp())
    if said != spelt(model, [fact.text], [fact.new]):
        raise RuntimeError(
            f"with the edit in its weights {model.name} still does not say {fact.new!r} after {fact.text!r}: it has "
            f"probability {probability:.3f} there, and {edit.measured['target_probability']:.3f} where δ was searched; "
            "give contexts more like the prompt, or another layer"
        )
    return replace(edit, measured={**edit.measured, "edited_probability": probability})
