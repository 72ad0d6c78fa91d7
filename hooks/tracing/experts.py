"""Step 5: the mixture of experts in a sublayer: the call that reads a choice and its weights, and the router."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from hooks.experts import InExperts, Mixture, Slot
from hooks.site import Site
from hooks.taps import Tap
from hooks.temporary import grad_mode
from hooks.tracing.record import Call, Op, Trace
from hooks.tracing.residual import BlockCall
from hooks.tracing.sublayers import Sublayer

_MATRICES = ("mm", "addmm", "bmm")


@final
@dataclass(frozen=True, eq=False)
class Found:
    """A mixture of experts, and the shapes of what flows in it.

    Attributes:
        mixture: its parts.
        d_expert: how wide an expert's hidden layer is; 0 where that cannot be read.
        explained: whether the sublayer gives what the experts give, with the shared ones, and nothing else.
    """

    mixture: Mixture
    d_expert: int
    explained: bool


@grad_mode(False)
def mixture_of(trace: Trace, block: BlockCall, kind: Sublayer) -> Found | None:
    """Return the mixture of experts that computes a term of a block's sum; None where there is none.

    Cost: one call of the experts it chose.

    Examples:
        ```python
        mixture_of(trace, block, sublayers(trace, block, found, set(), 11)[1])
        ```
    """
    if kind.root is None or block.repeated:
        return None
    inside = [kind.root, *trace.inside(kind.root)]
    for call in inside:
        slots = _slots(trace, call)
        if slots is not None:
            return _find_mixture(trace, block, kind, call, slots)
    return None


def expert_taps(site: Callable[[str], Site], found: Found, d_model: int) -> Iterator[Tap]:
    """Yield where the sites of a mixture sit, in the order of the pass.

    Examples:
        ```python
        [tap.site for tap in expert_taps(lambda name: Site(name, 3), found, 64)]
        ```
    """
    of, k = found.mixture, found.mixture.n_chosen
    shapes: dict[str, tuple[nn.Module | None, tuple[int, ...]]] = {
        "router_logits": (of.router if of.n_experts else None, (of.n_experts,)),
        "expert_choice": (of.experts, (k,)),
        "expert_weights": (of.experts, (k,)),
        "expert_act": (of.experts if found.d_expert else None, (k, found.d_expert)),
        "expert_out": (of.experts, (k, d_model)),
        "shared_out": (of.shared, (d_model,)),
    }
    for name, (module, shape) in shapes.items():
        if module is not None:
            yield Tap(site(name), module, "output", shape, inside=InExperts(of, name))


def _slots(trace: Trace, call: Call) -> tuple[Slot, Slot, Slot] | None:
    """Which arguments are x [token d], the choice [token k] of whole numbers, and the weights [token k]."""
    given = {slot: trace.tensor(value) for slot, value in call.inputs.items()}
    choices = [slot for slot, one in given.items() if one.dtype in (torch.int64, torch.int32) and one.ndim >= 2]
    floats = {slot: one for slot, one in given.items() if one.is_floating_point()}
    for choice in choices:
        weights = [slot for slot, one in floats.items() if one.shape == given[choice].shape]
        x = [
            slot for slot, one in floats.items() if one.numel() // one.shape[-1] == trace.n_pos and slot not in weights
        ]
        if len(weights) == 1 and len(x) == 1 and given[choice].numel() // given[choice].shape[-1] == trace.n_pos:
            return x[0], choice, weights[0]
    return None


def _find_mixture(
    trace: Trace, block: BlockCall, kind: Sublayer, call: Call, slots: tuple[Slot, Slot, Slot]
) -> Found | None:
    router, n_experts = _router(trace, block, call, trace.root(call.inputs[slots[1]]))
    made = {trace.root(value) for value in call.outputs.values()}
    explained, factor, shared, gate = _total(trace, block, kind.term.value, made)
    choice = trace.tensor(call.inputs[slots[1]])
    mixture = Mixture(
        call.module, slots, router, n_experts, choice.shape[-1], shared and shared.module, gate and gate.module,
        factor, block.call.module, block.slot,
    )  # fmt: skip
    args, kwargs = call.given
    try:
        d_expert = mixture.memories(args, kwargs).shape[-1]
    except Exception:  # a module whose experts cannot be had one by one
        d_expert = 0
    return Found(mixture, d_expert, explained)


def _router(trace: Trace, block: BlockCall, experts: Call, choice: int) -> tuple[nn.Module | None, int]:
    """The innermost module that gives the choice, and how many experts its first product with a matrix tells apart."""
    giving = [c for c in trace.inside(block.call) if choice in map(trace.root, c.outputs.values()) and c is not experts]
    if not giving:
        return None, 0
    router = giving[-1]
    top = max(int(trace.tensor(choice).max()) + 1, trace.tensor(choice).shape[-1])
    sizes = [trace.tensor(op.makes[0]).shape[-1] for op in trace.ops[router.begin : router.end] if op.name in _MATRICES]
    return router.module, next((size for size in reversed(sizes) if size >= top), 0)


def _total(
    trace: Trace, block: BlockCall, value: int, experts: set[int]
) -> tuple[bool, float, Call | None, Call | None]:
    """How what the experts give becomes the term: as it is, or times a number, and with what shared experts give."""
    giver = {trace.root(v): call for call in reversed(trace.inside(block.call)) for v in call.outputs.values()}
    factor, op = _scale(trace, value, experts)
    if factor is not None:
        return True, factor, None, None
    op = _op(trace, value)
    if op is None or op.name not in ("add", "add_") or len(op.reads) != 2:
        return False, 1.0, None, None
    for one, other in (op.reads, op.reads[::-1]):
        factor, _ = _scale(trace, one, experts)
        if factor is None:
            continue
        shared = giver.get(trace.root(other))
        if shared is not None:
            return True, factor, shared, None
        product = _op(trace, other)
        if product is not None and product.name in ("mul", "mul_") and len(product.reads) == 2:
            for gated, by in (product.reads, product.reads[::-1]):
                shared, sigmoid = giver.get(trace.root(gated)), _op(trace, by)
                gate = None if sigmoid is None or sigmoid.name != "sigmoid" else giver.get(trace.root(sigmoid.reads[0]))
                if shared is not None and gate is not None and _same_input(trace, shared, gate):
                    return True, factor, shared, gate
    return False, 1.0, None, None


def _same_input(trace: Trace, one: Call, other: Call) -> bool:
    first = [trace.root(next(iter(call.inputs.values()))) for call in (one, other)]
    return first[0] == first[1]


def _scale(trace: Trace, value: int, experts: set[int]) -> tuple[float | None, Op | None]:
    """The number that what the experts give is multiplied by to make a value; None where it is made otherwise."""
    if trace.root(value) in experts:
        return 1.0, None
    op = _op(trace, value)
    if op is not None and op.name in ("mul", "mul_") and trace.root(op.reads[0]) in experts and len(op.args) > 1:
        return (float(op.args[1]), op) if isinstance(op.args[1], int | float) else (None, op)
    return None, op


def _op(trace: Trace, value: int) -> Op | None:
    at = trace.maker.get(trace.root(value), -1)
    return trace.ops[at] if at >= 0 else None
