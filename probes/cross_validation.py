"""Nested cross-validation over cells: each held-out row is scored by a cell that was chosen without it."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.progress import progress_bar
from probes.cells import Cell
from probes.linear import LinearProbe
from probes.probe import Probe


@final
@dataclass(frozen=True)
class NestedValidation:
    """Whether each row was labelled rightly: by each cell, and by the cell chosen without it.

    Attributes:
        right: by each cell, from the other folds.
        chosen: of each fold, the cell that was best on inner folds of the other folds.
        nested: by the cell chosen for the row's fold, learnt from the other folds.
        score: that cell's score of the row.
    """

    right: Bool[Tensor, "example site"]
    chosen: tuple[int, ...]
    nested: Bool[Tensor, "example"]
    score: Float[Tensor, "example"]


def cross_validate(
    probe: Probe,
    cells: Mapping[Cell, Float[Tensor, "example _"]],
    y: Bool[Tensor, "example"],
    fold: Int[Tensor, "example"],
    *,
    progress: bool = True,
) -> NestedValidation:
    """Label every row by probes that have not seen its fold, and choose a cell for each fold without it.

    The inner folds of fold i are the other folds, so one probe without folds i and j serves i and j: for k folds,
    k (k + 1) / 2 fits per cell.

    Raises:
        InvalidArgument: as the probe's `fit`.

    Examples:
        ```python
        cross_validate(Logistic(), cells.rows, examples.y, grouped_folds(examples.group, examples.y, 5, seed=0))
        ```
    """
    k = int(fold.max()) + 1
    pairs = list(combinations(range(k), 2)) if k > 2 else []
    left_out = [(i,) for i in range(k)] + pairs
    train = torch.stack([torch.stack([fold != i for i in out]).all(0) for out in left_out], 1)
    right, inner, own_score = [], [], []
    for x in progress_bar(cells.values(), desc="probes", progress=progress):
        score = scores(probe, x, y[:, None].expand(-1, len(left_out)), train)
        hit = (score > 0) == y[:, None]
        own_score.append(score.gather(1, fold[:, None])[:, 0])
        right.append(hit.gather(1, fold[:, None])[:, 0])
        inner.append(_inner(hit, fold, k, pairs))
    chosen = torch.stack(inner).argmax(0)
    own, pick = torch.stack(right, 1), chosen[fold][:, None]
    score = torch.stack(own_score, 1).gather(1, pick)[:, 0]
    return NestedValidation(own, tuple(chosen.tolist()), own.gather(1, pick)[:, 0], score)


def best_of_shuffled(
    probe: Probe,
    cells: Mapping[Cell, Float[Tensor, "example _"]],
    labels: Bool[Tensor, "example n"],
    fold: Int[Tensor, "example"],
    *,
    progress: bool = True,
) -> Float[Tensor, "n"]:
    """For each column of exchanged labels, the accuracy of the best cell: what searching finds in nothing.

    Cost:
        One fit per cell, column and fold.

    Examples:
        ```python
        best_of_shuffled(probe, cells.rows, columns, fold)
        ```
    """
    k, n = int(fold.max()) + 1, labels.shape[1]
    train = torch.stack([fold != i for i in range(k)], 1).repeat(1, n)
    columns = labels.repeat_interleave(k, 1)
    best = torch.zeros(n)
    for x in progress_bar(cells.values(), desc="shuffled labels", progress=progress):
        hit = ((scores(probe, x, columns, train) > 0) == columns).reshape(len(fold), n, k)
        own = hit.gather(2, fold[:, None, None].expand(-1, n, 1))[..., 0]
        best = best.maximum(own.float().mean(0))
    return best


def scores(
    probe: Probe, x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n class"], train: Bool[Tensor, "n class"]
) -> Float[Tensor, "n class"]:
    """The scores, on the CPU, of all rows by one probe per column of labels, fitted to that column's training rows.

    Linear probes that share a factorisation over columns do so. The probe given stays as it was.

    Examples:
        ```python
        scores(Logistic(), x, y[:, None], (fold != 0)[:, None])
        ```
    """
    y, train = y.to(x.device), train.to(x.device)
    if isinstance(probe, LinearProbe):
        W, b = probe.columns(x, y, train)
        return (x.double() @ W + b).cpu()
    fitted = [deepcopy(probe).fit(x[rows], labels[rows]) for labels, rows in zip(y.T, train.T, strict=True)]
    return torch.stack([one.decision_function(x) for one in fitted], 1).cpu()


def _inner(hit: Tensor, fold: Tensor, k: int, pairs: list[tuple[int, int]]) -> Float[Tensor, "n"]:
    """The accuracy on inner folds, for each outer fold; with two folds there are none, and nothing is chosen."""
    total, count = torch.zeros(k), torch.zeros(k)
    for column, (i, j) in enumerate(pairs, start=k):
        for outer, within in ((i, j), (j, i)):
            rows = hit[fold == within, column]
            total[outer] += rows.sum()
            count[outer] += len(rows)
    return total / count.clamp_min(1)
