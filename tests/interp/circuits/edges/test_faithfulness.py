"""CPR, CMD, completeness and minimality on circuits whose values are known, and methods that look for circuits."""

import sys
from itertools import combinations

import numpy as np
import pytest
import torch

from hooks.errors import InvalidArgument
from interp.circuits.edges import (
    Circuit,
    Task,
    acdc,
    complement_faithfulness,
    completeness,
    edge_attribution,
    edge_graph,
    exact_edges,
    faithfulness_curve,
    kl_from_clean,
    minimality,
    prune_edges,
    random_scores,
    redraw_texts,
    run_circuit,
)
from interp.circuits.edges.faithfulness import MIB_SIZES, FaithfulnessCurve
from interp.circuits.edges.pruning import _on, _sample
from interp.circuits.known import KnownCircuit, and_gate, induction_circuit, or_gate, reverse_circuit
from tests.interp.circuits.edges.twins import double, task_of


def flat_curve(f: float) -> FaithfulnessCurve:
    graph = edge_graph(and_gate().model)
    m = torch.full((len(MIB_SIZES), 2), f)
    circuits = (Circuit.whole(graph),) * len(MIB_SIZES)
    return FaithfulnessCurve("flat", MIB_SIZES, circuits, (1,) * 10, m, torch.ones(2), torch.zeros(2))


def test_a_perfect_curve_has_the_benchmarks_largest_area_and_its_weights() -> None:
    curve = flat_curve(1.0)
    assert curve.cpr == pytest.approx(0.999)
    assert curve.cmd == pytest.approx(0.0)
    assert curve.log_area == pytest.approx(1.0)
    assert flat_curve(2.0).cpr == pytest.approx(1.998)
    assert flat_curve(2.0).cmd == pytest.approx(0.999)
    weights = []
    for i in range(10):
        m = torch.zeros(10, 2)
        m[i] = 1.0
        c = flat_curve(0.0)
        weights.append(FaithfulnessCurve("", c.shares, c.circuits, c.nominal, m, c.whole, c.empty).cpr)
    assert weights == pytest.approx([0.0005, 0.002, 0.004, 0.0075, 0.02, 0.04, 0.075, 0.2, 0.4, 0.25])


def test_faithfulness_is_the_ratio_of_means_and_not_the_mean_of_ratios() -> None:
    curve = flat_curve(0.0)
    whole, empty, m = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 1.0]]).expand(10, 2)
    found = FaithfulnessCurve("", curve.shares, curve.circuits, curve.nominal, m, whole, empty)
    torch.testing.assert_close(found.f, torch.full((10,), 2 / 3))


def test_the_true_ranking_of_a_known_circuit_is_faithful_from_its_own_size_on() -> None:
    known = induction_circuit(20.0)
    found = exact_edges(known.model, known.task)
    curve = faithfulness_curve(known.model, known.task, found.scores("contribution"), shares=(0.01, 0.04, 0.5, 1.0))
    assert curve.nominal == (0, 3, 37, 75)
    torch.testing.assert_close(curve.f, torch.tensor([0.0, 1.0, 1.0, 1.0]).to(curve.f), atol=1e-3, rtol=0)
    assert curve.real[1] == 3
    random = faithfulness_curve(known.model, known.task, random_scores(found.graph), name="random")
    assert random.cpr < curve.cpr
    assert "random: CPR" in str(random)
    with pytest.raises(InvalidArgument, match="that rise"):
        faithfulness_curve(known.model, known.task, random_scores(found.graph), shares=(0.5, 0.1))


def test_faithfulness_without_a_difference_to_explain_is_refused() -> None:
    known = and_gate()
    same = Task(known.task.clean, known.task.clean, known.task.metric)
    with pytest.raises(InvalidArgument, match="not defined"):
        faithfulness_curve(known.model, same, random_scores(known.circuit.graph))


