"""What corrupting each edge does to the metric, or is estimated to do, with how far the estimate can be trusted."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.border import Count
from hooks.errors import InvalidArgument, nearest
from hooks.plurals import count_of
from hooks.summary import summarise
from interp.circuits.edges.circuit import Circuit, top_circuit
from interp.circuits.edges.graph import EdgeGraph

if TYPE_CHECKING:
    from pandas import DataFrame

TRUSTED = 0.8
"""An estimate whose correlation with exact effects is below this is called wrong."""


@dataclass(frozen=True, eq=False)
class EstimateCheck:
    """Exact effects of some edges next to the estimates of the same.

    Attributes:
        edges: which.
        exact: m(clean run with this one edge corrupted) - m(clean), mean over the texts of the check.
        estimated: the estimate, mean over the same texts.
        n_texts: how many texts those are.
    """

    edges: tuple[str, ...]
    exact: Float[Tensor, "edge"]
    estimated: Float[Tensor, "edge"]
    n_texts: int

    @property
    def correlation(self) -> float:
        """Pearson's, of estimates and exact effects; NaN where one of the two does not vary."""
        pair = torch.stack([self.exact, self.estimated]).double()
        if len(self.edges) < 2 or bool((pair.std(1) == 0).any()):
            return math.nan
        return float(torch.corrcoef(pair)[0, 1])

    @property
    def error(self) -> float:
        """sqrt(sum (estimated - exact)² / sum exact²): 0 is exact, 1 is what an estimate of 0 everywhere has."""
        size = float(self.exact.double().norm())
        off = float((self.estimated - self.exact).double().norm())
        return off / size if size else (0.0 if off == 0 else math.inf)

    @property
    def trusted(self) -> bool:
        """Whether the estimates agree with the exact effects: a correlation of at least 0.8, or no error at all."""
        return self.correlation >= TRUSTED or self.error < 1e-3

    def __str__(self) -> str:
        said = f"exact effects of {len(self.edges)} edges, {count_of(self.n_texts, 'text')}: correlation with the "
        said += f"estimates {self.correlation:.3f}, relative error {self.error:.3f}"
        if self.trusted:
            return said
        worst = int((self.estimated - self.exact).abs().argmax())
        return (
            f"{said};\nthis estimate is WRONG here: {self.edges[worst]} changes the metric by "
            f"{self.exact[worst]:+.4g}, and the estimate is {self.estimated[worst]:+.4g}; take eap_ig() with more "
            "steps, or exact_edges"
        )


@dataclass(frozen=True, eq=False)
class EdgeEffect:
    """How much the metric moves when one edge has the corrupt run's value and all else runs clean.

    Attributes:
        graph: the edges.
        how: by which estimate, or "exact".
        each: per text; 0 where there is no edge.
        known: for which edges.
        clean: the metric of the clean run.
        corrupt: that of the corrupt run.
        check: how estimates compare with exact effects, or None.
    """

    graph: EdgeGraph
    how: str
    each: Float[Tensor, "example sender receiver"]
    known: Bool[Tensor, "sender receiver"]
    clean: Float[Tensor, "example"]
    corrupt: Float[Tensor, "example"]
    check: EstimateCheck | None = None

    __repr__ = summarise

    @property
    def effect(self) -> Float[Tensor, "sender receiver"]:
        """The mean over texts, in the metric's units."""
        return self.each.mean(0)

    @property
    def contribution(self) -> Float[Tensor, "sender receiver"]:
        """How much an edge moves the metric from its corrupt value towards its clean one, signed.

        -effect where the clean texts have the higher metric, effect where they have the lower.
        """
        return -self.effect if float((self.clean - self.corrupt).mean()) >= 0 else self.effect

    def scores(self, by: str) -> Float[Tensor, "sender receiver"]:
        """Return what edges are ranked by: `contribution` (signed) or `size` (absolute); unknown ones come last.

        Raises:
            InvalidArgument: another ranking.

        Examples:
            ```python
            found.scores("size")
            ```
        """
        ways = {"contribution": self.contribution, "size": self.effect.abs()}
        if by not in ways:
            raise InvalidArgument(f"edges are not ranked by '{by}'; did you mean {nearest(by, ways)}?")
        return ways[by].masked_fill(~self.known.to(self.each.device), float("-inf"))

    def circuit(self, n_edges: Count, by: str = "contribution") -> Circuit:
        """Return the circuit of the edges that rank highest.

        Args:
            n_edges: how many.
            by: "contribution", signed, which makes the circuit perform; "size", absolute, which makes it behave like
                the model.

        Raises:
            InvalidArgument: another ranking.
            OutOfRange: more edges than there are.

        Examples:
            ```python
            found.circuit(100).edges
            ```
        """
        return top_circuit(self.graph, self.scores(by), n_edges)

    def of_texts(self, rows: list[int]) -> "EdgeEffect":
        """Return the effects in some of the texts, which may be named several times, as a bootstrap does.

        Examples:
            ```python
            found.of_texts([0, 0, 2])
            ```
        """
        return EdgeEffect(
            self.graph, self.how, self.each[rows], self.known, self.clean[rows], self.corrupt[rows], self.check
        )

    def top(self, count: Count = 10, by: str = "size") -> tuple[tuple[str, float], ...]:
        """Return the names and effects of the edges that rank highest.

        Examples:
            ```python
            found.top(3)
            ```
        """
        scores, width = self.scores(by).flatten(), len(self.graph.receivers)
        order = scores.argsort(descending=True, stable=True)[: min(count, int(self.known.sum()))].tolist()
        effect = self.effect
        return tuple((self.graph.name(*divmod(i, width)), float(effect[i // width, i % width])) for i in order)

    def __str__(self) -> str:
        clean, corrupt = float(self.clean.mean()), float(self.corrupt.mean())
        head = f"{self.how}: {int(self.known.sum())} edges, metric {clean:.4g} clean, {corrupt:.4g} corrupt"
        rows = [f"  {name:<16} {effect:+.4g}" for name, effect in self.top()]
        return "\n".join([head, *rows, *([] if self.check is None else [str(self.check)])])

    def to_pandas(self) -> "DataFrame":
        """A row for each edge whose effect is known, the largest first: its name, its effect, its contribution."""
        from pandas import DataFrame

        pairs = [pair for pair in self.graph.edges if bool(self.known[pair])]
        rows = [(self.graph.name(*p), float(self.effect[p]), float(self.contribution[p])) for p in pairs]
        frame = DataFrame(rows, columns=["edge", "effect", "contribution"])
        return frame.sort_values("effect", key=abs, ascending=False, ignore_index=True)
