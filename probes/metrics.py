"""How well scores detect a label: AUROC, and precision, recall and F1 at a threshold."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Real, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.arrays import Array, Table, tensor
from probes.checks import check_rows
from probes.labels import convert_truth


@dataclass(frozen=True)
class Detection:
    """Scores above `threshold` taken as detections: their precision, recall and F1, and the AUROC of the scores."""

    threshold: float
    precision: float
    recall: float
    f1: float
    auroc: float


def auroc(scores: Real[Array, "n *d"], y: Shaped[Array, "n"] | Table) -> Float[Tensor, "*d"]:
    """The chance that a positive row scores above a negative one, ties counting half; for each column of scores.

    AUROC = (R - P (P + 1) / 2) / (P N), R the sum of the positive rows' ranks (Mann and Whitney 1947). Half precision
    gives float32, whole numbers float64.

    Raises:
        InvalidArgument: NaN or infinity, lengths that differ, or labels that are all alike.

    Examples:
        >>> float(auroc(torch.tensor([0.1, 0.4, 0.9]), torch.tensor([False, True, True])))
        1.0
    """
    values, labels = _numbers(scores), convert_truth(y)
    check_rows(values, labels)
    columns = values.reshape(len(labels), -1).T.contiguous()
    ordered = columns.sort(1).values
    below = torch.searchsorted(ordered, columns)
    up_to = torch.searchsorted(ordered, columns, right=True)
    ranks = (below + up_to + 1).double() / 2
    P, N = int(labels.sum()), int((~labels).sum())
    area = (ranks[:, labels].sum(1) - P * (P + 1) / 2) / (P * N)
    return area.to(torch.promote_types(values.dtype, torch.float32)).reshape(values.shape[1:])


def detection(scores: Real[Array, "n"], y: Shaped[Array, "n"] | Table, threshold: float) -> Detection:
    """Precision TP / (TP + FP), recall TP / (TP + FN) and F1 = 2 TP / (2 TP + FP + FN) of `scores > threshold`.

    Precision is 0 where nothing is detected.

    Raises:
        InvalidArgument: NaN or infinity, a threshold that is NaN, lengths that differ, or labels that are all alike.

    Examples:
        >>> detection(torch.tensor([0.1, 0.4, 0.9]), torch.tensor([False, True, True]), 0.5).recall
        0.5
    """
    values, labels = _numbers(scores), convert_truth(y)
    area = float(auroc(values, labels))
    if threshold != threshold:
        raise InvalidArgument("the threshold is NaN, and no score is above it: give a number, as best_threshold does")
    found = values > threshold
    hits = int((found & labels).sum())
    precision = hits / max(1, int(found.sum()))
    recall = hits / int(labels.sum())
    return Detection(threshold, precision, recall, 2 * hits / (int(found.sum()) + int(labels.sum())), area)


def best_threshold(scores: Real[Array, "n"], y: Shaped[Array, "n"] | Table) -> float:
    """The threshold with the highest F1, halfway between the lowest score it detects and the next one down.

    It is a number of the scores' own precision, and the next score down where there is none between the two.

    Raises:
        InvalidArgument: NaN or infinity, lengths that differ, or labels that are all alike.

    Examples:
        >>> round(best_threshold(torch.tensor([0.1, 0.4, 0.8]), torch.tensor([False, True, True])), 2)
        0.25
    """
    values, labels = _numbers(scores), convert_truth(y)
    check_rows(values, labels)
    ordered, order = values.sort(descending=True)
    hits = labels[order].cumsum(0)
    count = torch.arange(1, len(labels) + 1, device=labels.device)
    f1 = 2 * hits / (count + hits[-1])
    last_of_ties = torch.cat([ordered[1:] < ordered[:-1], torch.ones_like(labels[:1])])
    best = int(torch.where(last_of_ties, f1, -1).argmax())
    if best == len(labels) - 1:
        return float(ordered[-1].nextafter(ordered.new_tensor(-torch.inf)))
    upper, lower = float(ordered[best]), float(ordered[best + 1])
    middle = float(torch.tensor((upper + lower) / 2, dtype=values.dtype))
    return middle if middle < upper else lower


def _numbers(scores: Real[Array, "n *d"]) -> Float[Tensor, "n *d"]:
    given = tensor(scores)
    return given if given.is_floating_point() else given.double()
