"""Strict interchange training puts each variable of a program into its node, and nothing of it into any other."""

import pytest
import torch

from hooks.errors import InvalidArgument, UnknownName
from interp.circuits.edges import Task, exact_edges, top_circuit
from interp.circuits.interchange import CausalModel
from interp.circuits.known import by_node, edge_auroc, train_strictly

NODES = {"left": "h0.0", "right": "h0.1", "same": "mlp1"}


def program() -> CausalModel:
    return CausalModel(
        {"a": 3, "b": 3},
        {"left": ("a",), "right": ("b",), "same": ("left", "right")},
        {"left": torch.clone, "right": torch.clone, "same": lambda x, y: (x == y).long()},
    )


@pytest.mark.usefixtures("unchecked")
def test_a_model_trained_strictly_holds_each_variable_in_its_node_and_in_no_other() -> None:
    made = train_strictly(program(), NODES, steps=250, lr=0.01, batch_size=64, d_model=32, n_heads=2)
    assert made.accuracy == 1.0
    assert made.interchange["same"] == 1.0
    assert min(made.interchange.values()) > 0.8  # 0.56 where the node carried nothing
    assert set(made.strictness) == {"mlp0", "h1.0", "h1.1"}
    assert min(made.strictness.values()) > 0.95
    whole = set(made.circuit.edges)
    assert {"h0.0->mlp1", "h0.1->mlp1", "mlp1->logits", "embed->v0.0", "embed->k0.1"} <= whole
    assert len(whole) == 9
    causal, answers = made.implementation.causal, made.implementation.answers
    base, source = causal.every_input(), {name: value.flip(0).roll(1) for name, value in causal.every_input().items()}
    differ = causal.run(base)["same"] != causal.run(source)["same"]
    base, source = ({name: value[differ] for name, value in each.items()} for each in (base, source))
    right, wrong = (answers[causal.run(each)["same"]] for each in (base, source))

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (logits.gather(1, right[:, None]) - logits.gather(1, wrong[:, None]))[:, 0]

    ids = made.implementation.ids
    found = exact_edges(made.implementation.model, Task(ids(base), ids(source), metric))
    assert edge_auroc(made.circuit, by_node(found.graph, found.each.abs().mean(0))) > 0.95


def test_scores_joined_by_node_are_the_largest_of_a_nodes_inputs() -> None:
    made = train_strictly(program(), NODES, steps=1, d_model=16, n_heads=2, batch_size=4)
    graph = made.circuit.graph
    scores = torch.zeros(graph.allowed.shape)
    scores[graph.edge("embed->k1.0")] = 2.0
    joined = by_node(graph, scores)
    found = top_circuit(graph, joined, 3)
    assert set(found.edges) == {"embed->q1.0", "embed->k1.0", "embed->v1.0"}


def test_a_program_without_a_node_for_each_variable_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="a node of its own"):
        train_strictly(program(), {"left": "h0.0", "right": "h0.0", "same": "mlp1"})
    with pytest.raises(UnknownName, match="did you mean"):
        train_strictly(program(), NODES | {"same": "mlp7"})


def test_inputs_of_different_sizes_have_a_token_for_each_value_then_the_end_then_the_answers() -> None:
    sum_of = CausalModel({"a": 2, "b": 5}, {"sum": ("a", "b")}, {"sum": lambda a, b: a + b})
    made = train_strictly(sum_of, {"sum": "mlp1"}, steps=1, d_model=16, n_heads=2, batch_size=4)
    hf = made.implementation.model.hf
    assert hf.config.vocab_size == 5 + 1 + 6 and hf.config.n_positions == 3
    ids = made.implementation.ids({"a": torch.tensor([1]), "b": torch.tensor([4])})
    assert ids.tolist() == [[1, 4, 5]] and made.implementation.answers.tolist() == [6, 7, 8, 9, 10, 11]
