"""`interp discover` and `interp feature`: what they make, that they go on, and what they say to mistakes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hooks import load
from interp.commands.app import app
from interp.features import FeatureIndex
from interp.sae import load as load_sae


@pytest.fixture(scope="module")
def made(hf_model: Callable[..., Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("discover")
    hf_model("gpt2").save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    lines = [f"{a} {b}" for a in ("fog over", "a red", "the sea", "grey") for b in ("the bay", "bridge", "is cold")]
    (root / "texts").write_text("\n".join(lines), encoding="utf-8")
    paths = {name: str(root / name) for name in ("model", "texts", "out")}
    ran = call("discover", paths["model"], "resid_post.1", paths["texts"], "--out", paths["out"], *SMALL)
    assert ran.exit_code == 0, (ran.output, ran.exception)
    return paths | {"said": ran.output}


SMALL = ["--latents", "30", "--k", "4", "--tokens", "2000", "--quiet"]


def call(*words: str):
    return CliRunner().invoke(app, list(words))


def refused(*words: str) -> str:
    ran = call(*words)
    assert ran.exit_code == 2
    said = ran.stderr.strip()
    assert said.startswith("error: ") and "\n" not in said
    return said


def test_discovery_says_what_it_does_and_ends_with_the_page(made: dict[str, str]) -> None:
    said = made["said"]
    assert "reading 12 texts at resid_post.1" in said and "explained variance" in said
    assert "to do: train 30 latents on 2,000 tokens, index them, write pages; " in said and " in all" in said
    page = Path(made["out"]) / "latents.html"
    assert said.replace("\n", "").endswith(f"page: {page}") and page.stat().st_size > 5000
    assert len(FeatureIndex.open(Path(made["out"]) / "index")) == 30


def test_called_again_it_repeats_nothing(made: dict[str, str]) -> None:
    file = Path(made["out"]) / "index" / "latents.parquet"
    before = file.stat().st_mtime_ns
    ran = call("discover", made["model"], "resid_post.1", made["texts"], "--out", made["out"], *SMALL)
    assert ran.exit_code == 0 and "is there already" in ran.output and "explained variance" not in ran.output
    assert "to do: index them, write pages; " in ran.output
    assert file.stat().st_mtime_ns == before


def test_another_setting_in_the_same_folder_is_refused_with_what_differs(made: dict[str, str], tmp_path: Path) -> None:
    words = ["discover", made["model"], "resid_post.1", made["texts"], "--out", made["out"], *SMALL]
    cure = ": give what it was made with, or another --out"
    for name, was, asked in (
        ("latents", "30", "16"),
        ("k", "4", "8"),
        ("tokens", "2000", "3000"),
        ("seed", "0", "7"),
        ("lr", "None", "0.01"),
    ):
        said = refused(*words, f"--{name}", asked)
        assert f"sae was made with {name} {was}, and asked for is {name} {asked}{cure}" in said
    assert "with site resid_post.1, and asked for is site resid_post.0:" in refused(
        *["resid_post.0" if word == "resid_post.1" else word for word in words]
    )
    (tmp_path / "texts").write_text(Path(made["texts"]).read_text("utf-8").replace("grey", "dark"), encoding="utf-8")
    other = [str(tmp_path / "texts") if word == made["texts"] else word for word in words]
    assert "sae was made with texts " in refused(*other)


def test_an_autoencoder_of_which_nothing_says_what_made_it_is_refused(made: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(Path(made["out"]) / "sae", tmp_path / "sae")
    words = ["discover", made["model"], "resid_post.1", made["texts"], "--out", str(tmp_path), *SMALL]
    assert f"nothing says what {tmp_path / 'sae'} was made with: give another --out" in refused(*words)


def test_a_latent_is_shown_as_the_index_has_it(made: dict[str, str], tmp_path: Path) -> None:
    folder = str(Path(made["out"]) / "index")
    rows = FeatureIndex.open(folder).table("latents").to_pylist()
    alive = max(rows, key=lambda row: row["fired"])["latent"]
    ran = call("feature", folder, str(alive), "--out", str(tmp_path / "one.html"))
    assert ran.exit_code == 0
    assert f"latent {alive} of 30 at resid_post.1 of " in ran.output and "fires on" in ran.output
    assert ran.output.replace("\n", "").endswith(f"page: {tmp_path / 'one.html'}")
    assert call("feature", made["out"], str(alive), "--out", str(tmp_path / "one.html")).output == ran.output
    compared = call("feature", folder, str(alive))
    assert compared.output.replace("\n", "").endswith(f"page: {Path(made['out']) / f'latent-{alive}.html'}")


def test_a_latent_or_folder_that_is_not_there_is_named(made: dict[str, str]) -> None:
    folder = str(Path(made["out"]) / "index")
    assert "latent 30 does not exist; this index has latents 0 to 29" in refused("feature", folder, "30")
    assert "holds no finished feature index" in refused("feature", made["model"], "0")
    assert "there is no file 'nowhere'" in refused("discover", made["model"], "resid_post.1", "nowhere")


@pytest.mark.filterwarnings("default:.*are longer than the context:UserWarning")  # a command says it in a line
def test_texts_longer_than_the_context_are_read_in_pieces_and_that_is_said_once(
    made: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "long"
    file.write_text("\n".join(["fog over the bay", " ".join(["the red bridge"] * 40)]), encoding="utf-8")
    out = tmp_path / "out"
    ran = call("discover", made["model"], "resid_post.1", str(file), "--out", str(out), *SMALL)
    assert ran.exit_code == 0, (ran.output, ran.exception)
    read = FeatureIndex.open(out / "index").about["texts"]
    assert "reading 2 texts at resid_post.1 of " in ran.output and read > 2
    (cut,) = [line for line in ran.output.splitlines() if "1 of 2 texts" in line]
    assert f"are longer than the context of 96 tokens and are read as {read - 1} rows" in cut
    assert "in pieces" not in ran.output


def test_a_site_with_heads_is_discovered_as_wide_as_all_of_them_and_a_pattern_is_refused_without_a_trace(
    made: dict[str, str], tmp_path: Path
) -> None:
    words = ["discover", made["model"], "z.1", made["texts"], "--out", str(tmp_path / "z"), *SMALL]
    assert call(*words).exit_code == 0
    assert load_sae(tmp_path / "z" / "sae").d_in == load(made["model"]).d_model
    words = ["discover", made["model"], "pattern.1", made["texts"], "--out", str(tmp_path / "no"), *SMALL]
    assert "pattern.1 has a width that depends on the text" in refused(*words) and "take z.1" in refused(*words)
    assert not (tmp_path / "no").exists()


def test_an_index_is_opened_by_its_folder_or_by_the_one_it_is_in(made: dict[str, str]) -> None:
    inner, outer = (FeatureIndex.open(folder) for folder in (Path(made["out"]) / "index", made["out"]))
    assert inner.about == outer.about and inner.folder == outer.folder
