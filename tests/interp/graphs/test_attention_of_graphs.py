"""Head loadings and QK attributions close, and a head that writes nothing takes its loadings with it."""

import pytest
import torch

from hooks import Model, load
from hooks.errors import InvalidArgument, OutOfRange
from interp.graphs import attribute_score, attribution_graph, cross_layer, head_loadings, per_layer
from interp.graphs.nodes import FEATURE
from interp.sae import SkipTranscoder, Transcoder
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.interp.circuits.edges.twins import double, identity_norms
from tests.interp.graphs.test_attribution_graph import FAMILIES, TEXT, clt, transcoders


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["skip", "clt"])
def test_head_loadings_and_what_goes_through_no_head_sum_to_the_row(family: str, kind: str) -> None:
    model = double(family)
    given = cross_layer(model, clt()) if kind == "clt" else per_layer(model, transcoders(SkipTranscoder))
    graph = attribution_graph(model, given, TEXT)
    features = [graph.nodes.name(i) for i in graph.nodes.of_kind(FEATURE).tolist()]
    for name in (features[0], features[len(features) // 2], features[-1], graph.nodes.name(len(graph.nodes) - 1)):
        found = head_loadings(graph, name)
        row = graph.A[graph.row(name)][: len(found.direct)]
        assert torch.allclose(found.by_head.sum((0, 1)) + found.direct, row, atol=1e-12)
        layer = int(graph.nodes.layer[graph.nodes.number(name)])
        assert float(found.by_head[layer + 1 :].abs().sum()) == 0.0


def test_the_loading_of_a_head_is_what_its_row_loses_when_the_head_writes_nothing() -> None:
    def model_without(head: int | None) -> Model:
        hf = identity_norms(tiny_hf("gpt2")).double()
        with torch.no_grad():
            for layer, block in enumerate(hf.transformer.h):
                block.attn.c_attn.weight[:, 32:64] = 0.0  # patterns are the same whatever is read
                if head is not None and layer == 2:
                    block.attn.c_proj.weight[head * 8 : (head + 1) * 8] = 0.0
        return load(hf, tiny_tokenizer(), check=False)

    model = model_without(None)
    given = transcoders(Transcoder)
    graph = attribution_graph(model, per_layer(model, given), TEXT, targets=["a"], max_features=0)
    said = graph.nodes.name(len(graph.nodes) - 1)
    found = head_loadings(graph, said)
    less = attribution_graph(model_without(1), per_layer(model, given), TEXT, targets=["a"], max_features=0)
    names = [n for n in graph.nodes.numbers if n in less.nodes.numbers and n[0] == "f" and n[1] in "01"]
    assert len(names) > 50
    for name in names[::7]:
        lost = graph.edge(name, graph.nodes.name(len(graph.nodes) - 1)) - less.edge(
            name, less.nodes.name(len(less.nodes) - 1)
        )
        assert lost == pytest.approx(float(found.by_head[2, 1, graph.nodes.number(name)]), abs=1e-10)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_the_table_of_an_attention_score_sums_to_the_score(family: str) -> None:
    model = double(family)
    graph = attribution_graph(model, cross_layer(model, clt()), TEXT, max_features=0)
    for layer, head, query, key in ((2, 1, 9, 4), (1, 0, 5, 5), (0, 3, 7, 0)):
        found = attribute_score(graph, layer, head, query=query, key=key)
        assert float(found.table.sum()) == pytest.approx(found.score, rel=1e-4)
        other = attribute_score(graph, layer, head, query=query, key=1)
        pattern = graph.local.layers[layer].pattern
        assert pattern is not None
        ratio = float((pattern[head, query, key] / pattern[head, query, 1]).log())
        assert found.score - other.score == pytest.approx(ratio, abs=1e-5)
        assert len(found.table) == 1 + len(graph.nodes) - len(graph.said)
        one, _, value = found.top(1)[0]
        assert value == pytest.approx(float(found.table.flatten()[found.table.abs().argmax()]))
        assert one == "bias" or one in graph.nodes.numbers


def test_what_has_no_heads_or_no_table_is_refused() -> None:
    model = double("gpt2")
    graph = attribution_graph(model, per_layer(model, transcoders(Transcoder)), TEXT, max_features=0)
    with pytest.raises(InvalidArgument, match="reads nothing"):
        head_loadings(graph, "t@0")
    for layer, head, query, key in ((3, 0, 1, 0), (0, 9, 1, 0), (0, 0, 1, 2), (0, 0, 99, 2)):
        with pytest.raises(OutOfRange):
            attribute_score(graph, layer, head, query=query, key=key)
    capped = double("gemma2", attn_logit_softcapping=0.05)
    graph = attribution_graph(capped, per_layer(capped, transcoders(Transcoder)), TEXT, max_features=0)
    with pytest.raises(InvalidArgument, match="soft caps"):
        attribute_score(graph, 1, 0, query=9, key=4)
