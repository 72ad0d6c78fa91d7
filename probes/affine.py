"""Linear scores with an intercept: centring, the column of ones, and fewer dimensions where rows are few."""

from collections.abc import Iterator
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from probes.lbfgs import Dot, Loss, Rows, minimise


class Affine(NamedTuple):
    """The optimal weights W and intercepts b, and the steps it took to find them."""

    W: Float[Tensor, "d_model class"]
    b: Float[Tensor, "class"]
    steps: int


def fit_affine(rows: Rows, loss: Loss, dot: Dot, classes: int, max_iter: int) -> Affine:
    """argmin over W, b of loss(X W + b) + ||W||^2 / 2, the intercepts b free of the penalty.

    Rows fewer than their width are first written in an orthonormal basis of the space they span, in which the
    optimum is.

    Raises:
        NotConverged: not converged after `max_iter` steps.

    Examples:
        ```python
        W, b, _ = fit_affine([x], CrossEntropy(y, train), each, 20, max_iter=100)
        ```
    """
    total, n = _sum(rows)
    mean = total / n
    centred: Rows = _Augmented(rows, mean)
    basis = None
    if isinstance(rows, list) and n < len(mean):
        basis, r = torch.linalg.qr((torch.cat(rows) - mean).T)
        centred = [_ones(r.T)]
    elif isinstance(rows, list):
        centred = list(centred)
    penalty = mean.new_ones((len(mean) if basis is None else basis.shape[1]) + 1)
    penalty[-1] = 0
    W, steps = minimise(centred, loss, dot, classes, penalty=penalty, max_iter=max_iter)
    w = W[:-1] if basis is None else basis @ W[:-1]
    return Affine(w, W[-1] - mean @ w, steps)


@final
class CrossEntropy:
    """C sum_i u_i log(1 + exp(-s_i m_i)), s_i = +-1, for each column of scores m.

    The weights u are 1 for the training rows of a column and 0 for others (bool), or any numbers.

    Examples:
        >>> CrossEntropy(torch.ones(1, 1).bool(), C=2.0)(torch.zeros(1, 1).double())[1]
        tensor([[-1.]], dtype=torch.float64)
    """

    def __init__(
        self,
        y: Bool[Tensor, "n class"],
        u: Real[Tensor, "n class"] | Bool[Tensor, "n class"] | None = None,
        C: float | int = 1.0,
    ) -> None:
        self.y = y.double()
        self.weight = C * (torch.ones_like(self.y) if u is None else u.double())
        self.bound = C / 4 if u is None or u.dtype == torch.bool else self.weight.amax(1) / 4

    def __call__(self, m: Float[Tensor, "n class"]) -> tuple[Float[Tensor, "class"], Float[Tensor, "n class"]]:
        """The loss of each column, and its derivative by the scores."""
        return (self.weight * (softplus(m, threshold=100) - self.y * m)).sum(0), self.weight * (m.sigmoid() - self.y)

    def curvature(self, m: Float[Tensor, "n class"]) -> Float[Tensor, "n"]:
        """C p (1 - p), the mean over columns."""
        p = m.sigmoid()
        return (self.weight * p * (1 - p)).mean(1)


@final
class Softmax:
    """-C sum_i u_i log softmax(m_i)[y_i] for one column of scores per class; u, the rows' weights, are 1 if not given.

    Examples:
        >>> Softmax(torch.tensor([1]), 2, C=2.0)(torch.zeros(1, 2).double())[1]
        tensor([[ 1., -1.]], dtype=torch.float64)
    """

    def __init__(
        self, y: Int[Tensor, "n"], classes: int, C: float | int = 1.0, u: Float[Tensor, "n"] | None = None
    ) -> None:
        self.y, self.bound = one_hot(y, classes).double(), C / 2 if u is None else C * u / 2
        self.weight = self.y.new_tensor(C).reshape(1, 1) if u is None else C * u[:, None]

    def __call__(self, m: Float[Tensor, "n class"]) -> tuple[Float[Tensor, "1"], Float[Tensor, "n class"]]:
        """The loss, and its derivative by the scores."""
        log_p = m.log_softmax(1)
        return -(self.weight * self.y * log_p).sum().reshape(1), self.weight * (log_p.exp() - self.y)

    def curvature(self, m: Float[Tensor, "n class"]) -> Float[Tensor, "n"]:
        """C p (1 - p), the mean over classes."""
        p = m.softmax(1)
        return (self.weight * p * (1 - p)).mean(1)


@final
class _Augmented:
    """Rows less their mean and with a column of ones, computed again on each pass."""

    def __init__(self, rows: Rows, mean: Tensor) -> None:
        self.rows, self.mean = rows, mean

    def __iter__(self) -> Iterator[Tensor]:
        return (_ones(x - self.mean) for x in self.rows)


def _ones(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def _sum(rows: Rows) -> tuple[Tensor, int]:
    parts = [(x.sum(0), len(x)) for x in rows]
    return torch.stack([total for total, _ in parts]).sum(0), sum(n for _, n in parts)
