"""Every method against circuits whose edges are known."""

import pytest
import torch

from interp.circuits.edges import (
    Slope,
    clean_corrupt,
    eap,
    eap_ig,
    edge_attribution,
    edge_graph,
    exact_edges,
)
from interp.circuits.known import (
    KnownCircuit,
    and_gate,
    edge_auroc,
    induction_circuit,
    or_gate,
    proportion_circuit,
    reverse_circuit,
    skip_trio,
)

SINGLE = (
    induction_circuit(3.0),
    induction_circuit(20.0),
    induction_circuit(20.0, change="answer"),
    reverse_circuit(),
    proportion_circuit(),
    and_gate(),
    skip_trio(),
)


@pytest.mark.parametrize("known", SINGLE, ids=lambda known: known.name)
def test_exact_effects_and_fifty_steps_find_every_edge_of_a_circuit_that_single_edges_show(known: KnownCircuit) -> None:
    assert known.auroc(exact_edges(known.model, known.task)) == 1.0
    assert known.auroc(edge_attribution(known.model, known.task, eap_ig(50), sample=0)) == 1.0


@pytest.mark.parametrize("known", SINGLE, ids=lambda known: known.name)
def test_no_edge_outside_the_circuit_matters(known: KnownCircuit) -> None:
    found = exact_edges(known.model, known.task)
    inside = found.effect[known.circuit.mask].abs()
    outside = found.effect[known.circuit.graph.allowed & ~known.circuit.mask].abs()
    assert float(outside.max()) < 2e-3 * float(inside.min())


@pytest.mark.parametrize(
    ("attention", "exact", "first_order", "left"),
    [(3.0, -10.41, -8.28, -10.40), (6.0, -19.48, -1.82, -19.34), (20.0, -20.00, -0.00, -5.66)],
)
def test_a_slope_in_the_clean_run_goes_blind_as_attention_hardens(
    attention: float, exact: float, first_order: float, left: float
) -> None:
    known = induction_circuit(attention)
    slopes: dict[Slope, float] = {eap(): first_order, eap_ig(5, rule="left"): left, eap_ig(50): exact}
    edge = known.circuit.graph.edge("h0.0->k1.0")
    assert float(exact_edges(known.model, known.task, ["h0.0->k1.0"]).effect[edge]) == pytest.approx(exact, abs=6e-3)
    for slope, said in slopes.items():
        found = edge_attribution(known.model, known.task, slope, sample=0)
        assert float(found.effect[edge]) == pytest.approx(said, abs=6e-3)


def test_where_attention_is_saturated_the_estimate_is_outranked_and_says_so() -> None:
    known = induction_circuit(20.0)
    found = edge_attribution(known.model, known.task, eap())
    assert known.auroc(found) < 1.0
    assert found.check is not None
    assert not found.check.trusted
    assert "WRONG here" in str(found)
    sound = edge_attribution(known.model, known.task, eap_ig(50))
    assert sound.check is not None
    assert sound.check.trusted
    assert "WRONG" not in str(sound)


def test_no_single_edge_shows_what_an_or_gate_reads_and_both_together_do() -> None:
    known = or_gate()
    found = exact_edges(known.model, known.task)
    into = [found.graph.edge(name) for name in ("embed->v0.0", "embed->v0.1", "h0.0->mlp0", "h0.1->mlp0")]
    assert all(abs(float(found.effect[edge])) < 1e-3 for edge in into)
    assert float(found.effect[found.graph.edge("mlp0->logits")]) == pytest.approx(-1, abs=1e-3)
    for slope in (eap(), clean_corrupt()):
        assert known.auroc(edge_attribution(known.model, known.task, slope, sample=0)) < 0.6
    assert not known.single


def test_every_model_does_what_it_was_made_for() -> None:
    model = reverse_circuit().model
    said = model.run(torch.tensor([[3, 5, 4, 6, 0, 7, 8]])).argmax(-1)[0]
    assert said[4:].tolist() == [0, 6, 4]  # at place p the token at 2n - p, n = 4 being the separator's
    shares = proportion_circuit().model.run(torch.tensor([[3, 5, 3, 6]]))[0, :, 1]
    torch.testing.assert_close(shares, torch.tensor([1, 1 / 2, 2 / 3, 1 / 2], dtype=shares.dtype), atol=1e-3, rtol=0)
    for gate, table in ((or_gate(), (0, 1, 1, 1)), (and_gate(), (0, 0, 0, 1))):
        texts = torch.tensor([[2, 2, 4], [1, 2, 4], [2, 1, 4], [1, 1, 4]])
        said = gate.model.run(texts)[:, -1, 1]
        torch.testing.assert_close(said, torch.tensor(table, dtype=said.dtype), atol=1e-3, rtol=0)
    text = torch.tensor([[7, 5, 2, 3, 1, 5]])
    assert int(induction_circuit().model.run(text)[0, -1].argmax()) == 2


def test_edges_that_are_true_are_in_the_order_of_the_forward_pass() -> None:
    for known in (*SINGLE, or_gate()):
        assert known.circuit.n_edges == len(known.edges)
        assert edge_graph(known.model).n_edges > 3 * len(known.edges)


def test_the_auroc_is_the_share_of_pairs_in_order_with_ties_half_and_misses_the_edges_that_scores_leave_out() -> None:
    known = induction_circuit()
    graph, true = known.circuit.graph, known.circuit.mask
    scores = torch.randint(0, 4, graph.allowed.shape, generator=torch.Generator().manual_seed(0)).double()
    ours, others = scores[true], scores[graph.allowed & ~true]
    order = (ours[:, None] > others).double() + 0.5 * (ours[:, None] == others).double()
    assert edge_auroc(known.circuit, scores) == pytest.approx(float(order.mean()), abs=1e-12)
    first, *_ = true.nonzero().tolist()
    without = true.double()
    without[first[0], first[1]] = 0.0
    n = int(true.sum())
    assert edge_auroc(known.circuit, without) == pytest.approx((n - 1 + 0.5) / n)
    assert edge_auroc(known.circuit, torch.zeros_like(scores)) == 0.5


@pytest.mark.parametrize(
    ("known", "layers", "heads"),
    [(SINGLE[0], 2, 3), (SINGLE[3], 2, 2), (SINGLE[4], 2, 2), (SINGLE[5], 1, 3), (or_gate(), 1, 3), (SINGLE[6], 3, 2)],
    ids=lambda one: getattr(one, "name", None),
)
def test_a_circuit_is_held_against_the_edges_of_a_model_of_its_size(
    known: KnownCircuit, layers: int, heads: int
) -> None:
    assert (known.model.n_layers, known.model.n_heads) == (layers, heads)
