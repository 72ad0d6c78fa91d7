"""What linear probes share: a score w.x + b, its direction, and scikit-learn's handling of parameters."""

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Direction, Site
from hooks.errors import nearest
from probes.checks import check_rows


class LinearProbe(ABC):
    """A probe that scores by w.x + b. A kind of probe says how w and b are found.

    Fitted, it has `coef_` (w), `intercept_` (b) and `scale_`: along w, the distance from the negative rows' mean to
    the farthest row, which is the unit of its direction.
    """

    name: ClassVar[str]
    coef_: Float[Tensor, "d_model"]
    intercept_: float
    scale_: float

    @abstractmethod
    def _solve(self, x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> tuple[Float[Tensor, "d_model"], float]:
        """Find w and b for labelled rows in float64."""

    def fit(self, x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> "LinearProbe":
        """Learn w and b from labelled rows and return self.

        Raises:
            ValueError: NaN or infinity, lengths that differ, labels that are all alike, or classes with one mean.
        """
        check_rows(x, y)
        w, self.intercept_ = self._solve(x.double(), y)
        length = float(w.norm())
        if length == 0:
            raise ValueError(f"The {self.name} found no difference between the classes: its weights are all 0.")
        self.coef_ = w.to(x.dtype)
        projections = x.double() @ (w / length)
        self.scale_ = float(projections.max() - projections[~y].mean())
        return self

    def decision_function(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n"]:
        """The scores w.x + b, above 0 for the positive class.

        Raises:
            RuntimeError: the probe is not fitted.
        """
        return x @ self._fitted().to(x.dtype) + self.intercept_

    def predict(self, x: Float[Tensor, "n d_model"]) -> Bool[Tensor, "n"]:
        """The labels w.x + b > 0."""
        return self.decision_function(x) > 0

    def direction(self, site: Site, fingerprint: str | None = None) -> Direction:
        """The vector w at a site, with `scale_` as its scale.

        Raises:
            RuntimeError: the probe is not fitted.
        """
        return Direction(self._fitted().clone(), site, self.name, self.scale_, fingerprint)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 scikit-learn's signature
        """The constructor's arguments, as scikit-learn's `clone` and model selection read them."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: object) -> "LinearProbe":
        """Change constructor arguments; an unknown one raises `ValueError` with the nearest name."""
        for name, value in params.items():
            if name not in self.get_params():
                known = nearest(name, self.get_params()) if self.get_params() else "none: it has no parameters"
                raise ValueError(f"{type(self).__name__} has no parameter '{name}'; did you mean {known}?")
            setattr(self, name, value)
        return self

    def _fitted(self) -> Float[Tensor, "d_model"]:
        if not hasattr(self, "coef_"):
            raise RuntimeError(f"This {type(self).__name__} is not fitted: call fit(x, y) first.")
        return self.coef_
