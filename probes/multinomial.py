"""Softmax regression with an L2 penalty: one direction per class, solved to the optimum."""

from collections.abc import Iterable
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Real, Shaped
from torch import Tensor

from hooks import Direction, Site
from hooks.errors import InvalidArgument
from probes.affine import Softmax, fit_affine
from probes.arrays import Array, Table, like, tensor
from probes.batches import CheckedBatches, Paired
from probes.checks import check_positive
from probes.classifier import Classifier
from probes.estimator import check_fitted
from probes.labelled_rows import UnlabelledRows
from probes.labels import ClassWeight, number_labels, select_classes
from probes.lbfgs import Rows, all_together


@final
class Multinomial(Classifier):
    """argmin over W, b of ||W||^2 / 2 - C sum_i log softmax(W x_i + b)[y_i]: scikit-learn's objective.

    Fitted, it has `classes_`, `coef_` (W, a row per class), `intercept_` (b) and `scales_`: along each row, the
    distance from the mean of the other classes to the farthest row.

    Cost:
        Two passes over x per step, in float64.

    Examples:
        ```python
        probe = Multinomial().fit(x, y)
        probe.predict(new_x), probe.directions(resid_post[4])
        ```
    """

    name: ClassVar[str] = "softmax probe"
    classes_: Shaped[Array, "class"]
    coef_: Float[Array, "class d_model"]
    intercept_: Float[Array, "class"]
    scales_: Float[Array, "class"]
    n_iter_: int

    def __init__(self, C: float = 1.0, max_iter: int = 1000, class_weight: ClassWeight = None) -> None:
        self.C, self.max_iter, self.class_weight = C, max_iter, class_weight

    def fit(
        self,
        x: Float[Array, "n d_model"] | Table,
        y: Shaped[Array, "n"] | Table,
        sample_weight: Real[Array, "n"] | Table | None = None,
    ) -> "Multinomial":
        """Learn from rows with labels of any kind, and return self; a weight counts a row so many times.

        Raises:
            InvalidArgument: NaN or infinity, lengths that differ, labels that are all alike, a C that is not positive.
            NotConverged: not converged after `max_iter` steps.
        """
        rows = self._table(x, learn=True)
        rows, number, weight = self._number_rows(x, rows, y, sample_weight)
        self._learn([rows.double()], number, weight, rows.dtype)
        for name in ("coef_", "intercept_", "scales_"):
            setattr(self, name, like(x, getattr(self, name)))
        return self

    def fit_batches(self, batches: Iterable[Paired]) -> "Multinomial":
        """Learn from batches of labelled rows and return self; equals `fit` of all together.

        The batches are read several times. Memory: one batch, and a number per row and class.

        Raises:
            InvalidArgument: as `fit`, or batches that cannot be read again.
            NotConverged: not converged after `max_iter` steps.
        """
        rows = CheckedBatches(batches)
        number, self.classes_ = number_labels(rows.y)
        self._learn(UnlabelledRows(rows), number, None, rows.dtype)
        self.n_features_in_ = self.coef_.shape[1]
        return self

    def _learn(self, rows: Rows, index: Tensor, weight: Tensor | None, dtype: torch.dtype) -> None:
        check_positive(self.C)
        K = len(self.classes_)
        if len(index.unique()) < 2:
            only = select_classes(self.classes_, index[:1], None).tolist()
            raise InvalidArgument(
                f"all {len(index)} labels are {only}; rows of several classes are needed, and there is 1 class"
            )
        W, b, steps = fit_affine(rows, Softmax(index, K, self.C, weight), all_together, K, self.max_iter)
        self.n_iter_ = max(1, steps)
        self.coef_, self.intercept_ = W.T.to(dtype), b.to(dtype)
        units = W / W.norm(dim=0).clamp_min(torch.finfo(W.dtype).tiny)
        along = torch.cat([x @ units for x in rows])
        member = torch.nn.functional.one_hot(index, K).bool()
        others = torch.stack([along[~member[:, c], c].mean() for c in range(K)])
        self.scales_ = (along.amax(0) - others).to(dtype)

    def decision_function(self, x: Float[Array, "n d_model"] | Table) -> Float[Array, "n *class"]:
        """The scores W x + b, a column per class; of two classes one column, what the second has more than the first.

        Raises:
            NotFitted: the probe is not fitted.
        """
        scores = self._each(x)
        return like(x, scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores)

    def predict(self, x: Float[Array, "n d_model"] | Table) -> Shaped[Array, "n"]:
        """The class with the highest score."""
        scores = self._each(x)
        return select_classes(self.classes_, scores.argmax(1), x)

    def predict_proba(self, x: Float[Array, "n d_model"] | Table) -> Float[Array, "n class"]:
        """The probability of each class."""
        return like(x, self._each(x).softmax(1))

    def _each(self, x: Any) -> Float[Tensor, "n class"]:
        check_fitted(self, "coef_")
        rows = self._table(x, learn=False)
        return rows @ tensor(self.coef_).T.to(rows) + tensor(self.intercept_).to(rows)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = True
        return tags

    def directions(self, site: Site, fingerprint: str | None = None) -> dict[Any, Direction]:
        """The row of each class at a site, by class: towards it and away from the others.

        Raises:
            NotFitted: the probe is not fitted.
        """
        check_fitted(self, "coef_")
        return {
            c: Direction(tensor(w).clone(), site, f"{self.name}, class {c}", float(scale), fingerprint)
            for c, w, scale in zip(self.classes_.tolist(), self.coef_, self.scales_, strict=True)
        }
