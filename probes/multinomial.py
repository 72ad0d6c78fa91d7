"""Softmax regression with an L2 penalty: one direction per class, solved to the optimum."""

from collections.abc import Iterable
from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Direction, Site
from hooks.errors import InvalidArgument
from probes.affine import Softmax, affine
from probes.arrays import Array, floats, tensor
from probes.batches import Paired, Reread
from probes.checks import check_classes, check_numbers, check_whole, check_width
from probes.estimator import Estimator, check_fitted
from probes.labelled import Unlabelled
from probes.lbfgs import Rows, all_together


@final
class Multinomial(Estimator):
    """argmin over W, b of ||W||^2 / 2 - C sum_i log softmax(W x_i + b)[y_i]: scikit-learn's objective.

    Fitted, it has `classes_`, `coef_` (W, a row per class), `intercept_` (b) and `scales_`: along each row, the
    distance from the mean of the other classes to the farthest row. Costs two passes over x per step, in float64.

    Example:
        ```python
        probe = Multinomial().fit(x, y)
        probe.predict(new_x), probe.directions(resid_post[4])
        ```
    """

    name: ClassVar[str] = "softmax probe"
    _estimator_type: ClassVar[str] = "classifier"
    classes_: Int[Tensor, "class"]
    coef_: Float[Tensor, "class d_model"]
    intercept_: Float[Tensor, "class"]
    scales_: Float[Tensor, "class"]

    def __init__(self, C: float = 1.0, max_iter: int = 1000) -> None:
        self.C, self.max_iter = C, max_iter

    def fit(self, x: Float[Array, "n d_model"], y: Int[Array, "n"]) -> "Multinomial":
        """Learn from rows labelled by whole numbers and return self.

        Raises:
            ValueError: NaN or infinity, lengths that differ, labels that are all alike, a C that is not positive.
            TypeError: labels that are not whole numbers.
            RuntimeError: not converged after `max_iter` steps.
        """
        rows, labels = floats(x), tensor(y)
        check_numbers(rows, labels)
        return self._learn([rows.double()], labels, rows.dtype)

    def fit_batches(self, batches: Iterable[Paired]) -> "Multinomial":
        """Learn from batches of rows labelled by whole numbers and return self; equals `fit` of all together.

        The batches are read several times. Memory: one batch, and a number per row and class.

        Raises:
            ValueError: as `fit`, or batches that cannot be read again.
            TypeError: labels that are not whole numbers.
            RuntimeError: not converged after `max_iter` steps.
        """
        rows = Reread(batches)
        return self._learn(Unlabelled(rows), rows.y, rows.dtype)

    def _learn(self, rows: Rows, labels: Tensor, dtype: torch.dtype) -> "Multinomial":
        check_classes(labels)
        if not self.C > 0:
            raise InvalidArgument(f"C is {self.C}; the inverse strength of the penalty must be above 0.")
        self.classes_, index = labels.unique(return_inverse=True)
        K = len(self.classes_)
        W, b = affine(rows, Softmax(index, K, self.C), all_together, K, self.max_iter)
        self.coef_, self.intercept_ = W.T.to(dtype), b.to(dtype)
        units = W / W.norm(dim=0).clamp_min(torch.finfo(W.dtype).tiny)
        along = torch.cat([x @ units for x in rows])
        member = torch.nn.functional.one_hot(index, K).bool()
        others = torch.stack([along[~member[:, c], c].mean() for c in range(K)])
        self.scales_ = (along.amax(0) - others).to(dtype)
        return self

    def decision_function(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n class"]:
        """The scores W x + b, a column per class.

        Raises:
            RuntimeError: the probe is not fitted.
        """
        check_fitted(self, "coef_")
        rows = floats(x)
        check_width(rows, self.coef_.shape[1])
        return rows @ self.coef_.T.to(rows) + self.intercept_.to(rows)

    def predict(self, x: Float[Array, "n d_model"]) -> Int[Tensor, "n"]:
        """The class with the highest score."""
        scores = self.decision_function(x)
        return self.classes_.to(scores.device)[scores.argmax(1)]

    def predict_proba(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n class"]:
        """The probability of each class."""
        return self.decision_function(x).softmax(1)

    def score(self, x: Float[Array, "n d_model"], y: Int[Array, "n"]) -> float:
        """The share of rows labelled rightly.

        Raises:
            ValueError: NaN or infinity, or labels that are not one per row.
            TypeError: labels that are not whole numbers.
        """
        rows, labels = floats(x), tensor(y)
        check_numbers(rows, labels)
        check_whole(labels)
        return float((self.predict(rows) == labels).double().mean())

    def directions(self, site: Site, fingerprint: str | None = None) -> dict[int, Direction]:
        """The row of each class at a site, by class: towards it and away from the others.

        Raises:
            RuntimeError: the probe is not fitted.
        """
        check_fitted(self, "coef_")
        return {
            int(c): Direction(w.clone(), site, f"{self.name}, class {int(c)}", float(scale), fingerprint)
            for c, w, scale in zip(self.classes_, self.coef_, self.scales_, strict=True)
        }
