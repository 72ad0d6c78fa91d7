"""Faithfulness: how much of the model's behaviour a circuit reproduces, over circuits of every size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.border import Count, Natural, Share
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.circuits.edges.ablation import Ablation
from interp.circuits.edges.circuit import Circuit, greedy_circuit, top_circuit
from interp.circuits.edges.graph import EdgeGraph, edge_graph
from interp.circuits.edges.running import run_circuit
from interp.circuits.edges.task import Task

if TYPE_CHECKING:
    from pandas import DataFrame

MIB_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The shares of the edges at which the Mechanistic Interpretability Benchmark evaluates circuits."""


def faithfulness(
    m: Float[Tensor, "*n example"], whole: Float[Tensor, "example"], empty: Float[Tensor, "example"]
) -> Float[Tensor, "*n"]:
    """f(C) = (m(C) - m(empty)) / (m(model) - m(empty)), means over texts first: 1 is the model, 0 no circuit at all.

    Raises:
        InvalidArgument: the model and the empty circuit have one metric, so no share of their difference can be taken.

    Examples:
        >>> whole, empty = torch.tensor([4.0, 2.0]), torch.tensor([0.0, 0.0])
        >>> float(faithfulness(torch.tensor([3.0, 0.0]), whole, empty))
        0.5
    """
    way = whole.mean() - empty.mean()
    if float(way.abs()) <= 1e-6 * float(whole.abs().mean() + empty.abs().mean()):
        raise InvalidArgument(
            f"the metric is {float(whole.mean()):.4g} in the model and with every edge ablated, so faithfulness is not "
            "defined: choose texts or a metric that the ablation changes"
        )
    return (m.mean(-1) - empty.mean()) / way


@dataclass(frozen=True, eq=False)
class FaithfulnessCurve:
    """The faithfulness of circuits of several sizes, found from one ranking.

    Attributes:
        name: of the ranking.
        shares: the nominal size of each circuit, as a share of all edges.
        circuits: the circuits, without dead ends.
        nominal: how many edges each was given.
        m: the metric of each text in each circuit.
        whole: in the model.
        empty: with every edge ablated.
    """

    name: str
    shares: tuple[float, ...]
    circuits: tuple[Circuit, ...]
    nominal: tuple[int, ...]
    m: Float[Tensor, "circuit example"]
    whole: Float[Tensor, "example"]
    empty: Float[Tensor, "example"]

    __repr__ = summarise

    @property
    def real(self) -> tuple[int, ...]:
        """How many edges each circuit has after dead ends are cut off."""
        return tuple(circuit.n_edges for circuit in self.circuits)

    @property
    def f(self) -> Float[Tensor, "circuit"]:
        """The faithfulness of each circuit."""
        return faithfulness(self.m, self.whole, self.empty)

    @property
    def cpr(self) -> float:
        """The integral of f over the nominal share, by trapezoids: how well circuits perform. 0.999 is the model's."""
        return self._area(self.f, self.shares)

    @property
    def cmd(self) -> float:
        """The integral of |1 - f|: how far circuits are from the model. 0 is the least."""
        return self._area((1 - self.f).abs(), self.shares)

    @property
    def cpr_real(self) -> float:
        """As `cpr`, over the share that is left after dead ends are cut off."""
        n_edges = self.circuits[0].graph.n_edges
        return self._area(self.f, [size / n_edges for size in self.real])

    @property
    def log_area(self) -> float:
        """The mean of f over the logarithm of the nominal share: small circuits count as much as large ones."""
        logs = torch.tensor(self.shares, dtype=torch.float64).log()
        return self._area(self.f, logs.tolist()) / float(logs[-1] - logs[0])

    @property
    def spread(self) -> Float[Tensor, "circuit"]:
        """The standard deviation over texts of each circuit's metric, as a share of m(model) - m(empty)."""
        return self.m.std(-1) / (self.whole.mean() - self.empty.mean()).abs()

    def of_texts(self, rows: Sequence[int]) -> "FaithfulnessCurve":
        """Return the same curve as measured on some of the texts, each as often as it is named.

        Examples:
            ```python
            curve.of_texts([0, 0, 2]).cpr
            ```
        """
        at = list(rows)
        return FaithfulnessCurve(
            self.name, self.shares, self.circuits, self.nominal, self.m[:, at], self.whole[at], self.empty[at]
        )

    @staticmethod
    def _area(values: Tensor, at: Sequence[float]) -> float:
        return float(torch.trapezoid(values.double().cpu(), torch.tensor(at, dtype=torch.float64)))

    def __str__(self) -> str:
        head = f"{self.name}: CPR {self.cpr:.3f}, CMD {self.cmd:.3f}, over log size {self.log_area:.3f}"
        rows = [
            f"  {share:>6.1%} {nominal:>7} edges, {real:>7} without dead ends: f {f:+.3f}"
            for share, nominal, real, f in zip(self.shares, self.nominal, self.real, self.f.tolist(), strict=True)
        ]
        return "\n".join([head, *rows])

    def to_pandas(self) -> "DataFrame":
        """A row for each size: the share of the edges, how many that are, how many without dead ends, faithfulness."""
        from pandas import DataFrame

        rows = zip(self.shares, self.nominal, self.real, self.f.tolist(), strict=True)
        return DataFrame(rows, columns=["share", "edges", "without dead ends", "faithfulness"])


