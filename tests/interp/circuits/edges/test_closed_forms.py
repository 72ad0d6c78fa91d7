"""The parts of edge methods by themselves, against closed forms, autograd and loops of their own."""

import math
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hooks import Model, capture, intervene
from hooks.errors import ContractBroken, OutOfRange
from hooks.interventions import scale
from hooks.site import mlp_out, resid_post, z
from interp.circuits.edges import (
    Circuit,
    EdgeEffect,
    EdgeGraph,
    EstimateCheck,
    Task,
    acdc,
    edge_graph,
    exact_edges,
    greedy_circuit,
    kl_from_clean,
    mean_ablation,
    optimal_ablation,
    prune_edges,
    run_circuit,
    top_circuit,
    zero_ablation,
)
from interp.circuits.edges.backward_rules import BackwardRules, _attend, _identity_rule, halve_gradient
from interp.circuits.edges.blocks import blocks_of, check_writes, sites_of_writes, writes_of
from interp.circuits.edges.estimate_check import _choose, check_estimate
from interp.circuits.edges.faithfulness import FaithfulnessCurve
from interp.circuits.edges.masked_run import run_masked
from interp.circuits.edges.norm import norm_of
from interp.circuits.edges.pruning import _sample
from interp.circuits.edges.running import _parts
from interp.circuits.known import and_gate, induction_circuit, or_gate
from tests.interp.circuits.edges.twins import CLEAN, CORRUPT, double, task_of

TEXTS = ["fog over", "a bay", "sun and sea"]


@pytest.fixture(scope="module")
def twin() -> Model:
    return double("gpt2")


