"""Directions as arithmetic: what a change adds to a row, whether it adds the same everywhere, and what it leads to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Direction
from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.atlas.neighbours import Neighbours, find_neighbours
from interp.atlas.space import Space
from interp.common.statistics import Estimate, mean_over_groups, share, share_over_groups

if TYPE_CHECKING:
    from pandas import DataFrame

Pairs = Sequence[tuple[str | int, str | int]]
"""Items before and after one and the same change."""


def solve_analogy(
    space: Space,
    a: str | int,
    b: str | int,
    c: str | int,
    k: Count = 10,
    *,
    exclude: Sequence[str | int] | None = None,
) -> Neighbours:
    """Return what is to `c` as `b` is to `a`: the neighbours of `x_b − x_a + x_c` (3CosAdd, Mikolov et al. 2013).

    Args:
        space: where to look.
        a: where the difference begins.
        b: where it ends.
        c: what it is added to.
        k: how many answers.
        exclude: items that are no answer: a, b and c by default, as is usual; pass () to allow them. The answer names
            them. Without exclusion c itself is often the nearest (Linzen 2016, arXiv:1606.07736).

    Raises:
        UnknownName: an item is not there.

    Examples:
        >>> rows = torch.tensor([[0.0, 0.0], [0.0, 2.0], [5.0, 0.1], [5.0, 2.0], [-9.0, -3.0]])
        >>> space = Space(rows, ("day", "night", "bridge by day", "bridge at night", "sea"))
        >>> solve_analogy(space, "day", "night", "bridge by day", 1).names
        ('bridge at night',)
    """
    numbers = [space.number(item) for item in (a, b, c)]
    x = space.rows[numbers].float()
    return find_neighbours(space, x[1] - x[0] + x[2], k, exclude=numbers if exclude is None else exclude)


@final
@dataclass(frozen=True, eq=False)
class Offset:
    """What one change adds to rows.

    Attributes:
        direction: the mean over pairs of row after less row before.
        consistency: mean cosine of a pair's own difference with the mean of the others'.
        shuffled: the same where each item before is paired with another's item after.
        n: pairs.
    """

    direction: Direction
    consistency: Estimate
    shuffled: Estimate
    n: int

    __repr__ = summarise


def find_offset(space: Space, pairs: Pairs, *, seed: int = 0) -> Offset:
    """Return the direction that a change adds, and whether it is the same everywhere.

    `δ̄ = mean_i (x_i after − x_i before)`, consistency `mean_i cos(δ_i, δ̄ without i)`, where without a pair is without
    those that share an item with it, too; pairs linked by shared items are one case of the interval.

    Args:
        space: captured rows, so that the direction has a site.
        pairs: items before and after the change.
        seed: of the shuffled pairs.

    Raises:
        InvalidArgument: fewer than three pairs, one twice, one that shares an item with all others, or a space that was
            not captured at a site.

    Examples:
        ```python
        find_offset(space, [(day, night) for day, night in numbers]).direction
        ```
    """
    if space.site is None:
        raise InvalidArgument("these rows were not captured at a site, so they have no direction: use space_at")
    before, after = numbers_of(space, pairs)
    x0, x1 = space.rows[before].float(), space.rows[after].float()
    order = _derangement(len(before), seed)
    vector = (x1 - x0).mean(0)
    greatest = float((space.rows.float() @ F.normalize(vector, dim=0)).abs().max())
    direction = Direction(vector, space.site, f"offset of {len(before)} pairs", greatest or 1.0, space.fingerprint)
    own, shuffled = _consistency(x1 - x0, before, after), _consistency(x1[order] - x0, before, after[order])
    return Offset(direction, own, shuffled, len(before))


def _consistency(delta: Float[Tensor, "n d_model"], before: Tensor, after: Tensor) -> Estimate:
    apart = _are_apart(before, after)
    found = F.cosine_similarity(delta, _mean_of_others(delta, apart), dim=-1)
    return mean_over_groups(found, _linked(apart))


def _are_apart(before: Int[Tensor, "n"], after: Int[Tensor, "n"]) -> Bool[Tensor, "n n"]:
    """Which pairs have no item in common: what one of them is tried on without having been seen.

    Raises:
        InvalidArgument: a pair that shares an item with all others.
    """
    items = torch.stack([before, after], 1)
    apart = ~(items[:, None, :, None] == items[None, :, None, :]).flatten(2).any(2)
    if not bool(apart.any(1).all()):
        raise InvalidArgument(
            f"pair {int((~apart.any(1)).nonzero()[0])} shares an item with all others, so there is none that it could "
            "be tried with: give pairs of other items"
        )
    return apart


def _mean_of_others(delta: Float[Tensor, "n d_model"], apart: Bool[Tensor, "n n"]) -> Float[Tensor, "n d_model"]:
    return apart.to(delta) @ delta / apart.sum(1, keepdim=True)


def _linked(apart: Bool[Tensor, "n n"]) -> Int[Tensor, "n"]:
    """For each pair the first that it is linked with through shared items."""
    from scipy.sparse.csgraph import connected_components

    return torch.from_numpy(connected_components(~apart.numpy())[1]).long()


def numbers_of(space: Space, pairs: Pairs) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
    """The numbers of the items before and after.

    Raises:
        InvalidArgument: fewer than three pairs, or one twice.
    """
    if len(pairs) < 3:
        raise InvalidArgument(
            f"an offset needs at least three pairs to be tried on one it was not made of, got {len(pairs)}"
        )
    numbers = [(space.number(a), space.number(b)) for a, b in pairs]
    if len({*numbers}) < len(numbers):
        raise InvalidArgument(
            f"{len(numbers)} pairs were given and {len({*numbers})} are different: give each once, or an offset is "
            "tried on a pair that it was made of"
        )
    before, after = zip(*numbers, strict=True)
    return torch.tensor(before), torch.tensor(after)


def _derangement(n: int, seed: int) -> Int[Tensor, "n"]:
    """A permutation that leaves nothing where it was."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = torch.empty_like(order)
    moved[order] = order.roll(1)
    return moved


