"""Projection erasure: the span of the class means is projected out, orthogonally."""

from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float

from hooks.errors import InvalidArgument
from probes.arrays import Array, classes, floats
from probes.eraser import Eraser
from probes.labelled import Batches, checked, class_means, stored


@final
class MeanProjection(Eraser):
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

    def fit(self, x: Float[Array, "n d_model"], z: Bool[Array, "n"]) -> "MeanProjection":
        """Learn the direction between the class means and return self.

        Raises:
            ValueError: NaN or infinity, lengths that differ, labels all alike, or classes with one mean.
            TypeError: labels that are not bool.
        """
        return self._learn([checked(floats(x), classes(z))])

    def fit_batches(self, batches: Batches) -> "MeanProjection":
        """Learn from batches of labelled rows and return self; equals `fit` of all together.

        Raises:
            ValueError: as `fit`, or batches that cannot be read again.
        """
        rows, _ = stored(batches)
        return self._learn(rows)

    def _learn(self, rows: Batches) -> "MeanProjection":
        n, mu = class_means(rows)
        u = mu[1] - mu[0]
        if float(u.norm()) == 0:
            raise InvalidArgument("The classes have one mean, so there is nothing to erase.")
        u = u / u.norm()
        self.mean_, self.projection_ = n @ mu / n.sum(), torch.outer(u, u)
        return self
