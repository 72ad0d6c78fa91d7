"""Linear discriminant analysis: the best linear rule for two Gaussian classes with one covariance."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.checks import check_number
from probes.labelled_rows import Batches, class_means, within_covariance
from probes.linear import LinearProbe
from probes.log_odds import LogOdds


@final
class LDA(LinearProbe, LogOdds):
    """w = Sigma^-1 (mu_+ - mu_-), b = -w.(mu_+ + mu_-) / 2 + log(n_+ / n_-) (Fisher 1936): the log-odds.

    Sigma is shrunk to (1 - shrinkage) Sigma + shrinkage (tr Sigma / d) I, as scikit-learn does; one
    factorisation, no iteration.

    Examples:
        ```python
        LDA(shrinkage=0.1).fit(x, y).predict(new_x)
        ```
    """

    name: ClassVar[str] = "linear discriminant"

    def __init__(self, shrinkage: float = 0.0) -> None:
        self.shrinkage = shrinkage

    def _solve(self, rows: Batches, weight: Float[Tensor, "n"] | None) -> tuple[Float[Tensor, "d_model"], float]:
        """The discriminant.

        Raises:
            InvalidArgument: a shrinkage outside 0 to 1, or a covariance that has no inverse.
        """
        check_number("shrinkage", self.shrinkage)
        if not 0 <= self.shrinkage <= 1:
            raise InvalidArgument(f"shrinkage is {self.shrinkage}; it must be between 0 and 1")
        n, mu = class_means(rows, weight)
        Sigma = within_covariance(rows, mu, weight)
        spread = Sigma.trace() / len(Sigma)
        Sigma = (1 - self.shrinkage) * Sigma
        Sigma.diagonal().add_(self.shrinkage * spread)
        theta, middle = mu[1] - mu[0], mu.mean(0)
        if float(theta.norm()) == 0:
            return theta, 0.0
        factor, failed = torch.linalg.cholesky_ex(Sigma)
        if int(failed) or float(factor.diagonal().min()) < 1e-7 * float(factor.diagonal().max()):
            raise InvalidArgument(
                f"the covariance of {int(n.sum())} rows of width {len(Sigma)} has no inverse: give more rows, or "
                "LDA(shrinkage=0.1)"
            )
        w = torch.cholesky_solve(theta[:, None], factor)[:, 0]
        return w, float(-w @ middle + (n[1] / n[0]).log())
