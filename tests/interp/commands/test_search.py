"""`interp search` and `interp steer`: from texts to a latent to what it does, resumed, and polite about mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from hooks import Direction, load
from hooks.json_file import read_json, write_json
from hooks.site import resid_post
from interp.commands.app import app
from interp.features import index
from interp.features.index.catalogue import KIND
from interp.sae import TopK, save
from interp.sae import load as load_sae
from interp.steering import Recipe
from tests.interp.commands.runner import check_document

TEXTS = {
    "fog": ["fog over the bay", "the fog is cold", "grey fog", "fog and sea"],
    "sun": ["a sunny day", "sun and sea", "the red sun", "it is hot"],
}


@pytest.fixture(scope="module")
def made(hf_model: Callable[..., Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny random GPT-2 that reads bytes, a dictionary of its second block with an index, and texts, on disk."""
    root = tmp_path_factory.mktemp("search")
    hf_model("gpt2").save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    model = load(str(root / "model"))
    sae = TopK(model.d_model, 16, k=4)
    sae.site, sae.model_name, sae.fingerprint = resid_post[1], model.name, model.fingerprint
    sae.max_activation.fill_(2.0)
    save(sae, root / "sae")
    index(sae, model, [*TEXTS["fog"], *TEXTS["sun"]], root / "index")
    Direction(torch.ones(model.d_model), resid_post[1], "by hand", 1.0, model.fingerprint).save(root / "d.safetensors")
    for name, lines in TEXTS.items():
        (root / name).write_text("\n".join(lines), encoding="utf-8")
    (root / "all").write_text("\n".join([*TEXTS["fog"], *TEXTS["sun"]]), encoding="utf-8")
    names = ("model", "sae", "index", "fog", "sun", "all")
    return {name: str(root / name) for name in names} | {"direction": str(root / "d.safetensors")}


def call(*words: str, typed: str | None = None) -> str:
    result = CliRunner().invoke(app, list(words), input=typed)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*words: str) -> str:
    result: Result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 2, result.output
    said = result.stderr.strip()
    assert said.startswith("error: ") and "\n" not in said and "Traceback" not in said
    return said


