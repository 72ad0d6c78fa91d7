"""Ordinary least squares of a continuous target: the shortest of all best solutions."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from probes.regressor import LinearRegressor

CUTOFF = 1e-12  # of the largest variance; directions with less count as having none


@final
class LeastSquares(LinearRegressor):
    """w = X^+ y for centred X and y, X^+ the pseudo-inverse: of all w with the least squared error the shortest.

    With fewer rows than dimensions it fits every row exactly, whatever the target; `Ridge` does not.

    Examples:
        ```python
        LeastSquares().fit(x, year).score(new_x, new_year)
        ```
    """

    name: ClassVar[str] = "linear regression"

    def _solve(self, x: Float[Tensor, "n d_model"], y: Float[Tensor, "n"]) -> Float[Tensor, "d_model"]:
        """The pseudo-inverse, by a singular value decomposition."""
        return torch.linalg.pinv(x) @ y

    def _solve_normal(
        self,
        Sigma_xx: Float[Tensor, "d_model d_model"],
        Sigma_xy: Float[Tensor, "d_model"],
        n: int,  # noqa: ARG002 the same for any number of rows
    ) -> Float[Tensor, "d_model"]:
        """The pseudo-inverse of the covariance."""
        return torch.linalg.pinv(Sigma_xx, hermitian=True, rtol=CUTOFF) @ Sigma_xy
