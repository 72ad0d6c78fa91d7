"""What every eraser does with what it has learnt: the part of a row that shows the concept is removed."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.arrays import Array, Table, like, tensor
from probes.estimator import Estimator, check_fitted


class Eraser(Estimator, ABC):
    """r(x) = x - P (x - mu), with the mean mu and the projection P that `fit` learnt; float64 inside.

    A transformer in scikit-learn's sense: each column keeps its name, and `set_output` makes data frames.
    """

    _estimator_type: ClassVar[str | None] = "transformer"
    _sklearn_auto_wrap_output_keys: ClassVar[set[str]] = {"transform"}
    mean_: Float[Array, "d_model"]
    projection_: Float[Array, "d_model d_model"]

    @abstractmethod
    def fit(self, x: Float[Array, "n d_model"] | Table, y: Shaped[Array, "n *class"] | Table) -> "Eraser":
        """Learn what to erase, and return self."""

    def fit_transform(self, x: Float[Array, "n d_model"] | Table, y: Shaped[Array, "n *class"] | Table) -> Any:
        """Learn what to erase from rows, and return them without it."""
        return self.fit(x, y).transform(x)

    def transform(self, x: Float[Array, "n d_model"] | Table) -> Any:
        """The rows without the concept, in their own dtype: a tensor for a tensor, else as `set_output` says.

        Raises:
            NotFitted: the eraser is not fitted.
            InvalidArgument: NaN or infinity, or rows of another width.
        """
        check_fitted(self, "projection_")
        rows = self._table(x, learn=False)
        X, mu, P = rows.double(), tensor(self.mean_).to(rows.device), tensor(self.projection_).to(rows.device)
        erased = (X - (X - mu) @ P.T).to(_dtype(x, rows))
        return erased if isinstance(x, Tensor) else self._wrap(like(x, erased), x)

    def get_feature_names_out(self, input_features: Shaped[Array, "d_model"] | Table | None = None) -> np.ndarray:
        """The names of the columns, which stay as they were: those of a data frame, or x0, x1, ….

        Raises:
            NotFitted: the eraser is not fitted.
            InvalidArgument: other names than those of the rows it was fitted to.
        """
        check_fitted(self, "projection_")
        from sklearn.utils.validation import _check_feature_names_in

        try:
            return np.asarray(_check_feature_names_in(self, input_features))
        except ValueError as error:
            raise InvalidArgument(str(error)) from error

    def set_output(self, *, transform: str | None = None) -> "Eraser":
        """Let `transform` return "pandas" or "polars" frames, or arrays ("default"), and return self."""
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    def _wrap(self, erased: np.ndarray, x: Any) -> Any:
        from sklearn.utils._set_output import _wrap_data_with_container

        return _wrap_data_with_container("transform", erased, x, self)

    def _kept(self, x: Any) -> None:
        """What was learnt, in the kind of the rows."""
        self.mean_, self.projection_ = like(x, tensor(self.mean_)), like(x, tensor(self.projection_))


def _dtype(x: Any, rows: Tensor) -> torch.dtype:
    """The dtype of rows as they were given, if it is one of floating numbers."""
    array = isinstance(x, Tensor) or (isinstance(x, np.ndarray) and x.dtype.kind == "f")
    given = tensor(x[:0]).dtype if array else rows.dtype
    return given if given.is_floating_point else rows.dtype
