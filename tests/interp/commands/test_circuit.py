"""`interp circuit` prints what the functions find."""

import json
from pathlib import Path

import pytest

from hooks import Site, load
from interp.circuits import logit_difference
from interp.circuits.edges import Task, eap_ig, edge_attribution, faithfulness_curve
from interp.graphs.feature_circuits import feature_circuit
from interp.sae import TopK, save
from tests.interp.commands.runner import call


def test_the_circuit_command_prints_the_edges_their_check_and_their_faithfulness(folder: str, tmp_path: Path) -> None:
    model = load(folder)
    task = Task("fog over", "fig ever", logit_difference(model, "a", "c"))
    found = edge_attribution(model, task, eap_ig(3))
    page = tmp_path / "page.html"
    said = call("circuit", folder, "fog over", "fig ever", "a", "c", "--steps", "3", "--top", "2", "--out", str(page))
    lines = said.splitlines()
    lines = lines[lines[0].startswith("note: ") :]
    for line, (name, effect) in zip(lines[1:3], found.top(2, "contribution"), strict=True):
        assert line.split()[1] == name
        assert float(line.split()[0]) == pytest.approx(effect, abs=2e-3)
    assert f"correlation with the estimates {found.check.correlation:.3f}" in said
    assert f"CPR {faithfulness_curve(model, task, found.scores('contribution')).cpr:.3f}" in said
    assert lines[-3].startswith("random: CPR") and "lower is better" in lines[-2]
    text = page.read_text("utf-8")
    assert "higher is better" in text and "One pair of texts has no interval" in text
    assert 20_000 < page.stat().st_size < 500_000 and list(page.parent.glob("plotly-*.js"))
    data = json.loads(call("circuit", folder, "fog over", "fig ever", "a", "c", "--method", "eap", "--json", "--quiet"))
    assert data["method"] == "EAP"
    assert len(data["edges"]) == 10 and len(data["curves"]) == 2


def test_with_features_the_circuit_is_of_dictionaries(folder: str, tmp_path: Path) -> None:
    model = load(folder)
    saes = []
    for seed, site in enumerate(("resid_post.0", "resid_post.1")):
        saes.append(TopK(model.d_model, 24, k=6, seed=seed))
        saes[-1].site = Site.parse(site)
        save(saes[-1], tmp_path / "saes" / site)
    task = Task("fog over", "fig ever", logit_difference(model, "a", "c"))
    expected = feature_circuit(model, saes, task, node_threshold=0.001, steps=3)
    words = ("circuit", folder, "fog over", "fig ever", "a", "c", "--steps", "3", "--features", str(tmp_path / "saes"))
    page = tmp_path / "page.html"
    said = call(*words, "--node-threshold", "0.001", "--out", str(page))
    assert said.splitlines()[-1].startswith("page:") and "nodes of a feature circuit" in page.read_text("utf-8")
    assert f"{expected.n_nodes} nodes, {expected.n_errors} of them errors" in said
    assert "errors removed" in said and "random nodes" in said and "nan" not in said and "no interval: n = 1" in said
    data = json.loads(call(*words, "--node-threshold", "0.001", "--json", "--quiet"))
    assert {node["node"] for node in data["nodes"]} == set(expected.names)
    assert data["edges"][0]["weight"] == pytest.approx(expected.edges.above(0.01)[0][2], rel=1e-4)
    assert set(data["faithfulness"]["circuit"]) == {"circuit", "keep", "remove"}
    for more, text in (
        ("--method gim", "is of edges"),
        ("--out a.txt", "html"),
        ("--edge-threshold -1", "--edge-threshold"),
    ):
        assert text in call(*words, *more.split(), code=2)
    assert "holds no autoencoder" in call(*words[:-1], str(tmp_path / "saes" / "resid_post.0" / "none"), code=2)


@pytest.mark.parametrize("command", ["circuit", "patch"])
def test_an_answer_of_several_tokens_is_refused_before_the_weights_are_read(
    command: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("interp.commands.arguments.load_model", loaded)
    said = " ".join(call(command, folder, "fog over", "fig ever", "a", "abc", code=2).split())
    assert "WRONG is 'abc', which is 3 tokens" in said and "such as 'a', or take its first by --first-token" in said
    assert "RIGHT is '', and '' has no tokens" in call(command, folder, "fog over", "fig ever", "", "a", code=2)
