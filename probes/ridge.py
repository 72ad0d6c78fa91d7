"""Ridge regression of a continuous target, in closed form."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from probes.regressor import LinearRegressor


@final
class Ridge(LinearRegressor):
    """w = (X^T X + alpha I)^-1 X^T y for centred X and y (Hoerl and Kennard 1970): scikit-learn's objective.

    With fewer rows than dimensions, the equal w = X^T (X X^T + alpha I)^-1 y. One factorisation.

    Example:
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
            ValueError: alpha is not positive.
        """
        if not self.alpha > 0:
            raise ValueError(f"alpha is {self.alpha}; it must be above 0. For no penalty use LeastSquares.")
        few = len(x) < x.shape[1]
        gram = x @ x.T if few else x.T @ x
        gram.diagonal().add_(self.alpha)
        factor = torch.linalg.cholesky(gram)
        if few:
            return x.T @ torch.cholesky_solve(y[:, None], factor)[:, 0]
        return torch.cholesky_solve((x.T @ y)[:, None], factor)[:, 0]
