"""`interp graph` prints, writes and draws what the functions find, from a folder of either kind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Model, load
from hooks.errors import MissingFile
from hooks.site import mlp_in, mlp_out
from interp.graphs import attribution_graph, cross_layer, per_layer, read_transcoders
from interp.sae import CrossLayerTranscoder, Transcoder, save, save_cross_layer
from tests.interp.commands.test_circuit import call


@pytest.fixture(scope="module")
def folder(hf_model: Callable[..., Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    hf_model("gpt2", activation_function="relu").save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def clt(model: Model) -> CrossLayerTranscoder:
    made = CrossLayerTranscoder(model.d_model, 16 * model.n_layers, model.n_layers)
    made.sites = tuple(site[i] for site in (mlp_in, mlp_out) for i in range(model.n_layers))
    with torch.no_grad():
        made.W_enc.mul_(3.0)
    return made


def test_the_graph_command_prints_what_the_functions_find_and_writes_page_and_viewer(
    folder: str, tmp_path: Path
) -> None:
    model = load(folder)
    save(clt(model), tmp_path / "clt")
    graph = attribution_graph(model, read_transcoders(model, tmp_path / "clt"), "fog over")
    lines = tmp_path / "texts.txt"
    lines.write_text("fog over the bay\na hat\n")
    given = ["graph", folder, "fog over", "--transcoders", str(tmp_path / "clt"), "--quiet"]
    said = call(*given, "--texts", str(lines), "--out", str(tmp_path / "p.html"), "--top", "3")
    assert str(graph).splitlines()[1] in said and "decoders shuffled" in said and "skips layers" in said
    assert [line.split()[1] for line in said.splitlines()[5:8]] == [name for name, _ in graph.top(3)]
    assert "fires on" in said and (tmp_path / "p.html").stat().st_size > 20_000
    data = json.loads(call(*given, "--json", "--target", "a", "--viewer", str(tmp_path / "v" / "fog.json")))
    assert [one["token"] for one in data["logits"]] == ["a"] and 0 <= data["control"]["completeness"] <= 1
    assert json.loads((tmp_path / "v" / "fog.json").read_text())["metadata"]["slug"] == "fog"
    neurons = json.loads(call("graph", folder, "fog over", "--transcoders", "neurons", "--json", "--quiet"))
    assert neurons["completeness"] > 0.999 and neurons["warning"] is None
    assert "no transcoders at" in call("graph", folder, "fog", "--transcoders", str(tmp_path / "none"), code=2)


def test_a_folder_is_read_as_what_it_holds(folder: str, tmp_path: Path) -> None:
    model = load(folder)
    one = clt(model)
    ours, theirs = save(one, tmp_path / "ours"), save_cross_layer(one, tmp_path / "theirs")
    expected = cross_layer(model, one)
    for path in (ours, theirs):
        found = read_transcoders(model, path)
        assert found.crosses and torch.allclose(found.layers[0].W_dec[1], expected.layers[0].W_dec[1])
    layers = [Transcoder(model.d_model, 8, seed=layer) for layer in range(2)]
    for layer, each in enumerate(layers):
        each.sites = (mlp_in[layer], mlp_out[layer])
        save(each, tmp_path / "layers" / f"layer_{layer}")
    several = read_transcoders(model, tmp_path / "layers")
    assert list(several.layers) == [0, 1] and not several.crosses
    assert torch.equal(several.layers[1].W_enc, per_layer(model, layers).layers[1].W_enc)
    assert list(read_transcoders(model, tmp_path / "layers" / "layer_1").layers) == [1]
    with pytest.raises(MissingFile, match="no transcoders at"):
        read_transcoders(model, tmp_path / "nothing")
