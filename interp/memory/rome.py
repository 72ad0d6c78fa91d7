"""ROME: one fact rewritten by a rank-one change of a feed-forward layer, with one prefix-averaged key throughout."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Position, Tokens, capture, intervene
from hooks.interventions import apply
from hooks.site import mlp_act, mlp_out
from interp.memory.completion import completion, log_probs
from interp.memory.covariance import Covariance
from interp.memory.edit import Edit, LowRank
from interp.memory.fact import Fact, columns_of, last_token_of

OPENERS = ("The", "In", "When", "It", "People", "A", "My", "As", "One", "We")


@dataclass(frozen=True)
class Search:
    """How v* is searched: Adam steps on δ, its rate, the weight of KL(p₀‖p_δ) and of ‖δ‖/‖v₀‖², the clamp, the stop."""

    steps: int = 40
    learning_rate: float = 0.1
    kl: float = 0.0625
    decay: float = 0.01
    clamp: float = 4.0
    stop: float = 5e-2


@dataclass(frozen=True, eq=False)
class Found:
    """The change δ of the layer's output that states the fact, and what it reached."""

    delta: Float[Tensor, "d_model"]
    probability: float
    kl: float
    steps: int


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
    layer: int,
    covariance: Covariance,
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
        layer: whose feed-forward output projection to change; `locate(trace_mlp(...))` names one.
        covariance: of that layer's keys.
        contexts: texts put before the prompt, "" for none; by default `prefixes(model)`.
        preserve: templates with `{}` for the subject whose continuations are to stay.
        search: settings of the search for v*.

    Raises:
        ValueError: a covariance of another layer or model.
        RuntimeError: the new object stays below probability 0.5; the message says what was reached.

    Cost: one forward pass over the contexts, and a forward and backward pass per step over contexts and templates.

    ```python
    fact = Fact("Golden Gate Bridge", "The {} is located in", old="San Francisco", new="Rome")
    edit = rome(model, fact, layer=2, covariance=covariance(model, texts, 2))
    ```
    """
    if covariance.layer != layer or covariance.fingerprint != model.fingerprint:
        raise ValueError(
            f"the covariance is of layer {covariance.layer} of model {covariance.fingerprint[:12]}, "
            f"the edit is at layer {layer} of {model.fingerprint[:12]}: call covariance(model, data, {layer})"
        )
    contexts = prefixes(model) if contexts is None else contexts
    prompts = [context + fact.text for context in contexts]
    k, v = _mean_key_and_value(model, fact, prompts, layer)
    found = search_value(model, fact, prompts, preserve, layer, v, search)
    if found.probability < 0.5:
        raise RuntimeError(
            f"{fact.text!r} reached {fact.new!r} with probability {found.probability:.3f} only, "
            f"after {found.steps} steps at layer {layer} "
            f"(‖δ‖ = {float(found.delta.norm()):.2f}, clamp {search.clamp} × ‖v‖ = {float(v.norm()):.2f}): "
            "choose a layer where trace_mlp finds the fact, or give the search more steps or a wider clamp"
        )
    u, delta = solve(k.cpu(), found.delta.cpu(), covariance.shrunk)
    measured = {
        "target_probability": found.probability,
        "kl": found.kl,
        "steps": float(found.steps),
        "relative_norm": float(found.delta.norm() / v.norm()),
    }
    return Edit((fact,), "rome", (LowRank(layer, u[None], delta[None]),), model.fingerprint, measured)


def _mean_key_and_value(
    model: Model, fact: Fact, prompts: Sequence[str], layer: int
) -> tuple[Float[Tensor, "d_mlp"], Float[Tensor, "d_model"]]:
    """k̄ and v̄ = mean output of the layer, both at the last subject token, over the prompts."""
    acts = capture(model, list(prompts), [mlp_act[layer], mlp_out[layer]])
    at = last_token_of(fact.subject)
    columns_of(at, acts.tokens)
    return acts.flat(mlp_act[layer], at).mean(0), acts.flat(mlp_out[layer], at).mean(0)


def search_value(
    model: Model,
    fact: Fact,
    prompts: Sequence[str],
    preserve: Sequence[str],
    layer: int,
    v: Float[Tensor, "d_model"],
    search: Search,
) -> Found:
    """Minimise the loss of `rome` over δ by Adam, keeping ‖δ‖ ≤ clamp · ‖v̄‖. Cost: two passes a step."""
    asked = completion(model, prompts, [fact.new] * len(prompts))
    kept = model.tokens([template.format(fact.subject) for template in preserve])
    at = last_token_of(fact.subject)
    with torch.no_grad():
        before = _kept_log_probs(model, kept, at)
    delta = torch.zeros_like(v, requires_grad=True)
    adding = apply(lambda a: a + delta, at)
    adam = torch.optim.Adam([delta], lr=search.learning_rate)
    best: Found | None = None
    for step in range(search.steps + 1):
        with torch.enable_grad(), intervene(model, {mlp_out[layer]: adding}):
            nll = -log_probs(model.run(asked.tokens), asked)
            kl = F.kl_div(_kept_log_probs(model, kept, at), before, log_target=True, reduction="batchmean")
        loss = nll.mean() + search.kl * kl + search.decay * delta.norm() / v.norm() ** 2
        if not bool(torch.isfinite(loss)):
            raise RuntimeError(f"the search for v* met a loss of {float(loss)} at step {step}: lower its learning rate")
        best = Found(delta.detach().clone(), float((-nll.detach()).exp().mean()), float(kl.detach()), step)
        if step == search.steps or float(loss.detach()) < search.stop:
            break
        adam.zero_grad()
        (delta.grad,) = torch.autograd.grad(loss, delta)
        adam.step()
        with torch.no_grad():
            delta *= min(1.0, search.clamp * float(v.norm()) / max(float(delta.norm()), 1e-12))
    assert best is not None
    return best


def _kept_log_probs(model: Model, kept: Tokens, at: Position) -> Float[Tensor, "n vocab"]:
    """Next-token log-probabilities of the preserved prompts, at the last subject token and at the end of each."""
    logits = model.run(kept)
    subject = at.mask(kept)
    columns = torch.arange(kept.ids.shape[1], device=kept.ids.device)
    end = kept.content & (columns == torch.where(kept.content, columns, -1).amax(1, keepdim=True))
    return torch.cat([logits[subject], logits[end]]).float().log_softmax(-1)
