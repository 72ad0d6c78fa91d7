"""Folds that keep groups whole: which rows are learnt from, and which are tested on."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooks.errors import InvalidArgument


def number_groups(groups: Sequence[object] | Any | None, n: int) -> Int[Tensor, "example"]:
    """The groups of n rows, numbered in order of appearance; each row its own where none are given.

    Groups are names or numbers, as a list, a tensor, an array or a series.

    Raises:
        InvalidArgument: not a group for each row, or a missing one.

    Examples:
        >>> number_groups(["fog", "sea", "fog"], 3).tolist()
        [0, 1, 0]
    """
    if groups is None:
        return torch.arange(n)
    named: Any = groups
    given = list(named.tolist() if hasattr(named, "tolist") else named)
    if len(given) != n:
        raise InvalidArgument(f"there are {n} rows and {len(given)} groups; give one per row")
    if (row := find_missing(given)) is not None:
        raise InvalidArgument(f"row {row} has no group: name what it shares with others; its own name if nothing")
    number = {group: i for i, group in enumerate(dict.fromkeys(given))}
    return torch.tensor([number[group] for group in given], dtype=torch.long)


def find_missing(groups: Iterable[object]) -> int | None:
    """The first row whose group is missing: None, an empty name, or NaN, as tables have it.

    Examples:
        >>> find_missing(["fog", float("nan")])
        1
    """
    return next((row for row, group in enumerate(groups) if group is None or group == "" or group != group), None)


def grouped_folds(
    group: Int[Tensor, "example"], y: Bool[Tensor, "example"], k: int, seed: int
) -> Int[Tensor, "example"]:
    """The fold of each row, 0 to k - 1: no group is split, and each fold gets its share of both classes.

    Groups are taken in a seeded random order, larger ones first, each to the fold it leaves most even.

    Raises:
        InvalidArgument: fewer groups than folds, or folds of which two hold all rows of a class.

    Examples:
        >>> fold = grouped_folds(torch.tensor([0, 0, 1, 1]), torch.tensor([True, False, True, False]), 2, seed=0)
        >>> bool(fold[0] == fold[1]), bool(fold[1] == fold[2])
        (True, False)
    """
    group = group.unique(return_inverse=True)[1]
    n = int(group.max()) + 1
    if not 2 <= k <= n:
        raise InvalidArgument(f"{k} folds of {n} groups were asked for: give between 2 and {n}")
    counts = torch.zeros(n, 2).index_put_((group, y.long()), torch.ones(len(y)), accumulate=True)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    order = order[counts[order].sum(1).argsort(descending=True, stable=True)]
    share = counts / counts.sum(0)
    load, fold = torch.zeros(k, 2), torch.zeros(n, dtype=torch.long)
    for g in order.tolist():
        fold[g] = (load + share[g]).square().sum(1).sub(load.square().sum(1)).argmin()
        load[fold[g]] += share[g]
    _check(load, k)
    return fold[group]


def row_folds(group: Int[Tensor, "example"], k: int, seed: int) -> Int[Tensor, "example"]:
    """Folds that split every group of more than one row: what a control task is learnt and tested on.

    Examples:
        >>> len(set(row_folds(torch.zeros(4, dtype=torch.long), 2, seed=0)[:4].tolist()))
        2
    """
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(group), generator=g)
    order = order[group[order].argsort(stable=True)]
    fold = torch.empty_like(group)
    fold[order] = torch.arange(len(group)) % k
    return fold


def exchange_labels(y: Bool[Tensor, "example"], group: Int[Tensor, "example"], seed: int) -> Bool[Tensor, "example"]:
    """Labels exchanged at random as the groups allow: groups of one label trade theirs, others exchange inside.

    Rows of a group with both labels exchange theirs within the group, which holds whatever they have in common.

    Examples:
        >>> new = exchange_labels(torch.tensor([True, True, False]), torch.tensor([0, 0, 1]), seed=0)
        >>> bool(new[0] == new[1]), bool(new[1] == new[2])
        (True, False)
    """
    g = torch.Generator().manual_seed(seed)
    group = group.unique(return_inverse=True)[1]
    n = int(group.max()) + 1
    counts = torch.zeros(n, 2).index_put_((group, y.long()), torch.ones(len(y)), accumulate=True)
    pure = (counts.amin(1) == 0).nonzero().flatten()
    label = counts[:, 1] > 0
    label[pure] = label[pure[torch.randperm(len(pure), generator=g)]]
    order = group.argsort(stable=True)
    mixed = torch.randperm(len(y), generator=g)
    mixed = mixed[group[mixed].argsort(stable=True)]
    new = torch.empty_like(y)
    new[order] = y[mixed]
    return torch.where(torch.isin(group, pure), label[group], new)


def draw_exchanges(
    y: Bool[Tensor, "example"], group: Int[Tensor, "example"], fold: Int[Tensor, "example"], n: int, seed: int
) -> Bool[Tensor, "example n"]:
    """Columns of exchanged labels that leave both classes to learn from, whichever fold is held out.

    Raises:
        InvalidArgument: such exchanges are too rare to find.

    Examples:
        ```python
        draw_exchanges(y, group, fold, 20, seed=0)
        ```
    """
    found: list[Tensor] = []
    for attempt in range(50 * n):
        new = exchange_labels(y, group, seed * 1_000_003 + attempt)
        if all(bool(new[fold != i].any()) and not bool(new[fold != i].all()) for i in range(int(fold.max()) + 1)):
            found.append(new)
        if len(found) == n:
            return torch.stack(found, 1)
    raise InvalidArgument(
        f"of {50 * n} exchanges of labels over {int(group.max()) + 1} groups only {len(found)} leave both "
        "classes to learn from: more groups are needed"
    )


def _check(load: Tensor, k: int) -> None:
    at_once = 2 if k > 2 else 1
    for label, name in ((1, "positive"), (0, "negative")):
        if float(load[:, label].topk(at_once).values.sum()) > 1 - 1e-6:
            raise InvalidArgument(
                f"with {k} folds of whole groups, {at_once} of them hold all {name} rows, so the rest cannot be "
                "learnt from: more groups with such rows are needed"
            )