def test_the_two_meanings_of_completeness_are_two_numbers() -> None:
    known = induction_circuit(20.0)
    assert complement_faithfulness(known.model, known.task, known.circuit) == pytest.approx(0, abs=1e-3)
    found = completeness(known.model, known.task, known.circuit, draws=4, restarts=1)
    assert found.worst[1] < 0.01
    gate = or_gate()
    half = Circuit.of(gate.circuit.graph, ["embed->v0.0", "h0.0->mlp0", "mlp0->logits"])
    assert float(run_circuit(gate.model, gate.task, half)[0, 0]) == pytest.approx(1, abs=1e-3)  # faithful
    assert complement_faithfulness(gate.model, gate.task, half) == pytest.approx(0, abs=1e-3)
    removed, gap = completeness(gate.model, gate.task, half, draws=4).worst  # and not complete: the other head is gone
    assert gap == pytest.approx(1, abs=1e-2)
    assert "h0.0" in removed


def test_a_greedy_step_removes_the_worst_of_ten_nodes_drawn_from_those_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: without a set, the circuit falls by the sum of its nodes' numbers and the whole model not at all."""
    model = double("gpt2")
    whole = Circuit.whole(edge_graph(model))
    nodes = [name for name in whole.graph.senders if name != "embed"]
    assert len(nodes) > 12
    tried: list[tuple[int, set[str]]] = []

    def planted(self: object, circuit: Circuit, sets: list[tuple[str, ...]]) -> torch.Tensor:
        if circuit is part:
            tried.append((len(sets), {sets[0][-1] if sets[0] else "", *(one[-1] for one in sets if one)}))
            return torch.tensor([-float(sum(nodes.index(node) for node in removed)) for removed in sets])
        return torch.zeros(len(sets))

    part = Circuit(whole.graph, whole.mask.clone())
    monkeypatch.setattr(sys.modules["interp.circuits.edges.completeness"]._Measure, "__call__", planted)
    found = completeness(model, task_of(model), part, draws=1, restarts=2, greedy_steps=3, progress=False)
    steps = tried[:-1]
    assert [count for count, _ in steps] == [10, 10, 10] * 2
    for restart, removed in enumerate(found.removed[-2:]):
        for step, node in enumerate(removed):
            assert node == max(steps[3 * restart + step][1], key=nodes.index)
    assert steps[0][1] != steps[3][1]


def test_random_sets_are_halves_of_the_nodes_each_its_own_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    model = double("gpt2")
    whole = Circuit.whole(edge_graph(model))
    nodes = [name for name in whole.graph.senders if name != "embed"]

    def nothing(self: object, circuit: Circuit, sets: list[tuple[str, ...]]) -> torch.Tensor:
        asked.extend(sets)
        return torch.zeros(len(sets))

    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(sys.modules["interp.circuits.edges.completeness"]._Measure, "__call__", nothing)
    found = completeness(model, task_of(model), whole, draws=40, restarts=1, greedy_steps=1)
    drawn = found.removed[1:41]
    sizes = torch.tensor([float(len(one)) for one in drawn]) / len(nodes)
    assert len(set(drawn)) == 40 and float(sizes.mean()) == pytest.approx(0.5, abs=0.1)
    asked.clear()
    minimality(model, task_of(model), whole, draws=40)
    sizes = torch.tensor([float(len(one)) for one in asked]) / len(nodes)
    assert 0.4 < float(sizes.mean()) < 0.6 and float(sizes.max()) < 0.95


def test_a_node_that_a_circuit_does_not_need_has_no_minimality() -> None:
    known = induction_circuit(20.0)
    graph = known.circuit.graph
    more = Circuit(graph, known.circuit.mask | graph.mask(["embed->v0.1", "h0.1->logits"]))
    found = minimality(known.model, known.task, more, draws=3)
    assert set(found) == {"h0.0", "h0.1", "h1.0"}
    assert found["h0.1"] < 0.01
    assert min(found["h0.0"], found["h1.0"]) > 10


@pytest.mark.parametrize("known", [induction_circuit(20.0), reverse_circuit(), and_gate()], ids=lambda k: k.name)
def test_acdc_recovers_a_known_circuit_whole_and_a_batch_is_one_turn_at_a_time(known: KnownCircuit) -> None:
    found = acdc(known.model, known.task, 1e-3)
    assert found.circuit.edges == known.circuit.edges
    assert found.kl < 0.01
    assert len(found.order) == found.circuit.graph.n_edges
    alone = acdc(known.model, known.task, 1e-3, batch_size=1)
    assert alone.circuit.edges == found.circuit.edges
    for name, increase in found.increase.items():
        assert alone.increase[name] == pytest.approx(increase, abs=1e-9)


