"""The small worlds by command."""

import json
from pathlib import Path

from tests.interp.commands.runner import call


def test_a_world_is_trained_by_command_and_its_rows_are_printed(tmp_path: Path) -> None:
    found = json.loads(call("worlds", "train", "clock", str(tmp_path), "--steps", "2", "--json"))
    assert (Path(found["model"]) / "config.json").exists()
    assert "=" in call("worlds", "rows", "clock", "--n", "1")
    assert "did you mean" in call("worlds", "rows", "clok", code=2)
