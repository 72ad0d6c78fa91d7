"""Files for the graph viewer: their schema, ids that are unique, and links with the weights of the graph."""

import json
from pathlib import Path

import pytest

from hooks.errors import DamagedFile, InvalidArgument
from interp.graphs import AttributionGraph, attribution_graph, per_layer, write_viewer_json
from interp.sae import Transcoder
from tests.interp.circuits.edges.twins import double
from tests.interp.graphs.test_attribution_graph import TEXT, transcoders

SCHEMA = {
    "node_id": str,
    "feature": int,
    "layer": str,
    "ctx_idx": int,
    "feature_type": str,
    "token_prob": float,
    "is_target_logit": bool,
    "run_idx": int,
    "reverse_ctx_idx": int,
    "jsNodeId": str,
    "clerp": str,
    "influence": float,
    "activation": (float, type(None)),
}


@pytest.fixture(scope="module")
def graph() -> AttributionGraph:
    model = double("gpt2")
    return attribution_graph(model, per_layer(model, transcoders(Transcoder)), TEXT)


def test_every_node_has_the_fields_of_the_viewer_and_an_id_of_its_own(graph: AttributionGraph, tmp_path: Path) -> None:
    found = json.loads(write_viewer_json(graph, tmp_path, "fog", node_share=1.0, edge_share=1.0).read_text("utf-8"))
    assert found.keys() == {"metadata", "qParams", "nodes", "links"} and found["metadata"]["schema_version"] == 1
    assert found["metadata"]["prompt_tokens"] == list(graph.pieces)
    assert found["metadata"]["prompt"] == "".join(graph.pieces)
    for node in found["nodes"]:
        assert node.keys() == SCHEMA.keys()
        assert all(isinstance(node[name], kind) for name, kind in SCHEMA.items())
    ids = [node["node_id"] for node in found["nodes"]]
    assert len(set(ids)) == len(ids)
    errors = [node for node in found["nodes"] if node["feature_type"] == "mlp reconstruction error"]
    assert errors and all(node["node_id"] == f"{node['layer']}_-1_{node['ctx_idx']}" for node in errors)
    assert sum(node["is_target_logit"] for node in found["nodes"]) == 1
    assert {link[end] for link in found["links"] for end in ("source", "target")} <= set(ids)


def test_ids_weights_and_shares_are_those_of_the_graph(graph: AttributionGraph, tmp_path: Path) -> None:
    found = json.loads(write_viewer_json(graph, tmp_path, "fog").read_text("utf-8"))
    kept, edges = graph.pruned()
    assert len(found["nodes"]) == int(kept.sum()) and len(found["links"]) == int(edges.sum())
    layers = graph.local.model.n_layers
    ours = {}
    for node in found["nodes"]:
        layer, number, pos = node["node_id"].split("_")
        kind = node["feature_type"]
        name = f"f{layer}.{number}@{pos}" if kind == "cross layer transcoder" else f"t@{pos}"
        name = f"e{layer}@{pos}" if number == "-1" else f"logit.{number}" if kind == "logit" else name
        ours[node["node_id"]] = name
        assert layer == {"logit": str(layers + 1), "embedding": "E"}.get(kind, node["layer"])
        if kind == "cross layer transcoder":
            both = int(layer) + int(number)
            assert node["feature"] == both * (both + 1) / 2 + int(number)
    for link in found["links"][:50]:
        assert link["weight"] == pytest.approx(graph.edge(ours[link["source"]], ours[link["target"]]), rel=1e-12)
    by_share = sorted(found["nodes"], key=lambda node: node["influence"])
    sizes = [float(graph.influence[graph.nodes.number(ours[node["node_id"]])]) for node in by_share]
    assert sizes == sorted(sizes, reverse=True)
    assert by_share[0]["influence"] == pytest.approx(sizes[0] / float(graph.influence.sum()))


def test_the_list_of_a_folder_names_each_graph_once(graph: AttributionGraph, tmp_path: Path) -> None:
    for slug in ("fog", "bay", "fog"):
        write_viewer_json(graph, tmp_path / "graphs", slug)
    listed = json.loads((tmp_path / "graphs" / "graph-metadata.json").read_text("utf-8"))["graphs"]
    assert sorted(one["slug"] for one in listed) == ["bay", "fog"]
    for slug in ("../fog", "", "a b", "graph-metadata"):
        with pytest.raises(InvalidArgument, match="slug"):
            write_viewer_json(graph, tmp_path, slug)
    (tmp_path / "graph-metadata.json").write_text('{"graphs": 3}')
    with pytest.raises(DamagedFile, match="lists no graphs"):
        write_viewer_json(graph, tmp_path, "fog")


def test_the_models_of_circuit_tracer_read_what_is_written(graph: AttributionGraph, tmp_path: Path) -> None:
    theirs = pytest.importorskip("circuit_tracer.frontend.graph_models", exc_type=ImportError)
    text = write_viewer_json(graph, tmp_path, "fog").read_text("utf-8")
    assert json.loads(theirs.Model.model_validate_json(text, strict=True).model_dump_json()) == json.loads(text)
