"""Where a file may be changed by one operator, constant, comparison, bound of a slice or reduction, and into what."""

import ast
import builtins
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

OPERATORS: dict[type[ast.AST], type[Any]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
COMPARISONS: dict[type[ast.AST], tuple[type[Any], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
}
REDUCTIONS = {"mean": "sum", "sum": "mean", "amax": "amin", "amin": "amax", "max": "min", "min": "max", "all": "any"}
REDUCTIONS |= {"any": "all", "argmax": "argmin", "argmin": "argmax", "cumsum": "cumprod", "softmax": "log_softmax"}
DROPPED = ("abs", "sqrt", "square", "log", "exp", "neg", "sigmoid", "relu", "flip", "clamp_min", "clamp_max", "clamp")


@dataclass(frozen=True)
class Mutation:
    """One change: where, what was there, what is put there, and in which function."""

    file: str
    line: int
    start: int
    end: int
    was: str
    now: str
    function: str
    guard: bool
    text: str
    lines: tuple[int, int] = (0, 0)  # the first and last of its statement, of a compound one its head
    again: int = 0  # how many alike come before it in the function

    @property
    def key(self) -> str:
        """What stays the same when other lines of the file change."""
        place = f"{self.file}|{self.function}|{self.text}|{self.was}|{self.now}{'|' * bool(self.again)}"
        return hashlib.sha256(f"{place}{self.again or ''}".encode()).hexdigest()[:16]

    def apply(self, source: bytes) -> bytes:
        """The source with the change."""
        return source[: self.start] + self.now.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.was}  ->  {self.now}"


def _type_union(node: ast.BinOp) -> bool:
    """`int | None` and the like, which are no numbers."""
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
    none = any(isinstance(n, ast.Constant) and n.value is None for n in ast.walk(node))
    return isinstance(node.op, ast.BitOr) and (none or all(hasattr(builtins, n.id) for n in names))


def _leave(node: Any) -> Iterator[ast.AST]:  # noqa: ARG001
    yield from ()


def _change_operator(node: ast.BinOp) -> Iterator[ast.AST]:
    if (swap := OPERATORS.get(type(node.op))) and not _type_union(node):
        yield ast.BinOp(node.left, swap(), node.right)


def _change_assignment(node: ast.AugAssign) -> Iterator[ast.AST]:
    if swap := OPERATORS.get(type(node.op)):
        yield ast.AugAssign(node.target, swap(), node.value)


def _change_junction(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(OPERATORS[type(node.op)](), node.values)


def _drop_sign(node: ast.UnaryOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield node.operand


def _change_comparison(node: ast.Compare) -> Iterator[ast.AST]:
    for i, op in enumerate(node.ops):
        for swap in COMPARISONS.get(type(op), ()):
            yield ast.Compare(node.left, [*node.ops[:i], swap(), *node.ops[i + 1 :]], node.comparators)


def _change_constant(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(2 * value if value else 1.0)


def _drop_bound(node: ast.Slice) -> Iterator[ast.AST]:
    for bound in ("lower", "upper", "step"):
        if getattr(node, bound) is not None:
            parts: dict[str, Any] = {name: getattr(node, name) for name in ("lower", "upper", "step")}
            parts[bound] = None
            yield ast.Slice(parts["lower"], parts["upper"], parts["step"])


def _change_call(node: ast.Call) -> Iterator[ast.AST]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if swap := REDUCTIONS.get(name):
        renamed = (
            ast.Attribute(function.value, swap, ast.Load())
            if isinstance(function, ast.Attribute)
            else ast.Name(swap, ast.Load())
        )
        yield ast.Call(renamed, node.args, node.keywords)
    if name in DROPPED and isinstance(function, ast.Attribute) and ast.unparse(function.value) != "torch":
        yield function.value


CHANGES: dict[type[ast.AST], Callable[[Any], Iterator[ast.AST]]] = {
    ast.BinOp: _change_operator,
    ast.AugAssign: _change_assignment,
    ast.BoolOp: _change_junction,
    ast.UnaryOp: _drop_sign,
    ast.Compare: _change_comparison,
    ast.Constant: _change_constant,
    ast.Slice: _drop_bound,
    ast.Call: _change_call,
}
"""What may be put in the place of a node, by its kind."""


class Finder(ast.NodeVisitor):
    """All mutations of one file, in order; annotations, decorators, messages and asserts are left alone."""

    def __init__(self, file: str, source: bytes) -> None:
        self.file, self.source, self.found = file, source, []
        self.lines = source.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))
        self.scope: list[str] = []
        self.depth = 0  # of functions: a class body runs when its module loads
        self.guard = False
        self.statement = (0, 0)
        self.alike: Counter[tuple[str, ...]] = Counter()
        self.visit(ast.parse(source))

    def visit(self, node: ast.AST) -> None:
        """Note the changes of what is visited, and which lines its statement has, of a compound one its head's."""
        before = self.statement
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            self.statement = (node.lineno, last)
        for changed in CHANGES.get(type(node), _leave)(node):
            self._add(node, changed)
        super().visit(node)
        self.statement = before

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:  # noqa: N802
        """The defaults and the body, one function deeper."""
        defaults = [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
        self.depth += 1
        self._within(node.name, [*defaults, *node.body])
        self.depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:  # noqa: N802
        """The body."""
        self._within(node.name, node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign | ast.AugAssign) -> None:  # noqa: N802
        """What is assigned, without its annotation."""
        if node.value is not None:
            self.visit(node.value)

    visit_AugAssign = visit_AnnAssign  # noqa: N815

    def visit_keyword(self, node: ast.keyword) -> None:
        """`strict=True` of a zip only raises."""
        before, self.guard = self.guard, self.guard or node.arg == "strict"
        self.visit(node.value)
        self.guard = before

    def visit_Raise(self, node: ast.AST) -> None:  # noqa: ARG002, N802
        """Nothing: what is raised, asserted or written is no number."""
        return

    visit_Assert = visit_JoinedStr = visit_Raise  # noqa: N815

    def visit_If(self, node: ast.If) -> None:  # noqa: N802
        """The condition, which is a guard where its branch only raises, and both branches."""
        before, self.guard = self.guard, isinstance(node.body[-1], ast.Raise)
        self.visit(node.test)
        self.guard = before
        for child in [*node.body, *node.orelse]:
            self.visit(child)

    def _within(self, name: str, body: Sequence[ast.AST]) -> None:
        self.scope.append(name)
        for child in body:
            self.visit(child)
        self.scope.pop()

    def _add(self, node: Any, changed: ast.AST) -> None:
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        now = ast.unparse(ast.fix_missing_locations(changed))
        if not isinstance(node, ast.stmt | ast.Slice):
            now = f"({now})"
        line = self.lines[node.lineno - 1].decode().strip()
        was = self.source[start:end].decode()
        name = ".".join(self.scope) if self.depth else "<module>"
        same = (name, line, was, now)
        place = (self.file, node.lineno, start, end, was, now, name, self.guard, line)
        self.found.append(Mutation(*place, lines=self.statement, again=self.alike[same]))
        self.alike[same] += 1
