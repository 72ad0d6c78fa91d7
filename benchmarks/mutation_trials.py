"""Tests run on a tree with one small fault after the other, in processes forked after everything is loaded.

1. `Session` (a pytest plugin) collects the tests once and says by test the lines that it runs and what it costs.
2. A fault inside a function is put into the loaded function (`replace_code`) in a fork of that process, which runs the
   tests that run its line, the cheapest first, up to the first that fails; then all others, since a test that is
   given what an earlier one made (a model, its report) was not seen to run the line.
3. A fault that acts while a module loads (a constant, a default, a line that loading runs) is tried in a fork of a
   process that has loaded only libraries.
"""

import contextlib
import gc
import inspect
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Protocol

import pytest

ARGUMENTS = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:nbmake", "-p", "no:xdist", "--no-header", "--tb=no"]
ARGUMENTS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is loaded before the fork
OF_LOADING = "tests/contracts/test_defaults.py"  # what sees most faults that act while a module loads: tried first
CHEAP = 0.3  # CPU seconds, up to which a test is tried before dearer ones of other files


class Fault(Protocol):
    """What a mutation says of itself."""

    file: str
    line: int
    function: str
    lines: tuple[int, int]

    def apply(self, source: bytes) -> bytes:
        """The source with the change."""
        ...


