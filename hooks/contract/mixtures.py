"""The laws of a mixture of experts: what it gives is the sum over its experts, and the choice follows the router."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from hooks.capture import capture
from hooks.contract.report import Check, measure_laws
from hooks.contract.rounding import SLACK, Values, miss, unit
from hooks.model import Model
from hooks.site import Site
from hooks.structure import Block
from hooks.tokens import Tokens
from hooks.tracing.experts import TracedMixture

_AT = 1
IN_ORDER_OF_CHOICE = ("expert_choice", "expert_weights", "expert_act", "expert_out")
"""Sites whose order says which expert a token prefers, so that a tie in rounding exchanges them."""


def mixture_laws(model: Model, acts: Values, text: Tokens) -> Iterator[Check]:
    """Yield the laws of every mixture of experts, each measured by itself.

    Cost: a forward pass for each block with a router, and one more.

    Examples:
        ```python
        [check.law for check in mixture_laws(model, acts.values, tokens)]
        ```
    """
    for block in model.structure.blocks:
        if len(block.mixtures) == 1:
            ((term, found),) = block.mixtures.items()
            law = _experts_add if found.explained and block.terms[term] in acts else _experts_give
            yield from measure_laws("experts add", partial(law, model, block, found, term, acts, text))
            yield from measure_laws("choice follows", partial(_choice_follows, model, block, text))


def _experts_add(
    model: Model, block: Block, found: TracedMixture, term: int, acts: Values, text: Tokens
) -> Iterator[Check]:
    """mlp_out = Σ_k expert_weights expert_out + shared_out, through what norms and scales it before it is added."""
    total = block.terms[term]
    weights, out, act, shared = map(block.site, ("expert_weights", "expert_out", "expert_act", "shared_out"))
    del text
    if weights not in acts or out not in acts:
        return
    made = torch.einsum("bpk,bpkd->bpd", acts[weights].to(acts[out].dtype), acts[out]) * found.mixture.factor
    shared_in = found.mixture.shared is not None
    made = made + acts[shared] if shared_in else made
    kind, factor = block.sublayers[term], model.taps[total].view.factor
    norm = nn.Identity() if kind.norm is None else kind.norm.module
    error = miss(acts[total], norm(made) * factor)
    states = "Σ_k expert_weights expert_out" + (" + shared_out" if shared_in else "")
    sites = (total, weights, out, *((act,) if act in acts else ()), *((shared,) if shared_in else ()))
    called = total.name if total.name != "module" else str(total)
    yield Check("experts add", f"{called} = {states}", error, SLACK * unit(model.dtype, model.d_model), sites)


def _experts_give(
    model: Model, block: Block, found: TracedMixture, term: int, acts: Values, text: Tokens
) -> Iterator[Check]:
    """The same of the module of experts alone, where a sublayer does more with what it gives than is understood."""
    del term
    weights, out, act = map(block.site, ("expert_weights", "expert_out", "expert_act"))
    if weights not in acts or out not in acts:
        return
    given: list[Tensor] = []
    handle = found.mixture.experts.register_forward_hook(lambda *passed: given.append(passed[2]))
    try:
        capture(model, text, out)
    finally:
        handle.remove()
    made = torch.einsum("bpk,bpkd->bpd", acts[weights].to(acts[out].dtype), acts[out])
    error = miss(given[0].reshape(made.shape), made)
    states = "Σ_k expert_weights expert_out = what the experts give"
    sites = (weights, out, *((act,) if act in acts else ()))
    yield Check("experts add", states, error, SLACK * unit(model.dtype, model.d_model), sites)


def _choice_follows(model: Model, block: Block, text: Tokens) -> Iterator[Check]:
    """Written at one token, the logits change the weights or the choice there, and nowhere else."""
    logits, choice, weights = map(block.site, ("router_logits", "expert_choice", "expert_weights"))
    if not {logits, choice, weights} <= model.taps.keys() or text.ids.shape[1] <= _AT + 1:
        return
    clean = capture(model, text, [choice, weights]).values
    handle = model.taps[logits].attach(_turn_logits)
    try:
        changed = capture(model, text, [choice, weights]).values
    finally:
        handle.remove()
    moved = (clean[choice] != changed[choice]).any(-1) | (clean[weights] != changed[weights]).any(-1)
    elsewhere = float(moved[0].sum()) - float(moved[0, _AT])
    error = elsewhere if bool(moved[0, _AT]) else 1.0
    yield Check("choice follows", "expert_choice and expert_weights follow router_logits", error, 0.0,
                (logits, choice))  # fmt: skip


def _turn_logits(a: Tensor) -> Tensor:
    """The logits of one token with the last preferred to the first, by far."""
    a = a.clone()
    a[:, _AT] = -3 * a[:, _AT] + torch.linspace(0, 1, a.shape[-1]).to(a)
    return a


def drop_ordered_sites(sites: tuple[Site, ...]) -> tuple[Site, ...]:
    """Return the sites without those in the order of a token's choice.

    Examples:
        >>> drop_ordered_sites((Site("expert_out", 0), Site("mlp_out", 0)))
        (mlp_out.0,)
    """
    return tuple(site for site in sites if site.name not in IN_ORDER_OF_CHOICE)
