"""A sparse feature circuit: nodes and edges above their thresholds, and how much of the behaviour they bring back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Model, Site
from hooks.border import Count, Natural, NotNegative
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.circuits.edges.faithfulness import faithfulness
from interp.circuits.edges.task import Task
from interp.common.statistics import Estimate, bootstrap
from interp.graphs.feature_circuits.dictionaries import no_nodes
from interp.graphs.feature_circuits.edge_weights import FeatureEdges, edge_weights
from interp.graphs.feature_circuits.node_effects import FeatureEffects, feature_effects
from interp.graphs.feature_circuits.running import ERRORS, run_feature_circuit
from interp.sae import SAE

if TYPE_CHECKING:
    from pandas import DataFrame

RANDOM = 3
"""Random circuits of the same size, whose mean is the control."""


@dataclass(frozen=True, eq=False)
class FeatureCircuit:
    """Features and errors that a behaviour runs through, and what each owes to the others. Made by `feature_circuit`.

    Attributes:
        effects: of all nodes.
        nodes: by site, those of the circuit.
        node_threshold, edge_threshold: absolute effects above these are kept, in units of the metric.
        edges: between the nodes of the circuit.
    """

    effects: FeatureEffects
    nodes: Mapping[Site, Bool[Tensor, "n node"]]
    node_threshold: float
    edge_threshold: float
    edges: FeatureEdges

    __repr__ = summarise

    @property
    def n_nodes(self) -> int:
        """How many nodes it has, errors included."""
        return sum(int(mask.sum()) for mask in self.nodes.values())

    @property
    def n_errors(self) -> int:
        """How many of its nodes are errors."""
        return sum(int(mask[:, -1].sum()) for mask in self.nodes.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Its nodes by name, in the order of the forward pass."""
        return self.effects.names(self.nodes)

    def complement(self) -> dict[Site, Bool[Tensor, "n node"]]:
        """Return the mask of all other nodes.

        Examples:
            ```python
            run_feature_circuit(model, saes, task, circuit.complement())
            ```
        """
        return {site: ~mask for site, mask in self.nodes.items()}

    def to_pandas(self) -> "DataFrame":
        """One row for each edge above the threshold: from which node to which, and its weight.

        Examples:
            ```python
            feature_circuit(model, saes, task).to_pandas()
            ```
        """
        import pandas

        return pandas.DataFrame(self.edges.above(self.edge_threshold), columns=["source", "target", "weight"])

    def __str__(self) -> str:
        edges = self.edges.above(self.edge_threshold)
        lines = [
            f"{self.n_nodes} nodes above {self.node_threshold:g}, {self.n_errors} of them errors; {len(edges)} edges "
            f"above {self.edge_threshold:g}; {self.effects.how}"
        ]
        lines += [f"  {name:<24} {self.effects.of(name):+.4g}" for name in self.names]
        return "\n".join([*lines, *(f"  {source} -> {target} {weight:+.4g}" for source, target, weight in edges)])


def feature_circuit(
    model: Model,
    autoencoders: Sequence[SAE],
    task: Task,
    *,
    node_threshold: NotNegative = 0.1,
    edge_threshold: NotNegative = 0.01,
    steps: Natural = 10,
    against: str = "corrupt",
    by_position: bool = False,
    batch_size: Count = 16,
    progress: bool = True,
) -> FeatureCircuit:
    """The sparse feature circuit of a task: nodes by their effects, edges by direct effects between them.

    Thresholds are in units of the metric; those of the paper are for logit differences of agreement.

    Args:
        model: the model.
        autoencoders: one for each site that is to have nodes.
        task: clean and corrupt texts and the metric.
        node_threshold: nodes with an absolute effect above it are kept.
        edge_threshold: likewise edges.
        steps: as for `feature_effects`, as are the other arguments.
        against: "corrupt" or "zero".
        by_position: nodes of each token by themselves.
        batch_size: texts per pass.
        progress: whether to show bars.

    Raises:
        InvalidArgument: no node above the threshold; as `feature_effects`.

    Cost: that of `feature_effects`, and for each kept node a backward pass from its site to those before it.

    Marks et al. 2024, arXiv:2403.19647.

    Examples:
        ```python
        circuit = feature_circuit(model, saes, Task(clean, corrupt, logit_difference(model, right, wrong)))
        print(circuit, feature_faithfulness(model, saes, circuit))
        ```
    """
    effects = feature_effects(
        model,
        autoencoders,
        task,
        steps=steps,
        against=against,
        by_position=by_position,
        batch_size=batch_size,
        progress=progress,
    )
    nodes = effects.nodes(node_threshold)
    if not any(bool(mask.any()) for mask in nodes.values()):
        name, largest = effects.top(1)[0]
        raise InvalidArgument(
            f"no node has an absolute effect above {node_threshold:g}; the largest, of {name}, is {largest:+.3g}: "
            "give a lower node_threshold"
        )
    edges = edge_weights(
        model,
        effects.dictionaries,
        task,
        nodes,
        effects.slope,
        against=against,
        batch_size=batch_size,
        progress=progress,
    )
    return FeatureCircuit(effects, nodes, node_threshold, edge_threshold, edges)


