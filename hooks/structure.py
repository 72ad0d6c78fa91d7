"""What tracing finds in a model: its stacks of blocks, and where each site sits in them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, final

import torch
from torch import nn

from hooks.forward import context, forward
from hooks.huggingface import HFModel
from hooks.site import Site
from hooks.taps import Tap
from hooks.tokens import Tokens
from hooks.tracing.record import Call, Slot, Trace, record
from hooks.tracing.residual import BlockCall, Expr, Sum, is_norm, residual_sum, stages
from hooks.tracing.stacks import Stack, stacks
from hooks.tracing.sublayers import MIXERS, Sublayer, is_projection, sublayers
from hooks.weights import place_of, refuse_meta

N_POS = 11
"""How many tokens are read where the context holds them: a prime, so that no other axis is taken for theirs."""


@final
@dataclass(frozen=True, eq=False)
class Block:
    """One block as it was traced.

    Attributes:
        stack: the name of its stack; empty for the only one.
        layer: which block of the stack, by the order of the calls.
        module: its module.
        expr: the sum that makes what it gives; None where there is none that can be read.
        middle: the same for the stream between attention and feed-forward; None without one.
        terms: the site of each term of the sum.
        sublayers: what each term is.
        part: its projections by TransformerLens's names (`attn.o`, `mlp.out`, …), and the norms through which
            attention and feed-forward read the stream (`attn.norm`, `mlp.norm`).
        taps: where its sites sit.
        repeated: whether its module runs more than once in a pass.
    """

    stack: str
    layer: int
    module: nn.Module
    expr: Expr | None
    middle: Expr | None
    terms: tuple[Site, ...]
    sublayers: tuple[Sublayer, ...]
    part: Mapping[str, nn.Module]
    taps: Mapping[Site, Tap]
    repeated: bool

    def site(self, name: str) -> Site:
        """Return the site of a name in this block."""
        return Site(name, self.layer, self.stack)

    def sublayer(self, name: str) -> Sublayer | None:
        """Return the one sublayer whose output is the site of a name."""
        return next((one for one, site in zip(self.sublayers, self.terms, strict=True) if site.name == name), None)


@final
@dataclass(frozen=True, eq=False)
class Structure:
    """What tracing found in a model.

    Attributes:
        blocks: every block of every stack, in the order in which they ran.
        main: the blocks of the stack that leads to the logits.
        path: the name of the list of the main blocks.
        final_norm: the norm after the main blocks; None without one that was found.
        head: the part that makes logits out of what that norm gives; None where it is not one part.
        joined: whether each block reads what the one before it gives.
        reader: the site of what reads the last block's output; None where no module that runs once does.
        modules: where what each module gives, and is given, sits; of those that run once and have tokens.
        repeated: names of the modules that run more than once in a pass.
        why: why there are no blocks, where there are none.
    """

    blocks: tuple[Block, ...] = ()
    main: tuple[Block, ...] = ()
    path: str = ""
    final_norm: nn.Module | None = None
    head: nn.Module | None = None
    joined: bool = True
    reader: Site | None = None
    modules: Mapping[Site, Tap] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()
    why: str = ""


@torch.no_grad()
def find_structure(hf: HFModel) -> Structure:
    """Trace a model on a short text of random tokens and return what is found.

    Cost: one forward pass, and two calls of each sublayer that is not seen to be attention.

    Examples:
        ```python
        [block.layer for block in find_structure(hf).main]
        ```
    """
    tokens = _text(hf)
    with refuse_meta(hf):
        trace = record(hf, lambda: forward(hf, tokens), tokens.ids.shape[1])
    try:
        return structure_of(hf, trace)
    finally:
        trace.release()


def structure_of(hf: HFModel, trace: Trace) -> Structure:
    """Return what a recorded pass over one text, or one picture, shows.

    Examples:
        ```python
        structure_of(hf, trace).main
        ```
    """
    found = stacks(hf, trace, trace.n_pos)
    if not found:
        return Structure(why="no list of its modules passes a stream [batch pos d] from item to item")
    return _structure(hf, trace, _named(hf, found))


def input_embeddings(hf: HFModel) -> nn.Module | None:
    """Return the table of a model's token embeddings, or None where it does not say which it is.

    Examples:
        ```python
        input_embeddings(hf).num_embeddings
        ```
    """
    with suppress(NotImplementedError, AttributeError):
        return hf.get_input_embeddings()
    return None


def vocabulary(hf: HFModel) -> int:
    """Return how many tokens a model reads.

    Examples:
        ```python
        vocabulary(hf)
        ```
    """
    table = input_embeddings(hf)
    count = getattr(table, "num_embeddings", None)
    return int(count if count is not None else hf.config.get_text_config().vocab_size)


def _text(hf: HFModel) -> Tokens:
    device, n_vocab = place_of(hf)[0], vocabulary(hf)
    limit = context(hf) or N_POS
    random = torch.Generator().manual_seed(2)
    ids = torch.randint(min(6, n_vocab - 1), n_vocab, (1, min(N_POS, limit)), generator=random).to(device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    return Tokens(ids=ids, mask=mask, special=~mask)


def _named(hf: HFModel, found: Sequence[Stack]) -> list[tuple[str, Stack]]:
    """A name for each stack: none for the only one, else `encoder`, `decoder`, or what holds its list."""
    if len(found) == 1 and not _has_two(hf):
        return [("", found[0])]
    named: list[tuple[str, Stack]] = []
    for stack in found:
        words = stack.path.split(".")
        sides = [word for word in words if word in ("encoder", "decoder")]
        holder = sides[0] if sides else next((word for word in reversed(words[:-1]) if not word.isdigit()), words[0])
        name = holder if holder not in dict(named) else stack.path.replace(".", "_")
        named.append((name, stack))
    return named


def _has_two(hf: HFModel) -> bool:
    """Whether a model is an encoder and a decoder; a module without a configuration is not."""
    return bool(getattr(getattr(hf, "config", None), "is_encoder_decoder", False))


def _structure(hf: HFModel, trace: Trace, named: Sequence[tuple[str, Stack]]) -> Structure:
    encoded = _encoded(hf, trace)
    found = {
        name: tuple(_block(hf, trace, name, layer, call, encoded) for layer, call in enumerate(stack.blocks))
        for name, stack in named
    }
    name, last = named[-1]
    final_norm, head = _ends(trace, last.blocks[-1])
    blocks = tuple(block for stack in found.values() for block in stack)
    joined = all(trace.root(a.y) == trace.root(b.x) for _, stack in named for a, b in pairwise(stack.blocks))
    repeated = frozenset(call.path for call in trace.calls if call.number)
    modules = {tap.site: tap for call in trace.calls if call.path not in repeated for tap in _of_module(trace, call)}
    reader = _reader(trace, last.blocks[-1], modules)
    return Structure(blocks, found[name], last.path, final_norm, head, joined, reader, modules, repeated)


def _reader(trace: Trace, last: BlockCall, modules: Mapping[Site, Tap]) -> Site | None:
    y, after = trace.root(last.y), [call for call in trace.calls if call.begin >= last.call.end]
    read = [Site.module(call.path, "input") for call in after if y in [trace.root(v) for v in call.inputs.values()][:1]]
    return next((site for site in read if site in modules), None)


def _of_module(trace: Trace, call: Call) -> Iterator[Tap]:
    """What a module gives, and the first tensor that it is given, where they are [batch pos d]."""
    sides: tuple[tuple[Literal["output", "input"], Mapping[Any, int]], ...]
    sides = (("output", call.outputs), ("input", call.inputs))
    for side, values in sides:
        for slot, value in [*values.items()][:1]:
            tensor = trace.tensor(value)
            if call.path and tensor.is_floating_point() and tensor.shape[:2] == (1, trace.n_pos):
                where: dict[str, Any] = {"part": slot or 0} if side == "output" else {"slot": slot}
                site, copied = Site.module(call.path, side), trace.is_overwritten(value)
                yield Tap(site, call.module, side, tuple(tensor.shape[2:]), overwritten=copied, **where)


def _encoded(hf: HFModel, trace: Trace) -> set[int]:
    """What is computed from what an encoder gives."""
    if not _has_two(hf):
        return set()
    given = {value for call in trace.calls if call.path.split(".")[-1] == "encoder" for value in call.outputs.values()}
    return trace.after(given)


def _ends(trace: Trace, last: BlockCall) -> tuple[nn.Module | None, nn.Module | None]:
    """The norm that reads the last block's output, and the part that makes the logits out of it."""
    whole = trace.calls[0]
    y = trace.root(last.y)
    outside = [call for call in trace.calls if call.begin >= last.call.end]
    norm = next((c for c in outside if is_norm(c.module) and y in {trace.root(v) for v in c.inputs.values()}), None)
    read = y if norm is None else trace.root(next(iter(norm.outputs.values())))
    logits = {trace.root(v) for part, v in whole.outputs.items() if part in ("logits", "prediction_logits", None, 0)}
    fed = [c for c in outside if c is not whole and len(c.inputs) == 1 and read in map(trace.root, c.inputs.values())]
    made = [c for c in fed if any(trace.root(v) in logits for v in c.outputs.values())]
    return (None if norm is None else norm.module), (made[0].module if made else None)