def faithfulness_curve(
    model: Model,
    task: Task,
    scores: Float[Tensor, "sender receiver"],
    ablation: Ablation | None = None,
    *,
    name: str = "circuit",
    shares: Sequence[Share] = MIB_SIZES,
    greedy: bool = False,
    batch_size: Count = 64,
    progress: bool = True,
) -> FaithfulnessCurve:
    """Run the circuits of the highest-scored edges at each size, and compare each with the model and with no circuit.

    CPR, how well circuits perform, takes a signed ranking (`effect.scores("contribution")`); CMD, how close they are
    to the model, an absolute one (`effect.scores("size")`). On a linear axis of sizes 85 % of either comes from a
    fifth of the edges and above, so the area over log size is given too.

    Args:
        model: the model.
        task: clean and corrupt texts and the metric; texts that the ranking was not found on, where there are some.
        scores: a ranking of edges, the best highest.
        ablation: what replaces edges that are not in a circuit; by default the corrupt run.
        name: of the ranking.
        shares: the sizes, rising; the number of edges is rounded down.
        greedy: grow each circuit from the logits, in place of taking the highest scores wherever they are.
        batch_size: texts times circuits per pass.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: sizes that do not rise from above 0 to at most 1, or a model that the ablation does not change.

    Cost: a forward pass over the texts for each size and two more.

    Mueller et al. 2025, arXiv:2504.13151.

    Examples:
        ```python
        print(faithfulness_curve(model, task, found.scores("contribution")))
        ```
    """
    sizes = tuple(shares)
    if not sizes or list(sizes) != sorted(set(sizes)) or not 0 < sizes[0] <= sizes[-1] <= 1:
        raise InvalidArgument(f"sizes are shares of the edges that rise from above 0 to at most 1, got {sizes}")
    graph = edge_graph(model)
    nominal = tuple(int(size * graph.n_edges) for size in sizes)
    grow: Callable[..., Circuit] = greedy_circuit if greedy else top_circuit
    circuits = tuple(grow(graph, scores, n).prune() for n in nominal)
    ends = [Circuit.whole(graph), Circuit.empty(graph)]
    m = run_circuit(model, task, [*circuits, *ends], ablation, batch_size=batch_size, progress=progress)
    curve = FaithfulnessCurve(name, sizes, circuits, nominal, m[:-2], m[-2], m[-1])
    faithfulness(curve.m, curve.whole, curve.empty)
    return curve


def random_scores(graph: EdgeGraph, seed: Natural = 0) -> Float[Tensor, "sender receiver"]:
    """Return a random ranking of the edges: the floor that every other is compared with.

    Examples:
        ```python
        faithfulness_curve(model, task, random_scores(edge_graph(model)), name="random")
        ```
    """
    return torch.rand(graph.allowed.shape, generator=torch.Generator().manual_seed(seed))
