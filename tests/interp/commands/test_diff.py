"""What tuning changed, by command: a tuned model differs from its base, and the base from itself in nothing."""

import json
from pathlib import Path

from hooks import Direction
from tests.interp.commands.runner import call

TEXTS = (
    "The fog came in over the bay.",
    "She played an old guitar for an hour.",
    "Peru pays with the sol of Peru.",
    "My uncle keeps seven goats.",
)


def test_what_cannot_be_compared_is_refused_before_a_model_is_loaded() -> None:
    assert "--first" in call("diff", "landmark", "guide:chess_100", "--first", "0", code=2)
    assert "--texts is missing" in call("diff", "gpt2", "gpt2", code=2)


def test_a_tuned_model_differs_from_its_base_and_the_base_from_itself_in_nothing(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    out = tmp_path / "difference.safetensors"
    given = ("--texts", str(tmp_path / "texts.txt"), "--direction", str(out), "--layer", "5", "--json", "--quiet")
    page = tmp_path / "diff.html"
    found = json.loads(call("diff", "landmark", "guide:chess_100", "--placebo", "landmark", "--out", str(page), *given))
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure>") == 4 and text.count('class="control"') == 4 and found["page"] == str(page)
    assert len(found["sites"]) == 8 and found["texts"] == 4 and found["divergence"]["value"] > 0.05
    assert all(row["state"] > 0 for row in found["sites"])
    assert all(row["state_placebo"] == 0.0 for row in found["sites"]), "a model next to itself differs in nothing"
    assert found["placebo_divergence"]["value"] == 0.0
    assert found["sites"][-1]["held"]["value"] > 0.999 and max(w["relative"] for w in found["weights"]) > 0.01
    assert str(Direction.load(out).site) == "resid_post.5"
    out.unlink()
    assert "the nearest is 'chess_100'" in call("diff", "landmark", "guide:ches_100", *given, code=2)
