"""A mixture's experts by command."""

import json
from pathlib import Path

from tests.interp.commands.runner import call


def test_every_layer_says_its_load_and_what_its_experts_say_of_labels(tmp_path: Path) -> None:
    lines = [f"{'ab'[i % 2]}\tThe Golden Gate Bridge is red. Peru pays with the sol {i}." for i in range(6)]
    (tmp_path / "texts.tsv").write_text("\n".join(lines), encoding="utf-8")
    page = tmp_path / "experts.html"
    given = ("--texts", str(tmp_path / "texts.tsv"), "--permutations", "5", "--out", str(page))
    found = json.loads(call("experts", *given, "--json"))
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure>") == 3 and text.count('class="control"') == 3 and found["page"] == str(page)
    assert [one["layer"] for one in found["layers"]] == [0, 1, 2, 3] and found["texts"] == 6
    (tmp_path / "texts.tsv").write_text("no tab here", encoding="utf-8")
    assert "a tab and a text" in call("experts", "--texts", str(tmp_path / "texts.tsv"), code=2)
