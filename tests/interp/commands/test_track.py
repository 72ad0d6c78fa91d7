"""A run tracked by command."""

from pathlib import Path

from tests.interp.commands.runner import call


def test_a_folder_without_checkpoints_and_an_unknown_world_are_refused(tmp_path: Path) -> None:
    assert "no checkpoints" in call("track", str(tmp_path), code=2)
    assert "'ladder', 'induction', 'segments', 'clock'" in call("track", str(tmp_path), "--world", "clocks", code=2)
