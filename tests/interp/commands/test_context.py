"""What demonstrations do, by command."""

from pathlib import Path

from tests.interp.commands.runner import call


def test_a_file_that_holds_no_pairs_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("France Paris\n", encoding="utf-8")
    assert "a tab and its label" in call("context", "lists", str(tmp_path / "pairs.tsv"), code=2)
