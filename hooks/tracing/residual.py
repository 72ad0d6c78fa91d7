"""Step 2: the sum by which a block makes its output out of its input and of what its sublayers add."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, final

from jaxtyping import Float
from torch import Tensor, nn

from hooks.tracing.record import Call, Op, Ref, Slot, Trace

_SUMS, _PRODUCTS = ("add", "add_", "sub"), ("mul", "mul_", "div", "div_")


@final
@dataclass(frozen=True, eq=False)
class BlockCall:
    """One call of one block.

    Attributes:
        call: the call.
        slot: the argument that is the stream.
        part: the part of the output that is the stream; None where the output is one tensor.
        repeated: whether its module is called more than once in a pass.
        last: the call that gives the stream, where the block is no module of its own; else None.
    """

    call: Call
    slot: Slot
    part: Slot | None
    repeated: bool
    last: Call | None = None

    @property
    def x(self) -> int:
        """The value it is given."""
        return self.call.inputs[self.slot]

    @property
    def y(self) -> int:
        """The value it gives."""
        return (self.last or self.call).outputs[self.part]


@final
@dataclass(frozen=True)
class Stream:
    """What the block is given."""


@final
@dataclass(frozen=True)
class AddedTerm:
    """The term of that number."""

    term: int


@final
@dataclass(frozen=True, eq=False)
class AppliedOp:
    """An operation on parts of the sum.

    Attributes:
        op: the operation as recorded.
        args: its arguments: parts of the sum, or numbers, weights and settings.
        value: what it makes.
    """

    op: Op
    args: tuple[Any, ...]
    value: int


@final
@dataclass(frozen=True, eq=False)
class StreamNorm:
    """A norm of the stream itself, after an addition."""

    module: nn.Module
    name: str
    inner: "Expr"
    value: int


Expr = Stream | AddedTerm | AppliedOp | StreamNorm


@final
@dataclass(frozen=True, eq=False)
class Term:
    """One thing that is added.

    Attributes:
        value: before it is scaled.
        calls: the calls that give it, the outermost first.
        factor: what it is multiplied by before it is added.
    """

    value: int
    calls: tuple[Call, ...]
    factor: float | Tensor = 1.0


@final
@dataclass(frozen=True, eq=False)
class Sum:
    """How a block's output is made.

    Attributes:
        expr: the sum; None where it is none that can be read.
        terms: what is added, in the order in which it is computed.
        stream: the values that are the stream at some stage after the first.
    """

    expr: Expr | None
    terms: tuple[Term, ...] = ()
    stream: frozenset[int] = frozenset()


def residual_sum(trace: Trace, block: BlockCall) -> Sum:
    """Return the sum that makes a block's output.

    Examples:
        ```python
        residual_sum(trace, stack.blocks[0]).terms
        ```
    """
    reader = _Reader(trace, block)
    expr = reader.explain(block.y) or reader.explain_outputs(block.y)
    if expr is None or isinstance(expr, Stream):
        return Sum(None)
    order = sorted(terms_of(expr), key=lambda i: trace.maker.get(reader.terms[i].value, -1))
    place, terms = {old: new for new, old in enumerate(order)}, tuple(reader.terms[i] for i in order)
    stream = frozenset(value for value, _ in stages(expr)) if _holds_stream(expr) else frozenset([terms[0].value])
    return Sum(_renumber(expr, place), terms, stream)


def evaluate(expr: Expr, x: Float[Tensor, "*d"], terms: Mapping[int, Float[Tensor, "*d"]]) -> Float[Tensor, "*d"]:
    """Return what a sum gives for other values of the stream and of the terms.

    Examples:
        ```python
        evaluate(found.expr, acts[resid_pre[0]], {0: acts[attn_out[0]], 1: acts[mlp_out[0]]})
        ```
    """
    if isinstance(expr, Stream):
        return x
    if isinstance(expr, AddedTerm):
        return terms[expr.term]
    if isinstance(expr, StreamNorm):
        made = expr.module(evaluate(expr.inner, x, terms))
        return made if isinstance(made, Tensor) else cast(Sequence[Tensor], made)[0]  # with a scale next to it (I-BERT)
    args = [evaluate(one, x, terms) if isinstance(one, Expr) else one for one in expr.args]
    name = expr.op.name.removesuffix("_")
    left, right = args
    made: dict[str, Callable[[], Any]] = {
        "add": lambda: left + right,
        "sub": lambda: left - right,
        "mul": lambda: left * right,
        "div": lambda: left / right,
    }
    return made[name]()


def format_sum(expr: Expr, names: Sequence[str], stream: str = "resid_pre") -> str:
    """Return how a sum reads, with names for the terms.

    Examples:
        >>> format_sum(Stream(), [])
        'resid_pre'
    """
    if isinstance(expr, Stream):
        return stream
    if isinstance(expr, AddedTerm):
        return names[expr.term]
    if isinstance(expr, StreamNorm):
        return f"LN({format_sum(expr.inner, names, stream)})"
    parts = [format_sum(one, names, stream) if isinstance(one, Expr) else _number(one) for one in expr.args]
    sign = {"add": "+", "sub": "-", "mul": "·", "div": "/"}[expr.op.name.removesuffix("_")]
    if sign == "+" and isinstance(expr.args[1], Expr) and _holds_stream(expr.args[1]):
        parts.reverse()
    inner = [f"({one})" if " + " in one and sign in "·/" else one for one in parts]
    return f" {sign} ".join(inner)


def is_plain(expr: Expr) -> bool:
    """Return whether a sum is one of the stream and of terms, with no factor and no norm.

    Examples:
        >>> is_plain(Stream())
        True
    """
    return _holds_stream(expr) and _only_adds(expr)


def _only_adds(expr: Expr) -> bool:
    if isinstance(expr, AppliedOp):
        return expr.op.name in ("add", "add_") and all(isinstance(one, Expr) and _only_adds(one) for one in expr.args)
    return not isinstance(expr, StreamNorm)


def from_stage(expr: Expr, stage: Expr) -> Expr:
    """Return a sum with one of its stages taken for the stream.

    Examples:
        >>> from_stage(Stream(), Stream())
        Stream()
    """
    if expr is stage:
        return Stream()
    if isinstance(expr, StreamNorm):
        return StreamNorm(expr.module, expr.name, from_stage(expr.inner, stage), expr.value)
    if isinstance(expr, AppliedOp):
        args = tuple(from_stage(one, stage) if isinstance(one, Expr) else one for one in expr.args)
        return AppliedOp(expr.op, args, expr.value)
    return expr


def terms_of(expr: Expr) -> frozenset[int]:
    """Return the numbers of the terms in a sum.

    Examples:
        >>> terms_of(AddedTerm(1))
        frozenset({1})
    """
    if isinstance(expr, AddedTerm):
        return frozenset([expr.term])
    inner = [expr.inner] if isinstance(expr, StreamNorm) else expr.args if isinstance(expr, AppliedOp) else []
    return frozenset().union(*(terms_of(one) for one in inner if isinstance(one, Expr)))


def stages(expr: Expr) -> list[tuple[int, frozenset[int]]]:
    """Return each stage of the stream inside a block: its value and the terms that are in it.

    Examples:
        ```python
        stages(found.expr)
        ```
    """
    if isinstance(expr, StreamNorm):
        inner = stages(expr.inner)
        return [*inner, (expr.value, terms_of(expr))]
    if isinstance(expr, AppliedOp) and _holds_stream(expr):
        inner = [stage for one in expr.args if isinstance(one, Expr) for stage in stages(one)]
        return [*inner, (expr.value, terms_of(expr))]
    return []


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm, or like one: called so, or with weights of one axis only.

    Examples:
        >>> is_norm(nn.LayerNorm(4)), is_norm(nn.Linear(4, 4))
        (True, False)
    """
    weights = [*module.parameters()]
    flat = all(weight.ndim <= 1 for weight in weights)
    return flat and ("norm" in type(module).__name__.lower() or bool(weights))


