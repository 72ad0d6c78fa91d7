"""What regressions share: a prediction w.x + b of a continuous target, and the direction along which it rises."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Real
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.arrays import Array, Table, like, tensor
from probes.batches import CheckedBatches, LocatedBatches, Paired, RelabelledBatches, covariances
from probes.checks import check_lengths, check_target
from probes.estimator import check_fitted
from probes.labelled_rows import UnlabelledRows
from probes.labels import convert_weights
from probes.linear import Linear


class LinearRegressor(Linear, ABC):
    """A linear prediction of a number per row. A kind of regression says how w is found for centred data.

    `scale_` is, along the direction, the distance from the mean row to the farthest row.
    """

    _estimator_type: ClassVar[str | None] = "regressor"

    @abstractmethod
    def _solve(self, x: Float[Tensor, "n d_model"], y: Float[Tensor, "n"]) -> Float[Tensor, "d_model"]:
        """Find w for centred rows and a centred target, in float64."""

    @abstractmethod
    def _solve_normal(
        self, Sigma_xx: Float[Tensor, "d_model d_model"], Sigma_xy: Float[Tensor, "d_model"], n: int
    ) -> Float[Tensor, "d_model"]:
        """Find w from the covariances of n rows."""

    def fit(
        self,
        x: Float[Array, "n d_model"] | Table,
        y: Real[Array, "n"] | Table,
        sample_weight: Real[Array, "n"] | Table | None = None,
    ) -> "LinearRegressor":
        """Learn w and b from rows and targets, and return self; a weight counts a row so many times.

        Raises:
            InvalidArgument: NaN or infinity, lengths that differ, a constant target, or rows that do not vary.
        """
        rows = self._table(x, learn=True)
        X, Y = rows.double(), _target(y).double().to(rows.device)
        check_lengths(X, Y)
        one = X.new_ones(len(X)) if sample_weight is None else convert_weights(sample_weight, len(X)).to(X)
        X, Y, one = X[one > 0], Y[one > 0], one[one > 0]
        check_target(Y)
        mean, middle = one @ X / one.sum(), one @ Y / one.sum()
        root = one.sqrt()
        self._keep_weights(self._solve(root[:, None] * (X - mean), root * (Y - middle)), mean, middle, [X], rows.dtype)
        self.coef_ = like(x, tensor(self.coef_))
        return self

    def fit_batches(self, batches: Iterable[Paired]) -> "LinearRegressor":
        """Learn w and b from batches of rows and targets, through their covariances, and return self.

        Equals `fit` of all rows together, up to the rounding that squaring them costs.

        Raises:
            InvalidArgument: as `fit`, or batches that cannot be read again.
        """
        rows = CheckedBatches(batches)
        check_target(rows.y)
        mean, middle, xx, xy = covariances(RelabelledBatches(rows, rows.y[:, None]))
        w = self._solve_normal(xx, xy[:, 0], len(rows.y))
        self._keep_weights(w, mean, middle[0], UnlabelledRows(rows), rows.dtype)
        self.n_features_in_ = len(w)
        if isinstance(batches, LocatedBatches):
            self.at_site(batches.site, batches.fingerprint)
        return self

    def _keep_weights(
        self, w: Tensor, mean: Tensor, middle: Tensor, rows: Iterable[Tensor], dtype: torch.dtype
    ) -> None:
        self._forget()
        if float(w.norm()) == 0:
            raise InvalidArgument(f"the {self.name} found nothing that follows the target: its weights are all 0")
        self.coef_, self.intercept_ = w.to(dtype), float(middle - mean @ w)
        self.scale_ = self._reach(rows, mean)

    def predict(self, x: Float[Array, "n d_model"] | Table) -> Float[Array, "n"]:
        """The targets w.x + b.

        Raises:
            NotFitted: the probe is not fitted.
            InvalidArgument: NaN or infinity, or rows of another width.
        """
        check_fitted(self, "coef_")
        return like(x, self._scores(self._table(x, learn=False)))

    def score(
        self,
        x: Float[Array, "n d_model"] | Table,
        y: Real[Array, "n"] | Table,
        sample_weight: Real[Array, "n"] | Table | None = None,
    ) -> float:
        """R^2 = 1 - sum_i u_i (y_i - y'_i)^2 / sum_i u_i (y_i - mean y)^2, u the weights of the rows, 1 if not given.

        Raises:
            InvalidArgument: NaN or infinity, targets that are not one per row, or a constant target.
        """
        said = tensor(self.predict(x)).double()
        target = _target(y).double().to(said.device)
        check_lengths(said, target)
        check_target(target)
        u = torch.ones_like(target) if sample_weight is None else convert_weights(sample_weight, len(target)).to(target)
        middle = (u * target).sum() / u.sum()
        return float(1 - (u * (target - said).square()).sum() / (u * (target - middle).square()).sum())


def _target(y: Any) -> Tensor:
    """A target of one axis as a tensor; scikit-learn reads what is no tensor."""
    if not isinstance(y, Tensor):
        from sklearn.utils import check_array, column_or_1d

        if y is None:
            raise InvalidArgument("a regression requires y to be passed, but the target y is None: give one per row")
        try:
            y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y", ensure_min_samples=0)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
    return tensor(y)
