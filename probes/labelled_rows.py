"""Batches of labelled rows that can be read again and again, and the class means and covariances they have."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.batches import CheckedBatches
from probes.checks import check_rows, check_two

Labelled: TypeAlias = tuple[Float[Tensor, "_ d_model"], Bool[Tensor, "_"]]
Batches: TypeAlias = Iterable[Labelled]


def reread_batches(batches: Batches) -> tuple[Batches, torch.dtype]:
    """Return batches as solvers of two classes read them, and the type of their numbers.

    Raises:
        InvalidArgument: they give nothing, or not the same when read again, or rows of one class only.
        InvalidType: labels that are not bool.

    Cost:
        Two passes.

    Examples:
        ```python
        rows, dtype = reread_batches([(x[:100], y[:100]), (x[100:], y[100:])])
        ```
    """
    rows = CheckedBatches(batches)
    check_two(rows.y, rows.y)
    return rows, rows.dtype


@final
class UnlabelledRows:
    """The rows of labelled batches, read again on each pass."""

    def __init__(self, rows: Batches) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Float[Tensor, "_ d_model"]]:
        return (x for x, _ in self.rows)


def drop_labels(rows: Batches) -> Iterable[Float[Tensor, "_ d_model"]]:
    """The rows without their labels: a list where they are in memory, else read again on each pass.

    Examples:
        ```python
        X = drop_labels([(x, y)])
        ```
    """
    return [x for x, _ in rows] if isinstance(rows, list) else UnlabelledRows(rows)


def convert_rows(x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> Labelled:
    """Return rows in float64 with their labels, once they are fit to learn from.

    Raises:
        InvalidArgument: NaN or infinity, lengths that differ, labels that are all alike.

    Examples:
        ```python
        rows = [convert_rows(x, y)]
        ```
    """
    check_rows(x, y)
    return x.double(), y


def class_means(
    rows: Batches, weight: Float[Tensor, "n"] | None = None
) -> tuple[Float[Tensor, "class"], Float[Tensor, "class d_model"]]:
    """The number n_c = sum_i w_i and the mean mu_c = sum_i w_i x_i / n_c of the negative rows and of the positive ones.

    Every row weighs 1 where no weights are given.

    Cost:
        One pass.

    Examples:
        ```python
        n, mu = class_means([(x, y)])
        ```
    """
    n, total = torch.zeros(0), torch.zeros(0)
    for x, y, w in iterate_weighted(rows, weight):
        member = torch.stack([~y, y]).to(x) * w
        n, total = (member.sum(1), member @ x) if not len(n) else (n + member.sum(1), total + member @ x)
    return n, total / n[:, None]


def within_covariance(
    rows: Batches, mu: Float[Tensor, "class d_model"], weight: Float[Tensor, "n"] | None = None
) -> Float[Tensor, "d_model d_model"]:
    """The pooled covariance within classes, Sigma = (1/n) sum_i w_i (x_i - mu_{y_i})(x_i - mu_{y_i})^T, n = sum_i w_i.

    Cost:
        One pass.

    Examples:
        ```python
        Sigma = within_covariance(rows, class_means(rows)[1])
        ```
    """
    n, Sigma = 0.0, torch.zeros_like(mu[0].outer(mu[0]))
    for x, y, w in iterate_weighted(rows, weight):
        e = x - mu[y.long()]
        n, Sigma = n + (len(x) if weight is None else float(w.sum())), Sigma.addmm_(e.T * w, e)
    return Sigma / n


def iterate_weighted(
    rows: Batches, weight: Float[Tensor, "n"] | None
) -> Iterator[tuple[Float[Tensor, "_ d_model"], Bool[Tensor, "_"], Float[Tensor, "..."]]]:
    """Batches with the weights of their rows, which are given for all rows in order; 1 where they are not.

    Examples:
        ```python
        for x, y, w in iterate_weighted([(x, y)], None): ...
        ```
    """
    start, one = 0, torch.ones(())
    for x, y in rows:
        yield x, y, one.to(x) if weight is None else weight[start : start + len(x)].to(x)
        start += len(x)
