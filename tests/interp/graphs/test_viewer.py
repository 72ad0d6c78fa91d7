"""Files for the graph viewer: their schema, ids that are unique, and links with the weights of the graph."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from hooks.errors import DamagedFile, InvalidArgument, UnknownName
from interp.features import Example
from interp.graphs import AttributionGraph, FeatureText, attribution_graph, per_layer, write_viewer_json
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
METADATA = {
    "slug": str,
    "scan": str,
    "transcoder_list": list,
    "prompt_tokens": list,
    "prompt": str,
    "node_threshold": float,
    "schema_version": int,
}


@pytest.fixture(scope="module")
def graph() -> AttributionGraph:
    model = double("gpt2")
    return attribution_graph(model, per_layer(model, transcoders(Transcoder)), TEXT)


def test_every_node_has_the_fields_of_the_viewer_and_an_id_of_its_own(graph: AttributionGraph, tmp_path: Path) -> None:
    found = json.loads(write_viewer_json(graph, tmp_path, "fog", node_share=1.0, edge_share=1.0).read_text("utf-8"))
    assert found.keys() == {"metadata", "qParams", "nodes", "links"} and found["metadata"]["schema_version"] == 1
    assert found["metadata"]["prompt_tokens"] == list(graph.pieces)
    assert found["metadata"]["prompt"] == TEXT and graph.pieces[0] == "<|endoftext|>"
    assert found["metadata"].keys() == METADATA.keys()
    assert all(isinstance(found["metadata"][name], kind) for name, kind in METADATA.items())
    assert re.fullmatch(r"[A-Za-z0-9-]+", found["metadata"]["scan"])
    for node in found["nodes"]:
        assert node.keys() == SCHEMA.keys()
        assert all(isinstance(node[name], kind) for name, kind in SCHEMA.items())
    ids = [node["node_id"] for node in found["nodes"]]
    assert len(set(ids)) == len(ids)
    parts = {"mlp reconstruction error": [], "cross layer transcoder": [], "embedding": [], "logit": []}
    for node in found["nodes"]:
        parts[node["feature_type"]].append(node["jsNodeId"])
    for one, other in combinations(parts.values(), 2):
        assert not set(one) & set(other)
    errors = [node for node in found["nodes"] if node["feature_type"] == "mlp reconstruction error"]
    assert errors and all(node["node_id"] == f"{node['layer']}_-1_{node['ctx_idx']}" for node in errors)
    assert sum(node["is_target_logit"] for node in found["nodes"]) == 1
    assert {link[end] for link in found["links"] for end in ("source", "target")} <= set(ids)


def test_ids_weights_and_shares_are_those_of_the_graph(graph: AttributionGraph, tmp_path: Path) -> None:
    found = json.loads(write_viewer_json(graph, tmp_path, "fog").read_text("utf-8"))
    kept, edges = graph.prune()
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


def test_labels_and_supernodes_are_written_and_no_node_has_more_than_the_threshold_that_the_viewer_hides(
    graph: AttributionGraph, tmp_path: Path
) -> None:
    kept, _ = graph.prune()
    names = [graph.nodes.name(i) for i in kept.nonzero().flatten().tolist()]
    one, other = [name for name in names if name[0] == "f"][:2]
    feature = one.partition("@")[0]
    texts = {feature: FeatureText(feature, ((" fog", 0.5),), (Example(0, ("fog",), (1.0,), 0),), 0.1, 10)}
    groups = {"first": [one], "second": [other, "t@0"]}
    found = json.loads(write_viewer_json(graph, tmp_path, "fog", texts=texts, supernodes=groups).read_text("utf-8"))
    ids = {node["node_id"] for node in found["nodes"]}
    assert [group[0] for group in found["qParams"]["supernodes"]] == ["first", "second"]
    assert found["qParams"]["pinnedIds"] == [i for group in found["qParams"]["supernodes"] for i in group[1:]]
    assert len(found["qParams"]["pinnedIds"]) == 3 and set(found["qParams"]["pinnedIds"]) <= ids
    layer, number = feature[1:].split(".")
    labelled = [n for n in found["nodes"] if n["feature_type"] == "cross layer transcoder" and n["clerp"]]
    assert {n["jsNodeId"] for n in labelled} == {f"{layer}_{number}-0"} and labelled[0]["clerp"] == "fires on fog (50%)"
    hidden = [n for n in found["nodes"] if n["influence"] > found["metadata"]["node_threshold"]]
    assert all(n["feature_type"] in ("embedding", "logit") for n in hidden)
    for node in found["nodes"]:
        if node["feature_type"] == "logit":
            said = node["clerp"].split('"')
            assert len(said) == 3 and float(said[2].split("(p=")[1].split(")")[0]) <= 1
    with pytest.raises(UnknownName):
        write_viewer_json(graph, tmp_path, "fog", supernodes={"a": ["f9.9@9"]})


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


def test_a_graph_of_one_feature_or_of_none_is_written_under_the_name_of_its_transcoders(tmp_path: Path) -> None:
    model = double("gpt2")
    given = per_layer(model, transcoders(Transcoder))
    for rows in (0, 1):
        graph = attribution_graph(model, given, TEXT, max_features=rows, targets=["a"])
        found = json.loads(write_viewer_json(graph, tmp_path, f"few-{rows}", node_share=0.01).read_text("utf-8"))
        assert isinstance(found["nodes"], list) and len(found["nodes"]) > 1
        assert found["metadata"]["scan"] == re.sub(r"[^A-Za-z0-9]+", "-", given.name)