def test_a_search_says_what_it_does_and_ends_with_a_page_and_a_direction(made: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "found"
    words = ["search", made["model"], made["sae"], made["fog"], made["sun"], "--name", "fog", "--out", str(out)]
    said = call(*words, "--index", made["index"], "--quiet")
    assert "searching 16 latents at resid_post.1 for 'fog', by 8 texts, 4 of which express it" in said
    assert "this takes less than 10 seconds" in said or "this takes about" in said
    assert "difference of means" in said and "logistic" in said and "p = " in said
    assert said.replace("\n", "").endswith(f"page: {out / 'concept.html'}")
    assert "What these latents fire on" in (out / "concept.html").read_text("utf-8")
    assert Direction.load(out / "direction.safetensors").site == resid_post[1]


def test_a_search_is_not_done_twice_and_another_does_not_overwrite_it(made: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "found"
    words = ["search", made["model"], made["sae"], made["fog"], made["sun"], "--out", str(out), "--quiet"]
    first = call(*words)
    before = (out / "concept.html").stat().st_mtime_ns
    again = call(*words)
    assert "is in" in again and "already" in again and (out / "concept.html").stat().st_mtime_ns == before
    assert again.splitlines()[-3:] == first.splitlines()[-3:]
    assert "holds another search" in refused(*words, "--seed", "1")


def test_a_search_of_other_texts_of_as_many_is_another_search(made: dict[str, str], tmp_path: Path) -> None:
    first = [*made_words(made), "--out", str(tmp_path / "found"), "--quiet"]
    call(*first)
    for changed in ("fog", "sun"):
        other = tmp_path / changed
        other.write_text("\n".join([*TEXTS[changed][:-1], "sea and ice"]), encoding="utf-8")
        words = [str(other) if word == made[changed] else word for word in first]
        assert "holds another search" in refused(*words)


def made_words(made: dict[str, str]) -> list[str]:
    return ["search", made["model"], made["sae"], made["fog"], made["sun"]]


def test_a_search_also_turns_latents_up_and_measures_them_on_other_prompts(
    made: dict[str, str], tmp_path: Path
) -> None:
    words = [
        "search",
        made["model"],
        made["sae"],
        made["fog"],
        made["sun"],
        "--out",
        str(tmp_path / "found"),
        "--quiet",
    ]
    (tmp_path / "openings").write_text("a\nthe\nthe\nno\nfog\nI\nwe\nup\nso", encoding="utf-8")
    said = call(*words, "--say", "a", "--say", "e", "--prompts", str(tmp_path / "openings"))
    turned, others, random = [line for line in said.splitlines() if "names it" in line]
    assert turned.startswith("turned up, on the 4 prompts it was chosen on: sae latent")
    assert others.startswith("on the 4 others: sae latent")
    assert random.startswith("on the 4 others: random direction of equal norm")
    effect = tmp_path / "found" / "effect.safetensors"
    assert effect.exists() != ("does not differ from a random direction" in said)
    assert not effect.exists() or Direction.load(effect).site == resid_post[1]
    assert "holds another search" in refused(*words)
    assert "both --say WORDS and --prompts FILE" in refused(*words, "--say", "a")
    (tmp_path / "openings").write_text("I saw\nthe bay\na red\nfog and", encoding="utf-8")
    assert "holds 4 prompts: give at least 8" in refused(*words, "--say", "a", "--prompts", str(tmp_path / "openings"))


def test_a_phrase_is_searched_for_by_the_tokens_that_name_it(made: dict[str, str], tmp_path: Path) -> None:
    words = ["search", made["model"], made["sae"], "--phrase", "fog", "--in", made["all"], "--quiet"]
    said = call(*words, "--out", str(tmp_path / "found"))
    assert "for 'fog', by the tokens of 8 texts, 4 of which express it" in said


def test_a_search_without_a_concept_or_with_another_index_is_refused(made: dict[str, str], tmp_path: Path) -> None:
    start = ["search", made["model"], made["sae"]]
    for rest in ([], [made["fog"]], [made["fog"], made["sun"], "--phrase", "fog"], ["--phrase", "fog"]):
        assert "either two files, POSITIVE and NEGATIVE, or --phrase" in refused(*start, *rest)
    assert "0 of 8 texts hold 'rain'" in refused(*start, "--phrase", "rain", "--in", made["all"])
    assert "holds no finished feature index" in refused(*start, made["fog"], made["sun"], "--index", made["model"])
    assert "is in POSITIVE and in NEGATIVE" in refused(*start, made["fog"], made["all"])


def test_an_index_of_another_autoencoder_or_model_gives_no_page(made: dict[str, str], tmp_path: Path) -> None:
    words = ["search", made["model"], "--quiet", "--out", str(tmp_path / "found")]
    other = load_sae(made["sae"])
    with torch.no_grad():
        other.b_enc[0] += 1
    save(other, tmp_path / "other")
    texts = [made["fog"], made["sun"], "--index", made["index"]]
    assert "is an index of another autoencoder than" in refused(*words, str(tmp_path / "other"), *texts)
    about = Path(made["index"]) / "index.json"
    message = about.read_text("utf-8")
    write_json(about, KIND, read_json(about, KIND) | {"fingerprint": "0"})
    assert "is an index of" in refused(*words, made["sae"], *texts)
    about.write_text(message, encoding="utf-8")


def test_a_search_in_an_autoencoder_that_encodes_otherwise_is_another(made: dict[str, str], tmp_path: Path) -> None:
    texts = [made["fog"], made["sun"], "--out", str(tmp_path / "found"), "--quiet"]
    call("search", made["model"], made["sae"], *texts)
    other = load_sae(made["sae"])
    with torch.no_grad():
        other.W_enc[0] += 1
    save(other, tmp_path / "other")
    assert "holds another search" in refused("search", made["model"], str(tmp_path / "other"), *texts)


def test_a_clamp_of_another_scale_or_encoder_is_another_exchange(made: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "said.jsonl"
    words = ["--latent", "3", "--dose", "20", "--tokens", "2", "--out", str(out)]
    call("steer", made["model"], "fog", "--sae", made["sae"], *words)
    other = load_sae(made["sae"])
    other.max_activation[3] *= 2
    save(other, tmp_path / "louder")
    with torch.no_grad():
        other.W_enc[:, 3] += 1
    save(other, tmp_path / "wider")
    for number, name in enumerate(("louder", "wider"), 2):
        call("steer", made["model"], "fog", "--sae", str(tmp_path / name), *words)
        assert len(out.read_text("utf-8").splitlines()) == number


def test_without_a_dose_ablating_takes_the_whole_projection_once(made: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "said.jsonl"
    start = ["steer", made["model"], "--sae", made["sae"], "--latent", "3", "--tokens", "2", "--out", str(out)]
    call(*start, "--way", "ablate", typed="fog\n:way add\nfog\n:way ablate\n:dose 2\nfog\n:way set\nfog\n")
    doses = [json.loads(line)["dose"] for line in out.read_text("utf-8").splitlines()]
    assert doses == [1.0, 4.0, 2.0, 2.0]


def test_steering_shows_both_continuations_what_was_changed_and_its_transcript(
    made: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "said.jsonl"
    words = ["steer", made["model"], "fog", "--sae", made["sae"], "--latent", "3", "--dose", "20", "--tokens", "5"]
    said = call(*words, "--out", str(out))
    assert "unsteered: fog" in said and "dose 20: fog" in said and "resid_post.1" in said
    assert said.replace("\n", "").endswith(f"transcript: {out}")
    (kept,) = map(json.loads, out.read_text("utf-8").splitlines())
    assert kept["dose"] == 20 and kept["steering"] == "clamp of SAE latent 3" and kept["steered"] != kept["unsteered"]
    assert f"control, random direction of equal norm, seed 0, dose 20: fog{kept['control']}" in said
    assert kept["control"] != kept["steered"]
    document = json.loads(CliRunner().invoke(app, [*words, "--out", str(out), "--json", "--quiet"]).stdout)
    check_document(("steer",), document)
    assert document["model"] == load(made["model"]).name and document["fingerprint"] == kept["model"]
    assert document["control"] == kept["control"]
    again = call(*words, "--out", str(out))
    assert "already" in again and len(out.read_text("utf-8").splitlines()) == 1
    call(*words, "--way", "ablate", "--out", str(out))
    assert len(out.read_text("utf-8").splitlines()) == 2


def test_a_conversation_takes_prompts_and_orders_and_survives_mistakes(made: dict[str, str], tmp_path: Path) -> None:
    out, recipe = tmp_path / "said.jsonl", tmp_path / "r.safetensors"
    typed = [
        "fog",
        ":dose 2.5",
        "fog",
        ":dose much",
        ":latent 99",
        ":dsoe 1",
        ":save x.safetensors",
        ":way add",
        f":save {recipe}",
        ":latent 5",
        "sun",
        ":quit",
        "never read",
    ]
    words = ["steer", made["model"], "--sae", made["sae"], "--latent", "3", "--tokens", "3", "--out", str(out)]
    said = call(*words, typed="\n".join(typed) + "\n")
    kept = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [(one["prompt"], one["dose"]) for one in kept] == [("fog", 4.0), ("fog", 2.5), ("sun", 2.5)]
    assert "latent 3" in kept[0]["steering"] and "5" in kept[2]["steering"]
    assert "needs a finite number" in said and "clamping needs the autoencoder" in said
    assert "atent 99" in said and "did you mean ':dose'" in said
    loaded = Recipe.load(recipe)
    assert (loaded.way, loaded.dose) == ("add", 2.5)
    assert said.replace("\n", "").endswith(f"transcript: {out}")


def test_a_conversation_ends_with_its_input(made: dict[str, str], tmp_path: Path) -> None:
    words = ["steer", made["model"], "--direction", made["direction"], "--tokens", "3"]
    said = call(*words, "--out", str(tmp_path / "s.jsonl"), typed="")
    assert "by hand at resid_post.1, dose 4" in said and ":dose NUMBER" in said and "transcript" not in said


def test_steering_needs_one_thing_to_steer_with_and_a_way_that_fits(made: dict[str, str], tmp_path: Path) -> None:
    start = ["steer", made["model"], "fog", "--out", str(tmp_path / "s.jsonl")]
    for rest in ([], ["--sae", made["sae"]], ["--sae", made["sae"], "--latent", "1", "--direction", made["direction"]]):
        assert "either --direction FILE, or --sae FOLDER" in refused(*start, *rest)
    assert "did you mean" in refused(*start, "--direction", made["direction"], "--way", "clmap")
    assert "99" in refused(*start, "--sae", made["sae"], "--latent", "99")
    assert not (tmp_path / "s.jsonl").exists()


@pytest.mark.filterwarnings("default")
def test_a_phrase_is_found_in_texts_longer_than_the_context_and_a_labelled_one_is_read_in_rows(
    made: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "long"
    long = " ".join(["fog and sea", *(f"red sun {i}" for i in range(60))])
    file.write_text("\n".join([*TEXTS["fog"], long]), encoding="utf-8")
    start = ["search", made["model"], made["sae"]]
    said = call(*start, "--phrase", "fog", "--in", str(file), "--quiet", "--out", str(tmp_path / "found"))
    pieces = int(said.split("by the tokens of ")[1].split()[0])
    assert pieces > 6 and f"{pieces} texts, 5 of which express it" in said
    said = call(*start, str(file), made["sun"], "--quiet", "--out", str(tmp_path / "other"))
    assert f"{len(TEXTS['fog']) + 1 + len(TEXTS['sun'])} texts, {len(TEXTS['fog']) + 1} of which express it" in said
