"""Each fix undone, one at a time, and whether its tests turn red.

    python benchmarks/fixes.py

`benchmarks/faults.py` has for every kind of fault in CONTRIBUTING.md's table how the code was when the fault was there.
One row after the other is put into a copy of the tree, never in place, and the row's tests run there, in a process
forked after the libraries are loaded (Linux). Then all of those tests run once without a change: one that fails by
itself says nothing. Results go to benchmarks/results/fixes.json as they come, and a second call goes on from them: a
row that turned red is not run again until it is changed; `--again` runs all.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from xxhash import xxh3_64_hexdigest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.faults import FAULTS, Fault, read_kinds  # noqa: E402
from benchmarks.mutation_trials import ARGUMENTS, copy_tree, in_child, written  # noqa: E402
from benchmarks.mutations import PRELOADED  # noqa: E402
from benchmarks.timing import write  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "fixes.json"
LIMIT = 300  # CPU seconds of the tests of one row
ROOM = 6 << 30  # bytes that they may take, so that a fault that fills the memory ends in a test that fails
SHOWN = 240  # characters of an error that are kept


class Outcomes:
    """A pytest plugin that writes to a file which tests failed, and with what; a test under way counts as failed."""

    def __init__(self, file: Path) -> None:
        self.file, self.failed = file, dict[str, str]()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins: if the process ends in it, the file says so."""
        self._write({nodeid: "the process ended"})

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test has failed, or could not be set up."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            said = " ".join(str(report.longrepr if crash is None else crash.message).split())
            self.failed.setdefault(report.nodeid, said[:SHOWN])
        if report.when == "teardown":
            self._write({})

    def _write(self, now: dict[str, str]) -> None:
        self.file.write_text(json.dumps(self.failed | now))


def run_tests(tree: Path, tests: Sequence[str], limit: int = LIMIT) -> dict[str, str]:
    """Which of some tests fail in a tree, and with what; "error" where they do not run at all."""
    file = tree.parent / "outcomes.json"
    file.unlink(missing_ok=True)

    def work() -> int:
        most = _size_in_memory() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return int(pytest.main([*ARGUMENTS, f"--rootdir={tree}", *tests], plugins=[Outcomes(file)]))

    code = in_child(tree, work, limit)
    failed = json.loads(file.read_text()) if file.exists() else {}
    if code is None or code < 0:
        died = "it took too long" if code in (None, -signal.SIGXCPU) else f"ended by {signal.Signals(-code).name}"
        return {test: died if said == "the process ended" else said for test, said in failed.items()}
    if code not in (0, 1) or (code == 1 and not failed):
        return {"error": f"the tests do not run (exit code {code}): {(tree.parent / 'output.txt').read_text()[-600:]}"}
    return failed


def _size_in_memory() -> int:
    """The bytes of addresses that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def try_fault(tree: Path, fault: Fault, tests: Sequence[str]) -> dict[str, Any]:
    """Put one fault into the tree for as long as its tests run; what they say of it."""
    path = tree / fault.file
    source = path.read_text("utf-8")
    if (found := source.count(fault.now)) != 1:
        return {"verdict": "error", "said": f"the text is found {found} times in {fault.file}"}
    with written(path, source.replace(fault.now, fault.undone).encode()):
        failed = run_tests(tree, tests)
    if "error" in failed:
        return {"verdict": "error", "said": failed["error"]}
    seen = {test: next((said for name, said in failed.items() if _is_of(name, test)), None) for test in tests}
    red = {test: said for test, said in seen.items() if said is not None}
    return {
        "verdict": "red" if len(red) == len(tests) else "green",
        "red": red,
        "green": sorted(seen.keys() - red.keys()),
    }


def _is_of(name: str, test: str) -> bool:
    """Whether a test is this one, or one of its cases."""
    return name == test or name.startswith(f"{test}[")


def key_of(fault: Fault) -> str:
    """What tells a row from the same row when it is changed."""
    return xxh3_64_hexdigest(json.dumps(asdict(fault)).encode())


def read_rows() -> dict[str, dict[str, Any]]:
    """The rows of earlier calls, by key."""
    figures = json.loads(RESULTS.read_text("utf-8"))["figures"] if RESULTS.exists() else {"rows": []}
    return {row["key"]: row for row in figures["rows"]}


def write_rows(rows: dict[str, dict[str, Any]]) -> None:
    """All rows in the order of the list, and how many turned red."""
    ordered = [rows[key] for key in map(key_of, FAULTS) if key in rows]
    red = [row for row in ordered if row["verdict"] == "red"]
    kinds = {fault.kind for fault in FAULTS}
    totals = {"rows": len(FAULTS), "run": len(ordered), "red": len(red)}
    totals |= {"kinds": len(kinds), "kinds with a red row": len({row["kind"] for row in red})}
    write("fixes", "python benchmarks/fixes.py", {"totals": totals, "rows": ordered})


def tests_of(fault: Fault, kinds: dict[str, dict[str, str]]) -> list[str]:
    """The full names of a row's tests: those of its kind, by name, some with one of their cases."""
    named = kinds[fault.kind]
    return [named[test.partition("[")[0]] + "".join(test.partition("[")[1:]) for test in fault.tests or [*named]]


def run(faults: Sequence[Fault], again: bool) -> dict[str, dict[str, Any]]:
    """Try the faults that have not turned red yet; then all tests without a change."""
    kinds, rows = read_kinds(ROOT), {} if again else read_rows()
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(ROOT, Path(folder))
        for number, fault in enumerate(faults, 1):
            if rows.get(key_of(fault), {}).get("verdict") == "red":
                continue
            tests = tests_of(fault, kinds)
            about = {"key": key_of(fault), "kind": fault.kind, "file": fault.file}
            rows[key_of(fault)] = row = about | try_fault(tree, fault, tests)
            print(f"{number} of {len(faults)}: {row['verdict']}  {fault.kind} ({fault.file})", flush=True)
            print(f"    {row.get('said') or row['red']} {row.get('green') or ''}", flush=True)
            write_rows(rows)
        new = [f for f in faults if rows[key_of(f)]["verdict"] == "red" and not rows[key_of(f)].get("passes without")]
        tests = sorted({test for fault in new for test in tests_of(fault, kinds)})
        failed = run_tests(tree, tests, 20 * LIMIT) if tests else {}
    for fault in new:
        broken = {name: said for name, said in failed.items() if any(_is_of(name, t) for t in tests_of(fault, kinds))}
        rows[key_of(fault)] |= {"passes without": not failed.get("error") and not broken}
        if failed.get("error") or broken:
            rows[key_of(fault)] |= {"verdict": "error", "said": f"fails without a change: {broken or failed}"}
    write_rows(rows)
    return rows


def main() -> None:
    """Try all rows, and print those that did not turn red."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="run rows that turned red before, too")
    parser.add_argument("--only", help="rows whose kind or file has these words")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in PRELOADED:
        __import__(name)
    some = [fault for fault in FAULTS if given.only is None or given.only in f"{fault.kind} {fault.file}"]
    rows = run(some, given.again)
    for fault in some:
        if (row := rows[key_of(fault)])["verdict"] != "red":
            print(f"{row['verdict']}  {fault.kind} ({fault.file}): {row.get('said') or row['green']}")
    print(f"{sum(rows[key_of(fault)]['verdict'] == 'red' for fault in some)} of {len(some)} turned red")


if __name__ == "__main__":
    main()
