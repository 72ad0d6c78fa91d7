"""A walk through an atlas: the shortest way over neighbours between two rows, with its record and its controls."""

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Natural, Positive
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.atlas.activation_atlas import Atlas
from interp.atlas.neighbour_graph import NeighbourGraph
from interp.atlas.sample import unit_rows

LARGE = 0.95


@final
@dataclass(frozen=True, eq=False)
class Route:
    """Rows one after the other.

    Attributes:
        numbers: of the rows.
        steps: `1 − cos` from each to the next.
        detour: the sum of the angles over the angle between the ends: at least 1, infinite between ends that are alike.
        changes: how often the label changes, or None without labels.
    """

    numbers: Int[Tensor, "n"]
    steps: Float[Tensor, "_"]
    detour: float
    changes: int | None

    __repr__ = summarise

    @property
    def largest(self) -> float:
        """The largest step."""
        return float(self.steps.max()) if len(self.steps) else 0.0


@final
@dataclass(frozen=True, eq=False)
class Walk:
    """A way from one row to another, and what it is next to.

    Attributes:
        route: over the graph of neighbours.
        straight: the rows nearest on the map to as many points of the straight line between the ends: a line on the
            map is no way through the space.
        random: the shortest way over a graph of as many neighbours of each row, drawn at random.
        large: the 95th percentile of the lengths of the graph's edges.
    """

    route: Route
    straight: Route
    random: Route
    large: float

    def __repr__(self) -> str:
        return "Walk(" + "; ".join(self._line(name) for name in ("route", "straight", "random")) + ")"

    def __str__(self) -> str:
        head = f"{'':<10}{'rows':>6}{'largest step':>14}{'detour':>9}{'labels change':>15}"
        lines = [f"{name:<10}{self._figures(getattr(self, name))}" for name in ("route", "straight", "random")]
        return "\n".join([head, *lines, f"95th percentile of the graph's edges: {self.large:.3f}"])

    def _line(self, name: str) -> str:
        one: Route = getattr(self, name)
        return f"{name}: {len(one.numbers)} rows, largest step {one.largest:.3f}"

    @staticmethod
    def _figures(one: Route) -> str:
        changes = "" if one.changes is None else str(one.changes)
        return f"{len(one.numbers):>6}{one.largest:>14.3f}{one.detour:>9.2f}{changes:>15}"

    @property
    def is_smooth(self) -> bool:
        """Whether no step is larger than 95 in a hundred edges of the graph."""
        return self.route.largest <= self.large


def find_walk(atlas: Atlas, start: str | int, end: str | int, *, power: Positive = 1.0, seed: Natural = 0) -> Walk:
    """Return the shortest way over neighbours between two rows, in all dimensions (Dijkstra on `(1 − cos)^power`).

    Args:
        atlas: where to walk.
        start: a row's number or name, or a label, which begins at the row nearest to its mean.
        end: likewise.
        power: 1 for the shortest way; with a greater one many small steps cost less than a large one.
        seed: of the control's graph.

    Raises:
        UnknownName: no row and no label is called that.
        InvalidArgument: both are one row, or no way over neighbours leads from the one to the other.

    Cost: a second for 100,000 rows.

    Examples:
        ```python
        print(find_walk(atlas, "Golden Gate Bridge", "Big Ben"))
        ```
    """
    a, b = atlas.number(start), atlas.number(end)
    if a == b:
        raise InvalidArgument(f"{start!r} and {end!r} are one and the same row, {a}: give two")
    unit = unit_rows(atlas.sample.space)
    way = _shortest(atlas.graph, a, b, power)
    if way is None:
        raise InvalidArgument(
            f"no way over {atlas.graph.k} neighbours of each row leads from {start!r} to {end!r}: give map_activations "
            "more neighbours"
        )
    near = torch.randint(len(unit), atlas.graph.neighbours.shape, generator=torch.Generator().manual_seed(seed))
    chance = NeighbourGraph(near, _distances(unit, near))
    random = _shortest(chance, a, b, power) or [a, b]
    routes = [_route(atlas, unit, numbers) for numbers in (way, _straight(atlas, a, b, len(way)), random)]
    return Walk(*routes, large=atlas.graph.step_quantile(LARGE))


def _distances(unit: Float[Tensor, "n d_model"], near: Int[Tensor, "n _"]) -> Float[Tensor, "n _"]:
    """`1 − cos` to the rows named, in blocks."""
    return torch.cat(
        [1 - torch.einsum("nd,nkd->nk", unit[rows], unit[near[rows]]) for rows in torch.arange(len(unit)).split(4096)]
    )


def _shortest(graph: NeighbourGraph, a: int, b: int, power: float) -> list[int] | None:
    """The rows of the shortest way, or None where there is none."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    n, k = graph.neighbours.shape
    ends = (np.repeat(np.arange(n), k), graph.neighbours.flatten().numpy())
    weights = graph.distances.double().clamp_min(1e-9).pow(power).clamp_min(1e-300).flatten().numpy()  # 0 is no edge
    links = csr_array((weights, ends), shape=(n, n))
    _, came = dijkstra(links, directed=False, indices=a, return_predecessors=True)
    numbers = [b]
    while numbers[-1] != a:
        if came[numbers[-1]] < 0:
            return None
        numbers.append(int(came[numbers[-1]]))
    return numbers[::-1]


def _straight(atlas: Atlas, a: int, b: int, n: int) -> list[int]:
    """The rows nearest on the map to points of the straight line, each once in a row."""
    points = torch.lerp(atlas.xy[a], atlas.xy[b], torch.linspace(0, 1, max(n, 2))[:, None])
    rows = torch.cdist(points, atlas.xy).argmin(1).tolist()
    rows[0], rows[-1] = a, b
    return [row for i, row in enumerate(rows) if i == 0 or row != rows[i - 1]]


def _route(atlas: Atlas, unit: Float[Tensor, "n d_model"], numbers: list[int]) -> Route:
    rows = unit[numbers]
    cosines = (rows[1:] * rows[:-1]).sum(1)
    angles, chord = cosines.clamp(-1, 1).double().arccos(), (rows[0] @ rows[-1]).clamp(-1, 1).double().arccos()
    labels = atlas.sample.labels
    named = None if labels is None else [labels[i] for i in numbers]
    changes = None if named is None else sum(a != b for a, b in zip(named, named[1:], strict=False))
    way, straight = float(angles.sum()), float(chord)
    detour = way / straight if straight > 0 else torch.inf if way > 0 else 1.0
    return Route(torch.tensor(numbers), 1 - cosines, detour, changes)
