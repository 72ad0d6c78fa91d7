"""Completeness and minimality: whether a circuit has all that the model uses, and nothing that it does not need."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hooks import Model
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.circuits.edges.ablation import Ablation
from interp.circuits.edges.circuit import Circuit
from interp.circuits.edges.faithfulness import faithfulness
from interp.circuits.edges.running import run_circuit
from interp.circuits.edges.task import Task

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Completeness:
    """|F(C without K) - F(M without K)| for sets K of the circuit's nodes: 0 everywhere is a complete circuit.

    Attributes:
        removed: each K.
        circuit: F(C without K), the mean metric.
        model: F(M without K).
    """

    removed: tuple[tuple[str, ...], ...]
    circuit: tuple[float, ...]
    model: tuple[float, ...]

    __repr__ = summarise

    @property
    def gaps(self) -> tuple[float, ...]:
        """The difference for each K."""
        return tuple(abs(c - m) for c, m in zip(self.circuit, self.model, strict=True))

    @property
    def worst(self) -> tuple[tuple[str, ...], float]:
        """The K with the largest difference, and that."""
        at = max(range(len(self.gaps)), key=self.gaps.__getitem__)
        return self.removed[at], self.gaps[at]

    def to_pandas(self) -> "DataFrame":
        """A row for each set of nodes: which, the metric without it in the circuit and in the model, and the gap."""
        from pandas import DataFrame

        rows = zip(map(" ".join, self.removed), self.circuit, self.model, self.gaps, strict=True)
        return DataFrame(rows, columns=["removed", "circuit", "model", "gap"])


def completeness(
    model: Model,
    task: Task,
    circuit: Circuit,
    ablation: Ablation | None = None,
    *,
    draws: Count = 10,
    restarts: Count = 3,
    greedy_steps: Count = 5,
    seed: Natural = 0,
    batch_size: Count = 64,
    progress: bool = True,
) -> Completeness:
    """Take the same nodes out of the circuit and out of the model: a complete circuit changes as the model does.

    The sets are the empty one, random halves of the circuit's nodes, all its heads and all its feed-forward layers,
    and greedily worst ones, grown node by node from random starts to the largest difference.

    Args:
        model: the model.
        task: clean and corrupt texts and the metric.
        circuit: the circuit.
        ablation: what replaces edges that are out; by default the corrupt run.
        draws: random sets.
        restarts: greedy searches.
        greedy_steps: nodes that each of them takes out.
        seed: of the draws.
        batch_size: texts times circuits per pass.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: a circuit without nodes.

    Cost: two forward passes for each set; a greedy step tries up to 10 nodes.

    Wang et al. 2022, arXiv:2211.00593, section 4.

    Examples:
        ```python
        completeness(model, task, circuit).worst
        ```
    """
    nodes, random = _inner_nodes(circuit), torch.Generator().manual_seed(seed)
    whole, sets = Circuit.whole(circuit.graph), [()]
    sets += [tuple(n for n, out in zip(nodes, _coins(len(nodes), random), strict=True) if out) for _ in range(draws)]
    sets += [tuple(n for n in nodes if n.startswith(kind)) for kind in ("h", "mlp")]
    measure = _Measure(model, task, ablation, batch_size)
    for _ in progress_bar(range(restarts), desc="completeness", progress=progress):
        removed: tuple[str, ...] = ()
        for _ in range(min(greedy_steps, len(nodes))):
            left = [node for node in nodes if node not in removed]
            tried = [left[i] for i in torch.randperm(len(left), generator=random)[:10].tolist()]
            options = [(*removed, node) for node in tried]
            gaps = (measure(circuit, options) - measure(whole, options)).abs()
            removed = options[int(gaps.argmax())]
        sets.append(removed)
    sets = list(dict.fromkeys(sets))
    inside, outside = measure(circuit, sets), measure(whole, sets)
    return Completeness(tuple(sets), tuple(inside.tolist()), tuple(outside.tolist()))


def minimality(
    model: Model,
    task: Task,
    circuit: Circuit,
    ablation: Ablation | None = None,
    *,
    draws: Count = 10,
    seed: Natural = 0,
    batch_size: Count = 64,
    progress: bool = True,
) -> dict[str, float]:
    """For each node v, max over sets K of |F(C without K and v) - F(C without K)|: near 0, v is not needed.

    K runs over the empty set and random halves of the other nodes, the same for all v.

    Args:
        model: the model.
        task: clean and corrupt texts and the metric.
        circuit: the circuit.
        ablation: what replaces edges that are out; by default the corrupt run.
        draws: random sets.
        seed: of the draws.
        batch_size: texts times circuits per pass.
        progress: show a bar.

    Raises:
        InvalidArgument: a circuit without nodes.

    Cost: two forward passes for each node and set.

    Wang et al. 2022, arXiv:2211.00593, section 4.

    Examples:
        ```python
        min(minimality(model, task, circuit).items(), key=lambda item: item[1])
        ```
    """
    nodes, random = _inner_nodes(circuit), torch.Generator().manual_seed(seed)
    coins = [[False] * len(nodes), *(_coins(len(nodes), random) for _ in range(draws))]
    measure, found = _Measure(model, task, ablation, batch_size), dict[str, float]()
    for node in progress_bar(nodes, desc="minimality", progress=progress):
        without = [tuple(n for n, out in zip(nodes, row, strict=True) if out and n != node) for row in coins]
        moved = measure(circuit, [(*k, node) for k in without]) - measure(circuit, without)
        found[node] = float(moved.abs().max())
    return found


@torch.no_grad()
def complement_faithfulness(
    model: Model,
    task: Task,
    circuit: Circuit,
    ablation: Ablation | None = None,
    *,
    batch_size: Count = 64,
    progress: bool = True,
) -> float:
    """f(M without C): the faithfulness of all that is not in the circuit, 0 if the circuit is all there is.

    This is what sparse feature circuits call completeness (Marks et al. 2024, arXiv:2403.19647); `completeness` is
    another measure.

    Examples:
        ```python
        complement_faithfulness(model, task, circuit)
        ```
    """
    graph = circuit.graph
    several = [circuit.complement(), Circuit.whole(graph), Circuit.empty(graph)]
    m = run_circuit(model, task, several, ablation, batch_size=batch_size, progress=progress)
    return float(faithfulness(m[0], m[1], m[2]))


def circuit_nodes(circuit: Circuit) -> tuple[str, ...]:
    """Return the heads and feed-forward layers with an edge of the circuit out of them.

    Examples:
        ```python
        circuit_nodes(circuit)  # ("h0.0", "h1.0")
        ```
    """
    used = circuit.mask.any(1).tolist()
    return tuple(name for name, one in zip(circuit.graph.senders, used, strict=True) if one and name != "embed")


def _inner_nodes(circuit: Circuit) -> tuple[str, ...]:
    """The same, of a circuit that has some."""
    nodes = circuit_nodes(circuit)
    if not nodes:
        raise InvalidArgument("the circuit has no head and no feed-forward layer: give one that has")
    return nodes


@dataclass(frozen=True, eq=False)
class _Measure:
    """The mean metric of a circuit without sets of nodes."""

    model: Model
    task: Task
    ablation: Ablation | None
    batch_size: int

    def __call__(self, circuit: Circuit, sets: Sequence[tuple[str, ...]]) -> torch.Tensor:
        several = [circuit.without(removed) for removed in sets]
        return run_circuit(
            self.model, self.task, several, self.ablation, batch_size=self.batch_size, progress=False
        ).mean(1)


def _coins(count: int, random: torch.Generator) -> list[bool]:
    return (torch.rand(count, generator=random) < 0.5).tolist()
