"""Logistic regression with an L2 penalty, solved to its one optimum, for one label or many at once."""

from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.affine import Affine, CrossEntropy, fit_affine
from probes.checks import check_columns, check_positive
from probes.labelled_rows import Batches, drop_labels
from probes.labels import ClassWeight, weigh_rows_by_class
from probes.lbfgs import Rows, each
from probes.linear import LinearProbe
from probes.log_odds import LogOdds


@final
class Logistic(LinearProbe, LogOdds):
    """argmin over w, b of ||w||^2 / 2 + C sum_i log(1 + exp(-s_i (w.x_i + b))), s_i = +-1: scikit-learn's objective.

    The optimum is unique, and found in float64. With `class_weight` each class counts as much as a mapping says, or
    as the other where it is "balanced".

    Cost:
        Two passes over x per step.

    Examples:
        ```python
        probe = Logistic(C=0.1).fit(x, y)
        probe.decision_function(new_x) > 0
        ```
    """

    name: ClassVar[str] = "logistic probe"

    n_iter_: int

    def __init__(self, C: float = 1.0, max_iter: int = 1000, class_weight: ClassWeight = None) -> None:
        self.C, self.max_iter, self.class_weight = C, max_iter, class_weight

    def _solve(self, rows: Batches, weight: Float[Tensor, "n"] | None) -> tuple[Float[Tensor, "d_model"], float]:
        """The optimal w and b.

        Raises:
            InvalidArgument: C is not positive.
            NotConverged: not converged after `max_iter` steps.
        """
        y = torch.cat([labels for _, labels in rows])[:, None]
        w, b, steps = self._optimum(drop_labels(rows), y, torch.ones_like(y) if weight is None else weight[:, None])
        self.n_iter_ = max(1, steps)
        return w[:, 0], float(b)

    def columns(
        self, x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n class"], train: Bool[Tensor, "n class"]
    ) -> tuple[Float[Tensor, "d_model class"], Float[Tensor, "class"]]:
        """The optimal w and b of each column of labels on that column's training rows, all solved together.

        They share one factorisation of x, so twenty labels or folds cost little more than one.

        Raises:
            InvalidArgument: as `fit`.
            NotConverged: not converged after `max_iter` steps.
        """
        check_columns(x, y, train)
        W, b, _ = self._optimum([x.double()], y, self._column_weights(y, train))
        return W, b

    def _optimum(self, rows: Rows, y: Tensor, u: Tensor) -> Affine:
        check_positive(self.C)
        return fit_affine(rows, CrossEntropy(y, u, self.C), each, y.shape[1], self.max_iter)

    def _column_weights(self, y: Tensor, train: Tensor) -> Tensor:
        if self.class_weight is None:
            return train
        classes = torch.tensor([False, True])
        each_column = zip(y.long().T, train.T, strict=True)
        return torch.stack(
            [u * weigh_rows_by_class(c, classes, self.class_weight, u.double()) for c, u in each_column], 1
        )
