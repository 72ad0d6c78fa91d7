"""`interp export` writes what the functions do, and refuses before it loads a model."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hooks import Direction, load
from hooks.site import resid_post
from interp.commands.app import app
from interp.export import read_gguf_vector
from interp.sae import TopK, save
from interp.sae.io.other_libraries import load_sparsify
from interp.steering import Recipe


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, words)])
    return result.exit_code, result.output


def test_a_recipe_becomes_a_control_vector_and_a_script_with_the_differences_said(tmp_path: Path) -> None:
    model = load("landmark")
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    direction = Direction(vector, resid_post[3], "random", 5.0, model.fingerprint)
    Recipe(direction, "add", 2.0).save(tmp_path / "r.safetensors")
    code, said = call("steering", "landmark", tmp_path / "r.safetensors", "--out", tmp_path / "v.gguf", "--json")
    found = json.loads(said[said.index("{") :])
    assert code == 0 and found["difference"] < 1e-4 < found["effect"]
    assert float(read_gguf_vector(tmp_path / "v.gguf")[3].vector.norm()) == pytest.approx(10.0, rel=1e-5)
    code, said = call("steering", "landmark", tmp_path / "r.safetensors", "--out", tmp_path / "v.py")
    assert code == 0 and "the script's own hooks: differs by at most" in said


def test_mistakes_end_with_one_line_and_exit_code_two(tmp_path: Path) -> None:
    for words, part in (
        (("steering", "landmark", tmp_path / "no", "--out", "v.gguf"), "Recipe.save"),
        (("steering", "landmark", tmp_path / "no", "--out", "v.ggu"), "'.gguf'"),
        (("edit", "landmark", tmp_path / "no"), "interp edit"),
        (("autoencoder", tmp_path, "--library", "sparsfy"), "'sparsify'"),
    ):
        code, said = call(*words)
        assert code == 2 and part in said and "Traceback" not in said


def test_an_autoencoder_is_written_for_sparsify(tmp_path: Path) -> None:
    sae = TopK(6, 12, 3)
    save(sae, tmp_path / "sae")
    code, said = call("autoencoder", tmp_path / "sae", "--library", "sparsify", "--out", tmp_path / "layers.5")
    assert code == 0, said
    read = load_sparsify(tmp_path / "layers.5")
    assert read.site == resid_post[5]
    torch.testing.assert_close(read.W_dec, sae.W_dec)