def _block(hf: HFModel, trace: Trace, stack: str, layer: int, block: BlockCall, encoded: set[int]) -> Block:
    found = residual_sum(trace, block)
    kinds = tuple(sublayers(trace, block, found, encoded, trace.n_pos))
    placing = _Placing(hf, trace, stack, layer, block, found, kinds)
    middle, taps = placing.placed()
    return Block(
        stack, layer, block.call.module, found.expr, middle, placing.terms, kinds, placing.part, taps, block.repeated
    )


@final
@dataclass(eq=False)
class _Placing:
    """Finds the place of each site of one block."""

    hf: HFModel
    trace: Trace
    stack: str
    layer: int
    block: BlockCall
    sum: Sum
    kinds: tuple[Sublayer, ...]
    part: dict[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inside = self.trace.inside(self.block.call)
        self.times: dict[int, int] = {}
        for call in self.trace.calls:
            self.times[id(call.module)] = max(self.times.get(id(call.module), 0), call.number + 1)
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
        return Site("module", path=self._giving(kind).path if calls else f"{self.block.call.path}:{number}")

    def _giving(self, kind: Sublayer) -> Call:
        """The call that gives a term: of its projection, else the innermost of a module that is called once."""
        once = [call for call in kind.term.calls if self.times[id(call.module)] == 1] or list(kind.term.calls)
        return next((call for call in once if is_projection(call.module)), once[-1])

    def placed(self) -> tuple[Expr | None, dict[Site, Tap]]:
        """The sum of the middle, and the tap of every site of the block."""
        taps = [self._changed(self._input("resid_pre", self.block.call, self.block.slot), shared=bool(self.block.last))]
        for site, kind in zip(self.terms, self.kinds, strict=True):
            if kind.name == "attn_out" and site.name == "attn_out":
                taps += self._attention(kind)
            if kind.name == "mlp_out" and site.name == "mlp_out":
                taps += self._feed_forward(kind)
            if kind.term.calls and (site.name != "module" or self.times[id(self._giving(kind).module)] == 1):
                taps.append(self._added(site, kind))
        middle, value = self._middle()
        if middle is not None:
            taps += self._of_middle(value)
        taps.append(self._output("resid_post", self.block.last or self.block.call, self.block.part))
        return middle, {tap.site: tap for tap in taps if tap is not None}

    def _added(self, site: Site, kind: Sublayer) -> Tap:
        call = self._giving(kind)
        part = next(p for p, v in call.outputs.items() if self.trace.root(v) == kind.term.value)
        tap = self._tap(site, call, "output", call.outputs[part], part=0 if part is None else part)
        return Tap(**{**vars(tap), "factor": kind.term.factor})

    def _attention(self, kind: Sublayer) -> Iterator[Tap | None]:
        out = kind.parts.get("o")
        self._reads("attn.norm", kind.parts.get("q", kind.root))
        if kind.root is not None:
            self.part["attn"] = kind.root.module
        if out is None or not kind.n_heads:
            return
        z = self._input("z", out, 0, heads=kind.n_heads)
        if z is None or self._width(out) % kind.n_heads:
            return
        self.part["attn.o"] = out.module
        d_head = self._width(out) // kind.n_heads
        for name in "qkv":
            if name in kind.parts:
                wide = self.trace.tensor(next(iter(kind.parts[name].outputs.values()))).shape[-1]
                if wide % d_head == 0:
                    self.part[f"attn.{name}"] = kind.parts[name].module
                    yield self._output(name, kind.parts[name], None, heads=wide // d_head)
        if kind.root is not None and 0 in kind.root.outputs:
            shape = (kind.n_heads,)
            yield self._changed(self._output("pattern", kind.root, 0), part=1, shape=shape)
        yield z

    def _feed_forward(self, kind: Sublayer) -> Iterator[Tap | None]:
        first = kind.parts.get("gate", kind.parts.get("in"))
        self._reads("mlp.norm", kind.root or first)
        if kind.root is not None and not is_norm(kind.root.module):
            self.part["mlp"] = kind.root.module
        whole = kind.root or first
        if whole is not None:
            slot = next((s for s, v in whole.inputs.items() if self._is_tokens(v)), None)
            yield None if slot is None else self._input("mlp_in", whole, slot)
        for name, call in kind.parts.items():
            self.part[f"mlp.{name}"] = call.module
        if kind.act is not None:
            self.part["mlp.act"] = kind.act.module
            yield None if first is None else self._output("mlp_pre", first, None)
        if "out" in kind.parts:
            yield self._input("mlp_act", kind.parts["out"], 0)

    def _reads(self, name: str, call: Call | None) -> None:
        """Note the norm through which a sublayer reads the stream, or that it reads the stream itself."""
        values = [] if call is None else [self.trace.root(v) for v in call.inputs.values() if self._is_tokens(v)]
        if values and values[0] in self.sum.stream | {self.trace.root(self.block.x)}:
            self.part[name] = nn.Identity()
            return
        for norm in self.inside:
            if is_norm(norm.module) and values and values[0] in map(self.trace.root, norm.outputs.values()):
                self.part[name] = norm.module

    def _middle(self) -> tuple[Expr | None, int]:
        """The last stage of the stream that holds all that mixes tokens and nothing else."""
        mixing = frozenset(i for i, kind in enumerate(self.kinds) if kind.name in MIXERS)
        if self.sum.expr is None or not mixing or len(mixing) == len(self.kinds):
            return None, -1
        at = [value for value, terms in stages(self.sum.expr) if terms == mixing]
        return (_sub(self.sum.expr, at[-1]), at[-1]) if at else (None, -1)

    def _of_middle(self, value: int) -> Iterator[Tap | None]:
        giving = [c for c in self.inside if value in map(self.trace.root, c.outputs.values()) and is_norm(c.module)]
        if giving:
            yield self._output("resid_mid", giving[-1], None)
            return
        for call in self.inside:
            for slot, read in call.inputs.items():
                if self.trace.root(read) == value:
                    tap = self._input("resid_mid", call, slot)
                    alias = self.trace.alias(read) == self.trace.alias(value)
                    yield self._changed(tap, shared=True) if alias else None
                    return

    def _width(self, call: Call) -> int:
        return self.trace.tensor(next(iter(call.inputs.values()))).shape[-1]

    def _is_tokens(self, value: int) -> bool:
        tensor = self.trace.tensor(value)
        return tensor.is_floating_point() and self.trace.n_pos in tensor.shape[:2] and tensor.ndim >= 2

    def _input(self, name: str, call: Call, slot: Slot, heads: int | None = None) -> Tap | None:
        slot = slot if slot in call.inputs else next(iter(call.inputs))
        return self._tap(self.site(name), call, "input", call.inputs[slot], slot=slot, heads=heads)

    def _output(self, name: str, call: Call, part: Slot | None, heads: int | None = None) -> Tap | None:
        part = part if part in call.outputs else next(iter(call.outputs))
        value = call.outputs[part]
        return self._tap(self.site(name), call, "output", value, part=0 if part is None else part, heads=heads)

    def _tap(self, site: Site, call: Call, side: Literal["input", "output"], value: int, **more: Any) -> Tap | None:
        shape = self.trace.tensor(value).shape
        repeated = self.times[id(call.module)] > 1
        n_pos = self.trace.n_pos
        flat = shape[0] == n_pos > 1 and (len(shape) == 2 or shape[1] != 1)
        swapped = shape[0] == n_pos > 1 and len(shape) > 2 and shape[1] == 1
        if not flat and not swapped and shape[:2] != (1, n_pos):
            return None
        one = tuple(shape[1:] if flat else shape[2:])
        heads = more.get("heads")
        one = one if heads is None else (heads, one[-1] // heads)
        overwritten = self.trace.alias(value) in self.trace.overwritten or value in self.trace.overwritten
        return Tap(
            site, call.module, side, one, overwritten=overwritten, swapped=swapped,
            flat_in=self.block.call.module if flat else None, flat_slot=self.block.slot,
            call=call.number if repeated else None, root=self.hf if repeated else None, **more,
        )  # fmt: skip

    def _changed(self, tap: Tap | None, **changes: Any) -> Tap | None:
        return None if tap is None else Tap(**{**vars(tap), **changes})


def _sub(expr: Expr, value: int) -> Expr | None:
    """The part of a sum that makes a value."""
    if getattr(expr, "value", None) == value:
        return expr
    inner = (one,) if (one := getattr(expr, "inner", None)) is not None else getattr(expr, "args", ())
    found = (_sub(one, value) for one in inner if isinstance(one, Expr))
    return next((one for one in found if one is not None), None)
