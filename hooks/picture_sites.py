"""The named sites of a model that reads pictures, found by watching one pass over a picture.

- `conv_pre[i]`: what the i-th convolution gives. `conv_act[i]`: the same after the nonlinearity that reads it, a batch
  norm between them or not; absent where something is added first. `pool[i]`: what the i-th pool of maps gives.
- `fc_act[i]`: what the nonlinearity after the i-th linear layer on whole pictures gives, [batch 1 d].
- `logits`: the classes' scores. `embedding`: the vector that is read for them; without logits, the vector that the
  model gives (CLIP's in the shared space, a pooled output).
- In a transformer over patches, the sites of its blocks by their usual names (`hooks/layout.py`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import nn

from hooks.site import Site
from hooks.structure import Structure, structure_of
from hooks.taps import Aliases, OneCall, Tap
from hooks.tracing.record import Call, Trace

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ACTS = frozenset(
    ["relu", "relu_", "gelu", "silu", "silu_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "elu", "elu_",
     "sigmoid", "tanh", "hardswish", "hardswish_", "mish", "threshold"]
)  # fmt: skip
_NORMS = ("batch_norm", "_batch_norm", "group_norm", "layer_norm")
_POOLS = ("max_pool2d", "avg_pool2d")


def picture_taps(module: nn.Module, trace: Trace) -> tuple[list[Tap], Structure | None]:
    """Return where the named sites sit, and the blocks of a transformer where there are some.

    Args:
        module: the whole model.
        trace: a pass over one picture.

    Cost: two calls of each sublayer of a transformer that is not seen to be attention.

    Examples:
        ```python
        picture_taps(vit, record(vit, lambda: vit(torch.zeros(1, 3, 64, 64))))
        ```
    """
    structure = _blocks(module, trace)
    taps = [tap for block in (structure.blocks if structure else ()) for tap in block.taps.values()]
    finder = _Finder(module, trace)
    taps += [*finder.convolutions(), *finder.linear(structure is not None), *finder.ends()]
    return taps, structure


def _blocks(module: nn.Module, trace: Trace) -> Structure | None:
    """The blocks of a transformer: the length of its stream is that of the sequence most modules give."""
    lengths = [int(shape[1]) for shape in _shapes(trace) if len(shape) == 3 and shape[0] == 1]
    for n in sorted(set(lengths), key=lambda n: -lengths.count(n)):
        trace.n_pos = n
        structure = structure_of(module, trace)
        if structure.blocks:
            return structure
    return None


def _shapes(trace: Trace) -> Iterator[tuple[int, ...]]:
    return (tuple(trace.tensor(value).shape) for call in trace.calls for value in call.outputs.values())


class _Finder:
    """Finding what reads a value, and the module at whose border it can be taken."""

    def __init__(self, module: nn.Module, trace: Trace) -> None:
        self.module, self.trace = module, trace
        self.times: dict[int, int] = {}
        self.reader: dict[int, list[int]] = {}
        for call in trace.calls:
            self.times[id(call.module)] = self.times.get(id(call.module), 0) + 1
        for number, op in enumerate(trace.ops):
            for value in op.reads:
                self.reader.setdefault(value, []).append(number)

    def convolutions(self) -> Iterator[Tap]:
        """Each convolution, its nonlinearity, and each pool of maps."""
        numbers = {"conv": 0, "pool": 0}
        for call in self.trace.calls:
            if isinstance(call.module, _CONV) and None in call.outputs:
                value, number = call.outputs[None], numbers["conv"]
                numbers["conv"] += 1
                yield self._tap(Site("conv_pre", number), call, "output", value)
                yield from self._find_activations("conv_act", number, value)
            elif "Pool" in type(call.module).__name__ and self._is_map(call):
                yield self._tap(Site("pool", numbers["pool"]), call, "output", call.outputs[None])
                numbers["pool"] += 1

    def _is_map(self, call: Call) -> bool:
        return None in call.outputs and self.trace.tensor(call.outputs[None]).ndim == 4

    def linear(self, has_blocks: bool) -> Iterator[Tap]:
        """The nonlinearities after linear layers on whole pictures, of a net that is no transformer."""
        flat = [c for c in self.trace.calls if isinstance(c.module, nn.Linear) and self._is_vector(c.outputs.get(None))]
        for number, call in enumerate(() if has_blocks else flat):
            yield from self._find_activations("fc_act", number, call.outputs[None])

    def ends(self) -> Iterator[Tap]:
        """The logits, and the vector before them; or the vector that the model gives."""
        whole = self.trace.calls[0]
        named = {part: value for part, value in whole.outputs.items() if self._is_vector(value)}
        part = next((p for p in ("logits", "image_embeds", "text_embeds", "pooler_output") if p in named), None)
        part = part if part is not None else next(iter(named), _NONE)
        if part is _NONE:
            return
        head = next((call for call in reversed(self.trace.calls) if isinstance(call.module, nn.Linear)
                     and self.trace.root(call.outputs[None]) == self.trace.root(named[part])), None)  # fmt: skip
        scores = part == "logits" or (head is not None and part not in ("image_embeds", "text_embeds", "pooler_output"))
        yield self._tap(Site("logits" if scores else "embedding"), whole, "output", named[part], part)
        if scores and head is not None:
            yield self._tap(Site("embedding"), head, "input", next(iter(head.inputs.values())))

    def _is_vector(self, value: int | None) -> bool:
        return value is not None and self.trace.tensor(value).ndim == 2

    def _find_activations(self, name: str, number: int, value: int) -> Iterator[Tap]:
        """What the nonlinearity that reads a value gives: at a module that gives it, or at one that is given it."""
        made = self._nonlinearity(value)
        if made is None:
            return
        for side in ("output", "input"):
            for call in reversed(self.trace.calls) if side == "output" else self.trace.calls:
                held: Mapping[Any, int] = call.outputs if side == "output" else call.inputs
                slot = next((slot for slot, one in held.items() if one == made), _NONE)
                if slot is not _NONE and call is not self.trace.calls[0]:
                    yield self._tap(Site(name, number), call, side, made, slot)
                    return

    def _nonlinearity(self, value: int) -> int | None:
        """The value that the nonlinearity makes of one that nothing else reads, a norm between or not."""
        for _ in range(4):
            readers = self.reader.get(value, [])
            if len(readers) != 1:
                return None
            op = self.trace.ops[readers[0]]
            if op.name in _ACTS:
                return op.makes[0]
            if not any(norm in op.name for norm in _NORMS) and op.name not in ("contiguous", "clone", "alias"):
                return None
            value = op.makes[0]
        return None

    def _tap(self, site: Site, call: Call, side: Literal["input", "output"], value: int, slot: Any = None) -> Tap:
        shape = tuple(self.trace.tensor(value).shape)
        axes = places_of(shape)
        first = next(iter(call.inputs)) if side == "input" else 0
        one = tuple(n for axis, n in enumerate(shape) if axis and axis not in axes)
        alias: Aliases = frozenset({"overwritten"} if self.trace.is_overwritten(value) else ())
        once = OneCall(call.number, self.module) if self.times[id(call.module)] > 1 else None
        return Tap(site, call.module, side, one, first if slot is None else slot, alias=alias, axes=axes, call=once)


_NONE: Any = object()


def places_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return which axes of a tensor count places: rows and columns of [batch channel row column], pos of [batch pos d].

    Examples:
        >>> places_of((1, 3, 8, 8)), places_of((1, 65, 128)), places_of((1, 10))
        ((2, 3), (1,), ())
    """
    return {4: (2, 3), 3: (1,)}.get(len(shape), ())
