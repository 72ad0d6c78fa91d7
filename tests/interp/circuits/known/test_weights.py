"""The known circuits are the very models, of the very weights, that published figures are of."""

from collections.abc import Callable

import pytest
import torch

from hooks import Model
from interp.circuits.interchange import CausalModel
from interp.circuits.known import (
    KnownCircuit,
    and_gate,
    equality,
    induction_circuit,
    or_gate,
    proportion_circuit,
    reverse_circuit,
    skip_trio,
    train_strictly,
)
from interp.circuits.known.strict_training import by_node
from interp.circuits.known.toy_model import ToyModel


def sums_of(model: Model) -> tuple[int, float, float]:
    """How many weights there are, a sum in which each has its own factor, and the sum of their squares."""
    count, mixed, squares = 0, 0.0, 0.0
    for name, weights in sorted(model.hf.named_parameters()):
        flat = weights.detach().double().flatten()
        mixed += float((flat * torch.cos(torch.arange(len(flat)).double() + len(name))).sum())
        squares, count = squares + float(flat.square().sum()), count + len(flat)
    return count, mixed, squares


@pytest.mark.parametrize(
    ("made", "sums", "clean", "corrupt", "metric"),
    [
        (
            lambda: induction_circuit(3.0),
            (21320, -26.58576, 4630.191662),
            [1, 6, 2, 3, 5, 4, 7, 8, 9, 5],
            [1, 5, 2, 3, 6, 4, 7, 8, 9, 5],
            (4.838962, -5.574303),
        ),
        (
            lambda: induction_circuit(20.0, change="answer"),
            (21320, -118.387381, 136006.191662),
            [1, 6, 2, 3, 5, 4, 7, 8, 9, 5],
            [1, 6, 4, 3, 5, 2, 7, 8, 9, 5],
            (9.999805, -10.000185),
        ),
        (
            lambda: reverse_circuit(),
            (30580, 99.434943, 84311.55646),
            [3, 5, 4, 6, 0, 7, 8],
            [3, 5, 4, 0, 6, 7, 8],
            (9.999915, -10.000063),
        ),
        (
            lambda: proportion_circuit(),
            (1760, -2.173565, 87.989456),
            [3, 5, 3, 6, 3, 7],
            [3, 5, 4, 6, 2, 7],
            (0.499942, 0.166601),
        ),
        (and_gate, (1339, 361.723446, 100040.286738), [1, 1, 4], [2, 2, 4], (1.000037, -1.4e-05)),
        (or_gate, (1339, 361.630631, 100043.286738), [1, 1, 4], [2, 2, 4], (1.000037, -1.4e-05)),
        (skip_trio, (1762, 14.971762, 132.561985), [4, 3, 1], [4, 3, 2], (0.999832, 5.7e-05)),
    ],
    ids=["induction", "another answer", "reverse", "proportion", "and", "or", "skip"],
)
def test_a_known_circuit_has_the_weights_texts_and_metric_that_figures_were_published_of(
    made: Callable[[], KnownCircuit],
    sums: tuple[int, float, float],
    clean: list[int],
    corrupt: list[int],
    metric: tuple[float, ...],
) -> None:
    known = made()
    assert sums_of(known.model) == (sums[0], pytest.approx(sums[1], abs=2e-5), pytest.approx(sums[2], rel=1e-8))
    assert torch.equal(torch.as_tensor(known.task.clean), torch.tensor([clean]))
    assert torch.equal(torch.as_tensor(known.task.corrupt), torch.tensor([corrupt]))
    with torch.no_grad():
        found = [float(known.task.metric(known.model.run(torch.tensor([ids]))[:, -1])) for ids in (clean, corrupt)]
    assert found == pytest.approx(metric, abs=2e-6)


def test_the_model_of_two_pairs_has_the_weights_that_figures_were_published_of() -> None:
    made = equality()
    assert sums_of(made.model) == (7712, pytest.approx(-58.605412, abs=2e-5), pytest.approx(280090.256711, rel=1e-8))
    assert made.ids({name: torch.tensor([i % 3]) for i, name in enumerate("abcd")}).tolist() == [[0, 1, 2, 0, 3]]
    assert made.answers.tolist() == [4, 5] and dict(made.causal.inputs) == dict.fromkeys("abcd", 3)


def test_a_head_made_by_hand_attends_by_its_query_times_its_key_and_writes_what_it_reads() -> None:
    """Against the softmax of the products themselves; random weights, so that no factor is one."""
    g = torch.Generator().manual_seed(0)
    hand = ToyModel({"token": 5, "place": 4, "out": 3}, vocab=5, n_pos=4, layers=1, heads=2, d_mlp=3)
    assert (hand.d_head, hand.hf.config.n_embd, hand.at["out"]) == (6, 12, slice(9, 12))
    table, q, k, v = (torch.randn(5, n, generator=g) for n in (5, 2, 2, 3))
    write, bias, out = torch.randn(3, 3, generator=g), torch.randn(2, generator=g), torch.randn(3, 5, generator=g)
    hand.embed("token", table)
    hand.place("place")
    hand.unembed("out", out)
    hand.head(0, 1, query=("token", q), key=("token", k), value=("token", v), write=("out", write), bias=bias)
    read, push, into = torch.randn(3, 3, generator=g), torch.randn(3, generator=g), torch.randn(3, 3, generator=g)
    hand.neurons(0, 0, read={"out": read}, bias=push, write=("out", into))
    ids = torch.tensor([[3, 1, 4, 2]])
    x = table[ids[0]]
    scores = ((x @ q + bias) @ (x @ k).T).masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf)
    z = scores.softmax(-1) @ (x @ v) @ write
    expected = (z + (z @ read + push).relu() @ into) @ out
    torch.testing.assert_close(hand.load("hand").run(ids)[0], expected, rtol=1e-4, atol=1e-5)


