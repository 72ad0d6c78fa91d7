"""LEACE: the smallest change of activations after which no linear probe can tell a concept."""

from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float

from probes.arrays import Array, tensor
from probes.checks import check_numbers, check_rows
from probes.eraser import Eraser

CUTOFF = 1e-10  # of the largest variance; directions with less count as having none
SINGULAR = 1e-8  # of the largest whitened covariance; what lies below is no covariance


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
        rows, concept = tensor(x), tensor(z)
        if concept.ndim == 1:
            check_rows(rows, concept)
            concept = concept[:, None]
        check_numbers(rows, concept)
        X, Z = rows.double(), concept.double()
        check_numbers(Z, rows)
        self.mean_ = X.mean(0)
        X, Z = X - self.mean_, Z - Z.mean(0)
        if not bool(Z.any()):
            raise ValueError(f"The concept is the same in all {len(rows)} rows, so there is nothing to erase.")
        variance, basis = torch.linalg.eigh(X.T @ X / len(X))
        real = variance > CUTOFF * variance[-1]
        basis, std = basis[:, real], variance[real].sqrt()
        U, s, _ = torch.linalg.svd((basis.T @ X.T @ Z) / len(X) / std[:, None], full_matrices=False)
        U = U[:, s > SINGULAR * Z.square().mean(0).sum().sqrt()]
        self.projection_ = (basis * std) @ U @ U.T @ (basis / std).T
        return self
