"""FT-L: fine-tuning of one output projection, each weight held within a bound of what it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import Model
from hooks.border import Count, NotNegative, Positive
from hooks.errors import InvalidArgument
from hooks.site import mlp_act
from interp.common.completion import log_probs, tokenise_completions
from interp.memory.editing.change import LowRank
from interp.memory.editing.checks import measure_and_check
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts, list_facts
from interp.memory.editing.placement import locate_known_facts
from interp.memory.editing.value_search import freeze_weights


def ft_l(
    model: Model,
    facts: Facts,
    *,
    layer: int | None = None,
    bound: NotNegative = 0.05,
    learning_rate: Positive = 0.01,
    steps: Count = 25,
    stop: NotNegative = 1e-2,
    contexts: Sequence[str] = ("",),
    progress: bool = True,
) -> Edit:
    """Fine-tune W under ‖ΔW‖∞ ≤ ε: Adam on mean NLL(new | context + prompt), clamped after each step.

    The baseline of Zhu et al. 2020, arXiv:2012.00363, as Meng et al. 2022, appendix E.1, run it, but with every token
    of the new object predicted from the true ones before it. Bound and rate are in units of the root mean square of the
    entries of W.

    Args:
        model: the model; its weights are left alone until the edit is applied.
        facts: what to rewrite, one fact or several, trained on together.
        layer: whose feed-forward output projection to train; by default where `locate` says.
        bound: ε.
        learning_rate: of Adam.
        steps: at most.
        stop: the loss in nats at which training ends.
        contexts: texts put before the prompts, "" for none.
        progress: show a bar while the layer is looked for.

    Raises:
        InvalidArgument: no contexts, or a layer the model lacks.
        EditRefused: less than nine tenths of the facts are said in the end: the bound is too tight.

    Cost: a forward and a backward pass over facts × contexts per step.

    Examples:
        ```python
        edit = ft_l(model, facts)
        ```
    """
    facts = list_facts(facts)
    if not contexts:
        raise InvalidArgument('0 contexts were given: give at least one, "" for none')
    layer = locate_known_facts(model, facts, progress=progress).layer if layer is None else layer
    prompts = [context + fact.text for fact in facts for context in contexts]
    asked = tokenise_completions(model, prompts, [fact.new for fact in facts for _ in contexts])
    weight = model.w_out(layer)
    unit = float(weight.detach().float().square().mean().sqrt())
    delta = torch.zeros(weight.shape, device=weight.device, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=learning_rate * unit)
    loss, step = torch.tensor(float("inf")), 0
    for step in range(steps + 1):
        with torch.enable_grad(), freeze_weights(model), _add_change(model.module(mlp_act[layer]), delta):
            loss = -log_probs(model.run(asked.tokens), asked.tokens.ids, asked.target).mean()
        if step == steps or float(loss.detach()) < stop:
            break
        (delta.grad,) = torch.autograd.grad(loss, delta)
        adam.step()
        with torch.no_grad():
            delta.clamp_(-bound * unit, bound * unit)
    whole = delta.detach().double().cpu()
    update = LowRank(layer, whole.T.contiguous(), torch.eye(whole.shape[1], dtype=torch.float64))
    measured = {"target_probability": float(torch.exp(-loss.detach())), "steps": float(step)}
    return measure_and_check(model, Edit(facts, "ft_l", (update,), model.fingerprint, measured), share=0.9)


@contextmanager
def _add_change(projection: nn.Module, delta: Float[Tensor, "d_mlp d_model"]) -> Iterator[None]:
    """The projection with weight W + Δ, in whose Δ gradients flow: k W + b + k Δ."""
    handle = projection.register_forward_hook(lambda _, args, v: (v.float() + args[0].float() @ delta).to(v))
    try:
        yield
    finally:
        handle.remove()
