"""`interp discover` and `interp feature`: what they make, that they go on, and what they say to mistakes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from interp.cli import app
from interp.features import FeatureIndex


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


SMALL = ["--latents", "32", "--k", "4", "--tokens", "2000", "--quiet"]


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
    assert "reading 12 texts at resid_post.1" in said and "minutes" in said and "explained variance" in said
    page = Path(made["out"]) / "latents.html"
    assert said.replace("\n", "").endswith(f"page: {page}") and page.stat().st_size > 5000
    assert len(FeatureIndex.open(Path(made["out"]) / "index")) == 32


def test_called_again_it_repeats_nothing(made: dict[str, str]) -> None:
    file = Path(made["out"]) / "index" / "latents.parquet"
    before = file.stat().st_mtime_ns
    ran = call("discover", made["model"], "resid_post.1", made["texts"], "--out", made["out"], *SMALL)
    assert ran.exit_code == 0 and "is there already" in ran.output and "explained variance" not in ran.output
    assert file.stat().st_mtime_ns == before


def test_another_dictionary_in_the_same_folder_is_refused(made: dict[str, str]) -> None:
    words = ["discover", made["model"], "resid_post.1", made["texts"], "--out", made["out"], "--latents", "16"]
    assert "holds an autoencoder of 32 latents at resid_post.1, and 16 at resid_post.1" in refused(*words)


def test_a_latent_is_shown_as_the_index_has_it(made: dict[str, str], tmp_path: Path) -> None:
    folder = str(Path(made["out"]) / "index")
    rows = FeatureIndex.open(folder).table("latents").to_pylist()
    alive = max(rows, key=lambda row: row["fired"])["latent"]
    ran = call("feature", folder, str(alive), "--out", str(tmp_path / "one.html"))
    assert ran.exit_code == 0
    assert f"latent {alive}: on at" in ran.output and "fires on" in ran.output and "one.html" in ran.output


def test_a_latent_or_folder_that_is_not_there_is_named(made: dict[str, str]) -> None:
    folder = str(Path(made["out"]) / "index")
    assert "latent 32 does not exist; this index has latents 0 to 31" in refused("feature", folder, "32")
    assert "holds no finished feature index" in refused("feature", made["model"], "0")
    assert "there is no file 'nowhere'" in refused("discover", made["model"], "resid_post.1", "nowhere")
