"""Step 3: the stacks of blocks: lists of modules, or of parts next to each other, that pass a stream on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import nn

from hooks.tracing.record import VIEWS, Call, Slot, Trace
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
    found = found or _side_by_side(model, trace, by_module, n_pos)
    return sorted(found, key=lambda stack: _begin(stack.blocks[0].call))


def own_inputs(trace: Trace, stack: Stack) -> dict[int, Slot]:
    """Return, by block, the argument that is an embedding of its own [batch pos d] (Gemma-3n, Gemma-4).

    It is made of the token ids before the blocks run, and no other block is given it.

    Examples:
        ```python
        own_inputs(trace, stacks(hf, trace, 11)[0])
        ```
    """
    ids = {v for v in trace.calls[0].inputs.values() if not trace.tensor(v).is_floating_point()}
    made, first = trace.after(ids), min(block.call.begin for block in stack.blocks)
    given: dict[int, list[tuple[int, Slot]]] = {}
    for layer, block in enumerate(stack.blocks):
        for slot, value in block.call.inputs.items():
            tensor = trace.tensor(value)
            fits = tensor.ndim == 3 and tensor.shape[:2] == (1, trace.n_pos) and tensor.is_floating_point()
            if slot != block.slot and fits and value in made and _computed_at(trace, value) < first:
                given.setdefault(trace.root(value), []).append((layer, slot))
    alone = [found[0] for found in given.values() if len(found) == 1]
    return dict(alone) if len(stack.blocks) > 1 else {}


def _computed_at(trace: Trace, value: int) -> int:
    """The number of the operation that computes a value, or what it is a part of."""
    while (op := trace.ops[trace.maker[value]]).name in VIEWS:
        value = op.reads[0]
    return trace.maker[value]


def why_none(model: nn.Module, trace: Trace) -> str:
    """Return why a model has no stacks: what its lists of modules pass on instead of a stream [batch pos d].

    Examples:
        ```python
        why_none(hf, trace)
        ```
    """
    for path, module in model.named_modules():
        runs = {id(item) for item in module} if isinstance(module, nn.ModuleList) else set()
        calls = [call for call in trace.calls if id(call.module) in runs]
        if len(runs) == len({id(call.module) for call in calls}) > 0 and (said := _odd_stream(trace, calls[0])):
            return f"the items of '{path}' pass on {said}"
        if runs and not calls and any(call.path.startswith(f"{path}.") for call in trace.calls):
            return f"the items of '{path}' are run by their forward alone, not called, so nothing can be read there"
    return "no list of its modules passes a stream [batch pos d] from item to item"


def _odd_stream(trace: Trace, call: Call) -> str:
    """What is odd about the tensors that a call gives in the shape it was given; empty for nothing."""
    n_pos = trace.n_pos
    given = [trace.tensor(v) for v in call.inputs.values() if trace.tensor(v).is_floating_point()]
    made = [trace.tensor(v).shape for v in call.outputs.values()]
    passed = [tuple(one.shape) for one in given if one.ndim >= 3 and one.shape in made]
    if len(passed) > 1 and len(made) > 1:
        return "two streams at once"
    shape = passed[0] if passed else ()
    if not shape:
        return ""
    if n_pos not in shape:
        places = " ".join(map(str, shape[1:-1]))
        return f"{places} places where the text has {n_pos} tokens: the model adds some, pads, or folds the text"
    if shape[-1] == n_pos:
        return "a stream [batch d pos], in which each feature has its tokens next to each other"
    return f"{shape[0]} streams at once [{' '.join(map(str, shape[:1]))} batch pos d]" if len(shape) > 3 else ""


def _side_by_side(model: nn.Module, trace: Trace, by_module: Mapping[int, Sequence[Call]], n_pos: int) -> list[Stack]:
    """The stacks whose blocks are no modules: the n-th items of the lists of one part run in turn, then the next."""
    found: list[Stack] = []
    for path, part in model.named_modules():
        lists = {name: one for name, one in part.named_children() if isinstance(one, nn.ModuleList) and len(one) > 0}
        if len(lists) < 2 or len({len(one) for one in lists.values()}) > 1:
            continue
        rows = [[by_module.get(id(item), []) for item in items] for items in zip(*lists.values(), strict=True)]
        if not all(len(calls) == 1 for row in rows for calls in row):
            continue
        turns = [sorted((calls[0] for calls in row), key=_begin) for row in rows]
        blocks = [_of_several(trace, path, turn, n_pos) for turn in turns]
        whole = [block for block in blocks if block is not None]
        in_turn = all(one[-1].end <= other[0].begin for one, other in pairwise(turns))
        joined = all(trace.is_same(one.y, other.x) for one, other in pairwise(whole))
        if in_turn and joined and len(whole) == len(turns):
            found.append(Stack(turns[0][0].path.rpartition(".")[0], tuple(whole)))
    return found


def _of_several(trace: Trace, path: str, turn: Sequence[Call], n_pos: int) -> BlockCall | None:
    """The block that calls in turn make: from what the first is given to what the last gives."""
    first, last = turn[0], turn[-1]
    slots = [slot for slot, x in first.inputs.items() if _is_stream(trace, x, n_pos)]
    parts = [part for part, y in last.outputs.items() if _is_stream(trace, y, n_pos)]
    if not slots or not parts:
        return None
    whole = Call(path, first.module, first.number, first.begin, last.end, first.inputs, given=first.given)
    return BlockCall(whole, slots[0], parts[0], repeated=False, last=last)


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
            if all(_is_stream(trace, one, n_pos) for one in (x, y)) and trace.tensor(x).shape == trace.tensor(y).shape
        ]
        if blocks:  # what a router hands from block to block is no stream (ZAYA)
            shape = trace.tensor(blocks[-1].x).shape
            pairs = [pair for pair in pairs if trace.tensor(call.inputs[pair[0]]).shape == shape] or pairs
        if len({slot for slot, _ in pairs}) > 1 and len({part for _, part in pairs}) > 1:
            return []  # two streams at once (Reformer)
        pairs.sort(key=lambda pair: trace.root(call.inputs[pair[0]]) != before)
        if pairs:
            blocks.append(BlockCall(call, *pairs[0], repeated=times[id(call.module)] > 1))
    return blocks


def _is_stream(trace: Trace, value: int, n_pos: int) -> bool:
    tensor = trace.tensor(value)
    return tensor.is_floating_point() and tensor.ndim >= 3 and sorted(tensor.shape[:2]) == [1, n_pos]