@dataclass(eq=False)
class Costs:
    """Which of some lines each test runs, and the CPU seconds it takes, with those of its fixtures.

    What runs while modules load is kept under "". What a fixture runs and takes counts for every test that asks for
    the fixture, since it may serve them all. A process that a test forks writes the lines it runs to a file.
    """

    lines: dict[str, set[int]]  # by full path
    root: Path
    followed: dict[CodeType, bool] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    ran: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    needs: dict[str, list[str]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    now: str = ""
    since: float = 0.0
    forked: Path | None = None
    process: int = field(default_factory=os.getpid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note the tests that fail."""
        if report.failed:
            self.failed.add(report.nodeid)

    def pytest_runtest_setup(self, item: Any) -> None:
        """What the set-up runs outside of fixtures counts for the test; a test before may have ended the following."""
        if sys.gettrace() is not self:
            sys.settrace(self)
        definitions = getattr(item, "_fixtureinfo", None)
        self.needs[item.nodeid] = (
            [self._name(one) for all_of_name in definitions.name2fixturedefs.values() for one in all_of_name]
            if definitions
            else []
        )
        self._turn(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """What a fixture runs counts for the fixture."""
        before = self.now
        self._turn(self._name(fixturedef))
        try:
            return (yield)
        finally:
            self._turn(before)

    def by_test(self) -> dict[str, list[str]]:
        """The lines that each test runs, with those of its fixtures; under "" those of loading."""
        if self.forked is not None and self.forked.exists():
            for said in self.forked.read_text().splitlines():
                name, _, line = said.rpartition("\t")
                self.ran[name].add(line)
        tests = {test: self.ran[test].union(*(self.ran[name] for name in self.needs[test])) for test in self.needs}
        return {test: sorted(lines) for test, lines in (tests | {"": self.ran[""]}).items()}

    def by_cost(self) -> dict[str, float]:
        """The seconds of each test that passed, with those of its fixtures."""
        self._turn("")
        return {
            test: self.seconds[test] + sum(self.seconds[name] for name in self.needs[test])
            for test in self.needs
            if test not in self.failed
        }

    def _turn(self, name: str) -> None:
        """What comes counts for another test or fixture."""
        at = time.process_time()
        self.seconds[self.now] += at - self.since
        self.now, self.since = name, at

    def _name(self, fixture: Any) -> str:
        return f"fixture {fixture.baseid}:{fixture.argname}"

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG002
        """Follow a function that holds any of the lines."""
        code = frame.f_code
        if code not in self.followed:
            asked = self.lines.get(code.co_filename, set())
            self.followed[code] = any(line in asked for _, _, line in code.co_lines())
        return self._line if self.followed[code] else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG002
        file, line = frame.f_code.co_filename, frame.f_lineno
        if line in self.lines[file]:
            place, ran = f"{Path(file).relative_to(self.root).as_posix()}:{line}", self.ran[self.now]
            if place not in ran and self.forked is not None and os.getpid() != self.process:
                with self.forked.open("a") as said:
                    said.write(f"{self.now}\t{place}\n")
            ran.add(place)
        return self._line


class Session:
    """A pytest plugin that collects the tests and, in place of running them, tries faults on them."""

    def __init__(self, tree: Path, faults: Sequence[Fault], say: Callable[[Fault, str, float], None]) -> None:
        lines: dict[str, set[int]] = defaultdict(set)
        for one in faults:
            lines[str(tree / one.file)].update(range(one.lines[0], one.lines[1] + 1))
        self.tree, self.faults, self.say = tree, faults, say
        self.costs = Costs(dict(lines), tree)

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self) -> None:
        """Follow what runs while the tests are collected, from the first module that a conftest loads."""
        sys.settrace(self.costs)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        """Say what each test runs; then try the faults that act inside of a function."""
        sys.settrace(None)
        if session.testsfailed:
            return True
        kept = self.tree.parent / "traced.json"
        in_child(self.tree, lambda: self._trace(session, kept), 7200)
        plan = Plan(json.loads(kept.read_text()))
        items = {item.nodeid: item for item in session.items}
        for fault in self.faults:
            if plan.loads(fault):
                continue
            began, seen = time.monotonic(), plan.tests(fault)
            verdict = self._verdict(fault, [items[test] for test in seen], plan.limit(seen))
            for others in plan.others(fault):
                if verdict not in ("survived", "not run"):
                    break
                late = self._verdict(fault, [items[test] for test in others], plan.limit(others))
                verdict = late if late in ("killed", "timeout") else verdict
            if verdict != "cold":
                self.say(fault, verdict, time.monotonic() - began)
        return True

    def _trace(self, session: Any, kept: Path) -> int:
        session.config.pluginmanager.register(self.costs)
        self.costs.forked, self.costs.process = self.tree.parent / "forked.txt", os.getpid()
        self.costs.since = time.process_time()
        sys.settrace(self.costs)
        run_items(session.items)
        sys.settrace(None)
        cost = self.costs.by_cost()
        order = [item.nodeid for item in session.items]
        found = {"seconds": cost, "ran": self.costs.by_test(), "failed": sorted(self.costs.failed), "order": order}
        kept.write_text(json.dumps(found))
        return 0

    def _verdict(self, fault: Fault, items: list[Any], limit: int) -> str:
        """A test kills only if it passes without the fault, after the same tests in the same process."""
        source = (self.tree / fault.file).read_bytes()
        changed, reached = fault.apply(source), self.tree.parent / "reached.json"

        def work() -> int:
            if not replace_code(self.tree / fault.file, source, changed, fault.line):
                return COLD
            return run_items(items, reached)

        while items:
            with written(self.tree / fault.file, changed):  # for tests that start a process of their own
                code = in_child(self.tree, work, limit)
            if code != FAILED:
                return verdict_of(code)
            last = json.loads(reached.read_text())
            if in_child(self.tree, lambda last=last: run_items(items[: last + 1], reached), limit) == 0:
                return "killed"
            print(f"left out, since it fails without a mutation in another order: {items.pop(last).nodeid}", flush=True)
        return "not run"


FAILED, BROKEN, COLD = 1, 70, 71  # exit codes: a test failed; the fork did; the fault is in no loaded function


class Plan:
    """Which tests to try a fault on, in what order, and for how long."""

    def __init__(self, traced: dict[str, Any]) -> None:
        self.seconds: dict[str, float] = traced["seconds"]
        self.ran: dict[str, set[str]] = {test: set(lines) for test, lines in traced["ran"].items()}
        self.place = {test: i for i, test in enumerate(traced["order"])}
        self.failed: list[str] = traced["failed"]

    def loads(self, fault: Fault) -> bool:
        """Whether the fault acts while a module loads."""
        return fault.function == "<module>" or bool(_places(fault) & self.ran[""])

    def tests(self, fault: Fault) -> list[str]:
        """The tests that run a line of the fault, the cheap ones first, then file by file."""
        every = self.loads(fault)
        found = [test for test in self.seconds if every or _places(fault) & self.ran.get(test, set())]
        of_file: dict[str, float] = defaultdict(float)
        for test in found:
            of_file[test.split("::")[0]] += self.seconds[test]

        def order(test: str) -> tuple[bool, bool, float, int]:
            cheap, last = self.seconds[test] <= CHEAP, not (every and test.startswith(OF_LOADING))
            return last, not cheap, self.seconds[test] if cheap else of_file[test.split("::")[0]], self.place[test]

        return sorted(found, key=order)

    def others(self, fault: Fault) -> list[list[str]]:
        """The tests that were not seen to run a line of the fault, by file, the cheapest file first."""
        seen, files = {*self.tests(fault)}, defaultdict[str, list[str]](list)
        for test in sorted(self.seconds.keys() - seen, key=self.place.__getitem__):
            files[test.split("::")[0]].append(test)
        return sorted(files.values(), key=lambda tests: sum(self.seconds[test] for test in tests))

    def limit(self, tests: Sequence[str]) -> int:
        """CPU seconds."""
        return int(30 + 4 * sum(self.seconds[test] for test in tests))


def _places(fault: Fault) -> set[str]:
    return {f"{fault.file}:{line}" for line in range(fault.lines[0], fault.lines[1] + 1)}


def try_faults(tree: Path, tests: list[str], faults: Sequence[Fault], say: Callable[[Fault, str, float], None]) -> None:
    """Say of each fault whether it is "killed", takes too long ("timeout"), has "survived" or is "not run"."""
    said = tree.parent / "said.json"
    done: dict[int, tuple[str, float]] = {}
    numbers = {id(fault): number for number, fault in enumerate(faults)}

    def remember(fault: Fault, verdict: str, seconds: float) -> None:
        done[numbers[id(fault)]] = verdict, seconds
        said.write_text(json.dumps(sorted(done)))
        say(fault, verdict, seconds)

    def warm() -> int:
        return int(pytest.main([*ARGUMENTS, *tests], plugins=[Session(tree, faults, remember)]))

    code = in_child(tree, warm, 10**6, quiet=False)
    if code == BROKEN:
        raise SystemExit("the trial failed")
    kept = tree.parent / "traced.json"
    if not kept.exists():
        raise SystemExit(f"the tests {tests} are not collected without a mutation (exit code {code}): fix them first")
    plan = Plan(json.loads(kept.read_text()))
    for test in plan.failed:
        print(f"left out, since it fails without a mutation: {test}", flush=True)
    warmly = set(json.loads(said.read_text())) if said.exists() else set()
    for fault in (fault for number, fault in enumerate(faults) if number not in warmly):
        began, some = time.monotonic(), plan.tests(fault)
        verdict = "not run"
        if some:
            with written(tree / fault.file, fault.apply((tree / fault.file).read_bytes())):
                verdict = verdict_of(in_child(tree, lambda some=some: run_tests(some), plan.limit(some)))
        say(fault, verdict, time.monotonic() - began)


def run_tests(tests: list[str]) -> int:
    """pytest's exit code, in a process that has loaded none of the project; it ends at the first test that fails."""
    return int(pytest.main([*ARGUMENTS, "-x", *tests]))


def run_items(items: Sequence[Any], reached: Path | None = None) -> int:
    """Run collected tests in this order; with a file up to the first that fails, whose number is kept there."""
    for number, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except (KeyboardInterrupt, pytest.exit.Exception):
            item.session.testsfailed += 1
        if reached is not None and item.session.testsfailed:
            reached.write_text(json.dumps(number))
            return FAILED
    return 0


def verdict_of(code: int | None) -> str:
    """What the exit code of some tests says of the fault."""
    if code == BROKEN:
        raise SystemExit("a fork failed outside of its tests, which says nothing of the fault")
    if code in (None, -signal.SIGXCPU):
        return "timeout"
    return {0: "survived", COLD: "cold"}.get(code, "killed")


def replace_code(path: Path, source: bytes, changed: bytes, line: int) -> bool:
    """Give the loaded function that holds the line the code of the changed source; whether that could be done.

    It cannot where what differs is outside of the function's body, such as the default of an argument. Functions that
    it has made already, as a test does while it loads, are given theirs too.
    """
    pairs = list(zip(*(_outermost(compile(text, str(path), "exec")) for text in (source, changed)), strict=True))
    old, new = max((p for p in pairs if p[0].co_firstlineno <= line), key=lambda p: p[0].co_firstlineno)
    if old == new:
        return False
    live = [f for f in gc.get_objects() if type(f) is FunctionType and f.__code__.co_filename == str(path)]
    alike = [f for f in live if _is_of(f.__code__, path, old)]
    away = {id(f): abs(f.__code__.co_firstlineno - old.co_firstlineno) for f in alike}
    loaded = [f for f in alike if away[id(f)] == min(away.values())]
    if not loaded or any(f.__code__.co_freevars != new.co_freevars for f in loaded):
        return False
    for function in loaded:
        function.__code__ = new
    for was, now in _inner(old, new):
        for function in live:
            if _is_of(function.__code__, path, was) and function.__code__.co_firstlineno == was.co_firstlineno:
                function.__code__ = now
    return True


def _inner(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """The code of the functions inside of a function, before and after a change, where their variables are the same."""
    pairs = ([const for const in code.co_consts if isinstance(const, CodeType)] for code in (old, new))
    for was, now in zip(*pairs, strict=False):
        if was.co_freevars == now.co_freevars and was != now:
            yield was, now
        yield from _inner(was, now)


def _is_of(code: CodeType, path: Path, old: CodeType) -> bool:
    return code.co_filename == str(path) and code.co_qualname == old.co_qualname


def _outermost(code: CodeType) -> list[CodeType]:
    """The functions of a module and of its classes, without those inside of functions."""
    found: list[CodeType] = []
    for inner in (const for const in code.co_consts if isinstance(const, CodeType)):
        found += [inner] if inner.co_flags & inspect.CO_OPTIMIZED else _outermost(inner)
    return found


@contextlib.contextmanager
def written(path: Path, changed: bytes) -> Iterator[None]:
    """A file with other content for a while; each with a time of its own, so that no compiled file is mistaken."""
    before = path.read_bytes()
    try:
        _write(path, changed)
        yield
    finally:
        _write(path, before)


_stamp = int(time.time())


def _write(path: Path, content: bytes) -> None:
    global _stamp
    _stamp += 10
    path.write_bytes(content)
    os.utime(path, (_stamp, _stamp))


def in_child(tree: Path, work: Callable[[], int], limit: int, *, quiet: bool = True) -> int | None:
    """The exit code of some work done in a forked process that starts in the tree; None where it waits too long.

    The limit is in CPU seconds, so that what else the machine does changes no verdict; a child that waits for ten
    times as long, and five minutes more, is ended too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fork of a process with threads, which the work does not use
        child = os.fork()
    if child == 0:
        code = BROKEN
        try:
            _settle(tree, limit, quiet)
            code = int(work())
        except BaseException:  # a process that was forked must end here
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    began = time.monotonic()
    while time.monotonic() - began < 300 + 10 * limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _kill(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    _kill(child)
    os.waitpid(child, 0)
    return None


def _settle(tree: Path, limit: int, quiet: bool) -> None:
    os.setsid()
    os.chdir(tree)
    root = Path(__file__).resolve().parents[1]
    sys.path[:] = [str(tree), *(p for p in sys.path if Path(p or ".").resolve() not in (root, root / "benchmarks"))]
    if quiet:
        with open(tree.parent / "output.txt", "w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def copy_tree(root: Path, to: Path) -> Path:
    """A copy of what git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    tree = to / "tree"
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)
    if (root.parent / "shared").exists():
        (to / "shared").symlink_to(root.parent / "shared")
    return tree
