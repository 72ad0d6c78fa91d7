"""The gate of a sublayer that mixes tokens: what its result is multiplied by, found in what a projection gives."""

from collections.abc import Sequence

from torch import Tensor

from hooks.tracing.record import Call, Op, Trace

Gate = tuple[Call, tuple[int, ...]]
"""The call of a projection, and which of its features the gate is."""


def gate_of(trace: Trace, ops: Sequence[Op], projections: Sequence[Call]) -> Gate | None:
    """Return what is multiplied last, after a sigmoid or SiLU, with what a sublayer mixes; None where nothing is.

    The gate may be some features of a projection that gives more (Mamba, Qwen3-Next), in any order: a feature is known
    by its values at all tokens.

    Args:
        trace: the recorded pass.
        ops: the operations that make what the sublayer adds, or those after the one that mixes, in order.
        projections: the calls of the block's projections.

    Examples:
        ```python
        gate_of(trace, ops, projections)
        ```
    """
    for op in reversed(ops):
        if op.name in ("mul", "mul_") and len(op.reads) == 2:
            for value in reversed(op.reads):
                source = _before_sigmoid(trace, trace.root(value))
                held = None if source is None else _in_projection(trace, source, projections)
                if held is not None:
                    return held
    return None


def _before_sigmoid(trace: Trace, value: int) -> int | None:
    """What a sigmoid or SiLU is taken of, where a value is one, or a cast or part of one."""
    while (at := trace.maker.get(value)) is not None and len(trace.ops[at].reads) == 1:
        value = trace.root(trace.ops[at].reads[0])
        if trace.ops[at].name in ("sigmoid", "silu"):
            return value
    return None


def _in_projection(trace: Trace, value: int, projections: Sequence[Call]) -> Gate | None:
    """The last projection that gives all features of a value, and which they are."""
    wanted = _features(trace.tensor(value), trace.n_pos)
    for call in reversed(projections if wanted else ()):
        given = _features(trace.tensor(next(iter(call.outputs.values()))), trace.n_pos)
        place = {feature: number for number, feature in enumerate(given)}
        if len({*wanted} & place.keys()) == len(wanted):
            return call, tuple(place[feature] for feature in wanted)
    return None


def _features(tensor: Tensor, n_pos: int) -> list[bytes]:
    """Each feature's values at all tokens of one text; none where no axis counts the tokens."""
    axes = [axis for axis, size in enumerate(tensor.shape) if size == n_pos]
    if not axes:
        return []
    rows = tensor.float().movedim(axes[0], 0).reshape(n_pos, -1).T.contiguous().cpu().numpy()
    return [row.tobytes() for row in rows]
