"""Graphs, circuits, maps, exports and sessions as one file say on the page what Python says."""

import io
import json
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import load
from hooks.errors import DamagedFile, InvalidArgument
from interp.circuits import logit_difference
from interp.circuits.edges import Task, eap_ig, edge_attribution
from interp.features import explain_text, map_dictionary
from interp.graphs import attribution_graph, scale_features, shuffle_decoders, steer_features
from interp.lenses import LogitLens, read
from interp.memory import Edit
from interp.steering import Recipe
from interp.workbench import open as open_workbench
from interp.workbench.archive import pack_session, unpack_session
from interp.workbench.circuits import other_features
from tests.interp.workbench.conftest import Client

TEXT = "Fog over"


def test_a_graph_has_the_nodes_and_scores_that_python_gives_next_to_shuffled_decoders(served: Client) -> None:
    found = served.run("graph", text=TEXT, transcoders="all", targets=["a", "b"], max_features=40)
    given = served.page.session.transcoders["all"]
    graph, control = (
        attribution_graph(served.model, one, TEXT, targets=["a", "b"], max_features=40, progress=False)
        for one in (given, shuffle_decoders(given))
    )
    kept, edges = graph.prune(0.8, 0.98)
    assert len(found["graph"]["nodes"]) == int(kept.sum()) and len(found["graph"]["drawn"]) == int(edges.sum())
    assert found["scores"]["replacement"] == [graph.replacement, control.replacement]
    assert [word for word, _ in found["said"]] == list(graph.said)
    names = {node["name"] for node in found["graph"]["nodes"]}
    assert names == {graph.nodes.name(int(i)) for i in kept.nonzero()}


def test_nodes_that_are_steered_move_as_python_says_and_others_are_drawn_for_comparison(served: Client) -> None:
    drawn = served.run("graph", text=TEXT, transcoders="all", targets=["a", "b"])
    nodes = [node["name"] for node in drawn["graph"]["nodes"] if node["kind"] == "feature"][:3]
    found = served.run("steer_nodes", graph=drawn["name"], nodes=nodes, factor=-1.0, seed=4)
    graph = served.page.session.made.graphs[drawn["name"]]
    steered = steer_features(graph, scale_features(graph, nodes, -1.0))
    assert [one["predicted"] for one in found["logits"]] == steered.predicted.tolist()
    assert [one["measured"] for one in found["logits"]] == steered.measured.tolist()
    assert found["others"] == other_features(graph, nodes, 3, 4) and not set(found["others"]) & set(nodes)
    control = steer_features(graph, scale_features(graph, found["others"], -1.0))
    assert found["control"] == control.measured.tolist()


def test_a_circuit_has_the_edges_that_python_ranks_first_and_is_held_against_random_ones(served: Client) -> None:
    asked = {"clean": "Fog at sea", "corrupt": "Fog at bay", "right": "a", "wrong": "b"}
    found = served.run("circuit", **asked, steps=2, top=5)
    task = Task("Fog at sea", "Fog at bay", logit_difference(served.model, "a", "b"))
    expected = edge_attribution(served.model, task, eap_ig(2), progress=False)
    assert found["edges"] == [[name, effect] for name, effect in expected.top(5)]
    assert [one["name"] for one in found["curves"]] == [expected.how, "random"] and found["check"]


