"""Which pixels each place of a map sees, followed from the picture through the operations of a recorded pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from hooks.tracing.record import Op, Ref, Trace

POINTWISE = frozenset(
    ["relu", "relu_", "gelu", "silu", "silu_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "elu", "elu_",
     "sigmoid", "tanh", "hardswish", "hardswish_", "hardsigmoid", "mish", "threshold", "clamp", "clamp_min", "clone",
     "contiguous", "detach", "alias", "_to_copy", "add", "add_", "sub", "mul", "mul_", "div", "div_", "neg", "pow",
     "native_batch_norm", "_native_batch_norm_legit_no_training", "_batch_norm_no_update", "cudnn_batch_norm",
     "native_dropout", "dropout", "cat"]
)  # fmt: skip
"""Operations whose result at a place is made of what they read at that place."""
_POOLS = frozenset(["max_pool2d_with_indices", "max_pool2d", "avg_pool2d"])
_CONVOLUTIONS = frozenset(["convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution"])


@final
@dataclass(frozen=True)
class Span:
    """What the places of a map see along one axis: place i the pixels from `low + i·stride` to `high + i·stride`."""

    stride: float
    low: float
    high: float

    def through(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> "Span":
        """What is seen after a layer that reads `kernel` places.

        `low += −p·s`, `high += (d(k − 1) − p)·s`, `s *= stride` (Araujo, Norris and Sim 2019,
        doi:10.23915/distill.00021).

        Examples:
            >>> Span(1.0, 0.0, 1.0).through(kernel=7, stride=2, padding=3)
            Span(stride=2.0, low=-3.0, high=4.0)
        """
        low = self.low - padding * self.stride
        high = self.high + (dilation * (kernel - 1) - padding) * self.stride
        return Span(self.stride * stride, low, high)

    def join(self, other: "Span") -> "Span":
        """What a sum of both sees."""
        return Span(self.stride, min(self.low, other.low), max(self.high, other.high))


Spans = tuple[Span, Span]


def spans(trace: Trace, picture: int) -> dict[int, Spans]:
    """Return, for each map of which it can be said, what its places see down and across.

    Examples:
        ```python
        spans(trace, trace.calls[0].inputs[0])
        ```
    """
    one = Span(1.0, 0.0, 1.0)
    found = {picture: (one, one)}
    for op in trace.ops:
        seen = _after(trace, op, found)
        if seen is not None:
            found[op.makes[0]] = seen
    return found


def _after(trace: Trace, op: Op, found: dict[int, Spans]) -> Spans | None:
    if not op.reads or not op.makes or trace.tensor(op.makes[0]).ndim != 4:
        return None
    if op.name in POINTWISE:
        return _same_places(trace, op, found)
    known = found.get(op.reads[0])
    if known is None or op.name not in _CONVOLUTIONS | _POOLS:
        return None
    if op.name in _POOLS:
        kernel, stride, padding = _pair(op.args[1]), _pair(_argument(op, 2) or op.args[1]), _pair(_argument(op, 3) or 0)
        dilation = _pair(_argument(op, 4) or 1) if op.name.startswith("max") else (1, 1)
    else:
        weight = op.args[1]
        if not isinstance(weight, Ref) or _argument(op, 6):
            return None
        shape = trace.tensor(weight.value).shape
        kernel, stride, padding, dilation = (shape[2], shape[3]), *(_pair(op.args[i]) for i in (3, 4, 5))
    down, across = (one.through(*sizes) for one, *sizes in zip(known, kernel, stride, padding, dilation, strict=True))
    return down, across


def _same_places(trace: Trace, op: Op, found: dict[int, Spans]) -> Spans | None:
    """What a sum, product or activation sees; None where a part is not of these places or is not known."""
    places = trace.tensor(op.makes[0]).shape[2:]
    maps = [value for value in op.reads if trace.tensor(value).ndim == 4]
    if not maps or any(value not in found or trace.tensor(value).shape[2:] != places for value in maps):
        return None
    down, across = found[maps[0]]
    for value in maps[1:]:
        other = found[value]
        if (other[0].stride, other[1].stride) != (down.stride, across.stride):
            return None
        down, across = down.join(other[0]), across.join(other[1])
    return down, across


def _argument(op: Op, place: int) -> Any:
    return op.args[place] if len(op.args) > place else None


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return (size[0], size[0]) if len(size) == 1 else (size[0], size[1])
