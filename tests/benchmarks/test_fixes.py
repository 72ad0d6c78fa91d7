"""Every kind of fault has a row that brings it back, and every row fits the code as it is now."""

import json
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest

from benchmarks.faults import FAULTS, Fault, read_kinds

ROOT = Path(__file__).resolve().parents[2]
KINDS = read_kinds(ROOT)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file}, {fault.kind}")
def test_a_row_changes_a_text_that_its_file_has_once_and_names_tests_of_its_kind(fault: Fault) -> None:
    source = (ROOT / fault.file).read_text("utf-8")
    assert source.count(fault.now) == 1, "write the row for the code as it is now"
    compile(source.replace(fault.now, fault.undone), fault.file, "exec")
    assert fault.undone != fault.now
    assert {test.partition("[")[0] for test in fault.tests} <= KINDS[fault.kind].keys()


def test_every_kind_of_fault_and_every_test_of_the_table_has_a_row() -> None:
    assert len(KINDS) > 40
    assert KINDS.keys() - {fault.kind for fault in FAULTS} == set()
    held = {(f.kind, test.partition("[")[0]) for f in FAULTS for test in f.tests or KINDS[f.kind]}
    assert {(kind, test) for kind, tests in KINDS.items() for test in tests} - held == set()
    assert len({astuple(fault) for fault in FAULTS}) == len(FAULTS)


SUMS = "def add(a: int, b: int) -> int:\n    return a + b\n\n\ndef twice(a: int) -> int:\n    return 2 * a\n"
TRIALS = """
import json
from pathlib import Path
from benchmarks.faults import Fault
from benchmarks.fixes import run_tests, try_fault

tree, add = Path("made/tree").resolve(), "test_sums.py::test_add"
both = [add, "test_sums.py::test_twice"]
found = [
    try_fault(tree, Fault("", "sums.py", "a + b", "a - b"), [add]),
    try_fault(tree, Fault("", "sums.py", "2 * a", "3 * a"), both),
    try_fault(tree, Fault("", "sums.py", "int:", "float:"), [add]),
    try_fault(tree, Fault("", "sums.py", "2 * a", "2 *"), [add]),
    try_fault(tree, Fault("", "sums.py", "return a + b", "return __import__('os').kill(0, 9)"), [add]),
    run_tests(tree, both),
]
print(json.dumps(found))
"""


def test_a_row_is_red_where_its_tests_fail_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    tree = tmp_path / "made" / "tree"
    tree.mkdir(parents=True)
    (tree / "sums.py").write_text(SUMS)
    (tree / "test_sums.py").write_text(
        "import pytest\nfrom sums import add, twice\n\n\n@pytest.mark.parametrize('a', [1, 2])\n"
        "def test_add(a):\n    assert add(a, 3) == a + 3\n\n\ndef test_twice():\n    assert twice(2) == 4\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", TRIALS], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    wrong, half, twice, torn, killed, without = json.loads(ran.stdout.splitlines()[-1])
    assert wrong["verdict"] == "red" and "assert -2 == (1 + 3)" in wrong["red"]["test_sums.py::test_add"]
    assert half["verdict"] == "green" and half["green"] == ["test_sums.py::test_add"]
    assert twice["verdict"] == torn["verdict"] == "error"
    assert "found 2 times" in twice["said"] and "do not run" in torn["said"]
    assert killed["verdict"] == "red" and killed["red"]["test_sums.py::test_add"] == "ended by SIGKILL"
    assert without == {} and (tree / "sums.py").read_text() == SUMS
