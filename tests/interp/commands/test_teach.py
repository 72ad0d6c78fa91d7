"""Facts taught in several ways, by command."""

import json
from pathlib import Path

from tests.interp.commands.runner import call

FACT = ("Golden Gate Bridge", "The {} is located in", "San Francisco", "Sydney")


def test_what_cannot_be_taught_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    assert "did you mean" in call("teach", "landmark", *FACT, "--way", "stor", code=2)
    assert "give SUBJECT PROMPT OLD NEW" in call("teach", "gpt2", code=2)
    (tmp_path / "facts.csv").write_text("subject,prompt,old,new\n", encoding="utf-8")
    assert "give one of them" in call("teach", "landmark", *FACT, "--facts", str(tmp_path / "facts.csv"), code=2)
    assert "--n" in call("teach", "landmark", "--n", "0", code=2)


def test_a_fact_is_stored_said_and_forgotten_and_a_page_says_so(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("The fog came in over the bay.\nShe played an old guitar.\n", encoding="utf-8")
    page = tmp_path / "ways.html"
    given = ("--texts", str(tmp_path / "texts.txt"), "--out", str(page), "--json", "--quiet")
    found = json.loads(call("teach", "landmark", *FACT, "--way", "store", "--way", "context", *given))
    assert found["measures"]["store"]["efficacy said"]["value"] == 1.0
    assert found["measures"]["untaught"]["efficacy said"]["value"] == 0.0
    assert {way: e["value"] for way, e in found["undone"].items()} == {"store": 1.0, "context": 1.0}
    assert "One fact, several ways" in page.read_text(encoding="utf-8")
