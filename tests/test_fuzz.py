"""Hostile calls of every public name end in an error of the library's own, or in a result of finite numbers."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hooks import load
from tests import shapes
from tests.fuzz import Trial, outcome, public, right_values, trials

BUDGET = 0.02  # of all calls, that may end in an error from inside torch or Python


@pytest.fixture
def valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[type, Any]:
    """A right value of each type that public names take."""
    monkeypatch.chdir(tmp_path)
    return right_values()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a time-out inside a callback
def test_at_most_two_of_a_hundred_hostile_calls_end_in_a_raw_error_and_none_in_a_silent_nan(
    valid: dict[type, Any],
) -> None:
    ended: Counter[str] = Counter()
    said: list[str] = []
    with shapes.unchecked():
        for trial in trials(valid, per_argument=1):
            how = outcome(trial)
            ended[how] += 1
            if how not in ("refused", "result", "slow"):
                said.append(f"{trial.name}({trial.hostile}): {how}")
    raw = ended.total() - ended["refused"] - ended["result"] - ended["slow"]
    assert ended.total() > 1000 and ended["refused"] > 1000
    assert ended["non-finite"] == 0, said
    assert raw <= BUDGET * ended.total(), said


def test_the_calls_reach_every_package_and_the_judge_sees_each_end() -> None:
    def fails(n: object) -> None:
        raise KeyError(n)

    def gives(n: object) -> float:
        return float("nan")

    assert {name.rpartition(".")[0] for name, _ in public()} >= {"hooks", "probes", "interp.sae", "interp.memory"}
    assert outcome(Trial(fails, "fails", {"n": 1}, "n")) == "KeyError"
    assert outcome(Trial(gives, "gives", {"n": 1}, "n")) == "non-finite"
    assert outcome(Trial(load, "load", {"model": 3.5}, "model")) == "refused"
