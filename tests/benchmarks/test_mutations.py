"""The mutation tool changes what computes and nothing else, and its verdict is that of the tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mutations import ROOT, Finder, count, mirrored_tests, pending

SOURCE = b'''"""A docstring of 3 words."""
from jaxtyping import Float

HALF = 0.5


def middle(x: Float[Tensor, "3 4"], n: int = 2) -> float | None:
    """Mean."""
    if n < 1:
        raise ValueError(f"{n + 1} is too small")
    assert n > 0
    total: int = 0
    total += n
    return -x[1:n].mean() / HALF
'''


def changes(source: bytes) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for mutation in Finder("a.py", source).found:
        found.setdefault(mutation.was, set()).add(mutation.now)
        compile(mutation.apply(source), "a.py", "exec")
    return found


def test_operators_constants_comparisons_slices_and_reductions_change_and_prose_does_not() -> None:
    assert changes(SOURCE) == {
        "0.5": {"(1.0)"},
        "2": {"(3)"},
        "n < 1": {"(n <= 1)", "(n > 1)"},
        "1": {"(2)"},
        "0": {"(1)"},
        "total += n": {"total -= n"},
        "-x[1:n].mean() / HALF": {"(-x[1:n].mean() * HALF)"},
        "-x[1:n].mean()": {"(x[1:n].mean())"},
        "x[1:n].mean()": {"(x[1:n].sum())"},
        "1:n": {":n", "1:"},
    }


def test_a_condition_that_only_raises_is_a_guard_and_a_function_knows_its_class() -> None:
    source = b"class A:\n    n = 1\n    def f(self, x):\n        if x > 0:\n            raise E\n        return x + 1\n"
    found = {(m.was, m.function, m.guard) for m in Finder("a.py", source).found}
    assert found == {
        ("1", "<module>", False),
        ("x > 0", "A.f", True),
        ("0", "A.f", True),
        ("x + 1", "A.f", False),
        ("1", "A.f", False),
    }


def test_a_mutation_keeps_its_key_when_other_lines_change() -> None:
    before = {m.key for m in Finder("a.py", b"def f(x):\n    return x + y\n").found}
    after = {m.key for m in Finder("a.py", b"# more\nz = 1\ndef f(x):\n    return x + y\n").found}
    assert before < after


def test_the_tests_of_a_file_are_those_of_the_folder_that_mirrors_its_own() -> None:
    assert mirrored_tests(["interp/memory/editors/a.py", "interp/memory/editors/b.py"]) == [
        "tests/interp/memory/editors",
        "tests/contracts/test_editors.py",
    ]
    assert mirrored_tests(["probes/lda.py", "interp/circuits/heads/scores.py"]) == [
        "tests/probes",
        "tests/contracts/test_probes.py",
        "tests/interp/circuits",
    ]


def test_what_was_killed_is_not_tried_again_and_what_changes_no_number_is_counted_apart() -> None:
    one, two, three = Finder("a.py", b"def f(x, y, z, u, v):\n    return x + y, z + u, u + v\n").found
    kept = {one.key: {"verdict": "killed"}, two.key: {"verdict": "survived", "equivalent": "why"}}
    assert list(pending([one, two, three], kept)) == [three]
    rows = [{"guard": False, **row} for row in kept.values()] + [{"guard": True, "verdict": "not run"}]
    assert count(rows) == {"numbers": {"killed": 1, "equivalent": 1}, "guards": {"survived": 1}}


@pytest.mark.skipif(sys.platform != "linux", reason="the tool forks")
def test_a_fault_that_a_test_sees_is_killed_and_one_that_none_sees_survives(tmp_path: Path) -> None:
    """In a project of its own, since a fork of this process would hold the library already."""
    (tmp_path / "tests" / "core").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "core").mkdir()
    (tmp_path / "benchmarks" / "mutations.py").write_bytes((ROOT / "benchmarks" / "mutations.py").read_bytes())
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    (tmp_path / "core" / "sums.py").write_text(
        "def seen(x, y):\n    return x + y\n\ndef unseen(x, y):\n    return x + y\n\n"
        "def never(x, y):\n    return x + y\n"
    )
    (tmp_path / "tests" / "core" / "test_sums.py").write_text(
        "from core.sums import seen, unseen\n\ndef test_seen():\n    assert seen(2, 1) == 3\n\n"
        "def test_unseen():\n    assert unseen(2, 0) == 2\n"
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    command = [sys.executable, "benchmarks/mutations.py", "core"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    kept = json.loads((tmp_path / "benchmarks" / "results" / "mutations" / "core.json").read_text())
    verdicts = {row["function"]: row["verdict"] for row in kept["rows"]}
    assert verdicts == {"seen": "killed", "unseen": "survived", "never": "not run"}
    assert "x + y" in (tmp_path / "core" / "sums.py").read_text()
