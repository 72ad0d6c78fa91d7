"""How far a map is to be believed: whose neighbours it keeps, next to principal components and to shuffled labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.atlas.activation_atlas import Atlas
from interp.atlas.neighbours import Precision, measure_precision
from interp.atlas.sample import unit_rows
from interp.atlas.space import Space
from interp.common.statistics import Estimate, mean_over_groups

if TYPE_CHECKING:
    from pandas import DataFrame


@final
@dataclass(frozen=True)
class MapQuality:
    """What a map keeps.

    Attributes:
        trustworthiness: of the map and of the first two principal components: 1 where all who are near on the map are
            near in all dimensions, about a half by chance.
        purity: how often neighbours share a label: on the map, on principal components, in all dimensions, by chance;
            None without labels.
        n: rows that were measured.
    """

    trustworthiness: Mapping[str, Estimate]
    purity: Precision | None
    n: int

    __repr__ = summarise

    def to_pandas(self) -> "DataFrame":
        """A row for each space: its trustworthiness, and how often neighbours share a label, where that is known."""
        from pandas import DataFrame

        purity = {} if self.purity is None else self.purity.by_space
        rows = [
            (name, *(None if e is None else e.value for e in (self.trustworthiness.get(name), purity.get(name))))
            for name in dict.fromkeys([*self.trustworthiness, *purity])
        ]
        return DataFrame(rows, columns=["space", "trustworthiness", "purity"])

    def __str__(self) -> str:
        lines = [f"trustworthiness of {self.n} rows"]
        lines += [f"{name:<28}{e:.3f}" for name, e in self.trustworthiness.items()]
        return "\n".join(lines if self.purity is None else [*lines, str(self.purity)])


def measure_map(atlas: Atlas, k: Count = 15, *, n: Count = 2000, seed: Natural = 0) -> MapQuality:
    """Return how far a map is to be believed, on `n` rows drawn at random.

    `T(k) = 1 − 2 / (n k (2n − 3k − 1)) Σ_i Σ_{j near on the map, not in the space} (rank_i(j) − k)` (Venna and Kaski
    2001), with interval by bootstrap over pictures or texts with all their rows, which never count as neighbours of
    each other for purity.

    Raises:
        InvalidArgument: fewer than 3 k + 2 rows.

    Cost: all pairs of the rows.

    Examples:
        ```python
        print(measure_map(atlas))
        ```
    """
    rows = torch.randperm(len(atlas.sample), generator=torch.Generator().manual_seed(seed))[:n].sort().values
    if len(rows) < 3 * k + 2:
        raise InvalidArgument(f"{len(rows)} rows are too few for {k} neighbours of each: give {3 * k + 2} at least")
    unit = unit_rows(atlas.sample.space)[rows]
    planes = {"map": atlas.xy[rows], "principal components": atlas.pca[rows]}
    item = atlas.sample.item[rows]
    trust = {name: mean_over_groups(trustworthiness_of_rows(unit, xy, k), item) for name, xy in planes.items()}
    if atlas.sample.labels is None:
        return MapQuality(trust, None, len(rows))
    names = tuple(map(str, rows.tolist()))
    spaces = {name: Space(xy, names, "euclid") for name, xy in planes.items()}
    spaces["all dimensions"] = Space(unit, names)
    labels, groups = [atlas.sample.labels[i] for i in rows.tolist()], item.tolist()
    return MapQuality(trust, measure_precision(spaces, labels, k=k, groups=groups), len(rows))


def trustworthiness_of_rows(unit: Float[Tensor, "n d_model"], xy: Float[Tensor, "n 2"], k: Count) -> Float[Tensor, "n"]:
    """The trustworthiness of each row, whose mean is the map's.

    Examples:
        >>> x = torch.nn.functional.normalize(torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), dim=1)
        >>> float(trustworthiness_of_rows(x, x, 5).mean())
        1.0
    """
    n = len(unit)
    found = torch.empty(n, dtype=torch.double)
    for rows in torch.arange(n).split(512):
        own = (torch.arange(len(rows)), rows)
        apart, flat = 1 - unit[rows] @ unit.T, torch.cdist(xy[rows], xy)
        apart[own], flat[own] = torch.inf, torch.inf
        order = apart.argsort(1)
        rank = torch.empty_like(order).scatter_(1, order, torch.arange(1, n + 1).expand(len(rows), -1))
        beyond = rank.gather(1, flat.topk(k, largest=False).indices) - k
        found[rows] = 1 - 2.0 / (k * (2 * n - 3 * k - 1)) * beyond.clamp_min(0).sum(1).double()
    return found
