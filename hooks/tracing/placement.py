"""Where the sites of one traced block sit: a tap for each, and the parts of the block by their names."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, final

import torch
from torch import Tensor, nn

from hooks.attention import KernelAccessor, kind_of_attention
from hooks.huggingface import HFModel
from hooks.mixer_state import MixerAccessor, keeps_state
from hooks.site import Site
from hooks.taps import MergedAxes, OneCall, Tap
from hooks.tracing.experts import TracedMixture, expert_taps, mixture_of
from hooks.tracing.record import Call, Slot, Trace
from hooks.tracing.residual import BlockCall, Expr, Stream, Sum, is_norm, stages
from hooks.tracing.sublayers import MIXERS, Sublayer, is_projection
from hooks.view import View


@final
@dataclass(eq=False)
class Placement:
    """Where the sites of one block sit.

    `terms` are the sites of its sum, `part` its parts that were found, `mixtures` its experts by the term they make.
    `own` is the argument that is given to this block alone. `reads` says of which stage of the stream, and through
    which modules, the inputs of some parts are made; `source` is the module whose output cross-attention reads.
    """

    hf: HFModel
    trace: Trace
    stack: str
    layer: int
    block: BlockCall
    sum: Sum
    kinds: tuple[Sublayer, ...]
    part: dict[str, nn.Module] = field(default_factory=dict)
    mixtures: dict[int, TracedMixture] = field(default_factory=dict)
    reads: dict[str, tuple[tuple[nn.Module, ...], Expr]] = field(default_factory=dict)
    source: Site | None = None
    own: Slot | None = None

    def __post_init__(self) -> None:
        self.inside = self.trace.inside(self.block.call)
        self.times = Counter(id(call.module) for call in self.trace.calls)
        names = [kind.name for kind in self.kinds]
        self.terms = tuple(
            self.site(kind.name) if names.count(kind.name) == 1 and kind.term.calls else self._by_module(kind, number)
            for number, kind in enumerate(self.kinds)
        )

    def site(self, name: str) -> Site:
        """The site of a name in this block."""
        return Site(name, self.layer, self.stack)

    def _by_module(self, kind: Sublayer, number: int) -> Site:
        """What has no name of its own, by its module; what no module gives, by its place in the sum."""
        calls = kind.term.calls
        return Site("module", path=self._call_of(kind).path if calls else f"{self.block.call.path}:{number}")

    def _call_of(self, kind: Sublayer) -> Call:
        """The call that gives a term: of its projection, else the innermost of a module that is called once."""
        once = [call for call in kind.term.calls if self.times[id(call.module)] == 1] or list(kind.term.calls)
        return next((call for call in once if is_projection(call.module)), once[-1])

    def find_taps(self) -> tuple[Expr | None, dict[Site, Tap]]:
        """Find the sum of the middle, and the tap of every site of the block."""
        before = self._input("resid_pre", self.block.call, self.block.slot)
        taps = [
            replace(before, alias=before.alias | {"shared"})
            if before is not None and self.block.last is not None
            else before
        ]
        taps += [] if self.own is None else [self._input("layer_embed", self.block.call, self.own)]
        for site, kind in zip(self.terms, self.kinds, strict=True):
            if kind.name in ("attn_out", "cross_out") and site.name == kind.name:
                taps += self._attention(kind, "" if kind.name == "attn_out" else "cross_")
            if kind.name == "mixer_out" and site.name == "mixer_out":
                taps += self._mixer(kind)
            if kind.name == "mlp_out" and site.name == "mlp_out":
                taps += self._feed_forward(kind)
            if kind.term.calls and (site.name != "module" or self.times[id(self._call_of(kind).module)] == 1):
                taps.append(self._tap_of_term(site, kind))
        taps += self._experts()
        middle = self._middle()
        taps += [] if middle is None else self._of_middle(middle)
        taps.append(self._output("resid_post", self.block.last or self.block.call, self.block.part))
        return None if middle is None else self._stage(middle), {tap.site: tap for tap in taps if tap is not None}

    def _tap_of_term(self, site: Site, kind: Sublayer) -> Tap:
        call = self._call_of(kind)
        part = next(p for p, v in call.outputs.items() if self.trace.root(v) == kind.term.value)
        tap = self._tap(site, call, "output", call.outputs[part], part)
        assert tap is not None
        return replace(tap, view=View(factor=kind.term.factor))

    def _attention(self, kind: Sublayer, cross: str) -> Iterator[Tap | None]:
        out, n_heads, held = kind.parts.get("o"), kind.n_heads, "cross_attn" if cross else "attn"
        self._reads(f"{held}.norm", kind.parts.get("q", kind.root))
        if kind.root is not None:
            self.part[held] = kind.root.module
        if out is None or not n_heads:
            return
        z = self._input(f"{cross}z", out, heads=n_heads)
        if z is None or self._width(out) % n_heads:
            return
        self.part[f"{held}.o"] = out.module
        d_head = self._width(out) // n_heads
        for name in "qkv":
            if name in kind.parts:
                wide = self.trace.tensor(next(iter(kind.parts[name].outputs.values()))).shape[-1]
                gate = kind.gate[1] if kind.gate is not None and kind.gate[0] is kind.parts[name] else ()
                if (wide - len(gate)) % d_head == 0:
                    self._note_stage(f"{cross}{name}", kind.parts[name])
                    self.part[f"{held}.{name}"] = kind.parts[name].module
                    tap = self._output(f"{cross}{name}", kind.parts[name], None, heads=(wide - len(gate)) // d_head)
                    yield self._without(tap, gate, d_head)
        if cross:
            self.source = self._giver_of(kind.parts.get("k"))
        else:
            yield self._gate("attn_gate", kind)
        yield self._pattern(kind, n_heads, f"{cross}pattern")
        yield z

    def _without(self, tap: Tap | None, gate: tuple[int, ...], d_head: int) -> Tap | None:
        """The tap of what is left of a projection that gives a gate too (Qwen3-Next)."""
        if tap is None or tap.view.heads is None or not gate:
            return tap
        rows = sorted({*range(tap.view.heads * d_head + len(gate))} - {*gate})
        return replace(tap, view=replace(tap.view, rows=self._numbers(rows)), shape=(tap.view.heads, d_head))

    def _numbers(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, device=self.trace.tensor(self.block.x).device)

    def _mixer(self, kind: Sublayer) -> Iterator[Tap | None]:
        root = kind.root
        slot = None if root is None else next((s for s, v in root.inputs.items() if self._is_tokens(v)), None)
        if root is not None and slot is not None and self._note_stage("mixer_in", root):
            yield self._input("mixer_in", root, slot)
        yield self._gate("mixer_gate", kind)
        yield self._state(kind)

    def _state(self, kind: Sublayer) -> Tap | None:
        """After the mixer, where it takes a cache and leaves one state in it."""
        inside = [] if kind.root is None else [kind.root, *self.trace.inside(kind.root)]
        taking = [call for call in inside if keeps_state(call.module) and self.times[id(call.module)] == 1]
        for call in taking[:1]:
            slot = next((slot for slot, value in call.inputs.items() if self._is_tokens(value)), None)
            if slot is not None:
                mixer = MixerAccessor(self.hf, call.module, slot)
                with suppress(Exception):  # whatever a mixer built like no other raises
                    shape = mixer.shape(*call.given, self.trace.n_pos)
                    return Tap(self.site("mixer_state"), call.module, "output", shape, inside=mixer)
        return None

    def _gate(self, name: str, kind: Sublayer) -> Tap | None:
        """Where a projection gives the gate, if it reads a stage of the stream that can be seen."""
        if kind.gate is None or not self._reads_stage(name, kind.gate[0], kind.root):
            return None
        call, features = kind.gate
        tap = self._output(name, call, None)
        if tap is None:
            return None
        self.part[name] = call.module
        rows = None if features == tuple(range(tap.shape[-1])) else self._numbers(features)
        return replace(tap, view=View(rows), shape=(len(features),))

    def _reads_stage(self, name: str, call: Call, root: Call | None) -> bool:
        """Whether a call reads a stage of the stream: by itself, or what its sublayer reads, masked."""
        if self._note_stage(name, call):
            return True
        given = [[v for v in one.inputs.values() if self._is_tokens(v)] for one in (call, root) if one is not None]
        read = [self.trace.tensor(values[0]) for values in given if values]
        return len(read) == 2 and torch.equal(read[0], read[1]) and self._note_stage(name, root)

    def _note_stage(self, name: str, call: Call | None) -> bool:
        """Note of which stage of the stream, through which modules, a call reads; False where that cannot be seen."""
        given = [] if call is None else [self.trace.root(v) for v in call.inputs.values() if self._is_tokens(v)]
        value, through = given[0] if given else None, list[nn.Module]()
        while value is not None:
            if (stage := self._stage(value)) is not None:
                self.reads[name] = tuple(through), stage
                return True
            giver = self._giver_of_one(value)
            value = None if giver is None else self.trace.root(next(iter(giver.inputs.values())))
            through[:0] = [] if giver is None else [giver.module]
        return False

    def _giver_of_one(self, value: int) -> Call | None:
        """The call that makes a value of one other, which is no sublayer: a norm, else the outermost."""
        terms = {id(call) for kind in self.kinds for call in kind.term.calls}
        giving = [
            call for call in self.inside
            if id(call) not in terms and _is_given_one(call)
            and value in map(self.trace.root, call.outputs.values())
            and self.trace.root(next(iter(call.inputs.values()))) != value
        ]  # fmt: skip
        return next((call for call in giving if is_norm(call.module)), giving[0] if giving else None)

    def _stage(self, value: int) -> Expr | None:
        if value == self.trace.root(self.block.x):
            return Stream()
        return None if self.sum.expr is None else _sub(self.sum.expr, value)

    def _giver_of(self, call: Call | None) -> Site | None:
        """The module whose output a call reads: of those that give it the innermost that is called once."""
        if call is None:
            return None
        value = self.trace.root(next(iter(call.inputs.values())))
        giving = [c for c in self.trace.calls if value in map(self.trace.root, c.outputs.values()) and c.path]
        once = [c for c in giving if self.times[id(c.module)] == 1]
        return Site.module(once[-1].path) if once else None

    def _pattern(self, kind: Sublayer, n_heads: int, name: str) -> Tap | None:
        """At the kernel that attention calls, else as what its module returns."""
        kernel = next((begin for begin, end in self.trace.kernels if begin <= kind.meets < end), None)
        around = [] if kernel is None else [call for call in self.inside if call.begin <= kernel < call.end]
        call = around[-1] if around else kind.root
        if call is None:
            return None
        times = self.times[id(call.module)]
        one_call = OneCall(call.number, self.hf) if times > 1 else None
        tap = Tap(self.site(name), call.module, "output", (n_heads,), 1, call=one_call)
        if sum(call.begin <= begin < call.end for begin, _ in self.trace.kernels) == 1:
            return replace(tap, inside=KernelAccessor(call.module, kind_of_attention(self.hf)))
        return tap if 0 in call.outputs else None

    def _feed_forward(self, kind: Sublayer) -> Iterator[Tap | None]:
        first = kind.parts.get("gate", kind.parts.get("in"))
        self._reads("mlp.norm", kind.root or first)
        if kind.root is not None and not is_norm(kind.root.module):
            self.part["mlp"] = kind.root.module
        whole = kind.root or first
        if whole is not None:
            self._note_stage("mlp_in", whole)
            slot = next((s for s, v in whole.inputs.items() if self._is_tokens(v)), None)
            yield None if slot is None else self._input("mlp_in", whole, slot)
        for name, call in kind.parts.items():
            self.part[f"mlp.{name}"] = call.module
        if kind.act is not None:
            self.part["mlp.act"] = kind.act
            yield None if first is None else self._output("mlp_pre", first, None)
        if "out" in kind.parts:
            yield self._input("mlp_act", kind.parts["out"])

    def _experts(self) -> Iterator[Tap]:
        found = {number: mixture_of(self.trace, self.block, kind) for number, kind in enumerate(self.kinds)}
        self.mixtures |= {number: one for number, one in found.items() if one is not None}
        if len(self.mixtures) == 1:
            (one,) = self.mixtures.values()
            yield from expert_taps(self.site, one, self.trace.tensor(self.block.x).shape[-1])

    def _reads(self, name: str, call: Call | None) -> None:
        """Note the norm through which a sublayer reads the stream, or that it reads the stream itself."""
        values = [] if call is None else [self.trace.root(v) for v in call.inputs.values() if self._is_tokens(v)]
        if values and values[0] in self.sum.stream | {self.trace.root(self.block.x)}:
            self.part[name] = nn.Identity()
            return
        for norm in self.inside:
            if is_norm(norm.module) and values and values[0] in map(self.trace.root, norm.outputs.values()):
                self.part[name] = norm.module

    def _middle(self) -> int | None:
        """The last stage of the stream that holds all that mixes tokens and nothing else."""
        mixing = frozenset(i for i, kind in enumerate(self.kinds) if kind.name in MIXERS)
        if self.sum.expr is None or not mixing or len(mixing) == len(self.kinds):
            return None
        served = [bool(kind.term.calls) for kind in self.kinds]
        if not all(served[i] for i in mixing) and not all(one for i, one in enumerate(served) if i not in mixing):
            return None  # no law could be measured on either side of it
        at = [value for value, terms in stages(self.sum.expr) if terms == mixing]
        flows = {self.trace.root(v) for call in self.inside for v in (*call.inputs.values(), *call.outputs.values())}
        at = [value for value in at if value in flows] or at  # scaled on its way to the end it flows nowhere (Doge)
        return at[-1] if at else None

    def _of_middle(self, value: int) -> Iterator[Tap | None]:
        giving = [c for c in self.inside if value in map(self.trace.root, c.outputs.values()) and is_norm(c.module)]
        if giving:
            yield self._output("resid_mid", giving[-1], None)
            return
        for call in self.inside:
            for slot, read in call.inputs.items():
                if self.trace.root(read) == value:
                    tap = self._input("resid_mid", call, slot)
                    shared = self.trace.alias(read) == self.trace.alias(value)
                    yield replace(tap, alias=tap.alias | {"shared"}) if tap is not None and shared else None
                    return

    def _width(self, call: Call) -> int:
        return self.trace.tensor(next(iter(call.inputs.values()))).shape[-1]

    def _is_tokens(self, value: int) -> bool:
        tensor = self.trace.tensor(value)
        return tensor.is_floating_point() and self.trace.n_pos in tensor.shape[:2] and tensor.ndim >= 2

    def _input(self, name: str, call: Call, slot: Slot | None = None, heads: int | None = None) -> Tap | None:
        slot = slot if slot in call.inputs else next(iter(call.inputs))
        return self._tap(self.site(name), call, "input", call.inputs[slot], slot, heads)

    def _output(self, name: str, call: Call, part: Slot | None, heads: int | None = None) -> Tap | None:
        part = part if part in call.outputs else next(iter(call.outputs))
        value = call.outputs[part]
        return self._tap(self.site(name), call, "output", value, part, heads)

    def _tap(
        self,
        site: Site,
        call: Call,
        side: Literal["input", "output"],
        value: int,
        part: Slot | None,
        heads: int | None = None,
    ) -> Tap | None:
        shape, n_pos = self.trace.tensor(value).shape, self.trace.n_pos
        by_pos = shape[0] == n_pos > 1
        merged = by_pos and (len(shape) == 2 or shape[1] != 1)
        if not by_pos and shape[:2] != (1, n_pos):
            return None
        one = tuple(shape[1:] if merged else shape[2:])
        one = one if heads is None else (heads, one[-1] // heads)
        overwritten = self.trace.alias(value) in self.trace.overwritten
        return Tap(
            site,
            call.module,
            side,
            one,
            0 if part is None else part,
            View(heads=heads),
            alias=frozenset({"overwritten"} if overwritten else ()),
            axes=MergedAxes(self.block.call.module, self.block.slot) if merged else (0,) if by_pos else None,
            call=OneCall(call.number, self.hf) if self.times[id(call.module)] > 1 else None,
        )


def _is_given_one(call: Call) -> bool:
    """Whether a module can be run again on a tensor alone."""
    args, kwargs = call.given
    return len(call.inputs) == 1 and sum(one is not None for one in (*args, *kwargs.values())) == 1


def _sub(expr: Expr, value: int) -> Expr | None:
    """The part of a sum that makes a value."""
    if getattr(expr, "value", None) == value:
        return expr
    inner = (one,) if (one := getattr(expr, "inner", None)) is not None else getattr(expr, "args", ())
    found = (_sub(one, value) for one in inner if isinstance(one, Expr))
    return next((one for one in found if one is not None), None)
