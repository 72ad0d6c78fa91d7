"""`interp lens` and `interp patch` print what the functions find."""

import json
from pathlib import Path

import pytest

from hooks import load
from hooks.site import resid_pre
from interp.circuits import each_position, logit_difference, noising, patch_sweep
from interp.lenses import LogitLens, TunedLens, rank, read
from tests.interp.commands.runner import call


def test_the_lens_command_prints_each_layers_divergence_and_the_rank_of_a_word(folder: str, tmp_path: Path) -> None:
    model = load(folder)
    reading, ranks = read(LogitLens(model), "fog"), rank(LogitLens(model), "fog", "g").ranks
    said = call("lens", folder, "fog", "--word", "g", "--out", str(tmp_path / "page.html")).splitlines()
    for layer in range(3):
        number, kl, entropy, place, *_ = said[1 + layer].split()
        assert (int(number), int(place)) == (layer, int(ranks[layer, 0, -1]))
        assert float(kl) == pytest.approx(float(reading.kl[layer, 0, -1]), abs=2e-3)
        assert float(entropy) == pytest.approx(float(reading.entropy[layer, 0, -1]), abs=2e-3)
    assert 20_000 < (tmp_path / "page.html").stat().st_size < 500_000 and list(tmp_path.glob("plotly-*.js"))
    plain = call("lens", folder, "fog").splitlines()
    assert plain[0].split() == ["layer", "KL,", "nats", "entropy", "likeliest"] and len(plain) == 4
    TunedLens.identity(model).save(tmp_path / "lens")
    assert call("lens", folder, "fog", "--tuned", str(tmp_path / "lens")).splitlines()[1].split()[0] == "0"
    refused = call("lens", folder, "fog", "--tuned", "a", "--jacobian", "b", code=2)
    assert "two lenses were given" in refused


def test_the_patch_command_prints_the_largest_shares(folder: str) -> None:
    model = load(folder)
    found = patch_sweep(
        model, noising("fog over", "fig ever"), logit_difference(model, "a", "c"), over=each_position(resid_pre)
    )
    said = call("patch", folder, "fog over", "fig ever", "a", "c", "--noising", "--top", "2").splitlines()
    said = said[said[0].startswith("note: ") :]
    share, control, site, _, position, token = said[2].split()
    layer = int(site.rstrip(",").split(".")[1])
    assert token.strip("'") == "fog over"[int(position) - 1]  # a byte each, after BOS
    assert float(share) == pytest.approx(float(found.effect[layer, int(position)]), abs=2e-3)
    assert abs(float(share)) == pytest.approx(float(found.effect.abs().max()), abs=2e-3)
    assert len(said) == 5 and said[0].startswith("noising: logit difference")
    assert said[-1].startswith("control: the same patches from a text of random tokens") and "no interval" in said[-1]
    assert abs(float(control)) <= float(said[-1].split("at most ")[1].split(". ")[0]) + 1e-3
    assert "did you mean 'head'" in call("patch", folder, "a", "b", "c", "d", "--by", "haed", code=2)


def test_shares_of_a_behaviour_that_the_clean_text_does_not_show_come_with_a_note(folder: str) -> None:
    model, said = load(folder), []
    for clean, corrupt in (("fog over", "fig ever"), ("fig ever", "fog over")):
        for right, wrong in (("a", "c"), ("c", "a")):
            metric = logit_difference(model, right, wrong)
            found = patch_sweep(model, noising(clean, corrupt), metric, over=each_position(resid_pre))
            noted = float(found.base) <= max(float(found.donor), 0.0)
            for verb in (("patch",), ("patch", "--noising")):
                printed = call(verb[0], folder, clean, corrupt, right, wrong, *verb[1:])
                assert printed.startswith("note: RIGHT is not preferred to WRONG after the clean text") == noted
            said.append(noted)
    assert set(said) == {True, False}
    assert ("take texts that show the behaviour" in call("circuit", folder, clean, corrupt, right, wrong)) == noted


@pytest.mark.parametrize("verb", ["patch", "circuit"])
def test_the_note_that_shares_say_little_is_in_the_document_and_leads_the_page(
    verb: str, folder: str, tmp_path: Path
) -> None:
    texts, out, warned = ("fog over", "fig ever"), tmp_path / "page.html", []
    for answers in (("a", "c"), ("c", "a")):
        found = json.loads(call(verb, folder, *texts, *answers, "--out", str(out), "--json", "--quiet"))
        page = out.read_text("utf-8")
        warned.append(found["warning"] is not None)
        assert ("RIGHT is not preferred to WRONG" in page) == warned[-1]
        if verb == "patch":
            assert "the same patches from a text of random tokens" in page.lower()
            assert found["largest_control"] >= max(abs(place["control"]) for place in found["places"])
    assert set(warned) == {True, False}


def test_an_answer_may_be_a_token_id_or_the_first_token_of_a_word_if_asked(folder: str) -> None:
    by_word = call("patch", folder, "fog over", "fig ever", "a", "c", "--top", "1")
    ids = [f"id:{int(load(folder).tokens(word).ids[0, -1])}" for word in "ac"]
    assert call("patch", folder, "fog over", "fig ever", *ids, "--top", "1") == by_word
    assert call("patch", folder, "fog over", "fig ever", "abc", "cab", "--top", "1", "--first-token") == by_word
    assert "take its first by --first-token" in call("patch", folder, "fog over", "fig ever", "abc", "c", code=2)
    said = "--word is 'gull', which is 4 tokens"
    assert said in (refusal := call("lens", folder, "fog", "--word", "gull", code=2)) and "--first-token" in refusal
    ranked = call("lens", folder, "fog", "--word", "g")
    assert call("lens", folder, "fog", "--word", "gull", "--first-token") == ranked
