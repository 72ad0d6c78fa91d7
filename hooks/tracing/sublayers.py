"""Step 4: what each term of a block's sum is, and the projections that read and write inside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks.temporary import grad_mode
from hooks.tracing.gates import gate_of
from hooks.tracing.record import Call, Op, Ref, Trace
from hooks.tracing.residual import BlockCall, Sum, Term, is_norm
from hooks.weights import shape_of

MIXERS = ("attn_out", "cross_out", "mixer_out")
"""What the terms that move something from token to token are called."""
_AT = 3
_ACROSS = frozenset(["convolution", "cumsum", "roll", "flip", "_fft_r2c", "_fft_c2c", "slice_scatter"])
_PRODUCTS = ("bmm", "mm", "matmul", "baddbmm")


@final
@dataclass(frozen=True, eq=False)
class Sublayer:
    """One term of a block's sum.

    Attributes:
        name: of the site that it is: `attn_out`, `cross_out`, `mixer_out` or `mlp_out`.
        term: the term.
        root: the call that computes it as a whole; None where the block does so itself.
        norm: the norm after it, before it is added.
        parts: the calls of its projections: `q`, `k`, `v`, `o` of attention, `in`, `gate`, `out` of feed-forward,
            and of the norm of what the last reads, `act_norm`.
        act: the nonlinearity.
        n_heads: of attention.
        meets: the number of the operation of attention in which queries meet keys.
        gate: the call whose output holds what multiplies what is mixed, after a sigmoid or SiLU, and which of its
            features that is; None where nothing does.
        reach: how many tokens on it moves something, where not to the end: a feed-forward layer that reads the
            token before too (RWKV), or has a short convolution (Inkling), next to a part that reaches all.
    """

    name: str
    term: Term
    root: Call | None = None
    norm: Call | None = None
    parts: Mapping[str, Call] = field(default_factory=dict)
    act: nn.Module | None = None
    n_heads: int | None = None
    meets: int = -1
    gate: tuple[Call, tuple[int, ...]] | None = None
    reach: int | None = None


def sublayers(trace: Trace, block: BlockCall, found: Sum, encoded: set[int], n_pos: int) -> list[Sublayer]:
    """Return what each term of a block's sum is.

    Args:
        trace: the recorded pass.
        block: the block.
        found: its sum.
        encoded: the values computed from what an encoder gives.
        n_pos: how many tokens the recorded text has.

    Cost: two calls of each sublayer that is not seen to be attention.

    Examples:
        ```python
        [one.name for one in sublayers(trace, block, residual_sum(trace, block), set(), 11)]
        ```
    """
    kinds = [_Part(trace, block, found, encoded, n_pos, term).sublayer() for term in found.terms]
    whole = [kind for kind in kinds if kind.name in MIXERS and kind.reach is None]
    if len(whole) != 1 or any(kind.name == "mlp_out" for kind in kinds):
        return kinds
    return [replace(kind, name="mlp_out") if kind.name == "mixer_out" and kind.reach else kind for kind in kinds]


@final
@dataclass(eq=False)
class _Part:
    """One term, with the operations that make it out of the stream."""

    trace: Trace
    block: BlockCall
    sum: Sum
    encoded: set[int]
    n_pos: int
    term: Term

    def __post_init__(self) -> None:
        calls = self.trace.inside(self.block.call)
        whole = [call.path for call in calls if is_projection(call.module)]  # with the adapters inside it
        self.inside = [call for call in calls if not any(call.path.startswith(f"{path}.") for path in whole)]
        self.giver: dict[int, list[Call]] = {}
        for call in self.inside:
            for value in call.outputs.values():
                self.giver.setdefault(self.trace.root(value), []).append(call)
        self.stream = self.sum.stream | {self.trace.root(self.block.x)}
        within = self.trace.ops[self.block.call.begin : self.block.call.end]
        self.making = {value: op for op in within for value in op.makes}
        used = self._before(self.term.value)
        self.ops = [op for op in within if op in used]
        self.made = {self.trace.root(value) for op in self.ops for value in op.makes}

    def sublayer(self) -> Sublayer:
        norm, calls = None, list(self.term.calls)
        written = calls
        if calls and self._is_after(calls[-1]):
            norm = calls[-1]
            written = self.giver.get(self.trace.root(next(iter(norm.inputs.values()))), [])
            calls = written if calls[0] is norm else calls
        root = next((call for call in calls if [*call.module.children()]), None)
        out = next((call for call in written if is_projection(call.module)), None)
        core = self._attention()
        if core is not None and self._is_last(core, out):
            across = not self._outside().isdisjoint(self.encoded)
            parts = self._heads(core) | ({} if out is None else {"o": out})
            name, at = "cross_out" if across else "attn_out", self.trace.maker[core.made]
            gate = gate_of(self.trace, self.ops[self.ops.index(self.trace.ops[at]) :], self._projections())
            return Sublayer(name, self.term, root, norm, parts, n_heads=core.n_heads, meets=at, gate=gate)
        reach = None if core is not None else self._reach(root)
        if core is not None or reach != 0:
            o = {} if out is None else {"o": out}
            return Sublayer(
                "mixer_out",
                self.term,
                root,
                norm,
                o,
                gate=gate_of(self.trace, self.ops, self._projections()),
                reach=reach,
            )
        parts, act = self._memories(out)
        return Sublayer("mlp_out", self.term, root, norm, parts, act)

    def _is_fed_from_far(self, root: Call) -> bool:
        """Whether a part before the one that gives a term reaches to the end (attention before a convolution)."""
        before = [call for call in self.inside if call.end <= root.begin and self._output_value(call) in self.made]
        reached = (reach_of(self.trace, call, self._output_value(call), self.n_pos) for call in before)
        return any(one == self.n_pos - 1 - _AT for one in reached)

    def _is_after(self, call: Call) -> bool:
        """Whether a call only norms or scales what a sublayer gives."""
        single = len(call.inputs) == 1 and self.trace.root(next(iter(call.inputs.values()))) != self.term.value
        leaf = not [*call.module.children(), *call.module.parameters()]
        return single and (is_norm(call.module) or leaf)

    def _before(self, value: int) -> set[Op]:
        """The operations of the block that make a value out of the stream."""
        seen, waiting = set[Op](), [value]
        while waiting:
            op = self.making.get(waiting.pop())
            if op is not None and op not in seen:
                seen.add(op)
                waiting += [one for one in op.reads if self.trace.root(one) not in self.stream]
        return seen

    def _outside(self) -> set[int]:
        """What these operations read that comes from before the block and is not its stream."""
        read = {one for op in self.ops for one in op.reads if self.trace.root(one) not in self.stream}
        return read - {one for op in self.ops for one in op.makes}

    def _attention(self) -> "_Core | None":
        """Where queries meet keys: a kernel of attention, or a softmax over [.. pos pos]."""
        for op in self.ops:
            if "scaled_dot_product" in op.name or "flex_attention" in op.name:
                _, n_heads, n_queries, _ = self.trace.tensor(op.reads[0]).shape
                if n_queries == self.n_pos:
                    return _Core(op.reads[:3], n_heads, op.makes[0])
        for op in self.ops:
            if "softmax" in op.name and self._is_pattern(self.trace.tensor(op.makes[0])):
                shape = self.trace.tensor(op.makes[0]).shape
                return _Core(self._find_operands(op), shape[-3] if len(shape) == 4 else None, op.makes[0])
        return None

    def _is_last(self, core: "_Core", out: Call | None) -> bool:
        """Whether no projection but the last reads what attention makes: else it is a part of something larger."""
        fed = self.trace.after({core.made})
        later = [c for c in self.inside if is_projection(c.module) and not fed.isdisjoint(c.inputs.values())
                 and self._output_value(c) in self.made]  # fmt: skip
        return all(one is out for one in later)

    def _is_pattern(self, made: Tensor) -> bool:
        long = made.ndim >= 3 and made.shape[-2] == self.n_pos
        most = made.shape[-1] if made.ndim >= 4 else self.n_pos  # a sink or what comes before the text has weights too
        return long and self.n_pos <= made.shape[-1] <= most

    def _find_operands(self, softmax: Op) -> tuple[int, ...]:
        """The queries and keys whose products a softmax is taken of, and the values that it averages."""
        products = [op for op in self.ops if op.name in _PRODUCTS and len(op.reads) >= 2]
        scores = [op for op in self.ops[: self.ops.index(softmax)] if op in products]
        fed = self.trace.after({softmax.makes[0]})
        averages = [op for op in products if op.reads[-2] in fed]
        if not scores or not averages:
            return ()
        return (*scores[-1].reads[-2:], averages[0].reads[-1])

    def _heads(self, core: "_Core") -> dict[str, Call]:
        """The projections of queries, keys and values, where each is one of its own."""
        if len(core.reads) != 3:
            return {}
        found = [self._projections_before(value) for value in core.reads]
        alone = [one[0] for one in found if len(one) == 1]
        return dict(zip("qkv", alone, strict=True)) if len({id(one) for one in alone}) == 3 else {}

    def _projections_before(self, value: int) -> list[Call]:
        """The projections that a value is made of, with no other projection between."""
        found: dict[int, Call] = {}
        seen, waiting = set[int](), [value]
        while waiting:
            here = waiting.pop()
            if here in seen:
                continue
            seen.add(here)
            given = [call for call in self.giver.get(self.trace.root(here), []) if is_projection(call.module)]
            if given:
                found[id(given[-1])] = given[-1]
                continue
            op = self.making.get(here)
            if op is not None and self.trace.root(here) not in self.stream:
                waiting += op.reads
        return [*found.values()]

    def _memories(self, out: Call | None) -> tuple[dict[str, Call], nn.Module | None]:
        """The projections of a feed-forward layer of one or two matrices in and one out, and its nonlinearity."""
        used = [c for c in self.inside if is_projection(c.module) and self._output_value(c) in self.made]
        if out is None or out not in used or len({id(one.module) for one in used}) != len(used):
            return {}, None
        first = [one for one in used if one is not out]
        plain = [c for c in self.inside if len(c.inputs) == 1 and not [*c.module.children()]
                 and not is_projection(c.module) and "norm" not in type(c.module).__name__.lower()]  # fmt: skip
        acted = {self.trace.root(value): call.module for call in plain for value in call.inputs.values()}
        acted = {
            self._output_value(one): fires for one in first if (fires := self._elementwise(self._output_value(one)))
        } | acted
        act = next((acted[v] for one in first for v in [self._output_value(one)] if v in acted), None)
        if len(first) == 1:
            return {"in": first[0], "out": out}, act
        gated = [one for one in first if act is not None and self._output_value(one) in acted]
        if len(first) == 2 and len(gated) == 1:
            inner = next((c for c in self.giver.get(self._input_value(out), []) if is_norm(c.module)), None)
            normed = {} if inner is None else {"act_norm": inner}
            other = next(one for one in first if one is not gated[0])
            return {"gate": gated[0], "in": other, "out": out} | normed, act
        return {"out": out}, None

    def _elementwise(self, value: int) -> "Elementwise | None":
        """The operations on a value alone, one after the other, that no module makes."""
        chain: list[Op] = []
        size = self.trace.tensor(value).numel()
        while True:
            fed = [op for op in self.ops if any(self.trace.root(one) == value for one in op.reads)
                   and self.trace.root(op.makes[0]) != value]  # fmt: skip
            if len(fed) != 1 or {self.trace.root(one) for one in fed[0].reads} != {value}:
                break
            made = self.trace.root(fed[0].makes[0])
            if fed[0].name.endswith("_") or self.trace.tensor(made).numel() != size:
                break
            chain.append(fed[0])
            value = made
        return Elementwise(tuple(chain)) if chain else None

    def _projections(self) -> list[Call]:
        return [call for call in self.inside if is_projection(call.module)]

    def _output_value(self, call: Call) -> int:
        return self.trace.root(next(iter(call.outputs.values())))

    def _input_value(self, call: Call) -> int:
        return self.trace.root(next(iter(call.inputs.values())))

    def _reach(self, root: Call | None) -> int | None:
        """How many tokens on what is given at one token shows; None where to the end, or where it cannot be said."""
        if root is not None:
            found = reach_of(self.trace, root, self.term.value, self.n_pos)
            if found is not None:
                far = found == self.n_pos - 1 - _AT or found and self._is_fed_from_far(root)
                return None if far else found
        fed = self.trace.after(set(self.stream))
        mixes = any(
            op.name in _ACROSS or (op.name in _PRODUCTS and all(one in fed for one in op.reads[-2:])) for op in self.ops
        )
        return None if mixes else 0


@final
class Elementwise(nn.Module):
    """Operations one after the other, each on what the one before makes."""

    def __init__(self, ops: tuple[Op, ...]) -> None:
        super().__init__()
        self.ops = ops

    def forward(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Apply them."""
        for op in self.ops:
            x = op.func(*(x if isinstance(one, Ref) else one for one in op.args), **op.kwargs)
        return x


