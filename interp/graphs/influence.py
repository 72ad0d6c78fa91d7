"""Influence: how much of what a graph explains goes through each node, and what is left when the rest is cut."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.graphs.nodes import FEATURE, LOGIT, TOKEN


def normalise_rows(A: Float[Tensor, "target node"]) -> Float[Tensor, "target node"]:
    """Return |A| with rows that sum to 1; rows of zeros stay zeros.

    Examples:
        >>> normalise_rows(torch.tensor([[1.0, -3.0]])).tolist()
        [[0.25, 0.75]]
    """
    size = A.abs()
    return size / size.sum(1, keepdim=True).clamp(min=1e-10)


def influence_of(
    shares: Float[Tensor, "target node"], rows: Int[Tensor, "target"], weight: Float[Tensor, "node"]
) -> Float[Tensor, "node"]:
    """Return the influence of every node: w((I - Ã)⁻¹ - I), over all paths to the nodes that have weight.

    Nodes with rows are in the order in which they are computed, so I - Ã is triangular and one back-substitution is
    exact; no path is cut short.

    Args:
        shares: Ã, of the nodes that have rows.
        rows: the numbers of those nodes, each after all that it reads.
        weight: w, the weight of each node as an end.

    Examples:
        >>> chain = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0]])  # 1 reads 0, 2 reads both
        >>> influence_of(chain, torch.tensor([1, 2]), torch.tensor([0.0, 0, 1])).tolist()
        [1.0, 0.75, 0.0]
    """
    among = shares[:, rows]
    upper = torch.eye(len(rows), dtype=among.dtype, device=among.device) - among.T
    total = torch.linalg.solve_triangular(upper, weight[rows].to(among)[:, None], upper=True, unitriangular=True)[:, 0]
    return total @ shares


def threshold_of(scores: Float[Tensor, "..."], share: float) -> float:
    """Return the smallest score among the fewest, largest ones that sum to a share of all.

    Examples:
        >>> threshold_of(torch.tensor([1.0, 5.0, 4.0]), 0.8)
        4.0
    """
    ordered = scores.flatten().sort(descending=True).values
    whole = float(ordered.sum())
    if whole <= 0:
        return float("inf")
    reached = int((ordered.cumsum(0) / whole < share).sum())
    return float(ordered[min(reached, len(ordered) - 1)])


def prune(
    A: Float[Tensor, "target node"],
    rows: Int[Tensor, "target"],
    weight: Float[Tensor, "node"],
    kind: Int[Tensor, "node"],
    node_share: float,
    edge_share: float,
) -> tuple[Bool[Tensor, "node"], Bool[Tensor, "target node"]]:
    """Return the nodes and the edges that most of the influence goes through.

    Nodes: the fewest that have `node_share` of the influence together, with all tokens and logits. Edges: the fewest
    that have `edge_share` of Ã_pruned (influence + w). Then features and errors that nothing reads, and features that
    read nothing, are dropped until there are none.

    Args:
        A: the rows of the graph.
        rows: the nodes that they are of.
        weight: of the logits.
        kind: of each node, a number of `interp.graphs.nodes`.
        node_share: of the influence.
        edge_share: likewise.

    Examples:
        ```python
        prune(graph.A, graph.rows, graph.nodes.p, graph.nodes.kind, 0.8, 0.98)
        ```
    """
    whole = influence_of(normalise_rows(A), rows, weight)
    fixed = (kind == TOKEN) | (kind == LOGIT)
    kept = (whole >= threshold_of(whole, node_share)) | fixed
    shares = normalise_rows(A * (kept[rows][:, None] & kept[None, :]))
    scores = shares * (influence_of(shares, rows, weight) + weight)[rows][:, None]
    edges = (scores >= threshold_of(scores, edge_share)) & (scores > 0)
    while True:
        read = edges.any(0) | fixed
        reads = torch.ones_like(kept)
        reads[kind == FEATURE] = False
        reads[rows] = edges.any(1)
        left = kept & read & (reads | (kind != FEATURE))
        edges = edges & left[rows][:, None] & left[None, :]
        if torch.equal(left, kept):
            return kept, edges
        kept = left
