"""Projection erasure: the span of the class means is projected out, orthogonally."""

from typing import ClassVar, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.arrays import Array, Table
from probes.checks import check_lengths
from probes.eraser import Eraser
from probes.labelled_rows import Batches, class_means, reread_batches
from probes.labels import number_labels

SINGULAR = 1e-12  # of the largest distance between class means; directions with less are rounding


@final
class MeanProjection(Eraser):
    """r(x) = x - U U^T (x - mu), U an orthonormal basis of the span of mu_c - mu_0: class means coincide afterwards.

    For two classes this is what `project_out` does, about the mean. A linear probe of the rows it was fitted to is at
    chance, as after `LEACE`; but it moves rows further than it must, because U is not where the noise would hide the
    change.

    Examples:
        ```python
        eraser = MeanProjection().fit(x, y)
        eraser.transform(x)
        ```
    """

    name: ClassVar[str] = "mean projection"

    def fit(self, x: Float[Array, "n d_model"] | Table, y: Shaped[Array, "n"] | Table) -> "MeanProjection":
        """Learn the span of the means of the classes, whatever their labels are, and return self.

        Raises:
            InvalidArgument: NaN or infinity, lengths that differ, labels all alike, or classes with one mean.
        """
        rows, (number, classes) = self._table(x, learn=True), number_labels(y, like=x)
        check_lengths(rows, number)
        member = torch.nn.functional.one_hot(number, len(classes)).to(rows.device).double()
        n = member.sum(0)
        if int((n > 0).sum()) < 2:
            raise InvalidArgument(
                f"all {len(rows)} labels are alike: rows of both classes are needed, there is 1 class"
            )
        self._learn(n, member.T @ rows.double() / n[:, None])
        self._kept(x)
        return self

    def fit_batches(self, batches: Batches) -> "MeanProjection":
        """Learn from batches of rows labelled True and False, and return self; equals `fit` of all together.

        Raises:
            InvalidArgument: as `fit`, or batches that cannot be read again.
            InvalidType: labels that are not bool.
        """
        rows, _ = reread_batches(batches)
        self._learn(*class_means(rows))
        self.n_features_in_ = len(self.mean_)
        return self

    def _learn(self, n: Float[Tensor, "class"], mu: Float[Tensor, "class d_model"]) -> None:
        apart = mu[1:] - mu[:1]
        if float(apart.norm()) == 0:
            raise InvalidArgument("the classes have one mean, so there is nothing to erase")
        _, s, V = torch.linalg.svd(apart, full_matrices=False)
        U = V[s > SINGULAR * s[0]].T
        self.mean_, self.projection_ = n @ mu / n.sum(), U @ U.T
