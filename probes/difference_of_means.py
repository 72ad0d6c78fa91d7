"""Difference of means: the direction from the negative rows' mean to the positive rows'."""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from probes.labelled_rows import Batches, class_means
from probes.linear import LinearProbe


@final
class DifferenceOfMeans(LinearProbe):
    """theta = mu_+ - mu_-, scored from the midpoint: theta.(x - (mu_+ + mu_-) / 2) (Marks and Tegmark 2023, eq. 1).

    Finds a planted direction u itself, whatever the noise's covariance, where logistic regression finds Sigma^-1 u.
    It is also the mass-mean probe for data of another distribution; `MassMean` is the one for the same.

    Examples:
        ```python
        probe = DifferenceOfMeans().fit(x, y)
        steer = probe.direction(resid_post[4], model.fingerprint)
        ```
    """

    name: ClassVar[str] = "difference of means"

    def _solve(self, rows: Batches, weight: Float[Tensor, "n"] | None) -> tuple[Float[Tensor, "d_model"], float]:
        """The difference of the class means, and the intercept that puts 0 halfway between them."""
        _, (below, above) = class_means(rows, weight)
        theta = above - below
        return theta, -float(theta @ (above + below)) / 2