def random(shape: Any, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class RMS(nn.Module):
    """RMSNorm with a gain."""

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(gain), 1e-3

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt() * self.weight


class Cube(nn.Module):
    """No norm of the stream at all."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(6, dtype=torch.float64)), 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return x**3 / (1 + x.square().sum(-1, keepdim=True))


@pytest.mark.parametrize("kind", ["layer norm", "rms norm"])
def test_a_norm_in_closed_form_is_the_module_its_gradient_autograds_and_its_held_part_linear(kind: str) -> None:
    gain, bias, x, slope = random(6, 1), random(6, 2), random((3, 6), 3), random((3, 6), 4)
    module: nn.Module = RMS(gain) if kind == "rms norm" else nn.LayerNorm(6, eps=1e-3).double()
    if isinstance(module, nn.LayerNorm):
        with torch.no_grad():
            module.weight.copy_(gain)
            module.bias.copy_(bias)
    norm = norm_of(module, 6)
    assert norm.centred is (kind == "layer norm")
    centred = x - x.mean(-1, keepdim=True) if norm.centred else x
    s = (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(norm.scale(x), s)
    torch.testing.assert_close(norm.gain, gain, rtol=1e-4, atol=1e-6)
    part = random((3, 6), 5)
    linear = gain * (part - part.mean(-1, keepdim=True) if norm.centred else part) / s
    torch.testing.assert_close(norm.linear(part, s), linear, rtol=1e-4, atol=1e-6)
    leaf = x.clone().requires_grad_()
    (true,) = torch.autograd.grad(module(leaf), leaf, slope)
    torch.testing.assert_close(norm.pull_back(x, slope), true, rtol=1e-4, atol=1e-6)
    several = torch.stack([slope, 2 * slope])
    torch.testing.assert_close(norm.pull_back(x, several)[1], 2 * true, rtol=1e-4, atol=1e-6)
    u = gain * slope
    held = (u - u.mean(-1, keepdim=True) if norm.centred else u) / s
    torch.testing.assert_close(norm.pull_back(x, slope, held=True), held, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["layer norm", "rms norm"])
def test_the_changes_of_parts_through_a_norm_sum_to_its_change_and_each_is_its_jacobian_times_its_own(
    kind: str,
) -> None:
    module: nn.Module = RMS(random(6, 1)) if kind == "rms norm" else nn.LayerNorm(6, eps=1e-3).double()
    norm, here, step = norm_of(module, 6), random((3, 4, 6), 2), random((3, 4, 6), 3)
    whole = module((here + step).sum(-2)) - module(here.sum(-2))
    shared = norm.share_change(here, here + step)
    torch.testing.assert_close(shared.sum(-2), whole)
    small = 1e-6 * step
    for part in range(4):
        (_, true) = torch.autograd.functional.jvp(module, here.sum(-2), small[:, part])
        torch.testing.assert_close(norm.share_change(here, here + small)[:, part], true, rtol=1e-4, atol=1e-12)
    alone = torch.zeros_like(step)
    alone[:, 1] = step[:, 1]
    still = norm.share_change(here, here + alone)
    assert not still[:, [0, 2, 3]].any(), "a part that does not change has no share"


def test_a_module_that_is_no_norm_is_known_by_its_gradient_alone_and_none_changes_nothing() -> None:
    x, slope = random((3, 6), 3), random((2, 3, 6), 4)
    norm = norm_of(Cube(), 6)
    leaf = x.expand(2, -1, -1).clone().requires_grad_()
    (true,) = torch.autograd.grad(Cube()(leaf), leaf, slope)
    assert norm.gain is None
    torch.testing.assert_close(norm.pull_back(x, slope), true)
    for none in (norm_of(None, 6), norm_of(nn.Identity(), 6)):
        assert torch.equal(none(x), x) and torch.equal(none.pull_back(x, slope, held=True), slope)


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("scaling", [None, 0.7])
def test_attention_by_rules_has_the_models_values_and_the_shares_of_its_gradients(
    shared: int, softcap: float | None, scaling: float | None
) -> None:
    q, k, v = (random((2, 4 // (shared if i else 1), 5, 6), i).requires_grad_() for i in range(3))
    mask = torch.zeros(1, 1, 5, 7, dtype=torch.float64).masked_fill(torch.ones(5, 7).triu(1).bool(), -1e300)

    def plain(q: Tensor, k: Tensor, v: Tensor, held: Tensor | None = None) -> tuple[Tensor, Tensor]:
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * (6**-0.5 if scaling is None else scaling)
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        pattern = (scores + mask[..., :5]).softmax(-1)
        return torch.einsum("bhqk,bhkd->bqhd", pattern if held is None else held, v), pattern

    slope = random((2, 5, 4, 6), 9)
    value, pattern = plain(q, k, v)
    true = torch.autograd.grad(value, (q, k, v), slope)
    split = _attend(BackwardRules(attention_split=True))(nn.Module(), q, k, v, mask, scaling, softcap)
    torch.testing.assert_close(split, (value, pattern), rtol=1e-6, atol=1e-7)
    for share, mine, whole in zip((4, 4, 2), torch.autograd.grad(split[0], (q, k, v), slope), true, strict=True):
        torch.testing.assert_close(mine, whole / share, rtol=1e-5, atol=1e-7)
    held = _attend(BackwardRules(patterns_held=True))(nn.Module(), q, k, v, mask, scaling, softcap)
    torch.testing.assert_close(held, (value, pattern), rtol=1e-6, atol=1e-7)
    (of_v,) = torch.autograd.grad(held[0], v, slope)
    (expected,) = torch.autograd.grad(plain(q, k, v, pattern.detach())[0], v, slope)
    torch.testing.assert_close(of_v, expected, rtol=1e-5, atol=1e-7)
    assert not held[1].requires_grad and BackwardRules(temperature=2.0).attention and not BackwardRules().attention
    soft = _attend(BackwardRules(temperature=2.0))(nn.Module(), q, k, v, mask, scaling, softcap)
    torch.testing.assert_close(soft, (value, pattern), rtol=1e-6, atol=1e-7)


def test_half_of_a_gradient_is_half_and_an_activation_passes_back_its_ratio() -> None:
    x = random(5).requires_grad_()
    halved = halve_gradient(x)
    assert torch.allclose(halved, x) and torch.allclose(
        torch.autograd.grad(halved.sum(), x)[0], torch.full((5,), 0.5).double()
    )
    x = torch.tensor([-2.0, 0.0, 5e-5, -5e-5, 1.5e-4, 3.0], dtype=torch.float64, requires_grad=True)
    y = nn.functional.silu(x)
    out = _identity_rule(nn.SiLU(), (x,), y)
    assert torch.equal(out, y)
    ratio = torch.sigmoid(torch.tensor([-2.0, 1e-4, 1e-4, 1e-4, 1.5e-4, 3.0], dtype=torch.float64))
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x)[0], ratio, rtol=1e-9, atol=0)


def check_of(exact: list[float], estimated: list[float]) -> EstimateCheck:
    return EstimateCheck(tuple(f"e{i}" for i in range(len(exact))), torch.tensor(exact), torch.tensor(estimated), 3)


def test_a_check_has_pearsons_correlation_and_the_relative_error_and_trusts_from_eight_tenths() -> None:
    one, other = random(9, 1).tolist(), random(9, 2).tolist()
    found = check_of(one, other)
    assert found.correlation == pytest.approx(float(np.corrcoef(one, other)[0, 1]), rel=1e-5)
    off = sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
    assert found.error == pytest.approx(off / sum(a * a for a in one) ** 0.5, rel=1e-5)
    assert math.isnan(check_of([1.0], [1.0]).correlation) and check_of([1.0], [1.0]).trusted
    assert math.isnan(check_of([1.0, 2.0], [3.0, 3.0]).correlation) and not check_of([1.0, 2.0], [3.0, 3.0]).trusted
    assert check_of([0.0, 0.0], [0.0, 0.0]).error == 0.0 and check_of([0.0, 0.0], [0.0, 1.0]).error == math.inf
    assert check_of([1.0, 1.0], [1.0009, 1.0009]).trusted and not check_of([1.0, 1.0], [1.0011, 1.0011]).trusted
    # two orthogonal unit vectors of mean 0: correlation c by construction
    u, w = torch.tensor([1.0, -1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, -1.0])
    for c, trusted in ((0.81, True), (0.79, False)):
        one = check_of(u.tolist(), (c * u + (1 - c * c) ** 0.5 * w).tolist())
        assert one.correlation == pytest.approx(c, abs=1e-5) and one.trusted is trusted
    wrong = check_of([1.0, -4.0, 0.0], [1.0, 4.0, 0.5])
    assert "e1 changes the metric by -4, and the estimate is +4;" in str(wrong)
    assert str(wrong).startswith("exact effects of 3 edges, 3 texts: correlation with the estimates -0.")


def effect_of(each: Tensor, graph: EdgeGraph, known: Tensor, clean: list[float], corrupt: list[float]) -> EdgeEffect:
    return EdgeEffect(graph, "x", each, known, torch.tensor(clean), torch.tensor(corrupt))


def test_edges_rank_by_their_mean_effect_signed_by_the_way_of_the_metric_the_unknown_last() -> None:
    graph = and_gate().circuit.graph
    each = random((2, *graph.allowed.shape)) * graph.allowed
    known = graph.allowed.clone()
    known[graph.edges[3]] = False
    found = effect_of(each, graph, known, [3.0, 1.0], [0.0, 2.0])  # 2 clean, 1 corrupt
    torch.testing.assert_close(found.effect, (each[0] + each[1]) / 2)
    torch.testing.assert_close(found.contribution, -found.effect)
    back = effect_of(each, graph, known, [0.0, 1.0], [3.0, 2.0])
    torch.testing.assert_close(back.contribution, back.effect)
    torch.testing.assert_close(effect_of(each, graph, known, [1.0, 1.0], [0.0, 2.0]).contribution, -found.effect)
    pairs = [pair for pair in graph.edges if bool(known[pair])]
    by_size = sorted(pairs, key=lambda pair: -abs(float(found.effect[pair])))
    assert found.top(5) == tuple((graph.name(*p), pytest.approx(float(found.effect[p]))) for p in by_size[:5])
    assert len(found.top()) == 10 and len(found.top(999)) == len(pairs)
    signed = sorted(pairs, key=lambda pair: float(found.effect[pair]))
    assert set(found.circuit(4).edges) == {graph.name(*p) for p in signed[:4]}
    assert set(found.circuit(4, "size").edges) == {graph.name(*p) for p in by_size[:4]}
    assert float(found.scores("size")[graph.edges[3]]) == -math.inf
    again = found.of_texts([1, 1, 0])
    torch.testing.assert_close(again.effect, (2 * each[1] + each[0]) / 3)
    assert again.clean.tolist() == [1.0, 1.0, 3.0] and again.corrupt.tolist() == [2.0, 2.0, 0.0]
    table = found.to_pandas()
    assert table["edge"].tolist() == [graph.name(*p) for p in by_size]
    assert table["contribution"].tolist() == pytest.approx([-float(found.effect[p]) for p in by_size])
    assert f"x: {len(pairs)} edges, metric 2 clean, 1 corrupt" in str(found)
    assert len(str(found).splitlines()) == 11


def test_circuits_are_the_highest_scores_the_first_of_equals_and_no_more_than_there_are() -> None:
    graph = or_gate().circuit.graph
    scores = torch.zeros(graph.allowed.shape)
    scores[graph.edges[7]] = 1.0
    assert top_circuit(graph, scores, 3).edges == tuple(graph.name(*graph.edges[i]) for i in (0, 1, 7))
    for grow in (top_circuit, greedy_circuit):
        assert grow(graph, scores, 1).n_edges == 1 and grow(graph, scores, graph.n_edges).n_edges == graph.n_edges
        with pytest.raises(OutOfRange, match=f"give 0 to {graph.n_edges}"):
            grow(graph, scores, graph.n_edges + 1)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_dead_ends_and_growth_are_those_of_a_walk_over_named_edges(family: str) -> None:
    """Reached and feeding by repeated search over names; grown edge by edge, the best into what is there."""
    graph = edge_graph(double(family))

    @cache
    def node_of(receiver: str) -> set[str]:
        if receiver.startswith(("mlp", "logits")):
            return {receiver}
        layer, head = receiver[1:].split(".")
        copies = sum(name.startswith(f"{receiver[0]}{layer}.") for name in graph.receivers)
        shared = 4 // copies
        return {f"h{layer}.{int(head) * shared + i}" for i in range(shared)}

    for seed in range(2):
        mask = graph.allowed & (torch.rand(graph.allowed.shape, generator=torch.Generator().manual_seed(seed)) < 0.12)
        circuit = Circuit(graph, mask)
        pairs = [tuple(edge.split("->")) for edge in circuit.edges]
        reached, feeding = {"embed"}, {"logits"}
        for _ in range(12):
            reached |= {node for s, r in pairs if s in reached for node in node_of(r)}
            feeding |= {s for s, r in pairs if node_of(r) & feeding}
        left = {f"{s}->{r}" for s, r in pairs if s in reached and node_of(r) & feeding}
        assert set(circuit.prune().edges) == left
        scores = torch.rand(graph.allowed.shape, generator=torch.Generator().manual_seed(9 + seed))
        value = {graph.name(*pair): float(scores[pair]) for pair in graph.edges}
        grown, part = [], {"logits"}
        for _ in range(20):
            open_ = [e for e in value if e not in grown and node_of(e.split("->")[1]) & part]
            best = max(open_, key=value.__getitem__)
            grown.append(best)
            part.add(best.split("->")[0])
        assert set(greedy_circuit(graph, scores, 20).edges) == set(grown)
        gone = Circuit.whole(graph).without(["h1.2", "mlp0"])
        for edge in Circuit.whole(graph).edges:
            s, r = edge.split("->")
            assert (edge in gone.edges) == (s not in ("h1.2", "mlp0") and node_of(r) not in ({"h1.2"}, {"mlp0"}))
    assert circuit.complement().n_edges == graph.n_edges - circuit.n_edges


def test_edges_to_check_are_the_largest_and_a_draw_by_what_leaves_the_node() -> None:
    graph = induction_circuit().circuit.graph
    effect = random(graph.allowed.shape, 3) * graph.allowed
    edges = list(graph.edges)
    for sample, seed in ((10, 0), (11, 5), (500, 0), *((30, seed) for seed in range(1, 9))):
        n = min(sample, len(edges))
        size = [abs(float(effect[pair])) for pair in edges]
        largest = sorted(range(len(edges)), key=lambda i: -size[i])[: n // 2]
        leaving = effect.abs().sum(1)
        fed = [sum(float(leaving[s]) for s in range(len(graph.senders)) if graph.fed_by[s, r]) for _, r in edges]
        least = max(fed) * 0.05 + 1e-30
        chance = torch.tensor([0.0 if i in largest else one + least for i, one in enumerate(fed)], dtype=torch.float64)
        drawn = torch.multinomial(chance, n - len(largest), generator=torch.Generator().manual_seed(seed)).tolist()
        assert _choose(graph, effect, sample, seed) == [edges[i] for i in sorted([*largest, *drawn])]


def test_an_estimate_is_checked_on_sixteen_texts_at_most_with_the_metric_of_those() -> None:
    known = and_gate()
    several = torch.cat([torch.as_tensor(known.task.clean)] * 10 + [torch.tensor([[1, 2, 4]])] * 10)
    other = torch.cat([torch.as_tensor(known.task.corrupt)] * 20)
    right = torch.tensor([1, 0] * 10)
    task = Task(several, other, lambda logits: logits.gather(1, right.to(logits.device)[:, None])[:, 0])
    graph = known.circuit.graph
    exact = exact_edges(known.model, task)
    assert exact.each.shape[0] == 20
    found = check_estimate(known.model, task, graph, 2 * exact.each, 8, 0)
    assert found.n_texts == 16 and len(found.edges) == 8
    places = [graph.edge(name) for name in found.edges]
    expected = torch.stack([exact.each[:16, s, r].mean() for s, r in places])
    torch.testing.assert_close(found.exact, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.estimated, 2 * expected, rtol=1e-9, atol=1e-12)
    few = check_estimate(known.model, Task(several[:3], other[:3], lambda x: x[:, 1]), graph, exact.each[:3], 4, 0)
    assert few.n_texts == 3


def test_exact_effects_are_the_same_in_passes_of_any_size(twin: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(twin, TEXTS, ["fig ever", "a hat", "son and set"])
    names = ["embed->q1.1", "h0.2->v2.0", "mlp0->mlp2", "h1.3->logits", "embed->k0.0", "embed->v0.3"]
    whole = exact_edges(twin, task, names)
    for texts, rows in ((2, 128), (16, 1), (16, 7)):
        monkeypatch.setattr(sys.modules["interp.circuits.edges.exact"], "TEXTS", texts)
        torch.testing.assert_close(
            exact_edges(twin, task, names, batch_size=rows).each, whole.each, rtol=1e-9, atol=1e-11
        )
    for name in names:
        circuit = Circuit(whole.graph, whole.graph.allowed & ~whole.graph.mask([name]))
        moved = run_circuit(twin, task, circuit)[0] - whole.clean
        torch.testing.assert_close(whole.each[(slice(None), *whole.graph.edge(name))], moved, rtol=1e-8, atol=1e-10)
    assert int(whole.known.sum()) == len(names) and int((whole.each != 0).any(0).sum()) <= len(names)


def test_passes_hold_every_text_and_circuit_once_and_no_more_than_they_may() -> None:
    for n_texts, n_circuits, size in ((5, 7, 64), (5, 7, 12), (5, 7, 5), (5, 7, 3), (5, 7, 1), (1, 1, 1), (2, 9, 4)):
        parts = list(_parts(n_texts, n_circuits, size))
        cells = [
            (t, c)
            for texts, some in parts
            for t in range(texts.start, texts.stop)
            for c in range(some.start, some.stop)
        ]
        assert sorted(cells) == [(t, c) for t in range(n_texts) for c in range(n_circuits)]
        for texts, some in parts:
            assert (texts.stop - texts.start) * (some.stop - some.start) <= size
        assert len(parts) == -(-n_texts // min(n_texts, size)) * -(-n_circuits // max(1, size // min(n_texts, size)))


def test_a_mean_is_over_all_tokens_with_text_or_over_the_texts_that_reach_a_place(twin: Model) -> None:
    acts = [capture(twin, text, sites_of_writes(twin)) for text in TEXTS]
    blocks = blocks_of(twin)
    each = [writes_of(blocks, one.values, normed=False)[0] for one in acts]
    over = torch.cat([one[:, 1:] for one in each], 1).mean(1)  # without BOS
    longest = max(one.shape[1] for one in each)
    by_place = torch.stack(
        [torch.stack([one[:, p] for one in each if one.shape[1] > p]).mean(0) for p in range(longest)], 1
    )
    for size in (1, 2, 16):
        torch.testing.assert_close(mean_ablation(twin, TEXTS, batch_size=size).writes, over, rtol=1e-9, atol=1e-11)
        found = mean_ablation(twin, TEXTS, by_position=True, batch_size=size)
        torch.testing.assert_close(found.writes, by_place, rtol=1e-9, atol=1e-11)
        assert found.by_position and not mean_ablation(twin, TEXTS).by_position
    tokens = twin.tokens(TEXTS[:2])
    values = found.values(twin, blocks, tokens)
    assert values.shape[:3] == (2, len(over), tokens.ids.shape[1])
    torch.testing.assert_close(values[1], by_place[:, : tokens.ids.shape[1]], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_zero_leaves_the_bias_after_the_heads_and_the_embedding_of_positions(family: str) -> None:
    model = double(family)
    found, blocks = zero_ablation(model), blocks_of(model)
    writes = found.values(model, blocks, model.tokens("fog"))[0]
    graph = edge_graph(model)
    for s, name in enumerate(graph.senders):
        if name.startswith("h"):
            bias = blocks[int(name[1])].b_O / 4
            torch.testing.assert_close(writes[s], bias.expand(4, -1))
        elif name != "embed":
            assert not bool(writes[s].any())
    if family == "gpt2":
        torch.testing.assert_close(writes[0], model.hf.transformer.wpe.weight[:4].detach())
        assert found.by_position and found.writes is not None and found.writes.shape[1] == 96
    else:
        assert not bool(writes[0].any()) and not found.by_position


def test_writes_that_miss_a_thousandth_of_the_stream_break_the_contract_of_half_precision_a_twentieth(
    twin: Model,
) -> None:
    acts = capture(twin, "fog over", sites_of_writes(twin))
    writes, final = writes_of(blocks_of(twin), acts.values, normed=True), acts[resid_post[2]]
    torch.testing.assert_close(writes.sum(1), final, rtol=1e-9, atol=1e-10)
    tokens = acts.tokens
    check_writes(twin, writes, final * (1 + 0.9e-3), tokens)
    with pytest.raises(ContractBroken, match=r"misses 0.1% of its last"):
        check_writes(twin, writes, final * (1 + 1.2e-3), tokens)
    with pytest.raises(ContractBroken, match="misses"):
        check_writes(twin, writes, final * torch.nan, tokens)
    was = twin.hf.dtype
    try:
        twin.hf.bfloat16()
        check_writes(twin, writes, final * 1.04, tokens)
        with pytest.raises(ContractBroken, match="misses"):
            check_writes(twin, writes, final * 1.06, tokens)
    finally:
        twin.hf.to(was)


def test_a_half_removed_edge_gives_half_of_the_difference(twin: Model) -> None:
    """Into the logits the stream is a sum, so that any share of an edge moves it by that share."""
    blocks, graph = blocks_of(twin), edge_graph(twin)
    tokens, other = twin.tokens(CLEAN), twin.tokens(CORRUPT)
    here, there = (
        writes_of(blocks, capture(twin, t, sites_of_writes(twin)).values, normed=False) for t in (tokens, other)
    )
    removed = torch.zeros(2, *graph.allowed.shape, dtype=torch.float64)
    removed[1, 2, -1], removed[1, 0, -1] = 0.25, 0.5
    found = run_masked(twin, blocks, tokens, removed, there)
    plain = capture(twin, tokens, resid_post[2])[resid_post[2]]
    torch.testing.assert_close(found[:, 0], plain, rtol=1e-12, atol=1e-12)
    moved = 0.25 * (there - here)[:, 2] + 0.5 * (there - here)[:, 0]
    torch.testing.assert_close((found[:, 1] - plain)[tokens.mask], moved[tokens.mask], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("threshold", [1e-3, 0.3])
def test_acdc_is_one_edge_at_a_time_from_the_logits_backward(threshold: float) -> None:
    known = or_gate()
    graph, task = known.circuit.graph, known.task
    asked = Task(task.clean, task.corrupt, kl_from_clean(known.model, task.clean))
    mask, increase, now = graph.allowed.clone(), {}, 0.0
    for r in range(len(graph.receivers) - 1, -1, -1):
        for s in range(len(graph.senders) - 1, -1, -1):
            if not graph.allowed[s, r]:
                continue
            node = [q for q in range(len(graph.senders)) if graph.fed_by[q, r]]
            trial = mask.clone()
            trial[s, r] = False
            if node and not bool(mask[node].any()):
                increase[graph.name(s, r)], mask = 0.0, trial
                continue
            kl = float(run_circuit(known.model, asked, Circuit(graph, trial)).mean())
            increase[graph.name(s, r)] = kl - now
            if kl - now < threshold:
                mask, now = trial, kl
    for size in (1, 5, 64):
        found = acdc(known.model, task, threshold, batch_size=size)
        assert torch.equal(found.circuit.mask, mask) and list(found.order) == list(increase)
        assert found.increase == pytest.approx(increase, abs=1e-12) and found.kl == pytest.approx(now, abs=1e-12)
        table = found.to_pandas()
        assert table["kept"].tolist() == [edge in found.circuit.edges for edge in found.order]
        assert table["increase"].tolist() == pytest.approx(list(increase.values()), abs=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("batch_size", [2, 32])
def test_pruning_takes_adams_steps_on_the_loss_it_states(twin: Model, batch_size: int) -> None:
    task = task_of(twin, TEXTS, ["fig ever", "a hat", "son and set"])
    found = prune_edges(twin, task, 30, steps=7, lr=0.1, masks=2, batch_size=batch_size, seed=4)
    graph, blocks, g = edge_graph(twin), blocks_of(twin), torch.Generator().manual_seed(4)
    log_alpha = torch.full((graph.n_edges,), 2.0, dtype=torch.float64, requires_grad=True)
    a, b = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    adam = torch.optim.Adam([log_alpha, a, b], lr=0.1)
    clean, corrupt = task.tokens(twin)
    log_p = twin.run(clean)[torch.arange(3), clean.mask.sum(1) - 1].detach().log_softmax(-1)
    losses = []
    for step in range(7):
        first = int(torch.randint(max(1, 3 - batch_size + 1), (), generator=g))
        rows = slice(first, first + batch_size)
        u = torch.rand(2, graph.n_edges, generator=g, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + log_alpha) * 1.5)
        mask = (1.2 * s - 0.1).clamp(0, 1)
        removed = torch.zeros(2, *graph.allowed.shape, dtype=torch.float64).masked_scatter(graph.allowed, 1 - mask)
        values = capture(twin, corrupt[rows], sites_of_writes(twin)).values
        final = run_masked(twin, blocks, clean[rows], removed, writes_of(blocks, values, normed=False).detach())
        ends = clean[rows].mask.sum(1) - 1
        log_q = twin.unembed(final[torch.arange(len(ends)), :, ends]).log_softmax(-1)
        p = log_p[rows, None]
        kl = (p.exp() * (p - log_q)).sum(-1).mean()
        on = torch.sigmoid(log_alpha - 2 / 3 * math.log(0.1 / 1.1))
        short = (1 - 30 / graph.n_edges) * min(1.0, (step + 1) / (7 * 5 / 6)) - (1 - on.mean())
        loss = kl + a * short + b * short**2
        log_alpha.grad, up, up2 = torch.autograd.grad(loss, [log_alpha, a, b])
        a.grad, b.grad = -up, -up2
        adam.step()
        losses.append(float(kl.detach()))
    assert found.loss == pytest.approx(losses, rel=1e-6)
    torch.testing.assert_close(found.log_alpha[graph.allowed], log_alpha.detach(), rtol=1e-5, atol=1e-8)
    assert torch.equal(found.circuit.mask, top_circuit(graph, found.log_alpha, 30).mask)
    asked = Task(task.clean, task.corrupt, kl_from_clean(twin, clean))
    assert found.kl == pytest.approx(float(run_circuit(twin, asked, found.circuit).mean()))


@pytest.mark.parametrize(("batch_size", "lr"), [(2, 0.3), (32, 3.0)])
def test_optimal_constants_are_the_best_that_adam_met(twin: Model, batch_size: int, lr: float) -> None:
    task = task_of(twin, TEXTS, ["fig ever", "a hat", "son and set"])
    graph, blocks, clean = edge_graph(twin), blocks_of(twin), task.tokens(twin)[0]
    circuit = top_circuit(graph, torch.rand(graph.allowed.shape, generator=torch.Generator().manual_seed(1)), 40)
    found = optimal_ablation(twin, task, circuit, steps=6, lr=lr, batch_size=batch_size)
    writes = mean_ablation(twin, clean).writes
    assert writes is not None
    constants = writes.clone().requires_grad_()
    adam = torch.optim.Adam([constants], lr=lr)
    removed = (graph.allowed & ~circuit.mask)[None].double()
    log_p = twin.run(clean)[torch.arange(3), clean.mask.sum(1) - 1].detach().log_softmax(-1)
    parts = [slice(0, 2), slice(2, 4)] if batch_size == 2 else [slice(0, 3)]
    best, least, losses = writes, math.inf, []
    for step in range(6):
        whole, total, given = step % len(parts) == 0, 0.0, constants.detach().clone()
        for rows in parts if whole else [parts[step % len(parts)]]:
            tokens = clean[rows]
            each = constants[None, :, None].expand(len(tokens), -1, tokens.ids.shape[1], -1)
            final = run_masked(twin, blocks, tokens, removed, each)[:, 0]
            ends = tokens.mask.sum(1) - 1
            log_q = twin.unembed(final[torch.arange(len(ends)), ends]).log_softmax(-1)
            kl = (log_p[rows].exp() * (log_p[rows] - log_q)).sum(-1).mean()
            (constants.grad,) = torch.autograd.grad(kl, [constants])
            adam.step()
            total += float(kl.detach()) * len(tokens) / 3
        if whole:
            losses.append(total)
            if total < least:
                best, least = given, total
    torch.testing.assert_close(found.writes, best, rtol=1e-6, atol=1e-9)


def test_spread_and_areas_of_a_curve_are_those_by_hand() -> None:
    graph = or_gate().circuit.graph
    sizes = (0.1, 0.4, 1.0)
    circuits = tuple(top_circuit(graph, torch.zeros(graph.allowed.shape), n) for n in (2, 5, 9))
    m = torch.tensor([[0.5, 1.5, 2.5], [1.0, 2.0, 6.0], [2.0, 3.0, 4.0]])
    whole, empty = torch.tensor([2.0, 3.0, 4.0]), torch.tensor([1.0, 0.0, 0.5])
    curve = FaithfulnessCurve("x", sizes, circuits, (2, 5, 9), m, whole, empty)
    f = [(row - 0.5) / 2.5 for row in (1.5, 3.0, 3.0)]
    assert curve.f.tolist() == pytest.approx(f)
    assert curve.cpr == pytest.approx(0.3 * (f[0] + f[1]) / 2 + 0.6 * (f[1] + f[2]) / 2)
    assert curve.cmd == pytest.approx(0.3 * (1 - f[0]) / 2)
    n = graph.n_edges
    assert curve.cpr_real == pytest.approx((3 * (f[0] + f[1]) / 2 + 4 * (f[1] + f[2]) / 2) / n)
    logs = [math.log(size) for size in sizes]
    area = (logs[1] - logs[0]) * (f[0] + f[1]) / 2 + (logs[2] - logs[1]) * (f[1] + f[2]) / 2
    assert curve.log_area == pytest.approx(area / (logs[2] - logs[0]))
    assert curve.spread.tolist() == pytest.approx([float(np.std(row, ddof=1)) / 2.5 for row in m.tolist()])
    some = curve.of_texts([2, 2])
    assert some.f.tolist() == pytest.approx([(2.5 - 0.5) / 3.5, (6.0 - 0.5) / 3.5, 1.0])
    assert curve.to_pandas()["faithfulness"].tolist() == pytest.approx(f) and curve.real == (2, 5, 9)


def test_one_head_of_every_layer_writes_its_share_of_what_attention_adds(twin: Model) -> None:
    acts = capture(twin, "fog over", [*sites_of_writes(twin)])
    for block in blocks_of(twin):
        value = acts[z[block.layer]]
        weight = twin.hf.transformer.h[block.layer].attn.c_proj.weight.detach().unflatten(0, (4, 8))
        bias = twin.hf.transformer.h[block.layer].attn.c_proj.bias.detach()
        for head in range(4):
            expected = value[:, :, head] @ weight[head] + bias / 4
            torch.testing.assert_close(block.head_writes(value)[:, :, head], expected, rtol=1e-9, atol=1e-11)
        assert acts[mlp_out[block.layer]].shape[-1] == 32 and block.n_heads == 4


def test_the_ends_of_what_is_drawn_give_the_ends_of_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """u is kept a millionth away from 0 and 1, where its logit would be no number."""
    drawn = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: drawn[None])
    alpha = torch.tensor([13.0, -13.0, 0.3], dtype=torch.float64)
    u = torch.tensor([1e-6, 1 - 1e-6, 0.5], dtype=torch.float64)
    expected = (1.2 * torch.sigmoid((torch.logit(u) + alpha) * 1.5) - 0.1).clamp(0, 1)
    assert 0 < float(expected[0]) < 1 and 0 < float(expected[1]) < 1
    torch.testing.assert_close(_sample(alpha[None], torch.Generator())[0], expected)


@pytest.mark.parametrize("site", ["mlp_in.1", "v.1"])
def test_a_reader_none_of_whose_edges_is_removed_reads_what_another_block_gives_it(twin: Model, site: str) -> None:
    task, graph = task_of(twin), edge_graph(twin)
    with intervene(twin, {site: scale(0.3)}):
        said = task.metric(twin.run(CLEAN)[:, -1]).detach()
        whole = run_circuit(twin, task, Circuit.whole(graph))[0]
        far = graph.allowed.clone()
        far[0, -1] = False
        other = run_circuit(twin, task, [Circuit(graph, far), Circuit.whole(graph)])[1]
    torch.testing.assert_close(whole, said, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(other, said, rtol=1e-9, atol=1e-10)


class Off(RMS):
    """RMSNorm but for entries that are small, which are off by a share."""

    def __init__(self, share: float, dtype: torch.dtype) -> None:
        super().__init__(torch.linspace(0.5, 1.5, 6).to(dtype))
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) * (1 + self.share * (x.abs() < 0.5))).to(x)


@pytest.mark.parametrize(
    ("dtype", "share", "known"),
    [
        (torch.float32, 0.5e-4, True),
        (torch.float32, 3e-4, False),
        (torch.bfloat16, 0.01, True),
        (torch.bfloat16, 0.032, False),
    ],
)
def test_a_norm_is_known_by_what_it_gives_to_a_ten_thousandth_or_in_half_precision_a_fiftieth(
    dtype: torch.dtype, share: float, known: bool
) -> None:
    assert (norm_of(Off(share, dtype), 6).gain is not None) is known


def test_two_edges_have_a_correlation_of_their_order() -> None:
    assert check_of([1.0, 2.0], [3.0, 5.0]).correlation == pytest.approx(1.0)
    assert check_of([1.0, 2.0], [5.0, 3.0]).correlation == pytest.approx(-1.0)
