"""Small faults put into the numerical code, one at a time, and whether the tests see them.

    python benchmarks/mutations.py interp/lenses --sample 40 --seed 0

A mutation changes one operator, constant, comparison, bound of a slice or reduction (`mean` for `sum`) of a file, in a
temporary copy of the tree, never in place. The tests are those of the folder that mirrors the file's
(`tests/interp/lenses`) and the laws in tests/contracts that import from it, or those of `--tests`. One run without a
mutation says which tests enter which function; a mutation is tried on those, the quickest first, and what they let
pass is tried on all of them. Each try is a process of its own with a time limit, forked after the heavy libraries are
loaded (Linux).

Results are kept in benchmarks/results/mutations/<folder>.json as they come, and a second call goes on from them: what
was killed stays killed while its line is as it was, what survived is tried again. A survivor that changes no number
can be given a reason in its row ("equivalent": "why"); it is then counted apart. Guards (conditions whose branch only
raises) are counted apart from what computes a number.
"""

import argparse
import ast
import builtins
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "results" / "mutations"
PRELOADED = (
    "numpy",
    "torch",
    "einops",
    "pytest",
    "beartype",
    "jaxtyping",
    "transformers",
    "transformer_lens",
    "sklearn",
    "scipy.stats",
)
ARGUMENTS = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:nbmake", "-p", "no:xdist", "--no-header", "--tb=no"]
ARGUMENTS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is loaded before the fork

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
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
COMPARISONS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
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
    """One change: where, what stood there, what is put there, and in which function."""

    file: str
    line: int
    start: int
    end: int
    was: str
    now: str
    function: str
    guard: bool
    text: str

    @property
    def key(self) -> str:
        """What stays the same when other lines of the file change."""
        return hashlib.sha256(f"{self.file}|{self.function}|{self.text}|{self.was}|{self.now}".encode()).hexdigest()[
            :16
        ]

    def apply(self, source: bytes) -> bytes:
        """The source with the change."""
        return source[: self.start] + self.now.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.was}  ->  {self.now}"


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
        self.visit(ast.parse(source))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:  # noqa: N802, D102
        defaults = [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
        self.depth += 1
        self._within(node.name, [*defaults, *node.body])
        self.depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:  # noqa: N802, D102
        self._within(node.name, node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802, D102
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:  # noqa: ARG002, N802, D102
        return

    def visit_Assert(self, node: ast.Assert) -> None:  # noqa: ARG002, N802, D102
        return

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:  # noqa: ARG002, N802, D102
        return

    def visit_If(self, node: ast.If) -> None:  # noqa: N802, D102
        before, self.guard = self.guard, isinstance(node.body[-1], ast.Raise)
        self.visit(node.test)
        self.guard = before
        for child in [*node.body, *node.orelse]:
            self.visit(child)

    def visit_BinOp(self, node: ast.BinOp) -> None:  # noqa: N802, D102
        if (swap := OPERATORS.get(type(node.op))) and not _type_union(node):
            self._add(node, ast.BinOp(node.left, swap(), node.right))
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:  # noqa: N802, D102
        if swap := OPERATORS.get(type(node.op)):
            self._add(node, ast.AugAssign(node.target, swap(), node.value))
        self.visit(node.value)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:  # noqa: N802, D102
        self._add(node, ast.BoolOp(OPERATORS[type(node.op)](), node.values))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:  # noqa: N802, D102
        if isinstance(node.op, ast.USub | ast.Not | ast.Invert):
            self._add(node, node.operand)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:  # noqa: N802, D102
        for i, op in enumerate(node.ops):
            for swap in COMPARISONS.get(type(op), ()):
                self._add(node, ast.Compare(node.left, [*node.ops[:i], swap(), *node.ops[i + 1 :]], node.comparators))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:  # noqa: N802, D102
        value = node.value
        if isinstance(value, bool):
            self._add(node, ast.Constant(not value))
        elif isinstance(value, int):
            self._add(node, ast.Constant(value + 1))
        elif isinstance(value, float):
            self._add(node, ast.Constant(2 * value if value else 1.0))

    def visit_Slice(self, node: ast.Slice) -> None:  # noqa: N802, D102
        for bound in ("lower", "upper", "step"):
            if getattr(node, bound) is not None:
                parts = {name: getattr(node, name) for name in ("lower", "upper", "step")}
                self._add(node, ast.Slice(**(parts | {bound: None})), enclosed=False)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802, D102
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if swap := REDUCTIONS.get(name):
            renamed = (
                ast.Attribute(function.value, swap, ast.Load())
                if isinstance(function, ast.Attribute)
                else ast.Name(swap, ast.Load())
            )
            self._add(node, ast.Call(renamed, node.args, node.keywords))
        if name in DROPPED and isinstance(function, ast.Attribute) and ast.unparse(function.value) != "torch":
            self._add(node, function.value)
        self.generic_visit(node)

    def _within(self, name: str, body: Sequence[ast.AST]) -> None:
        self.scope.append(name)
        for child in body:
            self.visit(child)
        self.scope.pop()

    def _add(self, node: Any, changed: ast.AST, *, enclosed: bool = True) -> None:
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        now = ast.unparse(ast.fix_missing_locations(changed))
        if enclosed and not isinstance(node, ast.stmt):
            now = f"({now})"
        line = self.lines[node.lineno - 1].decode().strip()
        was = self.source[start:end].decode()
        name = ".".join(self.scope) if self.depth else "<module>"
        self.found.append(Mutation(self.file, node.lineno, start, end, was, now, name, self.guard, line))


def _type_union(node: ast.BinOp) -> bool:
    """`int | None` and the like, which are no numbers."""
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
    none = any(isinstance(n, ast.Constant) and n.value is None for n in ast.walk(node))
    return isinstance(node.op, ast.BitOr) and (none or all(hasattr(builtins, n.id) for n in names))


@dataclass(eq=False)
class Traced:
    """A pytest plugin: how long each test takes, and the functions of some files that it enters.

    What is entered while modules load or fixtures are set up may serve any test: it is kept under "".
    """

    files: dict[str, str]  # full path: path from the root
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    entered: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    test: str = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Add up what the phases of a test took."""
        self.seconds[report.nodeid] += report.duration

    def pytest_runtest_setup(self, item: Any) -> None:  # noqa: ARG002
        """What a fixture enters counts for all tests."""
        self.test = ""

    def pytest_runtest_call(self, item: Any) -> None:
        """From here on functions count for this test."""
        self.test = item.nodeid

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:  # noqa: ARG002
        """Note a call; lines are not traced."""
        code = frame.f_code
        if file := self.files.get(code.co_filename):
            self.entered[self.test].add(f"{file}:{code.co_qualname.split('.<locals>')[0]}")


def in_child(tree: Path, work: Callable[[], int], limit: float) -> int | None:
    """The exit code of some work done in a forked process that starts in the tree; None where it took too long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fork of a process with threads, which the work does not use
        child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            os.chdir(tree)
            sys.path[:] = [
                str(tree),
                *(p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "benchmarks")),
            ]
            with open(tree.parent / "output.txt", "w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                code = int(work())
        except BaseException:  # noqa: BLE001 a process that was forked must end here
            traceback.print_exc()
        finally:
            os._exit(code)
    began = time.monotonic()
    while time.monotonic() - began < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _kill(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    _kill(child)
    os.waitpid(child, 0)
    return None


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def run_tests(tests: list[str], plugins: list[object] | None = None) -> int:
    """pytest's exit code."""
    import pytest

    return int(pytest.main([*ARGUMENTS, *tests], plugins=plugins))


def trace(tree: Path, tests: list[str], files: list[str]) -> dict[str, Any]:
    """Run the tests as they are: seconds by test, and by test the functions of the files that it enters."""
    kept = tree.parent / "traced.json"

    def work() -> int:
        plugin = Traced({str(tree / file): file for file in files})
        sys.settrace(plugin)
        code = run_tests(tests, [plugin])
        sys.settrace(None)
        entered = {test: sorted(functions) for test, functions in plugin.entered.items()}
        kept.write_text(json.dumps({"seconds": plugin.seconds, "entered": entered}))
        return code

    code = in_child(tree, work, 3600)
    if code != 0:
        print((tree.parent / "output.txt").read_text()[-4000:])
        raise SystemExit(f"the tests {tests} do not pass without a mutation (exit code {code}): mend them first")
    return json.loads(kept.read_text())


def copy_tree(to: Path) -> Path:
    """A copy of what git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tree = to / "tree"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    if (ROOT.parent / "shared").exists():
        (to / "shared").symlink_to(ROOT.parent / "shared")
    return tree


def source_files(targets: list[str]) -> list[str]:
    """The Python files of some folders and files, as paths from the root."""
    found: list[Path] = []
    for target in targets:
        path = (ROOT / target).resolve()
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [path.relative_to(ROOT).as_posix() for path in found]


def mirrored_tests(files: list[str]) -> list[str]:
    """The test folders that mirror the files' own, or those of the nearest folder above; and the laws of the folder."""
    found: dict[str, None] = {}
    for file in files:
        folder = Path(file).parent
        while not any((ROOT / "tests" / folder).glob("test_*.py")) and folder.parts:
            folder = folder.parent
        found[(Path("tests") / folder).as_posix()] = None
        package = ".".join(Path(file).parent.parts)
        for contract in sorted((ROOT / "tests" / "contracts").glob("test_*.py")):
            if f"from {package}" in contract.read_text():
                found[contract.relative_to(ROOT).as_posix()] = None
    return [f for f in found if not any(f != other and f.startswith(f"{other}/") for other in found)]


def sample_of(files: list[str], size: int | None, seed: int) -> list[Mutation]:
    """Mutations in an order that a seed draws and that other mutations do not change; the first of them."""
    every = {m.key: m for file in files for m in Finder(file, (ROOT / file).read_bytes()).found}
    drawn = sorted(every.values(), key=lambda m: hashlib.sha256(f"{seed}{m.key}".encode()).hexdigest())
    return sorted(drawn[:size], key=lambda m: (m.file, m.start))


class Trial:
    """A copy of the tree whose tests pass, on which mutations are tried."""

    def __init__(self, tree: Path, tests: list[str], files: list[str]) -> None:
        self.tree = tree
        traced = trace(tree, tests, files)
        self.seconds: dict[str, float] = traced["seconds"]
        self.entered: dict[str, list[str]] = traced["entered"]
        self.stamp = int(time.time())

    def try_out(self, mutation: Mutation) -> str:
        """Whether it is "killed", takes too long, has "survived", or is "not run": no test enters its function."""
        some = self._tests(mutation)
        if not some:
            return "not run"
        path = self.tree / mutation.file
        source = path.read_bytes()
        self._write(path, mutation.apply(source))
        try:
            verdict = self._verdict(some)
            return self._verdict(self._all()) if verdict == "survived" and len(some) < len(self.seconds) else verdict
        finally:
            self._write(path, source)

    def _tests(self, mutation: Mutation) -> list[str]:
        place = f"{mutation.file}:{mutation.function}"
        if mutation.function == "<module>" or place in self.entered.get("", ()):
            return self._all()
        return [test for test in self._all() if place in self.entered.get(test, ())]

    def _all(self) -> list[str]:
        return sorted(self.seconds, key=lambda test: self.seconds[test])

    def _verdict(self, tests: list[str]) -> str:
        limit = 30 + 4 * sum(self.seconds[test] for test in tests)
        code = in_child(self.tree, lambda: run_tests(tests), limit)
        return {None: "timeout", 0: "survived"}.get(code, "killed")

    def _write(self, path: Path, source: bytes) -> None:
        """With a time of its own, so that no compiled file of another version is taken for it."""
        path.write_bytes(source)
        self.stamp += 10
        os.utime(path, (self.stamp, self.stamp))


def read_kept(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of earlier calls, by key."""
    return {row["key"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


def write_kept(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """All rows and their count, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(rows.values(), key=lambda row: (row["file"], row["line"], row["now"]))
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"count": count(ordered), "rows": ordered}, indent=1, ensure_ascii=False) + "\n")
    part.replace(path)


def count(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many were killed and how many survived: of what computes a number, and of guards."""
    found: dict[str, Counter[str]] = {"numbers": Counter(), "guards": Counter()}
    for row in rows:
        seen = "killed" if row["verdict"] in ("killed", "timeout") else "survived"
        found["guards" if row["guard"] else "numbers"]["equivalent" if row.get("equivalent") else seen] += 1
    return {kind: dict(counted) for kind, counted in found.items()}


def pending(drawn: list[Mutation], kept: dict[str, dict[str, Any]]) -> Iterator[Mutation]:
    """What has not been killed yet and is not said to be equivalent."""
    for mutation in drawn:
        row = kept.get(mutation.key, {})
        if row.get("verdict") not in ("killed", "timeout") and not row.get("equivalent"):
            yield mutation


def summary(rows: list[dict[str, Any]]) -> str:
    """The survivors a line each, and the shares killed."""
    out = io.StringIO()
    for row in rows:
        if row["verdict"] in ("survived", "not run") and not row.get("equivalent"):
            kind = "guard" if row["guard"] else row["verdict"]
            out.write(f"{row['file']}:{row['line']} ({kind}) {row['text']}\n    {row['was']}  ->  {row['now']}\n")
    for kind, counted in count(rows).items():
        killed, survived = counted.get("killed", 0), counted.get("survived", 0)
        share = f"{killed / (killed + survived):.0%}" if killed + survived else "none"
        same = f", {counted['equivalent']} equivalent" if "equivalent" in counted else ""
        out.write(f"{kind}: {killed} of {killed + survived} killed ({share}){same}\n")
    return out.getvalue()


def main() -> None:
    """Try a sample of mutations of the folders given, and print what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", help="folders or files of the packages, such as interp/lenses")
    parser.add_argument("--sample", type=int, help="how many mutations; all unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", nargs="+", help="test files or folders; those that mirror the targets unless given")
    parser.add_argument("--out", type=Path, help="where results are kept")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    files = source_files(given.targets)
    tests = given.tests or mirrored_tests(files)
    out = given.out or KEPT / (
        "-".join(t.strip("/").removesuffix(".py").replace("/", "-") for t in given.targets) + ".json"
    )
    drawn = sample_of(files, given.sample, given.seed)
    kept = read_kept(out)
    rows = {m.key: kept[m.key] for m in drawn if m.key in kept}
    left = list(pending(drawn, kept))
    print(f"{len(drawn)} mutations of {len(files)} files, {len(left)} to try, by {' '.join(tests)}", flush=True)
    for name in PRELOADED:
        __import__(name)
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(copy_tree(Path(folder)), tests, files) if left else None
        for number, mutation in enumerate(left, 1):
            began = time.monotonic()
            verdict = trial.try_out(mutation) if trial else ""
            row = {
                name: getattr(mutation, name)
                for name in ("key", "file", "line", "function", "text", "was", "now", "guard")
            }
            rows[mutation.key] = kept[mutation.key] = row | {"verdict": verdict}
            write_kept(out, kept)
            print(f"{number}/{len(left)} {verdict} ({time.monotonic() - began:.0f} s)  {mutation}", flush=True)
    print(summary([rows[m.key] for m in drawn]))


if __name__ == "__main__":
    main()
