"""Ridge regression of a continuous target, in closed form."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.checks import check_number
from probes.regressor import LinearRegressor


@final
class Ridge(LinearRegressor):
    """w = (X^T X + alpha I)^-1 X^T y for centred X and y (Hoerl and Kennard 1970): scikit-learn's objective.

    With fewer rows than dimensions, the equal w = X^T (X X^T + alpha I)^-1 y. One factorisation.

    Examples:
        ```python
        Ridge(alpha=10.0).fit(x, year).predict(new_x)
        ```
    """

    name: ClassVar[str] = "ridge regression"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def _solve(self, x: Float[Tensor, "n d_model"], y: Float[Tensor, "n"]) -> Float[Tensor, "d_model"]:
        """The closed form.

        Raises:
            InvalidArgument: alpha is not positive.
        """
        if len(x) < x.shape[1]:
            return x.T @ self._add_ridge(x @ x.T, y)
        return self._add_ridge(x.T @ x, x.T @ y)

    def _solve_normal(
        self, Sigma_xx: Float[Tensor, "d_model d_model"], Sigma_xy: Float[Tensor, "d_model"], n: int
    ) -> Float[Tensor, "d_model"]:
        """The closed form, X^T X being n Sigma_xx.

        Raises:
            InvalidArgument: alpha is not positive.
        """
        return self._add_ridge(n * Sigma_xx, n * Sigma_xy)

    def _add_ridge(self, gram: Tensor, right: Tensor) -> Tensor:
        check_number("alpha", self.alpha)
        if not self.alpha > 0:
            raise InvalidArgument(f"alpha is {self.alpha}; it must be above 0. For no penalty use LeastSquares")
        gram.diagonal().add_(self.alpha)
        return torch.cholesky_solve(right[:, None], torch.linalg.cholesky(gram))[:, 0]
