"""Running a circuit is what it says: the model with every edge, the corrupt run with none, one hop exactly."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Model, Position, capture, intervene
from hooks.errors import InvalidArgument, UnknownName, WrongModel
from hooks.interventions import replace
from hooks.site import mlp_out, resid_post, z
from interp.circuits.edges import (
    Circuit,
    Task,
    counterfactual_ablation,
    edge_graph,
    exact_edges,
    greedy_circuit,
    kl_from_clean,
    mean_ablation,
    optimal_ablation,
    path_patching,
    random_scores,
    run_circuit,
    top_circuit,
    zero_ablation,
)
from interp.circuits.known import and_gate, induction_circuit, or_gate
from tests.interp.circuits.edges.twins import CLEAN, CORRUPT, double, task_of

FAMILIES = ("gpt2", "gpt_neox", "llama", "gemma2")
twin = cache(double)
EVERY = Position("every token", lambda tokens: tokens.mask)


def metric_of(model: Model, text: Any, task: Task) -> Tensor:
    return task.metric(model.run(text)[:, -1]).detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_circuit_is_the_model_and_the_empty_one_the_corrupt_run(family: str) -> None:
    model = twin(family)
    graph, task = edge_graph(model), task_of(model)
    whole, empty = run_circuit(model, task, [Circuit.whole(graph), Circuit.empty(graph)])
    torch.testing.assert_close(whole, metric_of(model, CLEAN, task), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(empty, metric_of(model, CORRUPT, task), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("family", ("gpt2", "llama"))
def test_the_whole_circuit_alone_is_the_model_bit_for_bit(family: str) -> None:
    model = twin(family)
    task = task_of(model)
    found = run_circuit(model, task, Circuit.whole(edge_graph(model)))[0]
    final = capture(model, CLEAN, resid_post[2])[resid_post[2]]
    assert torch.equal(found, task.metric(model.unembed(final[:, -1])))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_circuit_of_all_edges_but_one_has_the_exact_effect_of_that_edge(family: str) -> None:
    model = twin(family)
    graph, task = edge_graph(model), task_of(model)
    names = ["embed->q0.1", "h1.2->v2.1", "mlp1->k2.0", "h0.3->mlp1", "mlp0->mlp2", "h2.0->logits", "embed->logits"]
    circuits = [Circuit(graph, graph.allowed & ~graph.mask([name])) for name in names]
    m = run_circuit(model, task, circuits)
    found = exact_edges(model, task, names)
    for row, name in zip(m, names, strict=True):
        s, r = graph.edge(name)
        torch.testing.assert_close(row - found.clean, found.each[:, s, r], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exact_edge_is_a_path_patch_with_feed_forward_layers_held(family: str) -> None:
    model = twin(family)
    task = task_of(model)
    names = ["embed->v1.0", "h0.1->q2.3", "h1.3->k2.1", "mlp0->mlp2", "h1.0->mlp2", "mlp1->logits", "h0.2->logits"]
    found = exact_edges(model, task, names)
    for name in names:
        sender, _, receiver = name.partition("->")
        patched = path_patching(model, task, [sender], [receiver], mlps="held")
        s, r = found.graph.edge(name)
        torch.testing.assert_close(patched - found.clean, found.each[:, s, r], rtol=1e-9, atol=1e-10)


def test_the_two_conventions_of_path_patching_differ_where_a_way_leads_through_a_feed_forward_layer() -> None:
    model = twin("gpt2")
    task = task_of(model)
    held, through = (path_patching(model, task, ["h0.1"], ["logits"], mlps=way) for way in ("held", "recomputed"))
    assert float((held - through).abs().max()) > 1e-3
    near = [path_patching(model, task, ["mlp2"], ["logits"], mlps=way) for way in ("held", "recomputed")]
    torch.testing.assert_close(*near, rtol=1e-12, atol=1e-12)  # nothing is between
    with pytest.raises(InvalidArgument, match="'held' or 'recomputed'"):
        path_patching(model, task, ["h0.1"], ["logits"], mlps="frozen")
    with pytest.raises(UnknownName, match="did you mean"):
        path_patching(model, task, ["h0.9"], ["logits"])


def test_senders_that_stay_carry_the_circuits_own_values_and_not_the_clean_ones() -> None:
    known = induction_circuit(3.0, change="key")
    graph = edge_graph(known.model)
    broken = Circuit(graph, graph.allowed & ~graph.mask(["embed->v0.0"]))
    one = float(run_circuit(known.model, known.task, broken)[0, 0])
    assert one == pytest.approx(float(metric_of(known.model, known.task.clean, known.task)) - 10.41, abs=6e-3)
    true = float(run_circuit(known.model, known.task, known.circuit)[0, 0])
    assert true == pytest.approx(float(metric_of(known.model, known.task.clean, known.task)), abs=2e-2)


def test_how_many_circuits_and_texts_share_a_pass_changes_nothing() -> None:
    model = twin("llama")
    graph, task = edge_graph(model), task_of(model)
    circuits = [top_circuit(graph, random_scores(graph, seed), 20 + seed) for seed in range(5)]
    many = run_circuit(model, task, circuits)
    for size in (1, 3, 4):
        torch.testing.assert_close(run_circuit(model, task, circuits, batch_size=size), many, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("family", ("gpt2", "llama", "gemma2"))
def test_zero_and_mean_ablation_of_one_head_everywhere_are_those_of_its_values(family: str) -> None:
    model = twin(family)
    graph, task = edge_graph(model), task_of(model)
    mask = graph.allowed.clone()
    mask[graph.senders.index("h2.1")] = False
    mask[graph.senders.index("mlp1")] = False
    circuit = Circuit(graph, mask)
    acts = capture(model, CLEAN, [z[2], mlp_out[1]])
    for ablation, of_z, of_mlp in (
        (zero_ablation(model), torch.zeros(model.d_head), torch.zeros(model.d_model)),
        (mean_ablation(model, CLEAN), acts.flat(z[2])[:, 1].mean(0), acts.flat(mlp_out[1]).mean(0)),
    ):
        edit = torch.zeros_like(acts[z[2]])
        edit.copy_(acts[z[2]])
        with intervene(model, {mlp_out[1]: replace(of_mlp.to(model.dtype), at=EVERY)}):
            value = capture(model, CLEAN, z[2])[z[2]].clone()
            value[:, :, 1] = of_z.to(value)
            with intervene(model, {z[2]: replace(value, at=EVERY)}):
                said = metric_of(model, CLEAN, task)
        torch.testing.assert_close(run_circuit(model, task, circuit, ablation)[0], said, rtol=1e-8, atol=1e-9)


def test_a_mean_is_over_tokens_that_carry_text_whatever_the_padding_and_one_for_each_sender() -> None:
    model = twin("gpt2")
    short, long = "fog", "a bay in the sun"
    both = mean_ablation(model, [short, long])
    assert both.writes is not None
    apart = [capture(model, text, mlp_out[0]).flat(mlp_out[0]) for text in (short, long)]
    at = edge_graph(model).senders.index("mlp0")
    torch.testing.assert_close(both.writes[at], torch.cat(apart).mean(0), rtol=1e-10, atol=1e-12)
    assert len({tuple(row.tolist()) for row in both.writes}) == len(both.writes)
    places = mean_ablation(model, [short, long], by_position=True)
    assert places.writes is not None
    torch.testing.assert_close(
        places.writes[at, -1], capture(model, long, mlp_out[0])[mlp_out[0]][0, -1], rtol=1e-10, atol=1e-12
    )


def test_no_constant_keeps_a_circuit_closer_than_the_optimal_one() -> None:
    model = twin("gpt2")
    graph = edge_graph(model)
    task = Task(CLEAN, CORRUPT, kl_from_clean(model, CLEAN))
    circuit = top_circuit(graph, random_scores(graph, 1), graph.n_edges // 2)
    best = optimal_ablation(model, task, circuit, steps=25, lr=0.02)
    kl = [
        float(run_circuit(model, task, circuit, ablation).mean())
        for ablation in (best, mean_ablation(model, CLEAN), zero_ablation(model))
    ]
    assert kl[0] < 0.9 * kl[1]
    assert kl[0] < kl[2]


def test_an_or_gate_falls_only_when_both_of_its_edges_go_and_an_and_gate_with_either() -> None:
    for known, one_left in ((or_gate(), 1.0), (and_gate(), 0.0)):
        graph = edge_graph(known.model)
        without = [
            Circuit(graph, graph.allowed & ~graph.mask(names))
            for names in (["h0.0->mlp0"], ["h0.1->mlp0"], ["h0.0->mlp0", "h0.1->mlp0"])
        ]
        m = run_circuit(known.model, known.task, without)[:, 0]
        torch.testing.assert_close(m, torch.tensor([one_left, one_left, 0.0]).to(m), atol=1e-3, rtol=0)


def test_dead_ends_are_cut_and_what_is_left_does_the_same() -> None:
    model = twin("gpt2")
    graph, task = edge_graph(model), task_of(model)
    ends = Circuit.of(graph, ["embed->v0.0", "h0.0->mlp1", "h1.1->logits", "embed->mlp2", "mlp2->logits"])
    assert ends.prune().edges == ("embed->mlp2", "mlp2->logits")
    for seed in range(3):
        circuit = top_circuit(graph, random_scores(graph, seed), 12)
        one, other = run_circuit(model, task, [circuit, circuit.prune()])
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    grown = greedy_circuit(graph, random_scores(graph, 0), 15)
    assert grown.n_edges == 15
    assert bool(grown.mask[:, -1].any())
    assert set(grown.edges) == set(Circuit(graph, grown.mask & grown._feeds()[None]).edges)


def test_a_circuit_of_another_model_or_an_edge_that_is_not_there_is_refused() -> None:
    model = twin("gpt2")
    other = edge_graph(twin("llama"))
    with pytest.raises(WrongModel, match="another model"):
        run_circuit(model, task_of(model), Circuit.whole(other))
    with pytest.raises(InvalidArgument, match="writes after"):
        Circuit.of(edge_graph(model), ["mlp2->q1.0"])
    with pytest.raises(InvalidArgument, match="write sender->receiver"):
        Circuit.of(edge_graph(model), ["embed"])
    with pytest.raises(InvalidArgument, match="no circuits"):
        run_circuit(model, task_of(model), [])
    assert counterfactual_ablation().writes is None
