"""The mutation tool changes what computes and nothing else, and its verdict is that of the tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import mutations
from benchmarks.mutation_finder import Finder
from benchmarks.mutations import ROOT, count, importing_tests, mirrored_tests, pending, share

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


def test_the_tests_of_a_file_are_those_of_the_folder_that_mirrors_its_own_and_the_laws_that_import_from_it() -> None:
    one = mirrored_tests(["interp/memory/editors/a.py", "interp/memory/editors/b.py"])
    assert one[0] == "tests/interp/memory/editors" and "tests/contracts/test_editors.py" in one
    two = mirrored_tests(["probes/lda.py", "interp/circuits/heads/scores.py"])
    assert {"tests/probes", "tests/contracts/test_probes.py", "tests/interp/circuits"} <= {*two}
    assert all(
        f.startswith("tests/contracts/") for f in {*one, *two} - {one[0], "tests/probes", "tests/interp/circuits"}
    )


def test_a_test_of_another_folder_counts_where_it_imports_the_file_by_name() -> None:
    found = importing_tests(["interp/memory/facts/facts_file.py"], ["tests/interp/memory"])
    assert found == ["tests/interp/commands/test_edit_apply_audit.py"]


def test_two_faults_alike_on_one_line_are_two_and_each_knows_the_lines_of_its_statement() -> None:
    source = b"def f(x):\n    for i in range(2, 2):\n        x = (\n            2 * x\n        )\n    return x\n"
    twos = [m for m in Finder("a.py", source).found if m.was == "2"]
    assert len({m.key for m in twos}) == 3
    assert [m.lines for m in twos] == [(2, 2), (2, 2), (3, 5)]


def test_a_zip_that_checks_lengths_is_a_guard() -> None:
    found = Finder("a.py", b"def f(x):\n    return zip(x, x, strict=True), g(x, keepdim=True)\n").found
    assert [m.guard for m in found] == [True, False]


def test_what_was_killed_is_not_tried_again_and_what_changes_no_number_is_counted_apart_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = Finder("a.py", b"def f(x, y, z, u, v):\n    return x + y, z + u, u + v\n").found
    monkeypatch.setattr(mutations, "SET_ASIDE", tmp_path / "set_aside.json")
    (tmp_path / "set_aside.json").write_text(json.dumps([{"key": two.key, "reason": "z and u are 0"}]))
    kept = {one.key: {"verdict": "killed"}, two.key: {"verdict": "survived"}}
    assert list(pending([one, two, three], kept)) == [three]
    rows = [{"key": key, **row} for key, row in kept.items()] + [{"key": three.key, "verdict": "not run"}]
    assert count(rows) == {"killed": 1, "survived": 1, "no number": 1}
    assert share(count(rows))["interval"] == [0.095, 0.905]  # Wilson's at 1 of 2


@pytest.mark.skipif(sys.platform != "linux", reason="the tool forks")
def test_a_fault_that_a_test_sees_is_killed_and_one_that_none_sees_survives(tmp_path: Path) -> None:
    """In a project of its own, since a fork of this process would hold the library already."""
    (tmp_path / "tests" / "core").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "core").mkdir()
    for name in ("mutations.py", "mutation_finder.py", "mutation_trials.py"):
        (tmp_path / "benchmarks" / name).write_bytes((ROOT / "benchmarks" / name).read_bytes())
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    (tmp_path / "tests" / "conftest.py").write_text("import core.sums\n")  # the defaults in it act while that loads
    (tmp_path / "core" / "sums.py").write_text(
        "def seen(x, y):\n    return x + y\n\ndef unseen(x, y):\n    return x + y\n\n"
        "def never(x, y):\n    if x is None:\n        return x + y\n\n"
        "def of_fixture(x, y):\n    return x + y\n\n"
        "def forked(x, y):\n    return x + y\n\n"
        "def maker():\n    def made_early(x, y):\n        return x + y\n    return made_early\n\n"
        "HALF = 2\n\ndef with_default(x, n=3):\n    return x * n\n\n"
        "def late(x, y):\n    return x + y\n\n"
        "def kept(x, y):\n    return x + y\n\n"
        "class Sum:\n    @property\n    def all(self):\n        return [x - 1 for x in (1, 2)]\n"
    )
    (tmp_path / "tests" / "core" / "test_sums.py").write_text(
        "import functools\nimport multiprocessing\nimport sys\n\nimport pytest\n"
        "from core.sums import HALF, Sum, forked, kept, late, maker, never, of_fixture, seen, unseen, with_default\n\n"
        "@pytest.fixture(scope='module')\ndef made():\n    return of_fixture(2, 1)\n\n"
        "def test_first(made):\n    assert made > 0\n\ndef test_second(made):\n    assert made == 3\n\n"
        "def test_seen():\n    assert seen(2, 1) == 3\n\n"
        "def test_unseen():\n    assert unseen(2, 0) == 2 and never(1, 1) is None\n\n"
        "def test_broken():\n    assert unseen(2, 1) == 4\n\n"
        "EARLY = maker()\n\n\ndef test_made_while_loading():\n    assert EARLY(2, 1) == 3\n\n"
        "def test_forked():\n    fork = multiprocessing.get_context('fork')\n"
        "    process = fork.Process(target=lambda: sys.exit(forked(2, 1)))\n    process.start()\n"
        "    process.join()\n    assert process.exitcode == 3\n\n"
        "def test_while_loading():\n    assert HALF == 2 and with_default(0) == 0 and with_default(2) == 6\n\n"
        "def test_of_a_class():\n    assert Sum().all == [0, 1]\n\n"
        "def test_that_ends_the_following():\n    sys.settrace(None)\n\n"
        "def test_after_it():\n    assert late(2, 1) == 3\n\n"
        "once = functools.cache(kept)\n\n"
        "def test_that_makes_it():\n    once(2, 1)\n\n"
        "def test_that_is_given_what_was_made():\n    assert once(2, 1) == 3\n"
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    command = [sys.executable, "benchmarks/mutations.py", "core"]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "left out, since it fails without a mutation: tests/core/test_sums.py::test_broken" in said
    kept = json.loads((tmp_path / "reports" / "mutations" / "core-0.json").read_text())
    verdicts: dict[str, set[str]] = {}
    for row in kept["rows"]:
        verdicts.setdefault(row["function"], set()).add(row["verdict"])
    killed = dict.fromkeys(
        ["seen", "of_fixture", "forked", "maker.made_early", "<module>", "with_default", "Sum.all", "late", "kept"],
        {"killed"},
    )
    assert verdicts == killed | {"unseen": {"survived"}, "never": {"not run"}}
    assert "x + y" in (tmp_path / "core" / "sums.py").read_text()
