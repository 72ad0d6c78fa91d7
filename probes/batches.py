"""Rows with labels of any kind, a batch at a time and as often as asked, and the covariances they have."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias, final, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks import Site
from hooks.errors import InvalidArgument
from probes.checks import check_numbers

Paired: TypeAlias = tuple[Float[Tensor, "_ d_model"], Shaped[Tensor, "_ ..."]]


@runtime_checkable
class LocatedBatches(Protocol):
    """Batches that know where their rows come from."""

    site: Site
    fingerprint: str | None


@final
class CheckedBatches:
    """Batches read again on each pass, checked, their rows in float64.

    Attributes:
        y: the labels of all rows.
        dtype: of the rows as they are given, float32 at least.

    Raises:
        InvalidArgument: they give nothing, or not the same in the same order when read again; NaN or infinity; lengths
            that differ.

    Cost:
        Two passes, to see that they can be read again.

    Examples:
        ```python
        CheckedBatches([(x[:100], y[:100]), (x[100:], y[100:])]).y
        ```
    """

    def __init__(self, batches: Iterable[Paired]) -> None:
        self.batches = batches
        first, second = ([(x.flatten(1).sum(1), y) for x, y in self] for _ in range(2))
        n, again = (sum(len(y) for _, y in once) for once in (first, second))
        if n != again or n == 0:
            raise InvalidArgument(
                f"the batches gave {n} rows at first and {again} when read again: "
                "give a list, or an object that starts over, not a generator"
            )
        (sums, self.y), (sums_again, y_again) = (map(torch.cat, zip(*once, strict=True)) for once in (first, second))
        if not (torch.equal(self.y, y_again) and torch.equal(sums, sums_again)):
            raise InvalidArgument(f"the {n} rows come not in the same order when read again: give shuffle=False")
        self.dtype = torch.promote_types(next(iter(batches))[0].dtype, torch.float32)

    def __iter__(self) -> Iterator[Paired]:
        for x, y in self.batches:
            check_numbers(x, y)
            yield x.double(), y


@final
class RelabelledBatches:
    """The same rows with other labels, given for all of them in order."""

    def __init__(self, rows: Iterable[Paired], y: Shaped[Tensor, "n ..."]) -> None:
        self.rows, self.y = rows, y

    def __iter__(self) -> Iterator[Paired]:
        start = 0
        for x, _ in self.rows:
            yield x, self.y[start : start + len(x)]
            start += len(x)


def covariances(
    rows: Iterable[Paired],
) -> tuple[
    Float[Tensor, "d_model"], Float[Tensor, "class"], Float[Tensor, "d_model d_model"], Float[Tensor, "d_model class"]
]:
    """The means of rows x and of their columns z, Sigma_xx = E (x - mu)(x - mu)^T and Sigma_xz.

    Cost:
        Two passes.

    Examples:
        ```python
        mean, target, Sigma_xx, Sigma_xz = covariances([(x, z)])
        ```
    """
    n, x_sum, z_sum = 0, torch.zeros(0), torch.zeros(0)
    for x, z in rows:
        x_sum, z_sum = (x.sum(0), z.to(x).sum(0)) if not n else (x_sum + x.sum(0), z_sum + z.to(x).sum(0))
        n += len(x)
    mu, middle = x_sum / n, z_sum / n
    xx, xz = mu.new_zeros(len(mu), len(mu)), mu.new_zeros(len(mu), len(middle))
    for x, z in rows:
        xx.addmm_((x - mu).T, x - mu)
        xz.addmm_((x - mu).T, z.to(x) - middle)
    return mu, middle, xx / n, xz / n
