"""Step 5: the mixture of experts in a sublayer: the call that reads a choice and its weights, and the router."""

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from hooks.dense_mixture import DenseMixture, DenseMixtureAccessor
from hooks.experts import ExpertAccessor, Mixture
from hooks.mixture_hooks import Slot
from hooks.site import Site
from hooks.taps import Tap
from hooks.temporary import grad_mode
from hooks.tracing.record import VIEWS, Call, Op, Trace
from hooks.tracing.residual import BlockCall
from hooks.tracing.sublayers import Sublayer

_MATRICES = ("mm", "addmm", "bmm")
_TURNS = VIEWS | {"clone", "contiguous", "_to_copy", "t"}


@final
@dataclass(frozen=True, eq=False)
class TracedMixture:
    """A mixture of experts, and the shapes of what flows in it.

    Attributes:
        mixture: its parts.
        d_expert: how wide an expert's hidden layer is; 0 where that cannot be read.
        explained: whether the sublayer gives what the experts give, with the shared ones, and nothing else.
    """

    mixture: Mixture | DenseMixture
    d_expert: int
    explained: bool


@grad_mode(False)
def mixture_of(trace: Trace, block: BlockCall, kind: Sublayer) -> TracedMixture | None:
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
            return _found(trace, block, kind, call, slots)
    return next((dense for call in inside if (dense := _dense(trace, block, kind, call)) is not None), None)


def expert_taps(site: Callable[[str], Site], found: TracedMixture, d_model: int) -> Iterator[Tap]:
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
            inside = DenseMixtureAccessor(of, name) if isinstance(of, DenseMixture) else ExpertAccessor(of, name)
            yield Tap(site(name), module, "output", shape, inside=inside)


def _slots(trace: Trace, call: Call) -> tuple[Slot, Slot, Slot] | None:
    """Which arguments are x [token d], the choice [token k] of whole numbers, and the weights [token k]."""
    given = {slot: trace.tensor(value) for slot, value in call.inputs.items()}
    choices = [slot for slot, one in given.items() if one.dtype in (torch.int64, torch.int32) and one.ndim >= 2]
    floats = {slot: one for slot, one in given.items() if one.is_floating_point()}
    for choice in choices:
        weights = [slot for slot, one in floats.items() if one.shape == given[choice].shape]
        x = [slot for slot, one in floats.items() if _n_rows(one) == trace.n_pos and slot not in weights]
        if len(weights) == 1 and len(x) == 1 and _n_rows(given[choice]) == trace.n_pos:
            return x[0], choice, weights[0]
    return None


def _n_rows(tensor: Tensor) -> int:
    return tensor.shape[:-1].numel()


def _found(
    trace: Trace, block: BlockCall, kind: Sublayer, call: Call, slots: tuple[Slot, Slot, Slot]
) -> TracedMixture | None:
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
    return TracedMixture(mixture, d_expert, explained)


def _dense(trace: Trace, block: BlockCall, kind: Sublayer, call: Call) -> TracedMixture | None:
    """A mixture whose module is called with a row for each expert and token, the token times the expert's score."""
    values = (*call.inputs.values(), *call.outputs.values())
    if len(values) != 2:
        return None
    rows, made = map(trace.tensor, values)
    if rows.shape != made.shape or rows.ndim != 2 or len(rows) % trace.n_pos:
        return None
    n_experts, op = len(rows) // trace.n_pos, _op(trace, next(iter(call.inputs.values())))
    if n_experts < 2 or op is None or op.name != "mul" or len(op.reads) != 2:
        return None
    before = [c for c in trace.inside(block.call) if c.end <= call.begin]
    held = {trace.root(v): (c, part) for c in before for part, v in c.outputs.items()
            if trace.tensor(v).shape == (trace.n_pos, n_experts)}  # fmt: skip
    routed = [held[root] for one in op.reads if (root := _unturned(trace, one, held)) is not None]
    if not routed:
        return None
    router, part = routed[0]
    chosen = (trace.tensor(router.outputs[part]) > 0).sum(1).unique()
    if len(chosen) != 1:
        return None
    shared, explained = _dense_total(trace, block, kind.term.value, trace.root(next(iter(call.outputs.values()))))
    mixture = DenseMixture(
        call.module, router.module, part, n_experts, int(chosen), shared, block.call.module, block.slot
    )
    try:
        d_expert = mixture.memories(*call.given).shape[-1]
    except Exception:  # a module whose experts cannot be had one by one
        d_expert = 0
    return TracedMixture(mixture, d_expert, explained)


def _unturned(trace: Trace, value: int, among: Container[int]) -> int | None:
    """Which of some values a value is a turned or reshaped copy of; None where it is of none."""
    while trace.root(value) not in among:
        op = _op(trace, value)
        if op is None or op.name not in _TURNS:
            return None
        value = op.reads[0]
    return trace.root(value)


def _dense_total(trace: Trace, block: BlockCall, value: int, experts: int) -> tuple[nn.Module | None, bool]:
    """The module of the shared experts, and whether a term is what it gives plus the sum over experts."""
    op = _op(trace, value)
    parts = op.reads if op is not None and op.name in ("add", "add_") else (value,)
    summed = [one for one in parts if (made := _op(trace, one)) is not None and made.name == "sum"
              and _unturned(trace, made.reads[0], {experts}) is not None]  # fmt: skip
    if len(summed) != 1:
        return None, False
    others = {trace.root(one) for one in parts if one not in summed}
    giving = [c for c in trace.inside(block.call) if others & {*map(trace.root, c.outputs.values())}]
    return (giving[0].module if giving else None), bool(giving) or not others


def _router(trace: Trace, block: BlockCall, experts: Call, choice: int) -> tuple[nn.Module | None, int]:
    """The innermost module that gives the choice, and how many experts its first product with a matrix tells apart."""
    giving = [c for c in trace.inside(block.call) if choice in map(trace.root, c.outputs.values()) and c is not experts]
    if not giving:
        return None, 0
    router = giving[-1]
    top = int(trace.tensor(choice).max()) + 1
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
    if op is not None and op.name in ("mul", "mul_") and trace.root(op.reads[0]) in experts:
        return (float(op.args[1]), op) if isinstance(op.args[1], int | float) else (None, op)
    return None, op


def _op(trace: Trace, value: int) -> Op | None:
    at = trace.maker.get(trace.root(value))
    return None if at is None else trace.ops[at]
