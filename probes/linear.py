"""What linear probes share: a score w.x + b, its direction, and how labelled rows reach the solver."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import deepcopy
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Direction, Site
from hooks.errors import InvalidArgument
from probes.arrays import Array, classes, floats
from probes.batches import Located
from probes.checks import check_rows, check_width
from probes.estimator import Estimator, check_fitted
from probes.labelled import Batches, Labelled, checked, class_means, stored, unlabelled
from probes.two_classes import TwoClasses


class Linear(Estimator):
    """A score w.x + b: fitted, it has `coef_` (w), `intercept_` (b), and `scale_`, the unit of its direction."""

    name: ClassVar[str]
    coef_: Float[Tensor, "d_model"]
    intercept_: float
    scale_: float
    site_: Site
    fingerprint_: str | None

    def decision_function(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n"]:
        """The scores w.x + b.

        Raises:
            RuntimeError: the probe is not fitted.
        """
        check_fitted(self, "coef_")
        rows = floats(x)
        check_width(rows, len(self.coef_))
        return rows @ self.coef_.to(rows) + self.intercept_

    def direction(self, site: Site, fingerprint: str | None = None) -> Direction:
        """The vector along which the score rises, at a site, with `scale_` as its scale.

        Raises:
            RuntimeError: the probe is not fitted.
        """
        check_fitted(self, "coef_")
        return Direction(self._axis().clone(), site, self.name, self.scale_, fingerprint)

    @property
    def direction_(self) -> Direction:
        """The direction at the place the rows came from, where a store or a sweep has said it.

        Raises:
            AttributeError: nothing has said where the rows came from.
        """
        check_fitted(self, "coef_")
        if not hasattr(self, "site_"):
            raise AttributeError(f"Rows do not say where they come from: take {type(self).__name__}.direction(site).")
        return self.direction(self.site_, self.fingerprint_)

    def located(self, site: Site, fingerprint: str | None = None) -> "Linear":
        """Remember where the rows came from, until the next fit, and return self.

        Example:
            ```python
            probe.fit(x, y).located(resid_post[4], model.fingerprint).direction_
            ```
        """
        self.site_, self.fingerprint_ = site, fingerprint
        return self

    def _forget(self) -> None:
        for name in ("site_", "fingerprint_"):
            vars(self).pop(name, None)

    def _axis(self) -> Float[Tensor, "d_model"]:
        return self.coef_

    def _reach(self, rows: Iterable[Float[Tensor, "_ d_model"]], start: Float[Tensor, "d_model"]) -> float:
        """From a point to the farthest row along the axis."""
        unit = self._axis().double() / self._axis().double().norm()
        return max(float((x @ unit).max()) for x in rows) - float(start @ unit)


class LinearProbe(Linear, TwoClasses, ABC):
    """A linear probe of two classes, positive above 0. A kind of probe says how w and b are found.

    `scale_` is, along the direction, the distance from the negative rows' mean to the farthest row.
    """

    _estimator_type: ClassVar[str] = "classifier"
    classes_: Bool[Tensor, "2"]

    @abstractmethod
    def _solve(self, rows: Batches) -> tuple[Float[Tensor, "d_model"], float]:
        """Find w and b for batches of labelled rows in float64."""

    def fit(self, x: Float[Array, "n d_model"], y: Bool[Array, "n"]) -> "LinearProbe":
        """Learn w and b from labelled rows and return self.

        Raises:
            ValueError: NaN or infinity, lengths that differ, labels that are all alike, or classes with one mean.
            TypeError: labels that are not bool.
        """
        rows, labels = floats(x), classes(y)
        check_rows(rows, labels)
        return self._learn([(rows.double(), labels)], rows.dtype)

    def fit_batches(self, batches: Iterable[Labelled]) -> "LinearProbe":
        """Learn w and b from batches of labelled rows, such as a store gives, and return self.

        The batches are read several times (a list, a data set, an object whose `__iter__` starts over), and equal
        `fit` of their rows together. Memory: one batch, and a number per row and label.

        Raises:
            ValueError: as `fit`; or batches that cannot be read again.
        """
        rows, dtype = stored(batches)
        self._learn(rows, dtype)
        if isinstance(batches, Located):
            self.located(batches.site, batches.fingerprint)
        return self

    def _learn(self, rows: Batches, dtype: torch.dtype) -> "LinearProbe":
        self._forget()
        w, b = self._solve(rows)
        if float(w.norm()) == 0:
            raise InvalidArgument(f"The {self.name} found no difference between the classes: its weights are all 0.")
        self.coef_, self.intercept_ = w.to(dtype), b
        self.classes_ = torch.tensor([False, True])
        start = class_means(rows)[1][0]
        self.scale_ = self._reach(unlabelled(rows), start)
        return self

    def columns(
        self, x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n class"], train: Bool[Tensor, "n class"]
    ) -> tuple[Float[Tensor, "d_model class"], Float[Tensor, "class"]]:
        """The weights and intercepts of one probe per column of labels, each fitted to that column's training rows.

        Leaves the probe itself as it was.

        Raises:
            ValueError: as `fit`.
        """
        pairs = zip(y.T, train.T, strict=True)
        solved = [deepcopy(self)._solve([checked(x[rows], labels[rows])]) for labels, rows in pairs]
        return torch.stack([w for w, _ in solved], 1), x.new_tensor([b for _, b in solved], dtype=torch.float64)

    def predict(self, x: Float[Array, "n d_model"]) -> Bool[Tensor, "n"]:
        """The labels w.x + b > 0."""
        return self.decision_function(x) > 0
