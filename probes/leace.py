"""LEACE: the smallest change of activations after which no linear probe can tell a concept."""

from collections.abc import Iterable
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.arrays import Array, classes, floats
from probes.batches import Paired, Relabelled, Reread, covariances
from probes.checks import check_numbers, check_rows
from probes.eraser import Eraser

SINGULAR = 1e-8  # of the correlation with a column of the concept; what lies below is rounding


@final
class LEACE(Eraser):
    """r(x) = x - W^+ P W (x - mu), W = Sigma_xx^-1/2, P onto W Sigma_xz (Belrose et al. 2023, theorem 4.3).

    On the rows it was fitted to, the covariance with the concept z is 0 afterwards, so that no linear classifier
    beats a constant; of all affine maps that do so it moves rows least. What is coded otherwise stays, for a
    non-linear probe to find. One eigendecomposition; float64 inside.

    As an intervention: `apply(eraser.transform)`.

    Example:
        ```python
        eraser = LEACE().fit(x, y)
        with intervene(model, {resid_post[4]: apply(eraser.transform)}): ...
        ```
    """

    name: ClassVar[str] = "LEACE"

    def fit(self, x: Float[Array, "n d_model"], z: Bool[Array, "n"] | Float[Array, "n class"]) -> "LEACE":
        """Learn what to erase: a label, or the columns of any numbers (one-hot classes, a target); return self.

        Raises:
            ValueError: NaN or infinity, lengths that differ, a concept that does not vary.
        """
        rows, concept = floats(x), classes(z)
        check_numbers(rows, concept)
        return self._learn([(rows.double(), concept)], concept)

    def fit_batches(self, batches: Iterable[Paired]) -> "LEACE":
        """Learn from batches of rows and what to erase from them, and return self; equals `fit` of all together.

        Raises:
            ValueError: as `fit`, or batches that cannot be read again.
        """
        rows = Reread(batches)
        return self._learn(rows, rows.y)

    def _learn(self, rows: Iterable[Paired], concept: Tensor) -> "LEACE":
        if concept.ndim == 1:
            check_rows(concept[:, None].double(), concept)
            rows = Relabelled(rows, concept[:, None])
        check_numbers(concept.double(), concept)
        if bool((concept == concept[0]).all()):
            raise InvalidArgument(f"The concept is the same in all {len(concept)} rows, so there is nothing to erase.")
        self.mean_, _, xx, xz = covariances(rows)
        variance, basis = torch.linalg.eigh(xx)
        real = variance > len(xx) * torch.finfo(xx.dtype).eps * variance[-1]
        basis, std = basis[:, real], variance[real].sqrt()
        z = concept.double().reshape(len(concept), -1).to(xz.device)
        spread = torch.where(z.amax(0) == z.amin(0), torch.inf, z.std(0, correction=0))
        U, s, _ = torch.linalg.svd((basis.T @ xz) / std[:, None] / spread, full_matrices=False)
        U = U[:, s > SINGULAR]
        self.projection_ = (basis * std) @ U @ U.T @ (basis / std).T
        return self