def test_a_map_has_a_point_for_each_latent_that_fires(served: Client) -> None:
    pytest.importorskip("umap")
    found = served.run("map", sae="main")
    latents = sorted(served.page.session.labels["main"].latents)
    assert found["latents"] == latents and len(found["labels"]) == len(found["x"]) == len(latents)
    drawn = map_dictionary(served.sae, latents, neighbours=min(15, len(latents) // 2 - 1))
    assert torch.allclose(drawn.xy, torch.tensor([found["x"], found["y"]]).T, atol=1e-3)


def test_a_steering_is_taken_away_as_a_recipe_and_as_other_tools_files(served: Client, tmp_path: Path) -> None:
    direction = {"dose": 2.5, "sae": "main", "latent": 3}
    made = served.run("export_steering", direction=direction, form="recipe")
    status, content, headers = served.ask("GET", f"/api/v1/files/{made['file']}")
    assert status == 200 and made["name"] in headers["content-disposition"] and len(content) == made["bytes"]
    (tmp_path / "recipe.safetensors").write_bytes(content)
    recipe = Recipe.load(tmp_path / "recipe.safetensors")
    assert recipe.dose == 2.5 and torch.equal(recipe.direction.vector, served.sae.direction(3).vector)
    script = served.run("export_steering", direction=direction, form="script")
    _, content, _ = served.ask("GET", f"/api/v1/files/{script['file']}")
    assert sorted(zipfile.ZipFile(io.BytesIO(content)).namelist()) == ["steer.py", "steer.safetensors"]
    assert "differs by at most" in script["said"] and "/tmp" not in script["said"]
    assert served.ask("GET", "/api/v1/files/none")[0] == 404


def test_a_shared_session_opens_elsewhere_with_its_log_and_takes_nothing_else(served: Client, tmp_path: Path) -> None:
    served.run("lens", text=TEXT)
    status, content, _ = served.ask("GET", "/api/v1/session.zip")
    assert status == 200
    shared = tmp_path / "shared.zip"
    shared.write_bytes(content)
    with zipfile.ZipFile(shared, "a") as archive:
        archive.writestr("../outside.safetensors", b"x")
        archive.writestr("run_me.py", b"x")
    again = open_workbench(served.model, session=shared)
    while again.session is None:
        time.sleep(0.01)
    assert [entry.code for entry in again.session.entries] == [e.code for e in served.page.session.entries]
    assert [file.name for file in (tmp_path / "shared").iterdir()] == ["session.json"]
    assert not (tmp_path / "outside.safetensors").exists()
    again.close()


def test_an_archive_that_is_none_or_of_something_else_is_refused_by_name(served: Client, tmp_path: Path) -> None:
    whole = pack_session(served.page.session)
    (tmp_path / "torn.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFile, match="torn.zip"):
        unpack_session(tmp_path / "torn.zip", tmp_path / "one")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "fog")
    with pytest.raises(DamagedFile, match="no shared session"):
        unpack_session(tmp_path / "other.zip", tmp_path / "two")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "whole.zip").write_bytes(whole)
    with pytest.raises(InvalidArgument, match="no empty folder"):
        unpack_session(tmp_path / "whole.zip", tmp_path / "full")


def test_the_notebook_of_graphs_circuits_and_exports_gives_the_numbers_of_the_page(
    served: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = served.run("graph", text=TEXT, transcoders="all", targets=["a", "b"], max_features=30)
    nodes = [node["name"] for node in drawn["graph"]["nodes"] if node["kind"] == "feature"][:2]
    served.run("steer_nodes", graph=drawn["name"], nodes=nodes, factor=0.0)
    served.run("circuit", clean="Fog at sea", corrupt="Fog at bay", right="a", wrong="b", steps=2)
    for form in ("recipe", "script"):
        served.run("export_steering", direction={"dose": 2.0, "name": "one"}, form=form)
    book = json.loads(served.ask("GET", "/api/v1/session.ipynb")[1])
    session = served.page.session
    names: dict[str, Any] = {}
    exec(book["cells"][0]["source"].split("\n\n")[0], names)
    names |= {"model": served.model, "sae_main": served.sae, "direction_one": session.directions["one"]}
    names |= {"transcoders_all": session.transcoders["all"]}
    for cell, entry in zip(book["cells"][1:], session.entries, strict=True):
        exec(cell["source"], names)
        assert json.loads(json.dumps(names["value"])) == json.loads(json.dumps(entry.value)), entry.kind


def test_two_edits_of_one_fact_say_that_they_conflict_and_an_edit_is_taken_away(tmp_path: Path) -> None:
    model = load("landmark")
    page = open_workbench(model)
    client = Client(page)
    while client.json("/model")["state"] != "ready":
        time.sleep(0.05)
    fact = {"subject": "Golden Gate Bridge", "prompt": "The {} is located in", "old": "San Francisco"}
    one, other = (client.run("edit", **fact, new=new) for new in ("Paris", "Rome"))
    assert one["conflicts"] == other["conflicts"] == []
    assert client.run("apply", name=one["name"])["conflicts"] == []
    against = client.run("apply", name=other["name"])["conflicts"]
    assert any("Paris" in said and "Rome" in said for said in against)
    made = client.run("export_edit", name=one["name"], form="edit")
    _, content, _ = client.ask("GET", f"/api/v1/files/{made['file']}")
    (tmp_path / made["name"]).write_bytes(content)
    assert Edit.load(tmp_path / made["name"]).facts[0].new == "Paris"
    page.close()


def test_eight_clients_with_two_hundred_requests_lose_none_and_mix_none_up(served: Client) -> None:
    """Each answer equals the one that the same request gets alone."""
    texts = [f"Fog {number}" for number in range(25)]
    model, sae = served.model, served.sae
    alone: dict[tuple[str, str], Any] = {}
    for text in texts:
        alone["lens", text] = read(LogitLens(model), text, top=1).probability[:, 0].tolist()
        alone["features", text] = [[f.latent for f in one.firings] for one in explain_text(sae, model, text, top=2)]
    got: list[tuple[str, str, Any]] = []

    def work(number: int) -> None:
        for i in range(25):
            text, kind = texts[(i + number) % 25], ("lens", "features")[(i + number) % 2]
            args = {"text": text, "top": 1} if kind == "lens" else {"text": text, "sae": "main", "top": 2}
            said = ask_again(served, kind, args)
            value = (
                said["probability"]
                if kind == "lens"
                else [[one["latent"] for one in firings] for firings in said["firings"]]
            )
            got.append((kind, text, value))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 200
    assert all(value == alone[kind, text] for kind, text, value in got)


def ask_again(client: Client, kind: str, args: dict[str, Any]) -> Any:
    """What a job gives; a full queue is asked again."""
    while True:
        status, body, _ = client.ask("POST", "/api/v1/jobs", {"kind": kind, "args": args})
        if status == 202:
            *_, (_, ended, data) = client.events(json.loads(body)["id"])
            assert ended == "result", data
            return data
        assert status == 429, body
        time.sleep(0.01)
