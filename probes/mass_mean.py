"""The mass-mean probe for data of the same distribution: the difference of means, tilted by the covariance."""

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from probes.arrays import tensor
from probes.labelled_rows import Batches, class_means, within_covariance
from probes.linear import LinearProbe
from probes.log_odds import LogOdds


@final
class MassMean(LinearProbe, LogOdds):
    """p(x) = sigmoid(theta.Sigma^+ (x - mu)), theta = mu_+ - mu_-, mu halfway (Marks and Tegmark 2023, section 5).

    Sigma is the covariance within classes and Sigma^+ its pseudo-inverse, without a cutoff but rounding's, so that a
    wide coordinate hides no narrow one. Scores are tilted; the direction is theta itself, which is what moves the
    model. For data of another distribution use `DifferenceOfMeans`, the same without the tilt.

    Examples:
        ```python
        probe = MassMean().fit(x, y)
        probe.predict(new_x), probe.direction(resid_post[4])
        ```
    """

    name: ClassVar[str] = "mass-mean probe"
    theta_: Float[Tensor, "d_model"]

    def _solve(self, rows: Batches, weight: Float[Tensor, "n"] | None) -> tuple[Float[Tensor, "d_model"], float]:
        """The tilted difference of means."""
        _, mu = class_means(rows, weight)
        self.theta_ = mu[1] - mu[0]
        w = torch.linalg.pinv(within_covariance(rows, mu, weight), hermitian=True) @ self.theta_
        return w, -float(w @ mu.mean(0))

    def _axis(self) -> Float[Tensor, "d_model"]:
        return self.theta_.to(tensor(self.coef_).dtype)
