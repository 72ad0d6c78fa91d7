"""Logistic regression with an L2 penalty, solved to its one optimum, for one label or many at once."""

from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.affine import CrossEntropy, affine
from probes.checks import check_columns
from probes.labelled import Batches, unlabelled
from probes.lbfgs import Rows, each
from probes.linear import LinearProbe
from probes.log_odds import LogOdds


@final
class Logistic(LinearProbe, LogOdds):
    """argmin over w, b of ||w||^2 / 2 + C sum_i log(1 + exp(-s_i (w.x_i + b))), s_i = +-1: scikit-learn's objective.

    The optimum is unique, and found in float64. Costs two passes over x per step.

    Example:
        ```python
        probe = Logistic(C=0.1).fit(x, y)
        probe.decision_function(new_x) > 0
        ```
    """

    name: ClassVar[str] = "logistic probe"

    def __init__(self, C: float = 1.0, max_iter: int = 1000) -> None:
        self.C, self.max_iter = C, max_iter

    def _solve(self, rows: Batches) -> tuple[Float[Tensor, "d_model"], float]:
        """The optimal w and b.

        Raises:
            ValueError: C is not positive.
            RuntimeError: not converged after `max_iter` steps.
        """
        y = torch.cat([labels for _, labels in rows])[:, None]
        w, b = self._optimum(unlabelled(rows), y, torch.ones_like(y))
        return w[:, 0], float(b)

    def columns(
        self, x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n class"], train: Bool[Tensor, "n class"]
    ) -> tuple[Float[Tensor, "d_model class"], Float[Tensor, "class"]]:
        """The optimal w and b of each column of labels on that column's training rows, all solved together.

        They share one factorisation of x, so twenty labels or folds cost little more than one.

        Raises:
            ValueError: as `fit`.
            RuntimeError: not converged after `max_iter` steps.
        """
        check_columns(x, y, train)
        return self._optimum([x.double()], y, train)

    def _optimum(self, rows: Rows, y: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
        if not self.C > 0:
            raise InvalidArgument(f"C is {self.C}; the inverse strength of the penalty must be above 0.")
        return affine(rows, CrossEntropy(y, train, self.C), each, y.shape[1], self.max_iter)