@final
@dataclass(eq=False)
class _Reader:
    """Walks back from a block's output to its input."""

    trace: Trace
    block: BlockCall
    terms: list[Term] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.giver: dict[int, list[Call]] = {}
        for call in self.trace.inside(self.block.call):
            for value in call.outputs.values():
                self.giver.setdefault(self.trace.root(value), []).append(call)
        self.given = self.trace.root(self.block.x)
        self.fed = self.trace.after({self.block.x})
        self.known: dict[int, Expr | None] = {}

    def explain(self, value: int) -> Expr | None:
        """The sum that makes a value, or None where the stream is not a plain summand of it."""
        value = self.trace.root(value)
        if value not in self.known:
            self.known[value] = None
            self.known[value] = self._explain(value)
        return self.known[value]

    def explain_outputs(self, value: int) -> Expr | None:
        """The sum that makes a value where the block does not keep its stream: of what its modules give alone."""
        op = self._arithmetic(self.trace.root(value))
        if op is None or op.name != "add":
            return None
        values = [self.trace.root(one.value) for one in op.args if isinstance(one, Ref)]
        if len(values) < 2 or not all(self.giver.get(one) for one in values):
            return None
        return AppliedOp(op, tuple(self._term(Term(one, tuple(self.giver[one]))) for one in values), op.makes[0])

    def _explain(self, value: int) -> Expr | None:
        if value == self.given:
            return Stream()
        for call in reversed(self.giver.get(value, [])):
            if is_norm(call.module) and len(call.inputs) == 1:
                inner = self.explain(next(iter(call.inputs.values())))
                if inner is not None:
                    return StreamNorm(call.module, call.path.rpartition(".")[2], inner, value)
        op = self._arithmetic(value)
        if op is None:
            return None
        found = [self.explain(one.value) if isinstance(one, Ref) else None for one in op.args]
        if found == [None, None]:
            return None
        if op.name in _SUMS and not (op.name == "sub" and found[0] is None):
            parts = tuple(a or self._split(b) for a, b in zip(found, op.args, strict=True))
            return AppliedOp(op, parts, value)
        if op.name in _PRODUCTS and found[0] is not None or op.name == "mul":
            parts = tuple(a or self._constant(b) for a, b in zip(found, op.args, strict=True))
            return None if any(one is None for one in parts) else AppliedOp(op, parts, value)
        return None

    def _op(self, value: int) -> Op | None:
        at = self.trace.maker.get(value, -1)
        return self.trace.ops[at] if self.block.call.begin <= at < self.block.call.end else None

    def _arithmetic(self, value: int) -> Op | None:
        """The sum or product of two in the block that makes a value, with no setting (a factor, rounding)."""
        op = self._op(value)
        return op if op is not None and op.name in (*_SUMS, *_PRODUCTS) and not op.kwargs else None

    def _constant(self, one: Any) -> Any:
        """A number or weight; None for what depends on the tokens."""
        if not isinstance(one, Ref):
            return one
        value, width = one.value, self.trace.tensor(self.block.x).shape[-1]
        if value in self.fed:
            return None
        op = self._op(value)
        value = op.reads[0] if op is not None and op.name == "expand" else value
        tensor = self.trace.tensor(value)
        return tensor if tensor.numel() in (1, width) else None

    def _split(self, one: Any) -> Any:
        """What is added, term by term."""
        constant = self._constant(one)
        if constant is not None:
            return constant
        value = self.trace.root(one.value)
        calls, op = tuple(self.giver.get(value, [])), self._arithmetic(value)
        if calls or op is None:
            return self._term(Term(value, calls))
        if op.name in ("add", "add_"):
            return AppliedOp(op, tuple(self._split(other) for other in op.args), value)
        if op.name in _PRODUCTS:
            factors = [self._constant(other) for other in op.args]
            inner = [at for at in range(2) if factors[at] is None]
            if len(inner) == 1 and (inner == [0] or op.name.startswith("mul")):
                return self._scale(op, inner[0], factors[1 - inner[0]], value)
        return self._term(Term(value, ()))

    def _scale(self, op: Op, at: int, factor: Any, value: int) -> Expr:
        """A term and its factor, or a sum of terms times the factor that they share."""
        of = self.trace.root(op.args[at].value)
        if self.giver.get(of):
            by = 1 / factor if op.name.startswith("div") else factor
            return self._term(Term(of, tuple(self.giver[of]), by if isinstance(by, Tensor) else float(by)))
        inner = self._split(op.args[at])
        return AppliedOp(op, (inner, factor) if at == 0 else (factor, inner), value)

    def _term(self, term: Term) -> AddedTerm:
        for number, other in enumerate(self.terms):
            if other.value == term.value:
                return AddedTerm(number)
        self.terms.append(term)
        return AddedTerm(len(self.terms) - 1)


def _renumber(expr: Expr, place: dict[int, int]) -> Expr:
    if isinstance(expr, AddedTerm):
        return AddedTerm(place[expr.term])
    if isinstance(expr, StreamNorm):
        return StreamNorm(expr.module, expr.name, _renumber(expr.inner, place), expr.value)
    if isinstance(expr, AppliedOp):
        args = tuple(_renumber(one, place) if isinstance(one, Expr) else one for one in expr.args)
        return AppliedOp(expr.op, args, expr.value)
    return expr


def _holds_stream(expr: Expr) -> bool:
    if isinstance(expr, Stream):
        return True
    inner = [expr.inner] if isinstance(expr, StreamNorm) else expr.args if isinstance(expr, AppliedOp) else []
    return any(_holds_stream(one) for one in inner if isinstance(one, Expr))


def _number(one: Any) -> str:
    if isinstance(one, Tensor):
        return f"{one.item():g}" if one.numel() == 1 else "weight"
    return f"{one:g}"