@final
@dataclass(frozen=True)
class _Core:
    """Where queries meet keys: the values of queries, keys and values, how many heads there are, and what is made."""

    reads: tuple[int, ...]
    n_heads: int | None
    made: int


def is_projection(module: nn.Module) -> bool:
    """Return whether a module multiplies by a matrix of its own, as `nn.Linear` and GPT-2's `Conv1D` do.

    Examples:
        >>> is_projection(nn.Linear(3, 5)), is_projection(nn.LayerNorm(3))
        (True, False)
    """
    return len(shape_of(module)) == 2 and not isinstance(module, nn.Embedding)


@grad_mode(False)
def reach_of(trace: Trace, call: Call, value: int, n_pos: int) -> int | None:
    """Return how many tokens on a module moves something from one token; None where it cannot be said.

    The module is called again as it was, and with noise on what it is given at one token.

    Cost: two calls of the module.

    Examples:
        ```python
        reach_of(trace, call, call.outputs[None], 11)
        ```
    """
    args, kwargs = call.given
    part = next((part for part, made in call.outputs.items() if trace.root(made) == trace.root(value)), None)
    fed = {slot for slot, one in call.inputs.items() if _axis(trace.tensor(one), n_pos) is not None
           and trace.tensor(one).is_floating_point()}  # fmt: skip
    if not fed or n_pos <= _AT + 1:
        return None
    try:
        plain = _part(call.module(*args, **kwargs), part)
        changed = _part(
            call.module(
                *(_noisy(one, n_pos) if slot in fed else one for slot, one in enumerate(args)),
                **{slot: _noisy(one, n_pos) if slot in fed else one for slot, one in kwargs.items()},
            ),
            part,
        )
    except Exception:  # a module that cannot be called again by itself
        return None
    axis = _axis(plain, n_pos)
    if axis is None:
        return None
    before, after = (one.float().narrow(axis, _AT + 1, n_pos - _AT - 1).movedim(axis, 0).flatten(1)
                     for one in (plain, changed))  # fmt: skip
    if not bool((after - before).norm() > 1e-3 * before.norm()):
        return 0
    moved = (after - before).norm(dim=1) > 1e-5 * before.norm(dim=1)
    return 1 + int(moved.nonzero().amax())


def _part(output: Any, part: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[part]


def _axis(tensor: Tensor, n_pos: int) -> int | None:
    """Which axis counts the tokens, the batch being of one."""
    places = [axis for axis, size in enumerate(tensor.shape[:2]) if size == n_pos and tensor.ndim >= 2]
    return places[0] if places else None


def _noisy(one: Tensor, n_pos: int) -> Tensor:
    axis = _axis(one, n_pos)
    if axis is None:
        return one
    noisy = one.clone()
    here = noisy.narrow(axis, _AT, 1)
    noise = torch.randn(here.shape, generator=torch.Generator().manual_seed(0)).to(here)
    here += noise * one.float().square().mean().sqrt().to(here)
    return noisy