@dataclass(frozen=True)
class FeatureFaithfulness:
    """How much of the way from no node to all nodes a circuit goes. Made by `feature_faithfulness`.

    f(C) = (m(C) - m(none)) / (m(model) - m(none)), means over texts first, with bootstrap intervals over texts.

    Attributes:
        circuit: f of the circuit, by what is done with errors: "circuit", as its nodes say, "keep" and "remove".
        complement: f of all other nodes, likewise: near 0 where the circuit is all there is.
        random: f of random circuits with as many nodes at each site, of those that differ between the two runs.
        under_nodes: the share of m(clean) - m(corrupt) that is between all nodes and none: what bypasses the nodes
            is outside this measure.
        n_nodes: nodes of the circuit.
    """

    circuit: Mapping[str, Estimate]
    complement: Mapping[str, Estimate]
    random: Mapping[str, Estimate]
    under_nodes: float
    n_nodes: int

    __repr__ = summarise

    def to_pandas(self) -> "DataFrame":
        """One row for each treatment of errors and each set of nodes: its faithfulness and interval.

        Examples:
            ```python
            feature_faithfulness(model, saes, circuit).to_pandas()
            ```
        """
        import pandas

        sets = {"circuit": self.circuit, "random": self.random, "complement": self.complement}
        rows = [
            {"errors": errors, "nodes": name, "faithfulness": e.value, "low": e.low, "high": e.high, "n": e.n}
            for name, table in sets.items()
            for errors, e in table.items()
        ]
        return pandas.DataFrame(rows)

    def __str__(self) -> str:
        words = {"circuit": "errors as nodes", "keep": "all errors kept", "remove": "errors removed"}
        lines = [
            f"faithfulness f of {self.n_nodes} nodes, 1 the model and 0 no node: the circuit's should be near 1, the "
            f"others' near 0; {self.under_nodes:.0%} of the effect runs through nodes"
        ]
        lines += [
            f"  {words[errors]:<16} {self.circuit[errors]}; random nodes {self.random[errors].value:.3f}; all other "
            f"nodes {self.complement[errors].value:.3f}"
            for errors in ERRORS
        ]
        return "\n".join(lines)


def feature_faithfulness(
    model: Model,
    autoencoders: Sequence[SAE],
    circuit: FeatureCircuit,
    task: Task | None = None,
    *,
    batch_size: Count = 16,
    seed: Natural = 0,
    progress: bool = True,
) -> FeatureFaithfulness:
    """Measure how much of the behaviour a feature circuit, its complement and random circuits of its size do.

    Keeping all errors flatters a circuit, as they do what no feature does; removing them asks what features alone
    do. All three are measured.

    Args:
        model: the model.
        autoencoders: those of the circuit.
        circuit: whose nodes are kept.
        task: texts to measure on; those it was found on by default. Others of the same form say more.
        batch_size: texts times circuits per pass.
        seed: of the random circuits and the intervals.
        progress: show a bar.

    Raises:
        InvalidArgument: a metric that is the same with all nodes and with none; as `run_feature_circuit`.

    Cost: three times a forward pass for each text and seven circuits.

    Examples:
        ```python
        print(feature_faithfulness(model, saes, circuit, held_out))
        ```
    """
    effects = circuit.effects
    task = effects.task if task is None else task
    none, every = (no_nodes(effects.dictionaries, effects.places, every=all_of) for all_of in (False, True))
    drawn = [random_nodes(effects, circuit.nodes, seed + i) for i in range(RANDOM)]
    asked = [none, every, circuit.nodes, circuit.complement(), *drawn]
    found: dict[str, list[Estimate]] = {}
    ends = None
    for errors in ERRORS:
        m = run_feature_circuit(
            model,
            autoencoders,
            task,
            asked,
            errors=errors,
            against=effects.against,
            batch_size=batch_size,
            progress=progress,
        ).double()
        ends = m[:2] if ends is None else ends
        found[errors] = [_estimate(rows, ends[1], ends[0], seed) for rows in (m[2:3], m[3:4], m[4:])]
    assert ends is not None
    of_circuit, of_complement, of_random = ({errors: each[i] for errors, each in found.items()} for i in range(3))
    m_none, m_all = ends.mean(1).tolist()
    corrupt = float(effects.corrupt.mean()) if task is effects.task else _corrupt_metric(model, task)
    under_nodes = (m_all - m_none) / (m_all - corrupt)
    return FeatureFaithfulness(of_circuit, of_complement, of_random, under_nodes, circuit.n_nodes)


def _corrupt_metric(model: Model, task: Task) -> float:
    """The mean metric of the corrupt texts."""
    swapped = replace(task, clean=task.corrupt)
    clean, _ = swapped.tokens(model)
    ends = task.at.mask(clean)
    said = model.run(clean)[ends]
    return float(task.measure(said, torch.arange(len(clean), device=said.device), len(clean)).mean())


def _estimate(
    m: Float[Tensor, "circuit example"], whole: Float[Tensor, "example"], empty: Float[Tensor, "example"], seed: int
) -> Estimate:
    """Faithfulness, the mean over circuits, with its interval over texts."""

    def share(drawn: list[Tensor]) -> float:
        rows = drawn[0][:, 0].long()
        return float(faithfulness(m[:, rows], whole[rows], empty[rows]).mean())

    return bootstrap(share, [torch.arange(m.shape[1], dtype=torch.float64)[:, None]], draws=200, seed=seed)


def random_nodes(
    effects: FeatureEffects, nodes: Mapping[Site, Bool[Tensor, "n node"]], seed: Natural
) -> dict[Site, Bool[Tensor, "n node"]]:
    """Return as many nodes of each site as a circuit has, drawn from those that differ between the two runs.

    Examples:
        ```python
        random_nodes(effects, circuit.nodes, seed=0)
        ```
    """
    random, drawn = torch.Generator().manual_seed(seed), {}
    for site, mask in nodes.items():
        moved = (effects.effect[site] != 0).flatten().nonzero().flatten().cpu()
        chosen = moved[torch.randperm(len(moved), generator=random)[: int(mask.sum())]]
        flat = torch.zeros(mask.numel(), dtype=torch.bool)
        flat[chosen] = True
        drawn[site] = flat.view_as(mask).to(mask.device)
    return drawn
