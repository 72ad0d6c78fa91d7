"""The attribution graph of a prompt: how much of each logit and feature comes from each source."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.border import Share
from hooks.errors import UnknownName
from interp.graphs.influence import influence_of, normalise_rows, prune
from interp.graphs.local_model import LocalModel
from interp.graphs.nodes import ERROR, FEATURE, KINDS, LOGIT, TOKEN, Nodes

if TYPE_CHECKING:
    from pandas import DataFrame

SKIPPING = (
    "These features write to several layers. A cross-layer transcoder may write in one step what the model does in "
    "several (A to C for A to B to C), so an edge that skips layers need not be a step of the model: compare with "
    "a graph of per-layer transcoders. On the skip-trio, whose chain of three steps is known, 3 of 5 seeds of either "
    "kind explained 0.99 of the variance or more: in each of those cross-layer graphs one step has less than 0.005 "
    "of the answer's influence, and in per-layer graphs the least has 0.29 to 0.39"
)


@dataclass(frozen=True, eq=False)
class AttributionGraph:
    """The attribution graph of one prompt. Made by `attribution_graph`.

    Row t of A says where the target comes from: Σ_s A[t, s] + bias_t is its value in the forward pass. A feature
    without a row is a source only.

    Attributes:
        local: the local replacement model that it is of.
        pieces: the tokens of the prompt, as text.
        said: the text of each logit's token.
        nodes: its nodes.
        rows: the nodes that have rows, each after all that it reads.
        A: source value times linear effect.
        bias: what comes from no source: the one bias node of each target.
        value: what the model computes at each target: a feature before its activation function, a logit less the mean.

    Examples:
        ```python
        graph = attribution_graph(model, transcoders, "The Golden Gate Bridge is located in")
        print(graph)
        graph.top(10)
        ```
    """

    local: LocalModel
    pieces: tuple[str, ...]
    said: tuple[str, ...]
    nodes: Nodes
    rows: Int[Tensor, "target"]
    A: Float[Tensor, "target node"]
    bias: Float[Tensor, "target"]
    value: Float[Tensor, "target"]

    def __repr__(self) -> str:
        p = self.nodes.p[-len(self.said) :].tolist()
        said = ", ".join(f"{word!r} {each:.2f}" for word, each in zip(self.said, p, strict=True))
        lines = [
            f"AttributionGraph({self.text!r} → {said})",
            f"{len(self.local.active)} features of {self.local.transcoders.name}, {len(self.rows) - len(p)} with rows",
            f"replacement {self.replacement:.2f}, completeness {self.completeness:.2f}, bias {self.bias_share:.2f}, "
            f"rows close to {self.closure:.0e}",
        ]
        return "\n".join(lines + ["an edge that skips layers need not be a step of the model"] * bool(warning_of(self)))

    @property
    def text(self) -> str:
        """The prompt, without special tokens."""
        special = set(getattr(self.local.model.tokenizer, "all_special_ids", ()))
        ids = self.local.ids.tolist()
        return "".join(piece for piece, i in zip(self.pieces, ids, strict=True) if i not in special)

    @cached_property
    def influence(self) -> Float[Tensor, "node"]:
        """How much of the logits, weighed by their probabilities, goes through each node."""
        return influence_of(normalise_rows(self.A), self.rows, self.nodes.p)

    @property
    def closure(self) -> float:
        """The largest |Σ_s A[t, s] + bias_t - value_t| next to |value_t|, which a sound graph has near 0."""
        return closure_of(self.A, self.bias, self.value)

    @property
    def replacement(self) -> float:
        """The share of influence that ends in tokens, of that which ends in tokens or errors; unpruned."""
        token, error = (float(self.influence[self.nodes.kind == kind].sum()) for kind in (TOKEN, ERROR))
        return token / (token + error) if token + error > 0 else 0.0

    @property
    def completeness(self) -> float:
        """The share of inputs that are no errors, over all nodes by influence; unpruned, as circuit-tracer has it."""
        through = self.influence + self.nodes.p
        error = torch.zeros(len(self.nodes), dtype=self.A.dtype)
        error[self.rows] = normalise_rows(self.A)[:, self.nodes.kind == ERROR].sum(1)
        known = self.nodes.kind != FEATURE
        known[self.rows] = True
        return float(((1 - error) * through)[known].sum() / through[known].sum())

    @property
    def bias_share(self) -> float:
        """The mean of |bias| / (|bias| + Σ_s |A|) over targets, by influence: what no source explains."""
        through = (self.influence + self.nodes.p)[self.rows]
        share = self.bias.abs() / (self.bias.abs() + self.A.abs().sum(1)).clamp(min=1e-10)
        return float((share * through).sum() / through.sum())

    @property
    def open_share(self) -> float:
        """The share of influence that ends in features without a row, of all that ends."""
        ends = torch.ones(len(self.nodes), dtype=torch.bool)
        ends[self.rows] = False
        loose = ends & (self.nodes.kind == FEATURE)
        return float(self.influence[loose].sum() / self.influence[ends].sum().clamp(min=1e-10))

    def prune(
        self, node_share: Share = 0.8, edge_share: Share = 0.98
    ) -> tuple[Bool[Tensor, "node"], Bool[Tensor, "target node"]]:
        """Return the nodes and edges that most of the influence goes through: see `interp.graphs.influence.prune`.

        Examples:
            ```python
            nodes, edges = graph.prune()
            ```
        """
        return prune(self.A, self.rows, self.nodes.p, self.nodes.kind, node_share, edge_share)

    def to_pandas(self) -> "DataFrame":
        """Return a row for each node: name, kind, layer, token, text, activation, probability, influence, bias.

        The bias is that of nodes with rows, and no number for others.
        """
        from pandas import DataFrame

        nodes, first = self.nodes, len(self.nodes) - len(self.said)
        bias = torch.full((len(nodes),), float("nan"), dtype=self.bias.dtype)
        bias[self.rows] = self.bias
        kind, pos = nodes.kind.tolist(), nodes.pos.tolist()
        return DataFrame(
            {
                "node": [nodes.name(node) for node in range(len(nodes))],
                "kind": [KINDS[each] for each in kind],
                "layer": nodes.layer.tolist(),
                "token": pos,
                "text": [self.said[n - first] if kind[n] == LOGIT else self.pieces[pos[n]] for n in range(len(nodes))],
                "a": nodes.a.tolist(),
                "p": nodes.p.tolist(),
                "influence": self.influence.tolist(),
                "bias": bias.tolist(),
            }
        ).set_index("node")

    def top(self, n: int = 10) -> list[tuple[str, float]]:
        """Return the features with the most influence, by name.

        Examples:
            ```python
            graph.top(3)
            ```
        """
        features = self.nodes.of_kind(FEATURE)
        best = self.influence[features].topk(min(n, len(features)))
        return [
            (self.nodes.name(int(features[at])), float(value))
            for at, value in zip(best.indices, best.values, strict=True)
        ]

    def edge(self, source: str, target: str) -> float:
        """Return A of an edge, by the names of its ends.

        Raises:
            UnknownName: no node is called that, or the target has no row.

        Examples:
            ```python
            graph.edge("t@3", "logit.77")
            ```
        """
        return float(self.A[self.row(target), self.nodes.number(source)])

    def row(self, target: str) -> int:
        """Return which row of A is of a node, by its name.

        Raises:
            UnknownName: no node is called that, or it has no row.

        Examples:
            ```python
            graph.A[graph.row("logit.77")]
            ```
        """
        number = self.nodes.number(target)
        at = (self.rows == number).nonzero().flatten()
        if not len(at):
            from_features = f"it is one of the features without a row: take more than {len(self.rows)} max_features"
            raise UnknownName(f"{target} has no row: {from_features if target[0] == 'f' else 'it is a source only'}")
        return int(at[0])


def warning_of(graph: AttributionGraph) -> str:
    """Return why to doubt edges that skip layers, where features write to several; empty where none do.

    Examples:
        ```python
        print(warning_of(graph))
        ```
    """
    return SKIPPING if graph.local.transcoders.crosses else ""


def closure_of(A: Float[Tensor, "target node"], bias: Float[Tensor, "target"], value: Float[Tensor, "target"]) -> float:
    """Return the largest miss of a row's sum, next to its value; values below 1 % of the largest count as that.

    Examples:
        >>> closure_of(torch.tensor([[1.0, 2.0]]), torch.tensor([1.0]), torch.tensor([4.0]))
        0.0
    """
    size = value.abs().clamp(min=max(1e-2 * float(value.abs().max()), 1e-30))
    return float(((A.sum(1) + bias - value).abs() / size).max())
