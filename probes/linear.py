"""What linear probes share: a score w.x + b, its direction, and how labelled rows reach the solver."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import deepcopy
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Real, Shaped
from torch import Tensor

from hooks import Direction, Site
from hooks.errors import InvalidArgument
from probes.arrays import Array, Table, like, tensor
from probes.batches import LocatedBatches
from probes.classifier import TwoClasses
from probes.estimator import Estimator, check_fitted
from probes.labelled_rows import Batches, Labelled, class_means, convert_rows, drop_labels, reread_batches


class Linear(Estimator):
    """A score w.x + b: fitted, it has `coef_` (w), `intercept_` (b), and `scale_`, the unit of its direction."""

    name: ClassVar[str]
    coef_: Float[Array, "d_model"]
    intercept_: float
    scale_: float
    site_: Site
    fingerprint_: str | None

    def _scores(self, rows: Float[Tensor, "n d_model"]) -> Float[Tensor, "n"]:
        """The scores w.x + b."""
        return rows @ tensor(self.coef_).to(rows) + self.intercept_

    def direction(self, site: Site, fingerprint: str | None = None) -> Direction:
        """The vector along which the score rises, at a site, with `scale_` as its scale.

        Raises:
            NotFitted: the probe is not fitted.
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
            raise AttributeError(f"rows do not say where they come from: take {type(self).__name__}.direction(site)")
        return self.direction(self.site_, self.fingerprint_)

    def at_site(self, site: Site, fingerprint: str | None = None) -> "Linear":
        """Remember where the rows came from, until the next fit, and return self.

        Examples:
            ```python
            probe.fit(x, y).at_site(resid_post[4], model.fingerprint).direction_
            ```
        """
        self.site_, self.fingerprint_ = site, fingerprint
        return self

    def _forget(self) -> None:
        for name in ("site_", "fingerprint_"):
            vars(self).pop(name, None)

    def _axis(self) -> Float[Tensor, "d_model"]:
        return tensor(self.coef_)

    def _reach(self, rows: Iterable[Float[Tensor, "_ d_model"]], start: Float[Tensor, "d_model"]) -> float:
        """From a point to the farthest row along the axis."""
        unit = self._axis().double() / self._axis().double().norm()
        return max(float((x @ unit).max()) for x in rows) - float(start @ unit)


class LinearProbe(TwoClasses, Linear, ABC):
    """A linear probe of two classes, the second above 0. A kind of probe says how w and b are found.

    `scale_` is, along the direction, the distance from the negative rows' mean to the farthest row.
    """

    @abstractmethod
    def _solve(self, rows: Batches, weight: Float[Tensor, "n"] | None) -> tuple[Float[Tensor, "d_model"], float]:
        """Find w and b for batches of labelled rows in float64, each row counting `weight` times, or once."""

    def fit(
        self,
        x: Float[Array, "n d_model"] | Table,
        y: Shaped[Array, "n"] | Table,
        sample_weight: Real[Array, "n"] | Table | None = None,
    ) -> "LinearProbe":
        """Learn w and b from rows with labels of two kinds, and return self; a weight counts a row so many times.

        Raises:
            InvalidArgument: NaN or infinity, lengths that differ, labels that are all alike or of more than two kinds,
                classes with one mean.
        """
        rows = self._table(x, learn=True)
        dtype = rows.dtype
        rows, labels, weight = self._two(x, rows, y, sample_weight)
        self._learn([(rows.double(), labels)], dtype, weight)
        self.coef_ = like(x, tensor(self.coef_))
        return self

    def decision_function(self, x: Float[Array, "n d_model"] | Table) -> Float[Array, "n"]:
        """The scores w.x + b.

        Raises:
            NotFitted: the probe is not fitted.
            InvalidArgument: NaN or infinity, or rows of another width.
        """
        check_fitted(self, "coef_")
        return like(x, self._scores(self._table(x, learn=False)))

    def fit_batches(self, batches: Iterable[Labelled]) -> "LinearProbe":
        """Learn w and b from batches of labelled rows, such as a store gives, and return self.

        The batches are read several times (a list, a data set, an object whose `__iter__` starts over), and equal
        `fit` of their rows together. Memory: one batch, and a number per row and label.

        Raises:
            InvalidArgument: as `fit`; or batches that cannot be read again.
            InvalidType: labels that are not bool.
        """
        rows, dtype = reread_batches(batches)
        self.classes_ = torch.tensor([False, True])
        self._learn(rows, dtype, None)
        self.n_features_in_ = len(self.coef_)
        if isinstance(batches, LocatedBatches):
            self.at_site(batches.site, batches.fingerprint)
        return self

    def _learn(self, rows: Batches, dtype: torch.dtype, weight: Tensor | None) -> None:
        self._forget()
        w, b = self._solve(rows, weight)
        if float(w.norm()) == 0:
            raise InvalidArgument(f"the {self.name} found no difference between the classes: its weights are all 0")
        self.coef_, self.intercept_ = w.to(dtype), b
        start = class_means(rows, weight)[1][0]
        self.scale_ = self._reach(drop_labels(rows), start)

    def columns(
        self, x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n class"], train: Bool[Tensor, "n class"]
    ) -> tuple[Float[Tensor, "d_model class"], Float[Tensor, "class"]]:
        """The weights and intercepts of one probe per column of labels, each fitted to that column's training rows.

        Leaves the probe itself as it was.

        Raises:
            InvalidArgument: as `fit`.
        """
        pairs = zip(y.T, train.T, strict=True)
        solved = [deepcopy(self)._solve([convert_rows(x[rows], labels[rows])], None) for labels, rows in pairs]
        return torch.stack([w for w, _ in solved], 1), x.new_tensor([b for _, b in solved], dtype=torch.float64)
