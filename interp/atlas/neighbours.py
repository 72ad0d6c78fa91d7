"""Neighbours: the items nearest to a query, how often they share its label, and which are everyone's neighbour."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.atlas.space import Space
from interp.atlas.space_index import SpaceIndex, check_index
from interp.common.statistics import Estimate, mean_over_groups
from probes.folds import number_groups

if TYPE_CHECKING:
    from pandas import DataFrame

Query: TypeAlias = str | int | Tensor
"""An item of the space by its name or number, or a vector."""
BLOCK = 512


@final
@dataclass(frozen=True, eq=False)
class Neighbours:
    """The items nearest to a query, the nearest first.

    Attributes:
        names: of the items.
        numbers: their numbers in the space.
        scores: how near each is, by the space's metric.
        excluded: the names of the items that were not allowed as an answer.
    """

    names: tuple[str, ...]
    numbers: Int[Tensor, "n"]
    scores: Float[Tensor, "n"]
    excluded: tuple[str, ...] = ()

    def __repr__(self) -> str:
        found = ", ".join(f"{name!r} {score:.3f}" for name, score in zip(self.names, self.scores.tolist(), strict=True))
        return f"Neighbours({found}; excluded: {', '.join(self.excluded) or 'nothing'})"

    def to_pandas(self) -> "DataFrame":
        """One row for each neighbour, the nearest first.

        Examples:
            ```python
            find_neighbours(space, "fog").to_pandas()
            ```
        """
        import pandas

        return pandas.DataFrame({"name": self.names, "number": self.numbers.tolist(), "score": self.scores.tolist()})


def find_neighbours(
    space: Space,
    query: Query,
    k: Count = 10,
    *,
    exclude: Sequence[str | int] | None = None,
    index: SpaceIndex | None = None,
) -> Neighbours:
    """Return the k items nearest to a query, found exactly unless an index is given.

    Args:
        space: where to look.
        query: an item of the space, or a vector.
        k: how many.
        exclude: items that are no answer; by default the query itself where it is an item. The answer names them.
        index: of this space, by `index_space`: for more than a million items, most of the nearest are found.

    Raises:
        UnknownName: no item is called that.
        InvalidArgument: fewer than k items are left, or an index of another space.

    Cost: one product with the matrix of rows.

    Examples:
        >>> space = Space(torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [0.0, -1.0]]), ("a", "b", "c", "d"))
        >>> find_neighbours(space, "a", 1).names
        ('b',)
    """
    own = [] if isinstance(query, Tensor) else [space.number(query)]
    vector = query if isinstance(query, Tensor) else space.rows[own[0]]
    left_out = sorted({space.number(item) for item in exclude} if exclude is not None else set(own))
    if k > len(space) - len(left_out):
        raise InvalidArgument(f"{k} neighbours were asked for, and {len(space) - len(left_out)} items are left")
    if index is None:
        numbers, scores = _exactly(space, vector, k, left_out)
    else:
        check_index(index, space)
        numbers, scores = _by_index(index, vector, k, left_out)
    names = tuple(space.names[i] for i in numbers.tolist())
    return Neighbours(names, numbers, scores, tuple(space.names[i] for i in left_out))


def _exactly(
    space: Space, vector: Float[Tensor, "d_model"], k: int, left_out: list[int]
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    scores = space.scores(vector[None])[0]
    scores[left_out] = -torch.inf
    found = scores.topk(k)
    return found.indices, found.values


def _by_index(
    index: SpaceIndex, vector: Float[Tensor, "d_model"], k: int, left_out: list[int]
) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
    found = index.find(vector[None], k + len(left_out))[0]
    kept = found[(found >= 0) & ~torch.isin(found, torch.tensor(left_out, dtype=torch.long))][:k]
    if len(kept) < k:
        raise InvalidArgument(
            f"the cells that were looked into hold {len(kept)} items near the query, and {k} were asked for: give "
            "index_space more probes, or fewer cells"
        )
    return kept, index.scores(vector, kept)


def _nearest(space: Space, k: int, groups: Int[Tensor, "n"]) -> Iterator[tuple[Int[Tensor, "_"], Int[Tensor, "_ n"]]]:
    """For each item, by block, its k nearest of other groups."""
    for items in torch.arange(len(space)).split(BLOCK):
        scores = space.scores(space.rows[items])
        scores[groups[items][:, None] == groups] = -torch.inf
        found = scores.topk(k)
        if not bool(found.values.isfinite().all()):
            raise InvalidArgument(f"an item has fewer than {k} items of other groups as neighbours: lower k")
        yield items, found.indices


@final
@dataclass(frozen=True)
class Precision:
    """How often the neighbours of an item have its label.

    Attributes:
        k: neighbours of each item.
        by_space: mean share of them with the item's label, in each space.
        chance: the same where neighbours are drawn at random from all that may be some, those of other groups:
            `mean_i (n_{y_i} − n_{y_i, g_i}) / (n − n_{g_i})`, of items without groups `Σ_c p_c (n_c − 1)/(n − 1)`.
        per_label: the share by label, in the first space.
    """

    k: int
    by_space: Mapping[str, Estimate]
    chance: float
    per_label: Mapping[str, float]

    __repr__ = summarise

    def to_pandas(self) -> "DataFrame":
        """One row for each space: the share of neighbours with the item's label, its interval, and that by chance.

        Examples:
            ```python
            measure_precision(spaces, labels).to_pandas()
            ```
        """
        import pandas

        rows = [
            {"space": name, "precision": e.value, "low": e.low, "high": e.high, "n": e.n, "shuffled": self.chance}
            for name, e in self.by_space.items()
        ]
        return pandas.DataFrame(rows)

    def __str__(self) -> str:
        lines = [f"share of {self.k} neighbours with the item's label; by chance {self.chance:.3f}"]
        lines += [f"{name:<28}{e:.3f}" for name, e in self.by_space.items()]
        return "\n".join(lines)


def measure_precision(
    spaces: Mapping[str, Space], labels: Sequence[str], *, k: Count = 10, groups: Sequence[object] | None = None
) -> Precision:
    """Return the mean share of an item's k neighbours that have its label, in several spaces of the same items.

    `precision@k = mean_i |{j ∈ N_k(i): y_j = y_i}| / k`, with interval by bootstrap over groups of
    items. Give as further spaces
    those that need no model: `pixel_space`, `histogram_space`, and an untrained twin's.

    Args:
        spaces: by name, the one that is asked about first.
        labels: of the items.
        k: neighbours of each.
        groups: items of one group are never neighbours, such as crops of one picture; each is its own by default.

    Raises:
        InvalidArgument: spaces of another number of items, too few items, or not a group for each.

    Cost: a product of all pairs of rows in each space.

    Examples:
        >>> space = Space(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), ("a", "b", "c", "d"), "euclid")
        >>> measure_precision({"line": space}, ["low", "low", "high", "high"], k=1).by_space["line"].value
        1.0
    """
    n = len(labels)
    for name, space in spaces.items():
        if len(space) != n:
            raise InvalidArgument(f"the space {name!r} has {len(space)} items, and there are {n} labels: one for each")
    known = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    y = torch.tensor([known[label] for label in labels])
    own = number_groups(groups, n)
    shares = {}
    for name, space in spaces.items():
        found = torch.zeros(n)
        for items, nearest in _nearest(space, k, own):
            found[items] = (y[nearest] == y[items][:, None]).float().mean(1)
        shares[name] = found
    table = torch.zeros(int(own.max()) + 1, len(known), dtype=torch.float64)
    table.index_put_((own, y), torch.ones(n).double(), accumulate=True)
    allowed = (table.sum(0) - table)[own, y] / (n - table.sum(1)[own])
    chance = float(allowed.mean())
    first = shares[next(iter(shares))]
    per_label = {label: float(first[y == i].mean()) for label, i in known.items()}
    return Precision(k, {name: mean_over_groups(share, own) for name, share in shares.items()}, chance, per_label)


@final
@dataclass(frozen=True)
class Hubness:
    """Whether some items are everyone's neighbour.

    Attributes:
        k: neighbours of each item.
        skew: of how often an item is one of another's k neighbours: 0 where all are so equally often.
        hubs: the items that are it most often, with how often.
        never: the share of items that are nobody's neighbour.
    """

    k: int
    skew: float
    hubs: tuple[tuple[str, int], ...]
    never: float

    __repr__ = summarise


def measure_hubness(space: Space, k: Count = 10, *, top: Count = 5) -> Hubness:
    """Return how unequally often items are a neighbour (Radovanović et al. 2010, JMLR 11:2487).

    `N_k(j) = |{i: j ∈ N_k(i)}|`; the skew is `E[(N_k − k)³] / σ³`.

    Examples:
        >>> corners = Space(torch.eye(4), ("a", "b", "c", "d"))
        >>> measure_hubness(corners, 3).skew
        0.0
    """
    counts = torch.zeros(len(space))
    for _, nearest in _nearest(space, k, torch.arange(len(space))):
        counts += torch.bincount(nearest.flatten(), minlength=len(space))
    centred = counts - counts.mean()
    spread = float(centred.square().mean().sqrt())
    skew = float(centred.pow(3).mean()) / spread**3 if spread > 0 else 0.0
    most = counts.topk(min(top, len(space)))
    hubs = tuple((space.names[i], int(n)) for i, n in zip(most.indices.tolist(), most.values.tolist(), strict=True))
    return Hubness(k, skew, hubs, float((counts == 0).float().mean()))
