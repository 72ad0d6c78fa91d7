"""A circuit: a set of edges of a model, the same without dead ends, and its complement."""

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.border import Count
from hooks.errors import InvalidArgument, OutOfRange
from hooks.summary import summarise
from interp.circuits.edges.graph import EdgeGraph, sender_number


@dataclass(frozen=True, eq=False)
class Circuit:
    """A set of edges.

    Attributes:
        graph: the edges there are.
        mask: those of the circuit.

    Raises:
        InvalidArgument: a mask of another shape, or with an edge that the graph does not have.

    Examples:
        ```python
        Circuit.of(edge_graph(model), ["embed->v0.0", "h0.0->logits"]).n_edges  # 2
        ```
    """

    graph: EdgeGraph
    mask: Bool[Tensor, "sender receiver"]

    __repr__ = summarise

    def __post_init__(self) -> None:
        if self.mask.shape != self.graph.allowed.shape:
            raise InvalidArgument(
                f"the mask has shape {tuple(self.mask.shape)}, the graph {tuple(self.graph.allowed.shape)}: make it "
                "with graph.mask"
            )
        against = (self.mask.cpu() & ~self.graph.allowed).nonzero().tolist()
        if against:
            raise InvalidArgument(
                f"the graph has no edge {self.graph.name(*against[0])}: make the mask with graph.mask"
            )

    @classmethod
    def of(cls, graph: EdgeGraph, edges: Iterable[str]) -> "Circuit":
        """Return the circuit of some edges by their names.

        Examples:
            ```python
            Circuit.of(graph, ["embed->logits"])
            ```
        """
        return cls(graph, graph.mask(edges))

    @classmethod
    def whole(cls, graph: EdgeGraph) -> "Circuit":
        """Return the circuit of all edges: the model itself.

        Examples:
            ```python
            Circuit.whole(graph).n_edges == graph.n_edges
            ```
        """
        return cls(graph, graph.allowed.clone())

    @classmethod
    def empty(cls, graph: EdgeGraph) -> "Circuit":
        """Return the circuit of no edges.

        Examples:
            ```python
            Circuit.empty(graph).n_edges  # 0
            ```
        """
        return cls(graph, torch.zeros_like(graph.allowed))

    @property
    def n_edges(self) -> int:
        """How many edges it names: its nominal size."""
        return int(self.mask.sum())

    @property
    def edges(self) -> tuple[str, ...]:
        """Its edges by name, in the order of the forward pass."""
        return tuple(self.graph.name(s, r) for s, r in self.mask.nonzero().tolist())

    def complement(self) -> "Circuit":
        """Return the circuit of all other edges.

        Examples:
            ```python
            circuit.complement().complement().edges == circuit.edges
            ```
        """
        return Circuit(self.graph, self.graph.allowed & ~self.mask)

    def without(self, nodes: Iterable[str]) -> "Circuit":
        """Return the circuit without every edge into or out of some nodes, such as `h0.3` or `mlp1`.

        Raises:
            UnknownName: no such node.

        Examples:
            ```python
            circuit.without(["h0.3"])
            ```
        """
        mask = self.mask.clone()
        for name in nodes:
            s = sender_number(self.graph, name)
            mask[s] = False
            only = self.graph.fed_by.sum(0) == 1  # keys that other heads share stay
            mask[:, self.graph.fed_by[s] & only] = False
        return Circuit(self.graph, mask)

    def prune(self) -> "Circuit":
        """Return the circuit without dead ends: edges on no path from the embedding to the logits are taken out.

        Its size is the circuit's real size. What the model computes from the rest is the same under counterfactual
        ablation, as a node none of whose inputs is in the circuit writes what it does in the corrupt run.

        Examples:
            ```python
            circuit.prune().n_edges <= circuit.n_edges
            ```
        """
        reached, feeds = self._find_reached(), self._feeds()
        return Circuit(self.graph, self.mask & reached[:, None] & feeds[None, :])

    def _find_reached(self) -> Bool[Tensor, "sender"]:
        """Whether a path of its edges leads from the embedding to the sender."""
        fed, reached = self.graph.fed_by, torch.zeros(len(self.graph.senders), dtype=torch.bool)
        reached[0] = True
        for s in range(1, len(reached)):
            reached[s] = bool((self.mask[:s] & reached[:s, None])[:, fed[s]].any())
        return reached

    def _feeds(self) -> Bool[Tensor, "receiver"]:
        """Whether a path of its edges leads from the receiver to the logits."""
        fed, feeds = self.graph.fed_by, torch.zeros(len(self.graph.receivers), dtype=torch.bool)
        feeds[-1] = True
        for s in reversed(range(1, len(self.graph.senders))):
            if bool((self.mask[s] & feeds).any()):
                feeds |= fed[s]
        return feeds


def top_circuit(graph: EdgeGraph, scores: Float[Tensor, "sender receiver"], n_edges: Count) -> Circuit:
    """Return the circuit of the edges with the highest scores; of equal ones the first.

    Raises:
        OutOfRange: fewer than none of the edges, or more than all.

    Examples:
        ```python
        top_circuit(graph, -attribution.effect, 100)
        ```
    """
    if not 0 <= n_edges <= graph.n_edges:
        raise OutOfRange(f"{n_edges} edges were asked for: give 0 to {graph.n_edges}")
    ranked = scores[graph.allowed.to(scores.device)].argsort(descending=True, stable=True)[:n_edges]
    places = graph.allowed.nonzero()[ranked.cpu()]
    mask = torch.zeros_like(graph.allowed)
    mask[places[:, 0], places[:, 1]] = True
    return Circuit(graph, mask)


def greedy_circuit(graph: EdgeGraph, scores: Float[Tensor, "sender receiver"], n_edges: Count) -> Circuit:
    """Return the circuit grown from the logits: at each step the highest-scored edge into what is already part of it.

    It has no dead ends on the side of the logits. Fewer edges come back where no more can be joined.

    Examples:
        ```python
        greedy_circuit(graph, attribution.effect.abs(), 100)
        ```
    """
    if not 0 <= n_edges <= graph.n_edges:
        raise OutOfRange(f"{n_edges} edges were asked for: give 0 to {graph.n_edges}")
    value, mask = scores.cpu(), torch.zeros_like(graph.allowed)
    waiting: list[tuple[float, int, int]] = []
    opened: set[int] = set()

    def open_receivers(numbers: list[int]) -> None:
        for r in numbers:
            if r not in opened:
                opened.add(r)
                for s in graph.allowed[:, r].nonzero().flatten().tolist():
                    heappush(waiting, (-float(value[s, r]), s, r))

    open_receivers([len(graph.receivers) - 1])
    for _ in range(n_edges):
        if not waiting:
            break
        _, s, r = heappop(waiting)
        mask[s, r] = True
        open_receivers(graph.fed_by[s].nonzero().flatten().tolist())
    return Circuit(graph, mask)