def test_acdc_keeps_one_way_into_an_or_gate() -> None:
    known = or_gate()
    found = acdc(known.model, known.task, 1e-3)
    assert found.circuit.edges == ("embed->v0.0", "h0.0->mlp0", "mlp0->logits")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("known", [induction_circuit(20.0), or_gate()], ids=lambda known: known.name)
def test_edge_pruning_recovers_a_known_circuit(known: KnownCircuit) -> None:
    found = prune_edges(known.model, known.task, len(known.edges), steps=150)
    assert found.circuit.edges == known.circuit.edges
    assert found.kl < 0.01


@pytest.mark.parametrize("log_alpha", [-2.0, 0.0, 1.5])
def test_a_mask_is_drawn_from_the_hard_concrete_distribution(log_alpha: float) -> None:
    """Its closed forms (Louizos et al. 2018): P(z > x) = σ(log α − β log(s / (1 − s))), with x = 1.2 s − 0.1."""
    z = _sample(torch.full((4, 10_000), log_alpha), torch.Generator().manual_seed(0))
    for x in (0.0, 0.25, 0.5, 0.75, 1 - 1e-6):
        s = torch.tensor((x + 0.1) / 1.2, dtype=torch.float64)
        expected = float((log_alpha - 2 / 3 * (s / (1 - s)).log()).sigmoid())
        assert float((z > x).double().mean()) == pytest.approx(expected, abs=0.01)
    assert float(_on(torch.tensor([log_alpha]))) == pytest.approx(float((z > 0).double().mean()), abs=0.01)


def test_edge_pruning_of_one_seed_is_one_mask() -> None:
    known = and_gate()
    one, other = (prune_edges(known.model, known.task, 5, steps=3, masks=2) for _ in range(2))
    assert torch.equal(one.log_alpha, other.log_alpha)
    assert len(one.loss) == 3


def test_redrawn_texts_give_an_interval_around_the_curve_of_all_texts() -> None:
    model = double("gpt2")
    task = task_of(model, ["fog over", "a baysun", "sea wind"], ["fig ever", "a hatsun", "sky wand"])
    effect = edge_attribution(model, task, sample=0)
    found = redraw_texts(model, task, effect, draws=6)
    assert found.cpr.value == pytest.approx(faithfulness_curve(model, task, effect.scores("contribution")).cpr)
    assert found.cpr.low <= found.cpr.high
    assert found.cmd.low <= found.cmd.high
    assert 0 < found.overlap <= 1
    kl = Task(task.clean, task.corrupt, kl_from_clean(model, task.clean))
    with pytest.raises(InvalidArgument, match="at least 2"):
        redraw_texts(model, kl, effect.of_texts([0]))


def test_texts_are_drawn_again_as_often_as_asked_and_the_ends_are_percentiles_of_those_draws() -> None:
    model = double("gpt2")
    task = task_of(model, ["fog over", "a baysun", "sea wind"], ["fig ever", "a hatsun", "sky wand"])
    effect = edge_attribution(model, task, sample=0)
    found = redraw_texts(model, task, effect, draws=5, overlap_share=0.1, seed=3)
    random, cpr, cmd, kept = torch.Generator().manual_seed(3), [], [], []
    for _ in range(5):
        rows = torch.randint(3, (3,), generator=random).tolist()
        again = effect.of_texts(rows)
        for by, into in (("contribution", cpr), ("size", cmd)):
            curve = faithfulness_curve(model, task, again.scores(by), shares=MIB_SIZES).of_texts(rows)
            into.append(curve.cpr if by == "contribution" else curve.cmd)
        kept.append(set(again.circuit(int(0.1 * again.graph.n_edges), "size").edges))
    for estimate, values in ((found.cpr, cpr), (found.cmd, cmd)):
        assert [estimate.low, estimate.high] == pytest.approx(np.percentile(values, [2.5, 97.5]).tolist(), rel=1e-4)
    alike = [len(one & other) / len(one | other) for one, other in combinations(kept, 2)]
    assert found.overlap == pytest.approx(sum(alike) / 10)
    assert (found.draws, found.cpr.n) == (5, 3)
