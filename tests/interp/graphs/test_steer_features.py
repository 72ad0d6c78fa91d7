"""Steered features: predictions that follow from the graph's rows, and a model that does what is predicted."""

from typing import Any

import pytest
import torch

from hooks import Model, load
from hooks.errors import InvalidArgument, OutOfRange, UnknownName
from interp.graphs import (
    AttributionGraph,
    attribution_graph,
    cross_layer,
    neurons,
    per_layer,
    scale_features,
    steer_features,
)
from interp.graphs.nodes import FEATURE
from interp.sae import SkipTranscoder, Transcoder
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.interp.circuits.edges.twins import double, identity_norms
from tests.interp.graphs.test_attribution_graph import FAMILIES, TEXT, clt, transcoders


def made(model: Model, kind: str) -> Any:
    if kind in ("clt", "skip clt"):
        return cross_layer(model, clt(kind == "skip clt"))
    return per_layer(model, transcoders(SkipTranscoder if kind == "skip" else Transcoder))


def some(graph: AttributionGraph, layer: int | None = None, n: int = 6) -> list[str]:
    nodes = graph.nodes.of_kind(FEATURE).tolist()
    names = [graph.nodes.name(i) for i in nodes if layer is None or int(graph.nodes.layer[i]) == layer]
    return names[:: max(1, len(names) // n)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["per-layer", "skip", "clt", "skip clt"])
def test_with_every_layer_held_the_prediction_is_the_edge_times_the_relative_change(family: str, kind: str) -> None:
    model = double(family)
    graph = attribution_graph(model, made(model, kind), TEXT, targets=["a", "b"])
    names = some(graph)
    found = steer_features(graph, scale_features(graph, names, 1.7), held_through=model.n_layers - 1)
    rows = [graph.row(graph.nodes.name(len(graph.nodes) - 2 + i)) for i in range(2)]
    columns = [graph.nodes.number(name) for name in names]
    assert torch.allclose(found.predicted, 0.7 * graph.A[rows][:, columns].sum(1), atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["per-layer", "skip", "clt"])
def test_with_only_the_first_layer_held_the_prediction_is_the_sum_over_all_paths(family: str, kind: str) -> None:
    model = double(family)
    graph = attribution_graph(model, made(model, kind), TEXT, targets=["a", "b"])
    names = some(graph, layer=0)
    r = torch.zeros(len(graph.nodes), dtype=torch.float64)
    for name in names:
        r[graph.nodes.number(name)] = -1.0
    last = torch.zeros(2, dtype=torch.float64)
    for row, node in enumerate(graph.rows.tolist()):
        dz = graph.A[row] @ r
        if node >= len(graph.nodes) - 2:
            last[node - len(graph.nodes) + 2] = dz
        elif graph.nodes.name(node) not in names:
            r[node] = dz / graph.nodes.a[node]
    assert torch.allclose(steer_features(graph, scale_features(graph, names, 0.0)).predicted, last, atol=1e-10)


def linear_between(**changes: Any) -> Model:
    """A model without norms, whose attention patterns are the same whatever is read."""
    hf = identity_norms(tiny_hf("gpt2", **changes))
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_attn.weight[:, 32:64] = 0.0
    return load(hf.double(), tiny_tokenizer(), check=False)


@pytest.mark.parametrize("kind", ["per-layer", "skip", "clt", "skip clt"])
def test_without_norms_and_with_patterns_and_every_layer_held_the_model_does_what_is_predicted(kind: str) -> None:
    model = linear_between()
    graph = attribution_graph(model, made(model, kind), TEXT)
    steered = scale_features(graph, some(graph), -3.0) | {f"f1.{i}@4": 5.0 for i in (0, 1)}
    found = steer_features(graph, steered, held_through=model.n_layers - 1)
    assert float(found.measured.abs().max()) > 1e-3
    assert torch.allclose(found.predicted, found.measured, atol=1e-10) and found.same_sign == 1.0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["per-layer", "skip", "clt", "skip clt"])
def test_with_patterns_norms_and_every_layer_held_any_model_does_what_is_predicted(family: str, kind: str) -> None:
    model = double(family)
    graph = attribution_graph(model, made(model, kind), TEXT, targets=["a", "b"])
    steered, last = scale_features(graph, some(graph), -3.0), model.n_layers - 1
    found = steer_features(graph, steered, held_through=last, hold=("norms", "patterns"))
    assert float(found.measured.abs().max()) > 1e-4
    assert torch.allclose(found.predicted, found.measured, atol=1e-10) and found.same_sign == 1.0
    assert found.hold == ("patterns", "norms") and "norms held" in repr(found)
    if family != "gemma2":  # whose probabilities are of capped logits
        assert float((found.p.log() - graph.nodes.p[-2:].log() - found.measured).diff().abs().max()) < 1e-9
    for hold in ((), ("patterns",), ("norms",)):
        free = steer_features(graph, steered, held_through=last, hold=hold)
        assert not torch.allclose(free.predicted, free.measured, atol=1e-6)


def test_small_changes_of_an_exact_transcoder_reach_the_logits_through_all_later_layers_as_predicted() -> None:
    model = linear_between(activation_function="relu")
    graph = attribution_graph(model, neurons(model), TEXT)
    names = some(graph, layer=0)
    whole = steer_features(graph, scale_features(graph, names, 1.0 + 1e-6))
    direct = steer_features(graph, scale_features(graph, names, 1.0 + 1e-6), held_through=model.n_layers - 1)
    assert torch.allclose(whole.predicted, whole.measured, rtol=1e-5, atol=1e-14)
    assert not torch.allclose(whole.predicted, direct.predicted, rtol=1e-2, atol=1e-14)


def test_what_is_measured_is_what_the_model_says_and_no_change_changes_nothing() -> None:
    model = double("llama")
    graph = attribution_graph(model, made(model, "skip"), TEXT, targets=["a", "b"])
    names = some(graph)
    same = steer_features(graph, scale_features(graph, names, 1.0))
    assert float(same.measured.abs().max()) < 1e-6 and torch.allclose(same.p, graph.nodes.p[-2:])
    off = steer_features(graph, scale_features(graph, names, 0.0))
    shift = (off.p.log() - graph.nodes.p[-2:].log()) - off.measured
    assert float((shift - shift[0]).abs().max()) < 1e-9
    assert "predicted" in repr(off) and off.held_through == 2 and len(off.likeliest) == 5


def test_what_cannot_be_steered_is_refused() -> None:
    model = double("gpt2")
    graph = attribution_graph(model, made(model, "per-layer"), TEXT)
    with pytest.raises(InvalidArgument, match="no features"):
        steer_features(graph, {})
    with pytest.raises(UnknownName, match="no feature of a prompt"):
        steer_features(graph, {"t@0": 1.0})
    for name in ("f0.24@1", "f3.0@1", "f0.0@99"):
        with pytest.raises(OutOfRange, match="there is no"):
            steer_features(graph, {name: 1.0})
    with pytest.raises(OutOfRange, match="held_through"):
        steer_features(graph, {"f1.0@1": 1.0}, held_through=0)
    with pytest.raises(InvalidArgument, match="did you mean 'patterns'"):
        steer_features(graph, {"f1.0@1": 1.0}, hold=["pattern"])
    with pytest.raises(UnknownName):
        scale_features(graph, ["f0.99@0"], 1.0)
    assert scale_features(graph, ["t@0"], 2.0) == {}
