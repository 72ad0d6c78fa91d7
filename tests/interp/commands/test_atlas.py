"""`interp atlas`: a page of the bundled net's atlas with a walk, and what is refused before any work."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from interp.atlas import Atlas
from tests.interp.commands.runner import call


@pytest.mark.skipif(find_spec("umap") is None, reason="umap-learn is not installed")
def test_an_atlas_of_the_bundled_net_is_a_page_with_a_walk_and_is_kept(tmp_path: Path) -> None:
    page, kept = tmp_path / "atlas.html", tmp_path / "atlas.safetensors"
    sizes = ["--n", "300", "--side", "6", "--neighbours", "12", "--steps", "2", "--quiet", "--save", str(kept)]
    said = call("atlas", "convnet", "--out", str(page), *sizes, "--from", "Golden Gate Bridge", "--to", "Big Ben")
    assert "trustworthiness" in said and "95th percentile" in said and str(page) in said
    assert "From Golden Gate Bridge to Big Ben" in page.read_text("utf-8")
    assert len(Atlas.load(kept).sample) == 300


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["convnet", "--n", "3"], "'--n'"),
        (["convnet", "--from", "Big Ben"], "--to"),
        (["nobody"], "--texts"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path, words: list[str], why: str) -> None:
    said = call("atlas", *words, "--out", str(tmp_path / "atlas.html"), "--quiet", code=2)
    assert why in said and "Traceback" not in said
