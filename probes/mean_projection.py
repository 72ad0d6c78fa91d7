"""Projection erasure: the span of the class means is projected out, orthogonally."""

from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.arrays import Array, tensor
from probes.checks import check_rows
from probes.estimator import Estimator, check_fitted
from probes.labelled import class_means


@final
class MeanProjection(Estimator):
    """r(x) = x - u u^T (x - mu), u along mu_+ - mu_-: what `project_out` does, about the mean.

    The class means coincide afterwards, so a linear probe of the rows it was fitted to is at chance, as after `LEACE`;
    but it moves rows further than it must, because u is not where the noise would hide the change.

    Example:
        ```python
        eraser = MeanProjection().fit(x, y)
        eraser.transform(x)
        ```
    """

    name: ClassVar[str] = "mean projection"
    mean_: Float[Tensor, "d_model"]
    projection_: Float[Tensor, "d_model d_model"]

    def fit(self, x: Float[Array, "n d_model"], z: Bool[Array, "n"]) -> "MeanProjection":
        """Learn the direction between the class means and return self.

        Raises:
            ValueError: NaN or infinity, lengths that differ, labels all alike, or classes with one mean.
            TypeError: labels that are not bool.
        """
        rows, labels = tensor(x), tensor(z)
        check_rows(rows, labels)
        _, mu = class_means([(rows.double(), labels)])
        u = mu[1] - mu[0]
        if float(u.norm()) == 0:
            raise ValueError("The classes have one mean, so there is nothing to erase.")
        u = u / u.norm()
        self.mean_, self.projection_ = rows.double().mean(0), torch.outer(u, u)
        return self

    def transform(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n d_model"]:
        """The rows without the direction, in their own dtype.

        Raises:
            RuntimeError: the eraser is not fitted.
        """
        check_fitted(self, "projection_")
        rows = tensor(x)
        X = rows.double()
        return (X - (X - self.mean_.to(X.device)) @ self.projection_.T.to(X.device)).to(rows.dtype)
