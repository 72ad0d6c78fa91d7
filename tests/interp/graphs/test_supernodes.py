"""What goes between supernodes, and what features fire on."""

import pytest
import torch

from hooks.errors import InvalidArgument, UnknownName
from interp.graphs import attribution_graph, collect_feature_texts, edges_between, per_layer
from interp.graphs.influence import normalise_rows
from interp.sae import Transcoder
from tests.interp.circuits.edges.twins import double
from tests.interp.graphs.test_attribution_graph import TEXT, transcoders


def test_a_supernode_takes_the_mean_of_its_members_shares_by_their_influence() -> None:
    model = double("gpt2")
    graph = attribution_graph(model, per_layer(model, transcoders(Transcoder)), TEXT)
    names = list(graph.nodes.numbers)
    features = [name for name in names if name[0] == "f"]
    low, high = features[:3], features[-3:]
    found = edges_between(graph, {"low": low, "high": high, "all": [n for n in names if n not in {*low, *high}]})
    weight = graph.influence + graph.nodes.p
    total, whole = torch.zeros(3, dtype=torch.float64), 0.0
    for name in high:
        row, w = graph.A[graph.row(name)], float(weight[graph.nodes.number(name)])
        parts = [sum(float(row[graph.nodes.number(s)]) for s in sources) for sources in (low, high)]
        parts.append(float(row.sum()) - sum(parts))
        total += w * torch.tensor(parts, dtype=torch.float64) / float(row.abs().sum())
        whole += w
    assert torch.allclose(found[1], total / whole, atol=1e-12)
    each = edges_between(graph, {name: [name] for name in names})
    shares = normalise_rows(graph.A) * graph.A.sign()
    assert torch.allclose(each[graph.rows], shares, atol=1e-12)
    with pytest.raises(UnknownName):
        edges_between(graph, {"a": ["f0.9999@1"]})
    with pytest.raises(InvalidArgument, match="is in the supernodes"):
        edges_between(graph, {"a": ["t@0"], "b": ["t@0"]})


def test_the_texts_of_a_feature_are_where_its_encoder_is_highest() -> None:
    model = double("gpt2")
    given = per_layer(model, transcoders(Transcoder))
    texts = ["fog over the bay", "a hat", "the fog"]
    found = collect_feature_texts(model, given, texts, ["f1.3@2", "f1.3", "f2.0", "t@0"], top=2, batch_size=2)
    assert list(found) == ["f1.3", "f2.0"]
    graphs = [attribution_graph(model, given, text) for text in texts]
    special = set(model.tokenizer.all_special_ids)
    on = []
    for number, graph in enumerate(graphs):
        active = graph.local.active
        mine = (active.layer == 1) & (active.latent == 3)
        on += [
            (float(a), number)
            for a, p in zip(active.a[mine], active.pos[mine], strict=True)
            if int(graph.local.ids[p]) not in special
        ]
    best = sorted({number: max(a for a, n in on if n == number) for _, number in on}.items(), key=lambda pair: -pair[1])
    assert [(e.text, pytest.approx(e.activation, rel=1e-5)) for e in found["f1.3"].examples] == best[:2]
    tokens = sum(sum(int(i) not in special for i in graph.local.ids) for graph in graphs)
    assert found["f1.3"].firing_rate == pytest.approx(len(on) / tokens) and found["f1.3"].tokens == tokens
    assert sum(share for _, share in found["f1.3"].fires) <= 1 and "fires on" in found["f1.3"].label
    for name in ("f1.9999", "f7.0", "fog"):
        with pytest.raises(UnknownName):
            collect_feature_texts(model, given, texts, [name])
