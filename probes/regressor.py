"""What regressions share: a prediction w.x + b of a continuous target, and the direction along which it rises."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from probes.arrays import Array, tensor
from probes.checks import check_numbers, check_target
from probes.linear import Linear


class LinearRegressor(Linear, ABC):
    """A linear prediction of a number per row. A kind of regression says how w is found for centred data.

    `scale_` is, along the direction, the distance from the mean row to the farthest row.
    """

    _estimator_type: ClassVar[str] = "regressor"

    @abstractmethod
    def _solve(self, x: Float[Tensor, "n d_model"], y: Float[Tensor, "n"]) -> Float[Tensor, "d_model"]:
        """Find w for centred rows and a centred target, in float64."""

    def fit(self, x: Float[Array, "n d_model"], y: Float[Array, "n"]) -> "LinearRegressor":
        """Learn w and b from rows and targets and return self.

        Raises:
            ValueError: NaN or infinity, lengths that differ, a constant target, or rows that do not vary.
        """
        rows, target = tensor(x), tensor(y)
        check_numbers(rows, target)
        check_target(target)
        X, Y = rows.double(), target.double()
        mean = X.mean(0)
        w = self._solve(X - mean, Y - Y.mean())
        if float(w.norm()) == 0:
            raise ValueError(f"The {self.name} found nothing that follows the target: its weights are all 0.")
        self.coef_, self.intercept_ = w.to(rows.dtype), float(Y.mean() - mean @ w)
        self.scale_ = self._reach([X], mean)
        return self

    def predict(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n"]:
        """The targets w.x + b."""
        return self.decision_function(x)

    def score(self, x: Float[Array, "n d_model"], y: Float[Array, "n"]) -> float:
        """R^2 = 1 - sum (y - y')^2 / sum (y - mean y)^2.

        Raises:
            ValueError: a constant target, or one that is not finite.
        """
        target = tensor(y).double()
        check_target(target)
        return float(1 - (target - self.predict(x).double()).square().sum() / (target - target.mean()).square().sum())
