"""The pictures by command: drawn, a net trained on them and measured."""

import json
from pathlib import Path

from typer.testing import CliRunner

from interp.commands.app import app


def run(*args: str) -> dict:
    done = CliRunner().invoke(app, ["postcard", *args, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_net_is_trained_in_parts_and_its_card_says_what_it_does(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    for _ in range(3):
        run("train", folder, "--pictures", "192", "--minutes", "0")
    found = run("card", folder, "--n", "80")
    card = Path(found["card"]).read_text(encoding="utf-8")
    assert "Trained** on 192 pictures" in card and "nearest of 4,000" in card
    assert 0 <= found["accuracy"]["value"] < 0.2


def test_pictures_are_drawn_onto_a_sheet_with_their_captions(tmp_path: Path) -> None:
    found = run("draw", str(tmp_path / "sheet.png"), "--n", "4")
    assert len(found["captions"]) == 4 and Path(found["sheet"]).stat().st_size > 1000


def test_a_folder_without_a_training_has_no_card(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["postcard", "card", str(tmp_path)])
    assert done.exit_code == 2 and "interp postcard train" in done.output + done.stderr
