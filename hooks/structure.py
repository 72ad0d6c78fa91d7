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
from hooks.offload import place_of, refuse_meta
from hooks.site import Site
from hooks.taps import Aliases, Tap
from hooks.temporary import grad_mode
from hooks.tokens import Tokens
from hooks.tracing.experts import TracedMixture
from hooks.tracing.placement import Placement
from hooks.tracing.record import Call, Slot, Trace, record
from hooks.tracing.residual import BlockCall, Expr, is_norm, residual_sum
from hooks.tracing.stacks import Stack, own_inputs, stacks, why_none
from hooks.tracing.sublayers import Sublayer, sublayers

N_POS = 11
"""How many tokens are read where the context holds them: a prime, so that no other axis is taken for theirs."""


@final
@dataclass(frozen=True, eq=False)
class StreamSums:
    """What makes the residual stream of a block, out of the stream that it is given.

    Attributes:
        end: the sum that makes what the block gives; None where there is none that can be read.
        middle: the same for the stream between attention and feed-forward; None without one.
    """

    end: Expr | None
    middle: Expr | None


@final
@dataclass(frozen=True, eq=False)
class Block:
    """One block as it was traced.

    Attributes:
        stack: the name of its stack; empty for the only one.
        layer: which block of the stack, by the order of the calls.
        module: its module.
        sums: what makes the stream at its end and in its middle.
        terms: the site of each term of the sum.
        sublayers: what each term is.
        part: its projections by TransformerLens's names (`attn.o`, `mlp.out`, …), and the norms through which
            attention and feed-forward read the stream (`attn.norm`, `mlp.norm`).
        taps: where its sites sit.
        repeated: whether its module runs more than once in a pass.
        mixtures: the mixture of experts of each term that is one, by the number of the term.
        reads: the modules through which, and the stage of the stream of which, some sites are made.
        source: the site of what cross-attention reads of the encoder; None without.
    """

    stack: str
    layer: int
    module: nn.Module
    sums: StreamSums
    terms: tuple[Site, ...]
    sublayers: tuple[Sublayer, ...]
    part: Mapping[str, nn.Module]
    taps: Mapping[Site, Tap]
    repeated: bool
    mixtures: Mapping[int, TracedMixture] = field(default_factory=dict)
    reads: Mapping[str, tuple[tuple[nn.Module, ...], Expr]] = field(default_factory=dict)
    source: Site | None = None

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
        digest: of the pass that was traced: another model of the same weights that does something else has another.
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
    digest: str = ""


@grad_mode(False)
def find_structure(hf: HFModel) -> Structure:
    """Trace a model on a short text of random tokens and return what is found.

    Cost: one forward pass, and two calls of each sublayer that is not seen to be attention.

    Examples:
        ```python
        [block.layer for block in find_structure(hf).main]
        ```
    """
    tokens = short_text(hf)
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
        return Structure(why=why_none(hf, trace))
    return _structure(hf, trace, _name_stacks(hf, found))


def input_embeddings(hf: HFModel) -> nn.Module | None:
    """Return the table of a model's token embeddings, or None where it does not say which it is.

    Examples:
        ```python
        input_embeddings(hf).num_embeddings
        ```
    """
    with suppress(NotImplementedError, AttributeError):
        table = hf.get_input_embeddings()
        return table if isinstance(table, nn.Module) else None  # the Perceiver's is a weight of its own
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


def short_text(hf: HFModel) -> Tokens:
    """Return a text of a few random tokens, the same for every model of one vocabulary.

    Examples:
        ```python
        short_text(hf).ids.shape
        ```
    """
    device, n_vocab = place_of(hf)[0], vocabulary(hf)
    limit = context(hf) or N_POS
    random = torch.Generator().manual_seed(2)
    ids = torch.randint(min(6, n_vocab - 1), n_vocab, (1, min(N_POS, limit)), generator=random).to(device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    return Tokens(ids=ids, mask=mask, special=~mask)


def _name_stacks(hf: HFModel, found: Sequence[Stack]) -> list[tuple[str, Stack]]:
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
    encoded = _find_encoded(hf, trace)
    found: dict[str, tuple[Block, ...]] = {}
    for name, stack in named:
        own, calls = own_inputs(trace, stack), enumerate(stack.blocks)
        found[name] = tuple(_block(hf, trace, name, layer, call, encoded, own.get(layer)) for layer, call in calls)
    name, last = named[-1]
    final_norm, head = _ends(trace, last.blocks[-1])
    blocks = tuple(block for stack in found.values() for block in stack)
    joined = all(trace.root(a.y) == trace.root(b.x) for _, stack in named for a, b in pairwise(stack.blocks))
    repeated = frozenset(call.path for call in trace.calls if call.number)
    modules = {tap.site: tap for call in trace.calls if call.path not in repeated for tap in _of_module(trace, call)}
    reader, digest = _reader(trace, last.blocks[-1], modules), trace.digest()
    return Structure(blocks, found[name], last.path, final_norm, head, joined, reader, modules, repeated, digest=digest)


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
            swapped = tensor.ndim > 2 and tensor.shape[:2] == (trace.n_pos, 1) != (1, trace.n_pos)  # as XLNet has it
            if call.path and tensor.is_floating_point() and (swapped or tensor.shape[:2] == (1, trace.n_pos)):
                alias: Aliases = frozenset({"overwritten"} if trace.is_overwritten(value) else ())
                part, axes = 0 if slot is None else slot, (0,) if swapped else None
                shape = tuple(tensor.shape[2:])
                yield Tap(Site.module(call.path, side), call.module, side, shape, part, alias=alias, axes=axes)


def _find_encoded(hf: HFModel, trace: Trace) -> set[int]:
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


def _block(
    hf: HFModel, trace: Trace, stack: str, layer: int, block: BlockCall, encoded: set[int], own: Slot | None
) -> Block:
    found = residual_sum(trace, block)
    kinds = tuple(sublayers(trace, block, found, encoded, trace.n_pos))
    places = Placement(hf, trace, stack, layer, block, found, kinds, own=own)
    middle, taps = places.find_taps()
    return Block(
        stack, layer, block.call.module, StreamSums(found.expr, middle), places.terms, kinds, places.part, taps,
        block.repeated, places.mixtures, places.reads, places.source,
    )  # fmt: skip
