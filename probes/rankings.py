"""How strongly each coordinate alone goes with a label: the rankings a k-sparse probe chooses its coordinates by."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.border import guard_function
from hooks.errors import InvalidArgument
from probes.affine import CrossEntropy, fit_affine
from probes.l1 import find_entrances
from probes.lbfgs import each

Ranking: TypeAlias = Callable[[Float[Tensor, "n d_model"], Bool[Tensor, "n"]], Float[Tensor, "d_model"]]
BINS = 8


@guard_function
def by_mean_difference(x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> Float[Tensor, "d_model"]:
    """|mu_+ - mu_-| of each coordinate, in its own standard deviations; 0 where it is constant.

    Examples:
        >>> by_mean_difference(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([False, True]))
        tensor([2., 0.])
    """
    return torch.where(_constant(x), 0.0, (x[y].mean(0) - x[~y].mean(0)).abs() / _deviation(x))


@guard_function
def by_f_statistic(x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> Float[Tensor, "d_model"]:
    """F = between-class variance / (within-class variance / (n - 2)) of each coordinate; 0 where it is constant.

    Raises:
        InvalidArgument: fewer than 3 rows.

    Examples:
        ```python
        KSparse(k=5, ranking=by_f_statistic)
        ```
    """
    if len(x) < 3:
        raise InvalidArgument(f"{len(x)} rows leave no degree of freedom within two classes: give at least 3")
    above, below, mean = x[y], x[~y], x.mean(0)
    between = sum(len(part) * (part.mean(0) - mean).square() for part in (above, below))
    within = sum((part - part.mean(0)).square().sum(0) for part in (above, below)) / (len(x) - 2)
    return torch.where(_constant(x), 0.0, between / within)


@guard_function
def by_mutual_information(x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> Float[Tensor, "d_model"]:
    """I = sum p(b, y) log(p(b, y) / p(b) p(y)) of each coordinate cut at its own octiles, in nats.

    Sees what a difference of means does not: a coordinate that is large for both signs of the label's rows.

    Examples:
        ```python
        KSparse(k=5, ranking=by_mutual_information)
        ```
    """
    edges = x.quantile(torch.linspace(0, 1, BINS + 1, device=x.device, dtype=x.dtype)[1:-1], dim=0)
    bins = torch.searchsorted(edges.T.contiguous(), x.T.contiguous()).T
    member = torch.stack([bins == b for b in range(BINS)]).double()
    p = einsum(torch.stack([~y, y]).double(), member, "label n, bin n d_model -> label bin d_model") / len(y)
    independent = p.sum(0, keepdim=True) * p.sum(1, keepdim=True)
    return (p * torch.where(p > 0, p / independent, 1.0).log()).sum((0, 1)).to(x.dtype)


@guard_function
def by_logistic(x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> Float[Tensor, "d_model"]:
    """|w_j| of one logistic regression on all standardised coordinates; knows which repeat each other.

    Raises:
        NotConverged: the regression does not converge.

    Examples:
        ```python
        KSparse(k=5, ranking=by_logistic)
        ```
    """
    w, *_ = fit_affine([_standard(x)], CrossEntropy(y[:, None]), each, 1, max_iter=1000)
    return w[:, 0].abs().to(x.dtype)


@guard_function
def by_l1(x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> Float[Tensor, "d_model"]:
    """The L1 penalty at which each standardised coordinate enters the logistic regression (Gurnee et al. 2023).

    Of several coordinates that say the same, one enters early and the others late or not at all.

    Raises:
        NotConverged: the path does not converge.

    Examples:
        ```python
        KSparse(k=5, ranking=by_l1)
        ```
    """
    return find_entrances(_standard(x), y).to(x.dtype)


def _standard(x: Tensor) -> Tensor:
    return torch.where(_constant(x), 0.0, (x - x.mean(0)) / _deviation(x)).double()


def _deviation(x: Tensor) -> Tensor:
    return torch.where(_constant(x), 1.0, x.std(0, unbiased=False))


def _constant(x: Tensor) -> Tensor:
    return x.amax(0) == x.amin(0)