@final
@dataclass(frozen=True)
class Analogies:
    """How often the answer to an analogy is the right item, by method and by what may be answered.

    Attributes:
        n: pairs.
        excluded: hit@1 where the item before the change is no answer.
        allowed: hit@1 where every item is one.
    """

    n: int
    excluded: Mapping[str, Estimate]
    allowed: Mapping[str, Estimate]

    __repr__ = summarise

    def to_pandas(self) -> "DataFrame":
        """One row for each method and each choice of what may be answered: hit@1 and its interval.

        Examples:
            ```python
            measure_analogies(space, pairs).to_pandas()
            ```
        """
        import pandas

        answers = {"c excluded": self.excluded, "c allowed": self.allowed}
        rows = [
            {"method": name, "answers": which, "hit@1": e.value, "low": e.low, "high": e.high, "n": e.n}
            for which, table in answers.items()
            for name, e in table.items()
        ]
        return pandas.DataFrame(rows)

    def __str__(self) -> str:
        lines = [f"{'hit@1 of ' + str(self.n) + ' pairs':<28}{'c excluded':>24}{'c allowed':>24}"]
        for name, one in self.excluded.items():
            shown = [f"{e:.3f}" for e in (one, self.allowed[name])]
            lines.append(f"{name:<28}{shown[0]:>24}{shown[1]:>24}")
        return "\n".join(lines)


