"""Step 3: the stacks of blocks: lists of modules that pass a stream on from call to call."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import nn

from hooks.tracing.record import Call, Trace
from hooks.tracing.residual import BlockCall, residual_sum


@final
@dataclass(frozen=True, eq=False)
class Stack:
    """Blocks one after the other.

    Attributes:
        path: the name of the list in the model.
        blocks: in the order of their calls.
        name: what its sites are called by; empty for the only or main one.
    """

    path: str
    blocks: tuple[BlockCall, ...]
    name: str = ""


def stacks(model: nn.Module, trace: Trace, n_pos: int) -> list[Stack]:
    """Return the stacks of a model, in the order in which they ran.

    Examples:
        ```python
        [stack.path for stack in stacks(hf, trace, 11)]
        ```
    """
    found: list[Stack] = []
    by_module: dict[int, list[Call]] = {}
    for call in trace.calls:
        by_module.setdefault(id(call.module), []).append(call)
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(path.startswith(f"{other.path}.") for other in found):
            continue
        calls = sorted({id(c): c for item in module for c in by_module.get(id(item), [])}.values(), key=_begin)
        blocks = _blocks(trace, calls, n_pos, {id(item): len(by_module.get(id(item), [])) for item in module})
        whole = len(blocks) == len(calls) and {id(b.call.module) for b in blocks} == {id(one) for one in module}
        if blocks and whole and (_join(trace, blocks) or any(residual_sum(trace, block).expr for block in blocks)):
            found.append(Stack(path, tuple(blocks)))
    return sorted(found, key=lambda stack: _begin(stack.blocks[0].call))


def _join(trace: Trace, blocks: Sequence[BlockCall]) -> bool:
    """Whether each of several blocks reads what the one before gives."""
    pairs = list(pairwise(blocks))
    return bool(pairs) and all(trace.root(one.y) == trace.root(other.x) for one, other in pairs)


def _begin(call: Call) -> int:
    return call.begin


def _blocks(trace: Trace, calls: Sequence[Call], n_pos: int, times: dict[int, int]) -> list[BlockCall]:
    blocks: list[BlockCall] = []
    for call in calls:
        before = trace.root(blocks[-1].y) if blocks else None
        pairs = [
            (slot, part)
            for slot, x in call.inputs.items()
            for part, y in call.outputs.items()
            if _is_stream(trace, x, n_pos) and trace.tensor(x).shape == trace.tensor(y).shape
        ]
        if len({slot for slot, _ in pairs}) > 1 and len({part for _, part in pairs}) > 1:
            return []  # two streams at once (Reformer)
        pairs.sort(key=lambda pair: trace.root(call.inputs[pair[0]]) != before)
        if pairs:
            blocks.append(BlockCall(call, *pairs[0], repeated=times[id(call.module)] > 1))
    return blocks


def _is_stream(trace: Trace, value: int, n_pos: int) -> bool:
    tensor = trace.tensor(value)
    return tensor.is_floating_point() and tensor.ndim >= 3 and sorted(tensor.shape[:2]) == [1, n_pos]
