"""LEACE: the smallest change of activations after which no linear probe can read a concept."""

from collections.abc import Iterable
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.arrays import Array, Table, tensor
from probes.batches import CheckedBatches, Paired, RelabelledBatches, covariances
from probes.checks import check_finite, check_lengths
from probes.eraser import Eraser
from probes.labels import number_labels

SINGULAR = 1e-8  # of the correlation with a column of the concept; what is below is rounding


@final
class LEACE(Eraser):
    """r(x) = x - W^+ P W (x - mu), W = Sigma_xx^-1/2, P onto W Sigma_xz (Belrose et al. 2023, theorem 4.3).

    On the rows it was fitted to, the covariance with the concept z is 0 afterwards, so that no linear classifier
    beats a constant; of all affine maps that do so it moves rows least. What is coded otherwise stays, for a
    non-linear probe to find. One eigendecomposition; float64 inside.

    As an intervention: `apply(eraser.transform)`.

    Examples:
        ```python
        eraser = LEACE().fit(x, y)
        with intervene(model, {resid_post[4]: apply(eraser.transform)}): ...
        ```
    """

    name: ClassVar[str] = "LEACE"

    def fit(self, x: Float[Array, "n d_model"] | Table, y: Shaped[Array, "n *class"] | Table) -> "LEACE":
        """Learn what to erase: labels of any kind, a target of fractions, or columns of numbers; return self.

        Labels of several classes are erased as one column for each class.

        Raises:
            InvalidArgument: NaN or infinity, lengths that differ, a concept that does not vary.
        """
        rows, concept = self._table(x, learn=True), _columns(y)
        check_lengths(rows, concept)
        concept = concept.to(rows.device)
        self._learn([(rows.double(), concept)], concept)
        self._kept(x)
        return self

    def fit_batches(self, batches: Iterable[Paired]) -> "LEACE":
        """Learn from batches of rows and what to erase from them, and return self; equals `fit` of all together.

        Raises:
            InvalidArgument: as `fit`, or batches that cannot be read again.
        """
        rows = CheckedBatches(batches)
        concept = _columns(rows.y)
        self._learn(RelabelledBatches(rows, concept), concept)
        self.n_features_in_ = len(self.mean_)
        return self

    def _learn(self, rows: Iterable[Paired], concept: Float[Tensor, "n class"]) -> None:
        check_finite(concept)
        if bool((concept == concept[0]).all()):
            raise InvalidArgument(
                f"the concept is the same in all {len(concept)} rows (1 class), so there is nothing to erase"
            )
        self.mean_, _, xx, xz = covariances(rows)
        variance, basis = torch.linalg.eigh(xx)
        real = variance > len(xx) * torch.finfo(xx.dtype).eps * variance[-1]
        basis, std = basis[:, real], variance[real].sqrt()
        z = concept.to(xz.device)
        spread = torch.where(z.amax(0) == z.amin(0), torch.inf, z.std(0, correction=0))
        U, s, _ = torch.linalg.svd((basis.T @ xz) / std[:, None] / spread, full_matrices=False)
        U = U[:, s > SINGULAR]
        self.projection_ = (basis * std) @ U @ U.T @ (basis / std).T


def _columns(z: Any) -> Float[Tensor, "n class"]:
    """A concept as columns of numbers: a label or a target as one, several classes as one for each."""
    if z is None:
        raise InvalidArgument("an eraser requires y to be passed, but the target y is None: give what to erase")
    values = z if isinstance(z, Tensor) else np.asarray(z)
    if values.ndim > 1 and values.shape[1] > 1:
        return tensor(values).double()
    if values.ndim > 1:
        values = values[:, 0]
    floating = values.is_floating_point() if isinstance(values, Tensor) else values.dtype.kind == "f"
    if floating:
        return tensor(values).double()[:, None]
    number, classes = number_labels(values)
    return torch.nn.functional.one_hot(number).double() if len(classes) > 2 else number.double()[:, None]
