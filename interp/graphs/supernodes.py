"""Supernodes: named sets of a graph's nodes, and what goes from one to another."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.errors import InvalidArgument
from interp.graphs.graph import AttributionGraph
from interp.graphs.influence import normalise_rows

Supernodes = Mapping[str, Sequence[str]]
"""The names of the nodes of each, by its own name: `{"the bridge": ["f0.476@4", "f0.564@4"]}`."""


def edges_between(graph: AttributionGraph, supernodes: Supernodes) -> Float[Tensor, "target node"]:
    """Return what each supernode takes from each, in the order in which they are given.

        E[T, S] = Σ_{t ∈ T} w_t Σ_{s ∈ S} A[t, s] / Σ_s' |A[t, s']|,    w_t = influence of t / influence of T

    so that |E[T, S]| is at most the share of what T reads that comes from S, and 1 where S is all that it reads.
    Members without rows (tokens, errors) take nothing; members without any influence count alike.

    Raises:
        UnknownName: a member that is no node of this graph.
        InvalidArgument: a node in two supernodes, or one that is empty.

    Examples:
        ```python
        edges_between(graph, {"bridge": ["f0.476@4"], "city": ["f5.821@8"], "San": ["logit.290"]})
        ```
    """
    members = members_of(graph, supernodes)
    shares = normalise_rows(graph.A) * graph.A.sign()
    weight = (graph.influence + graph.nodes.p)[graph.rows]
    found = torch.zeros(len(members), len(members), dtype=graph.A.dtype)
    for T, targets in enumerate(members):
        rows = torch.isin(graph.rows, targets).nonzero().flatten()
        w = weight[rows] if float(weight[rows].sum()) > 0 else torch.ones_like(weight[rows])
        w = w / w.sum().clamp(min=1e-30)
        for S, sources in enumerate(members):
            found[T, S] = w @ shares[rows][:, sources].sum(1)
    return found


def members_of(graph: AttributionGraph, supernodes: Supernodes) -> list[Int[Tensor, "n"]]:
    """Return the numbers of the nodes of each supernode.

    Raises:
        UnknownName: a member that is no node of this graph.
        InvalidArgument: a node in two supernodes, or one that is empty.

    Examples:
        ```python
        members_of(graph, {"bridge": ["f0.476@4"]})
        ```
    """
    number = graph.nodes.numbers
    seen: dict[str, str] = {}
    for name, members in supernodes.items():
        if not members:
            raise InvalidArgument(f"the supernode '{name}' is empty: give the names of its nodes, such as t@0")
        for node in members:
            if node in seen:
                raise InvalidArgument(f"{node} is in the supernodes '{seen[node]}' and '{name}': put it in one of them")
            graph.nodes.number(node)
            seen[node] = name
    return [torch.tensor([number[node] for node in members]) for members in supernodes.values()]
