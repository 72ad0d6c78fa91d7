"""The small worlds by command."""

import json
from pathlib import Path

from hooks import load
from interp.landmark.guide import load_guide
from tests.interp.commands.runner import call


def test_a_world_is_trained_by_command_and_its_rows_are_printed(tmp_path: Path) -> None:
    found = json.loads(call("worlds", "train", "clock", str(tmp_path), "--steps", "2", "--json"))
    assert (Path(found["model"]) / "config.json").exists()
    assert "=" in call("worlds", "rows", "clock", "--n", "1")
    assert "did you mean" in call("worlds", "rows", "clok", code=2)


def test_a_guide_that_is_not_in_the_package_is_tuned_by_its_name_and_another_name_is_refused(tmp_path: Path) -> None:
    assert "the nearest is 'cheerful_025'" in call("worlds", "guide", str(tmp_path), "--only", "cheerful_25", code=2)
    given = ("--only", "cheerful_025", "--steps", "1", "--json")
    found = json.loads(call("worlds", "guide", str(tmp_path / "new"), *given))
    (file,) = found["files"]
    assert load_guide("cheerful", 0.25, file=file).fingerprint != load("landmark").fingerprint
    again = ("worlds", "guide", str(tmp_path / "new"), *given)
    assert json.loads(call(*again)) == found
    other = [word if word != "1" else "2" for word in again]
    assert "was tuned with steps 1, and asked for is steps 2: give what it was tuned with" in call(*other, code=2)
