"""The command does what the functions do, explains itself, and turns mistakes into one sentence and exit code 2."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from hooks import Activations, capture, load
from hooks.site import resid_post
from interp.commands.app import app


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("texts")
    written = {"fog": ["fog over the bay", "", "the fog is cold", "grey fog"], "sun": ["a sunny day", "sun and sea"]}
    for name, lines in written.items():
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return {name: str(folder / name) for name in written}


def call(*words: str) -> Result:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 2
    said = result.stderr.strip()
    assert said.startswith("error: ") and "\n" not in said and "Traceback" not in said
    return said


def test_help_names_every_command_with_what_it_does() -> None:
    said = call("--help").output
    for command in ("demo", "sites", "capture", "train-sae", "search", "steer", "edit", "landmark"):
        assert command in said
    assert "every result comes with its control" in " ".join(said.split())


def test_sites_are_those_of_the_model(folder: str) -> None:
    listed = [line.split()[0] for line in call("sites", folder).output.splitlines()[1:]]
    assert listed == [str(site) for site in load(folder).sites]


def test_captured_activations_are_those_of_capture(folder: str, texts: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "acts.safetensors"
    call("capture", folder, texts["fog"], "--site", "resid_post.1", "--out", str(out), "--quiet")
    expected = capture(load(folder), ["fog over the bay", "the fog is cold", "grey fog"], [resid_post[1]])
    assert torch.equal(Activations.load(out)[resid_post[1]], expected[resid_post[1]])


def test_a_misspelt_site_is_answered_with_the_nearest(folder: str, texts: dict[str, str]) -> None:
    assert "resid_post" in refused("capture", folder, texts["fog"], "--site", "resid_pots.1")


def test_a_file_that_is_not_there_is_named(folder: str) -> None:
    assert "there is no file 'nowhere.txt'" in refused("capture", folder, "nowhere.txt", "--site", "resid_post.1")


def test_a_file_without_text_is_named(folder: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n", encoding="utf-8")
    assert "holds no text" in refused("capture", folder, str(tmp_path / "empty"), "--site", "resid_post.1")


def test_what_is_captured_can_be_written_to_a_folder_that_is_not_there_yet(
    folder: str, texts: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "missing" / "acts.safetensors"
    call("capture", folder, texts["fog"], "--site", "resid_post.1", "--out", str(out), "--quiet")
    assert out.exists()


PAGE = "let the name end in .html"
MISTAKES = [
    ("demo --landmark Berlin", "Berlin is a city and is in no city: give a landmark, such as '"),
    ("demo --landmark France", "France is a country and is in no city"),
    ("demo --landmark Marie+Curie", "Marie Curie is a person and is in no city"),
    ("demo --out report", PAGE),
    ("memory no/model 0 --out page", PAGE),
    ("patch no/model fog fig a b --out p.txt", PAGE),
    ("lens no/model fog --out page", PAGE),
    ("audit landmark --out page", PAGE),
    ("circuit no/model fog fig a b --out p.txt", PAGE),
    ("circuit no/model fog fig a b --method eep", "did you mean 'eap'"),
    ("circuit no/model fog fig a b --by sign", "give contribution or size"),
    ("capture no/model TEXTS --site embed --out TEXTS/a.safetensors", "it is there already: name another place"),
    ("probe no/model TEXTS --out TEXTS/a.safetensors", "it is there already: name another place"),
    ("landmark card FOLDER/missing", "no model at"),
    ("landmark train FOLDER/run --architecture lama", "choose 'gpt2' or 'llama'"),
    ("landmark train FOLDER/run --device cudaa", "cudaa"),
    ("lens FOLDER fog --jacobian GARBAGE.safetensors", "is no file of tensors ("),
    ("lens FOLDER fog --jacobian GARBAGE.pt", "is no file of tensors ("),
    ("lens FOLDER fog --tuned GARBAGE.safetensors", "is no safetensors file"),
    ("capture FOLDER GARBAGE.txt --site embed", "is not UTF-8"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_reported_in_one_line_before_any_work_and_ends_with_code_2(
    words: str, message: str, folder: str, texts: dict[str, str], tmp_path: Path
) -> None:
    for ending in ("safetensors", "pt", "txt"):
        (tmp_path / f"garbage.{ending}").write_bytes("Größe".encode("latin-1"))
    places = {"FOLDER": folder, "TEXTS": texts["fog"], "GARBAGE": str(tmp_path / "garbage")}
    for name, place in places.items():
        words = words.replace(name, place)
    assert message in refused(*(word.replace("+", " ") for word in words.split()))


def test_an_answer_without_tokens_is_refused(folder: str) -> None:
    assert "'' has no tokens: give a word that is one" in refused("patch", folder, "fog", "fig", "", "a")


def test_a_fact_without_a_place_for_its_subject_is_refused_before_anything_is_loaded() -> None:
    assert "0 places for the subject" in refused("edit", "no/model", "Fog", "is over", "the bay", "the sea")


def test_browsing_a_model_of_ones_own_needs_texts(folder: str) -> None:
    assert "give --texts FILE" in refused("memory", folder, "0")


def test_an_unknown_landmark_is_answered_with_the_nearest(tmp_path: Path) -> None:
    said = refused("demo", "--landmark", "Golden Gate Brigde", "--out", str(tmp_path / "r.html"))
    assert "Golden Gate Bridge" in said
