"""An index of a space: neighbours found approximately among millions of rows, and how many of the true ones."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from interp.atlas.space import Space
from interp.common.key_index import KeyIndex, make_key_index
from interp.common.statistics import Estimate, mean_with_interval

BLOCK = 64


@final
@dataclass(frozen=True, eq=False, repr=False)
class SpaceIndex:
    """The rows of a space in cells, of which a search looks into the nearest ones.

    Attributes:
        space: whose rows they are.
        keys: the rows as they are compared: by cosine less their mean and of length 1.
        mean: of the rows; 0 by `euclid`.
    """

    space: Space
    keys: KeyIndex
    mean: Float[Tensor, "d_model"]

    def __repr__(self) -> str:
        return f"SpaceIndex({self.space.metric}, {self.keys})"

    def find(self, queries: Float[Tensor, "n d_model"], k: Count) -> Int[Tensor, "n _"]:
        """The numbers of rows near each query, nearest first as far as the cells show; -1 where they hold fewer.

        Examples:
            ```python
            index_space(space).find(space.rows[:2], 10)
            ```
        """
        return self.keys.find(_compared(self.space, queries, self.mean), k)

    def scores(self, query: Float[Tensor, "d_model"], numbers: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """How near these rows are to a query, exactly, by the space's metric.

        Examples:
            ```python
            index.scores(query, index.find(query[None], 10)[0])
            ```
        """
        asked, rows = (_compared(self.space, x, self.mean) for x in (query[None], self.space.rows[numbers]))
        return (rows @ asked[0]) if self.space.metric == "cosine" else -(rows - asked).norm(dim=1)


def index_space(
    space: Space, *, cells: Count | None = None, probes: Count | None = None, seed: Natural = 0
) -> SpaceIndex:
    """Put the rows of a space into cells around the centres of k-means, for `find_neighbours` and `link_neighbours`.

    A product with all rows is exact and fast up to a million of them; beyond that an index finds most of the nearest
    in a sixteenth of the time. `measure_index_recall` says how many.

    Args:
        space: whose rows.
        cells: by default 4 √n, and at most one for 39 rows.
        probes: cells that a search looks into; by default a sixteenth of them, and with all it is exact.
        seed: of k-means.

    Raises:
        InvalidArgument: more cells than rows, or more probes than cells.
        MissingExtra: faiss is not installed.

    Cost: k-means over 64 rows a cell, and a product of rows by centres.

    Examples:
        ```python
        index = index_space(space)
        find_neighbours(space, 0, 10, index=index)
        ```
    """
    mean = space.mean if space.metric == "cosine" else torch.zeros(space.rows.shape[1])
    keys = _compared(space, space.rows, mean)
    return SpaceIndex(space, make_key_index(keys, cells=cells, probes=probes, seed=seed), mean)


def measure_index_recall(index: SpaceIndex, k: Count = 10, *, queries: Count = 1000, seed: Natural = 0) -> Estimate:
    """Return the mean share of a row's k nearest others that an index finds, over rows drawn at random.

    Raises:
        InvalidArgument: not more than k rows.

    Cost: one product of the queries with all rows.

    Examples:
        ```python
        measure_index_recall(index_space(space)).value
        ```
    """
    space, n = index.space, len(index.space)
    if k >= n:
        raise InvalidArgument(f"{k} neighbours were asked for of {n} rows: give fewer")
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:queries]
    shares = []
    for rows in drawn.split(BLOCK):
        scores = space.scores(space.rows[rows])
        scores[torch.arange(len(rows)), rows] = -torch.inf
        true = scores.topk(k).indices
        found = index.find(space.rows[rows], k + 1)
        found = found.masked_fill(found == rows[:, None], -1)
        shares.append((true[:, :, None] == found[:, None]).any(2).float().mean(1))
    return mean_with_interval(torch.cat(shares))


def check_index(index: SpaceIndex, space: Space) -> None:
    """Refuse an index of another space's rows.

    Raises:
        InvalidArgument: it is one.

    Examples:
        ```python
        check_index(index_space(space), space)
        ```
    """
    if index.space.rows is not space.rows or index.space.metric != space.metric:
        raise InvalidArgument("the index is of another space: make it of this one by index_space(space)")


def without(found: Int[Tensor, "n _"], own: Int[Tensor, "n"], k: int) -> Int[Tensor, "n _"]:
    """The first k that were found for each row and are not the row itself.

    Raises:
        InvalidArgument: the cells that were looked into hold fewer.

    Examples:
        >>> without(torch.tensor([[4, 7, 9]]), torch.tensor([7]), 2)
        tensor([[4, 9]])
    """
    others = (found != own[:, None]) & (found >= 0)
    if bool((others.sum(1) < k).any()):
        raise InvalidArgument(
            f"the cells that were looked into hold fewer than {k} rows near row {int(own[others.sum(1).argmin()])}: "
            "give index_space more probes, or fewer cells"
        )
    order = (~others).long().sort(dim=1, stable=True).indices[:, :k]
    return found.gather(1, order)


def _compared(
    space: Space, x: Float[Tensor, "n d_model"], mean: Float[Tensor, "d_model"]
) -> Float[Tensor, "n d_model"]:
    """Rows whose Euclidean distances order as the metric's: by cosine less the mean and of length 1."""
    return F.normalize(x.float() - mean, dim=-1) if space.metric == "cosine" else x.float()
