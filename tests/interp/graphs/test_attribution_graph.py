"""Attribution graphs: rows that close, independent gradients, paths written out, and exact transcoders."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Model, Tokens, load
from hooks.errors import InvalidArgument
from hooks.layout import parts
from hooks.site import mlp_in, mlp_out, resid_mid, resid_pre
from interp.circuits.edges.backward_rules import BackwardRules
from interp.circuits.known import skip_trio
from interp.graphs import (
    AttributionGraph,
    attribution_graph,
    attribution_graphs,
    cross_layer,
    influence_of,
    neurons,
    per_layer,
    shuffle_decoders,
)
from interp.graphs.graph import SKIPPING
from interp.graphs.nodes import ERROR, FEATURE, LOGIT, TOKEN
from interp.sae import SAE, CrossLayerTranscoder, SkipTranscoder, Transcoder
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.interp.circuits.edges.twins import double

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2")
TEXT = "fog over the bay"


def shaken(sae: Any, seed: int = 0) -> Any:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return sae.double()


def transcoders(kind: type[SAE], before_norm: bool = False, layers: int = 3) -> list[Any]:
    found = []
    for layer in range(layers):
        one = shaken(kind(32, 24, seed=layer), layer)  # type: ignore[call-arg]
        one.sites = ((resid_mid if before_norm else mlp_in)[layer], mlp_out[layer])
        found.append(one)
    return found


def clt(skip: bool = False, layers: int = 3) -> CrossLayerTranscoder:
    made = shaken(CrossLayerTranscoder(32, 24 * layers, layers, skip=skip))
    made.sites = tuple(site[i] for site in (mlp_in, mlp_out) for i in range(layers))
    return made


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [Transcoder, SkipTranscoder])
def test_every_row_closes_to_what_the_model_computes_in_float64(family: str, kind: type[SAE]) -> None:
    model = double(family)
    graph = attribution_graph(model, per_layer(model, transcoders(kind)), TEXT, block=32)
    assert graph.closure < 1e-12 and graph.open_share == 0.0
    assert len(graph.rows) == len(graph.local.active) + len(graph.said)
    assert float(graph.bias.abs().max()) > 0 and 0 < graph.bias_share < 1


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_cross_layer_transcoder_close(family: str, skip: bool) -> None:
    model = double(family)
    graph = attribution_graph(model, cross_layer(model, clt(skip)), TEXT)
    assert graph.closure < 1e-12 and graph.local.transcoders.crosses
    assert "skips layers" in repr(graph)


def test_a_graph_prints_in_few_lines_and_its_table_holds_every_node() -> None:
    model = double("gpt2")
    graph = attribution_graph(model, cross_layer(model, clt()), TEXT, max_features=5)
    assert len(str(graph).splitlines()) == 4 and f"completeness {graph.completeness:.2f}" in str(graph)
    assert graph.text == TEXT and graph.pieces[0] == "<|endoftext|>"
    table = graph.to_pandas()
    assert list(table.index) == [graph.nodes.name(i) for i in range(len(graph.nodes))]
    assert int(table.bias.notna().sum()) == len(graph.rows) == 5 + len(graph.said)
    row = table.loc["f1.0@3"] if "f1.0@3" in table.index else table[table.kind == "feature"].iloc[0]
    assert row.a == float(graph.nodes.a[graph.nodes.number(row.name)]) and row.text == graph.pieces[row.token]
    logits = table[table.kind == "logit"]
    assert list(logits.text) == list(graph.said) and logits.p.sum() <= 1.0


def test_rows_close_where_transcoders_read_before_the_norm_and_where_layers_have_none() -> None:
    model = double("llama")
    for given in (transcoders(Transcoder, before_norm=True), transcoders(Transcoder)[1:2]):
        assert attribution_graph(model, per_layer(model, given), TEXT).closure < 1e-12


def test_rows_close_to_one_in_ten_thousand_in_float32() -> None:
    model = load(tiny_hf("llama"), tiny_tokenizer(), check=False)
    given = [one.float() for one in transcoders(SkipTranscoder)]
    assert attribution_graph(model, per_layer(model, given), TEXT).closure < 1e-4


def test_a_graph_in_a_batch_is_the_graph_alone_and_needs_no_padding() -> None:
    for family in FAMILIES:
        model = double(family)
        given = per_layer(model, transcoders(Transcoder))
        for text, graph in zip(("a hat", TEXT), attribution_graphs(model, given, ["a hat", TEXT]), strict=True):
            alone = attribution_graph(model, given, text)
            assert torch.equal(alone.rows, graph.rows)
            assert torch.allclose(alone.A, graph.A, atol=1e-10)


def gradient(model: Model, tokens: Tokens, layer: int, read: Any) -> dict[int, torch.Tensor]:
    """By plain autograd: the slope of a function of mlp_in at every feed-forward output, each a constant."""
    leaves: dict[int, torch.Tensor] = {}
    seen: list[torch.Tensor] = []
    rules = BackwardRules(norms_held=True, patterns_held=True)
    handles = []

    def leaf(at: int) -> Any:
        def hook(value: torch.Tensor) -> torch.Tensor:
            leaves[at] = value.detach().requires_grad_()
            return leaves[at]

        return hook

    with rules.apply(model), torch.enable_grad():
        handles += [model.tap(mlp_out[at]).attach(leaf(at)) for at in range(model.n_layers)]
        handles.append(model.tap(mlp_in[layer]).attach(lambda value: seen.append(value)))
        model.run(tokens)
        for handle in handles:
            handle.remove()
        before = [leaves[at] for at in range(layer)]
        return dict(enumerate(torch.autograd.grad(read(seen[0]), before)))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_the_gradients_of_a_model_whose_norms_and_patterns_are_held(family: str) -> None:
    model = double(family)
    made = clt()
    graph = attribution_graph(model, cross_layer(model, made), TEXT)
    active, nodes = graph.local.active, graph.nodes
    target = int((active.layer == 2).nonzero()[-1])
    pos, latent = int(active.pos[target]), int(active.latent[target])
    slopes = gradient(model, model.tokens(TEXT), 2, lambda x: x[0, pos] @ made.W_enc[2, latent].detach())
    first = len(nodes) - len(graph.said) - len(active)
    row = graph.A[graph.row(nodes.name(first + target))]
    said = torch.zeros(len(active), dtype=torch.float64)
    for s in range(len(active)):
        layer, at, number = int(active.layer[s]), int(active.pos[s]), int(active.latent[s])
        for to in range(layer, 2):
            said[s] += active.a[s] * (slopes[to][0, at] @ made.decoder(layer, to)[number].detach())
    assert torch.allclose(row[first : first + len(active)], said, atol=1e-10)
    errors = torch.cat([(slopes[at][0] * graph.local.layers[at].error).sum(-1) for at in range(2)])  # type: ignore[operator]
    T = len(graph.pieces)
    assert torch.allclose(row[T : 3 * T], errors, atol=1e-10)


def test_influence_is_the_sum_over_all_paths() -> None:
    random = torch.Generator().manual_seed(1)
    shares = torch.rand(6, 6, generator=random, dtype=torch.float64).tril(-1)
    weight = torch.tensor([0, 0, 0, 0, 0.3, 0.7], dtype=torch.float64)
    paths = torch.zeros(6, dtype=torch.float64)

    def walk(path: list[int], value: float) -> None:
        for below in range(path[-1]):
            step = value * float(shares[path[-1], below])
            paths[below] += step
            walk([*path, below], step)

    for end in (4, 5):
        walk([end], float(weight[end]))
    assert torch.allclose(influence_of(shares[1:], torch.arange(1, 6), weight), paths, atol=1e-14)


def test_the_neurons_of_a_relu_model_are_an_exact_transcoder() -> None:
    known = skip_trio()
    graph = attribution_graph(known.model, neurons(known.model), known.task.clean, targets=[1])
    assert float(graph.A[:, graph.nodes.kind == ERROR].abs().max()) < 1e-12
    assert graph.replacement == pytest.approx(1.0) and graph.completeness == pytest.approx(1.0)
    chain = [f"f{layer}.0@2" for layer in range(3)]
    for source, target in pairwise(chain):
        layer = int(target[1])
        W_in = parts(known.model.blocks[layer], known.model.paths)["mlp.in"].weight.detach()
        W_out = known.model.module(mlp_out[layer - 1])
        a = float(graph.nodes.a[graph.nodes.number(source)])
        direct = float(a * known.model.blocks[layer - 1].mlp.c_proj.weight[0].detach() @ W_in[:, 0])
        assert graph.edge(source, target) == pytest.approx(direct) and W_out is not None
    assert graph.edge(chain[0], chain[2]) == 0.0


def test_with_shuffled_decoders_completeness_falls() -> None:
    model = load(tiny_hf("gpt2", activation_function="relu").double(), tiny_tokenizer(), check=False)
    right = neurons(model)
    whole = attribution_graph(model, right, TEXT)
    broken = attribution_graph(model, shuffle_decoders(right), TEXT)
    assert torch.equal(whole.local.active.a, broken.local.active.a)
    assert whole.completeness > 0.999 > 0.95 > broken.completeness and broken.closure < 1e-12


def test_a_linear_layer_gives_the_same_graph_as_features_and_as_a_linear_path() -> None:
    model = load(tiny_hf("gpt2", activation_function="linear").double(), tiny_tokenizer(), check=False)
    as_features, as_path = [], []
    for layer, block in enumerate(model.blocks):
        (W, b), (V, c) = ((m.weight.detach(), m.bias.detach()) for m in (block.mlp.c_fc, block.mlp.c_proj))
        pairs, path = Transcoder(32, 2 * len(b)).double(), SkipTranscoder(32, 1).double()
        with torch.no_grad():
            pairs.W_enc.copy_(torch.cat([W, -W], 1))
            pairs.b_enc.copy_(torch.cat([b, -b]))
            pairs.W_dec.copy_(torch.cat([V, -V]))
            pairs.b_dec.copy_(c)
            for parameter in path.parameters():
                parameter.zero_()
            path.W_skip.copy_((W @ V).T)
            path.b_dec.copy_(b @ V + c)
        for one, found in ((pairs, as_features), (path, as_path)):
            one.sites = (mlp_in[layer], mlp_out[layer])
            found.append(one)
    whole, short = (
        attribution_graph(model, per_layer(model, one), TEXT, targets=["a"]) for one in (as_features, as_path)
    )
    assert float(whole.A[:, whole.nodes.kind == ERROR].abs().max()) < 1e-10 and len(short.local.active) == 0
    w = whole.A[-1].clone()
    for row in range(len(whole.rows) - 2, -1, -1):  # what a feature gives is what it reads, the last one first
        feature = int(whole.rows[row])
        w += w[feature] * whole.A[row] / whole.value[row]
        w[feature] = 0.0
    T = len(whole.pieces)
    assert torch.allclose(w[:T], short.A[-1, :T], atol=1e-10)
    assert float(short.A[-1, :T].abs().max()) > 1e-2


def test_pruning_keeps_tokens_and_logits_and_no_loose_ends() -> None:
    model = double("gpt2")
    graph = attribution_graph(model, per_layer(model, transcoders(Transcoder)), TEXT, max_features=60, block=8)
    nodes, edges = graph.prune()
    kind = graph.nodes.kind
    assert bool(nodes[(kind == TOKEN) | (kind == LOGIT)].all()) and 0 < int(nodes.sum()) < len(nodes)
    loose = (kind == ERROR) | (kind == FEATURE)
    assert bool(edges.any(0)[nodes & loose].all())
    features = [int(row) for row in graph.rows if nodes[row] and kind[row] == FEATURE]
    assert all(bool(edges[(graph.rows == row)].any()) for row in features)
    assert len({graph.nodes.name(i) for i in range(len(graph.nodes))}) == len(graph.nodes)
    assert 0 < graph.open_share < 1 and len(graph.rows) == 60 + len(graph.said)


def test_features_get_rows_by_influence_and_a_graph_without_features_still_closes() -> None:
    model = double("gpt2")
    given = per_layer(model, transcoders(Transcoder))
    none = attribution_graph(model, given, TEXT, max_features=0, targets=["a"])
    assert none.closure < 1e-12 and len(none.rows) == 1
    whole = attribution_graph(model, given, TEXT, targets=["a"])
    for name in ("f0.0@1", "t@0"):
        if name in {none.nodes.name(i) for i in range(len(none.nodes))}:
            assert none.edge(name, none.nodes.name(len(none.nodes) - 1)) == pytest.approx(
                whole.edge(name, whole.nodes.name(len(whole.nodes) - 1))
            )


def test_what_is_no_transcoder_of_a_layer_is_refused() -> None:
    model = double("gpt2")
    one = transcoders(Transcoder)[0]
    for sites, text in (((), "sites"), ((mlp_in[0], mlp_in[1]), "writes"), ((resid_pre[0], mlp_out[0]), "must read")):
        one.sites = sites
        with pytest.raises(InvalidArgument, match=text):
            per_layer(model, [one])
    for given in ([], [transcoders(Transcoder)[0], transcoders(Transcoder)[0]]):
        with pytest.raises(InvalidArgument, match="at least one|two transcoders"):
            per_layer(model, given)
    with pytest.raises(InvalidArgument, match="another activation"):
        neurons(model)
    with pytest.raises(InvalidArgument, match="gated"):
        neurons(double("llama"))
    assert AttributionGraph.__name__ == "AttributionGraph"


def test_the_warning_of_edges_that_skip_layers_says_what_every_seed_of_the_skip_trio_gave() -> None:
    file = Path(__file__).parents[3] / "benchmarks" / "results" / "cross_layer.json"
    found = json.loads(file.read_text("utf-8"))["figures"]["skip_trio"]
    seeds = {row["kind"]: row["seeds"] for row in found if row.get("k") == 0.9}
    good = {kind: [one for one in row if one["explained_variance"] >= 0.99] for kind, row in seeds.items()}
    least = {kind: [min(one[f"through_{step}"] for step in "ABC") for one in row] for kind, row in good.items()}
    assert {len(row) for row in good.values()} == {3} and {len(row) for row in seeds.values()} == {5}
    assert "3 of 5 seeds" in SKIPPING and max(least["cross-layer"]) < 0.005
    assert f"{min(least['per-layer']):.2f} to {max(least['per-layer']):.2f}" in SKIPPING