def measure_analogies(space: Space, pairs: Pairs, *, classes: bool = True, seed: int = 0) -> Analogies:
    """Return how often an offset of other pairs leads from an item to its own item after the change.

    - `one other pair` (3CosAdd): `x_c + δ_j`, the mean over other pairs j.
    - `mean of the others` (3CosAvg): `x_c + δ̄ without its own pair` (Drozd et al. 2016).
    - `mean and class` (LRCos): the same, times the probability that an item is one of those after the change, of a
      logistic regression that has not seen the pair; the classes are learnt on one half and used on the other.
    - controls: `c alone`, no offset at all; `random offset`, of the same length; `signs at random`, the mean of
      differences of which about half are turned round. (Shuffled pairs are no control of a mean: it is the same.)

    An offset of others is of pairs that share no item with this one; pairs linked by shared items are one case of the
    intervals, and in one half.

    Raises:
        InvalidArgument: fewer than three pairs, one twice, or one that shares an item with all others.

    Cost: a product of all pairs with the space for each method; for each pair one per other pair for 3CosAdd.

    Examples:
        ```python
        print(measure_analogies(space, [("France", "Paris"), ("Spain", "Madrid"), …]))
        ```
    """
    before, after = numbers_of(space, pairs)
    x0, x1 = space.rows[before].float(), space.rows[after].float()
    delta, apart = x1 - x0, _are_apart(before, after)
    others, linked = _mean_of_others(delta, apart), _linked(apart)
    random = torch.randn(delta.shape, generator=torch.Generator().manual_seed(seed))
    random = F.normalize(random, dim=-1) * others.norm(dim=-1, keepdim=True)
    signs = torch.randint(2, (len(delta), 1), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    turned = signs * delta
    offsets = {
        "mean of the others": others,
        "c alone": torch.zeros_like(delta),
        "random offset": random,
        "signs at random": _mean_of_others(turned, apart),
    }
    likely = _class_chances(space, before, after, linked) if classes else None
    tables: list[dict[str, Estimate]] = []
    for exclude in (True, False):
        found = {"one other pair": _single(space, x0, delta, before, after, exclude, apart)}
        for name, offset in offsets.items():
            found[name] = _share(_hits(space, x0 + offset, before, after, exclude), linked)
            if name == "mean of the others" and likely is not None:
                hits = _hits(space, x0 + offset, before, after, exclude, likely)
                found["mean and class"] = _share(hits, linked)
        tables.append(found)
    return Analogies(len(before), tables[0], tables[1])


def _share(right: Bool[Tensor, "n"], linked: Int[Tensor, "n"]) -> Estimate:
    alone = int(linked.max()) + 1 == len(linked)
    return share(right) if alone else share_over_groups(right, linked)


def _hits(
    space: Space,
    queries: Float[Tensor, "n d_model"],
    before: Int[Tensor, "n"],
    after: Int[Tensor, "n"],
    exclude: bool,
    likely: Float[Tensor, "n _"] | None = None,
) -> Tensor:
    """Whether the nearest item to each query is the one after the change."""
    scores = space.scores(queries)
    if likely is not None:
        scores = (scores + 1) / 2 * likely
    if exclude:
        scores[torch.arange(len(before)), before] = -torch.inf
    return scores.argmax(1) == after


def _single(
    space: Space, x0: Tensor, delta: Tensor, before: Tensor, after: Tensor, exclude: bool, apart: Tensor, most: int = 32
) -> Estimate:
    """The mean share of other pairs whose difference alone leads to the right item."""
    n, shares = len(delta), []
    for i in range(n):
        j = apart[i].nonzero()[:most, 0].tolist()
        here = (before[i].expand(len(j)), after[i].expand(len(j)))
        shares.append(_hits(space, x0[i] + delta[j], *here, exclude).float().mean())
    return mean_over_groups(torch.stack(shares), _linked(apart))


def _class_chances(space: Space, before: Tensor, after: Tensor, linked: Tensor) -> Float[Tensor, "n _"]:
    """For each pair, how likely each item is one after the change; learnt on pairs of the other half."""
    from sklearn.linear_model import LogisticRegression

    if not bool(linked.any()):
        raise InvalidArgument(
            "all pairs are linked by shared items, so no half has items of its own to learn classes of: give "
            "classes=False, or pairs of other items"
        )
    rows = (space.rows.float() - space.mean).numpy()
    half = linked % 2
    found = torch.zeros(len(before), len(space))
    for part in (0, 1):
        seen = half != part
        x = torch.cat([before[seen], after[seen]]).numpy()
        y = [0] * int(seen.sum()) + [1] * int(seen.sum())
        fitted = LogisticRegression(max_iter=1000).fit(rows[x], y)
        found[half == part] = torch.from_numpy(fitted.predict_proba(rows)[:, 1]).float()
    return found