def program() -> CausalModel:
    return CausalModel(
        {"a": 3, "b": 2}, {"left": ("a",), "sum": ("left", "b")}, {"left": torch.clone, "sum": lambda x, y: x + y}
    )


@pytest.mark.usefixtures("unchecked")
def test_strict_training_takes_adams_steps_on_the_sum_of_its_three_losses() -> None:
    """Its weights after four steps, by a loop of our own over whole runs with one node's output exchanged."""
    nodes = {"left": "h0.1", "sum": "mlp1"}
    made = train_strictly(program(), nodes, n_layers=2, n_heads=2, d_model=8, steps=4, batch_size=6, lr=0.01, seed=3)
    start = train_strictly(program(), nodes, n_layers=2, n_heads=2, d_model=8, steps=1, lr=1e-30, seed=3)
    hf, causal, random = start.implementation.model.hf, program(), torch.Generator().manual_seed(3)
    assert (hf.config.vocab_size, hf.config.n_positions) == (3 + 1 + 4, 3)
    adam = torch.optim.AdamW(hf.parameters(), lr=0.01, weight_decay=0.01)
    idle = ["h0.0", "mlp0", "h1.0", "h1.1"]
    ce = torch.nn.functional.cross_entropy

    def run(ids: torch.Tensor, node: str = "", given: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The answers' logits, and what the node writes or, of a head, what it reads out."""
        layer = int(node[3:] if node.startswith("mlp") else node[1]) if node else 0
        block, kept = hf.transformer.h[layer], []
        head = None if node.startswith("mlp") or not node else int(node[3:])

        def swapped(a: torch.Tensor) -> torch.Tensor:
            kept.append(a)
            if given is None:
                return a
            if head is None:
                return given
            mine = torch.arange(8) // 4 == head
            return torch.where(mine, given, a)

        if head is None:
            hook = block.mlp.register_forward_hook(lambda _m, _i, out: swapped(out))
        else:
            hook = block.attn.c_proj.register_forward_pre_hook(lambda _m, args: (swapped(args[0]),))
        logits = hf(ids).logits[:, -1, [4, 5, 6, 7]]
        hook.remove()
        return logits, kept[0]

    for step in range(4):
        rate = min(step + 1.0, 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 4)).item()))
        adam.param_groups[0]["lr"] = 0.01 * rate
        base, source = (causal.draw(6, random) for _ in range(2))
        still = idle[int(torch.randint(4, (), generator=random))]
        variable = ("left", "sum")[step % 2]
        ids, other = (torch.stack([one["a"], one["b"], torch.full((6,), 3)], 1) for one in (base, source))
        answer = base["a"] + base["b"]
        swapped = source["a"] + base["b"] if variable == "left" else source["a"] + source["b"]
        loss = ce(run(ids, "mlp0")[0], answer)
        for node, wanted in ((nodes[variable], swapped), (still, answer)):
            loss = loss + ce(run(ids, node, run(other, node)[1])[0], wanted)
        adam.zero_grad()
        loss.backward()
        adam.step()
    for mine, theirs in zip(hf.parameters(), made.implementation.model.hf.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-5)
    base, source = (lambda r: (causal.draw(512, r), causal.draw(512, r)))(torch.Generator().manual_seed(4))
    ids, other = (torch.stack([one["a"], one["b"], torch.full((512,), 3)], 1) for one in (base, source))
    with torch.no_grad():
        said = run(ids, "mlp0")[0].argmax(-1)
        assert made.accuracy == pytest.approx(float((said == base["a"] + base["b"]).double().mean()), abs=0.02)
        assert set(made.strictness) == set(idle)
        for node, share in made.strictness.items():
            stays = run(ids, node, run(other, node)[1])[0].argmax(-1) == said
            assert share == pytest.approx(float(stays.double().mean()), abs=0.02)
        left = run(ids, "h0.1", run(other, "h0.1")[1])[0].argmax(-1) == source["a"] + base["b"]
        assert made.interchange["left"] == pytest.approx(float(left.double().mean()), abs=0.02)


def test_scores_by_node_are_the_largest_of_each_nodes_own_inputs_from_each_sender() -> None:
    graph = and_gate().circuit.graph
    scores = torch.randn(graph.allowed.shape, generator=torch.Generator().manual_seed(0))
    joined = by_node(graph, scores)
    for s in range(len(graph.senders)):
        for r, name in enumerate(graph.receivers):
            mine = [q for q, other in enumerate(graph.receivers) if other[1:] == name[1:]] if name[0] in "qkv" else [r]
            assert float(joined[s, r]) == float(scores[s, mine].max())
