"""What every eraser does with what it has learnt: the part of a row that tells the concept is taken away."""

from jaxtyping import Float
from torch import Tensor

from probes.arrays import Array, floats, tensor
from probes.checks import check_width
from probes.estimator import Estimator, check_fitted


class Eraser(Estimator):
    """r(x) = x - P (x - mu), with the mean mu and the projection P that `fit` learnt; float64 inside."""

    mean_: Float[Tensor, "d_model"]
    projection_: Float[Tensor, "d_model d_model"]

    def transform(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """The rows without the concept, in their own dtype.

        Raises:
            RuntimeError: the eraser is not fitted.
        """
        check_fitted(self, "projection_")
        given, rows = tensor(x), floats(x)
        check_width(rows, len(self.mean_))
        X = rows.double()
        return (X - (X - self.mean_.to(X.device)) @ self.projection_.T.to(X.device)).to(
            given.dtype if given.is_floating_point() else rows.dtype
        )
