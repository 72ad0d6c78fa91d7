"""What regressions share: a prediction w.x + b of a continuous target, and the direction along which it rises."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.arrays import Array, floats, tensor
from probes.batches import Located, Paired, Relabelled, Reread, covariances
from probes.checks import check_numbers, check_target
from probes.labelled import Unlabelled
from probes.linear import Linear


class LinearRegressor(Linear, ABC):
    """A linear prediction of a number per row. A kind of regression says how w is found for centred data.

    `scale_` is, along the direction, the distance from the mean row to the farthest row.
    """

    _estimator_type: ClassVar[str] = "regressor"

    @abstractmethod
    def _solve(self, x: Float[Tensor, "n d_model"], y: Float[Tensor, "n"]) -> Float[Tensor, "d_model"]:
        """Find w for centred rows and a centred target, in float64."""

    @abstractmethod
    def _solve_normal(
        self, Sigma_xx: Float[Tensor, "d_model d_model"], Sigma_xy: Float[Tensor, "d_model"], n: int
    ) -> Float[Tensor, "d_model"]:
        """Find w from the covariances of n rows."""

    def fit(self, x: Float[Array, "n d_model"], y: Float[Array, "n"]) -> "LinearRegressor":
        """Learn w and b from rows and targets and return self.

        Raises:
            ValueError: NaN or infinity, lengths that differ, a constant target, or rows that do not vary.
        """
        rows, target = floats(x), tensor(y)
        check_numbers(rows, target)
        check_target(target)
        X, Y = rows.double(), target.double()
        mean = X.mean(0)
        return self._found(self._solve(X - mean, Y - Y.mean()), mean, Y.mean(), [X], rows.dtype)

    def fit_batches(self, batches: Iterable[Paired]) -> "LinearRegressor":
        """Learn w and b from batches of rows and targets, through their covariances, and return self.

        Equals `fit` of all rows together, up to the rounding that squaring them costs.

        Raises:
            ValueError: as `fit`, or batches that cannot be read again.
        """
        rows = Reread(batches)
        check_target(rows.y)
        mean, middle, xx, xy = covariances(Relabelled(rows, rows.y[:, None]))
        w = self._solve_normal(xx, xy[:, 0], len(rows.y))
        self._found(w, mean, middle[0], Unlabelled(rows), rows.dtype)
        if isinstance(batches, Located):
            self.located(batches.site, batches.fingerprint)
        return self

    def _found(
        self, w: Tensor, mean: Tensor, middle: Tensor, rows: Iterable[Tensor], dtype: torch.dtype
    ) -> "LinearRegressor":
        self._forget()
        if float(w.norm()) == 0:
            raise InvalidArgument(f"The {self.name} found nothing that follows the target: its weights are all 0.")
        self.coef_, self.intercept_ = w.to(dtype), float(middle - mean @ w)
        self.scale_ = self._reach(rows, mean)
        return self

    def predict(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n"]:
        """The targets w.x + b."""
        return self.decision_function(x)

    def score(self, x: Float[Array, "n d_model"], y: Float[Array, "n"]) -> float:
        """R^2 = 1 - sum (y - y')^2 / sum (y - mean y)^2.

        Raises:
            ValueError: NaN or infinity, targets that are not one per row, or a constant target.
        """
        rows, target = floats(x), tensor(y).double()
        check_numbers(rows, target)
        check_target(target)
        return float(
            1 - (target - self.predict(rows).double()).square().sum() / (target - target.mean()).square().sum()
        )
