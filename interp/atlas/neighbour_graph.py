"""The graph of nearest neighbours, in as many dimensions as the activations have."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.atlas.sample import unit_rows
from interp.atlas.space import Space
from interp.atlas.space_index import SpaceIndex, check_index, without

BLOCK = 512


@final
@dataclass(frozen=True, eq=False)
class NeighbourGraph:
    """For each row its nearest others and how far they are, `1 − cos` of rows less their mean.

    Attributes:
        neighbours: their numbers, the nearest first.
        distances: to them.
    """

    neighbours: Int[Tensor, "n _"]
    distances: Float[Tensor, "n _"]

    __repr__ = summarise

    @property
    def k(self) -> int:
        """Neighbours of each."""
        return self.neighbours.shape[1]

    def step_quantile(self, q: float) -> float:
        """The quantile of the lengths of all edges."""
        flat = self.distances.flatten()
        return float(flat.kthvalue(max(1, round(q * len(flat)))).values)


def link_neighbours(
    space: Space, k: Count = 15, *, index: SpaceIndex | None = None, progress: bool = True
) -> NeighbourGraph:
    """Return the graph of each row's k nearest others by cosine, found exactly unless an index is given.

    Args:
        space: whose rows.
        k: others of each.
        index: of this space, by `index_space`: for more than a million rows, most of the nearest are found.
        progress: show a bar.

    Raises:
        InvalidArgument: not more than k rows, or an index of another space or metric.

    Cost: a product of all pairs of rows: a minute for 100,000 rows of 64 on one core; with an index a share of it.

    Examples:
        >>> space = Space(torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, -0.1]]), ("a", "b", "c", "d"))
        >>> link_neighbours(space, 1).neighbours.flatten().tolist()
        [1, 0, 3, 2]
    """
    if k >= len(space):
        raise InvalidArgument(f"{k} neighbours were asked for of {len(space)} rows: give fewer, or more rows")
    if index is not None:
        check_index(index, space)
        if space.metric != "cosine":
            raise InvalidArgument("the graph is of cosines, and the index of distances: index a space by cosine")
    unit = unit_rows(space)
    near, far = [], []
    for rows in progress_bar(torch.arange(len(unit)).split(BLOCK), desc="neighbours", progress=progress):
        if index is None:
            cosines = unit[rows] @ unit.T
            cosines[torch.arange(len(rows)), rows] = -torch.inf
            found = cosines.topk(k).indices
        else:
            found = without(index.find(space.rows[rows], k + 1), rows, k)
        near.append(found)
        far.append((1.0 - torch.einsum("nd,nkd->nk", unit[rows], unit[found])).clamp_min(0.0))
    return NeighbourGraph(torch.cat(near), torch.cat(far))
