"""The second moment of a feed-forward layer's keys, streamed, with a shrinkage chosen by held-out likelihood."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, stream
from hooks.capture import Data
from hooks.site import mlp_act

SHRINKAGES = (0.0, *(10 ** (quarter / 4) for quarter in range(-24, 1)))


@dataclass(frozen=True, eq=False)
class Covariance:
    """C = E[k kᵀ] over content tokens, uncentred, in float64 (Meng et al. 2022, appendix E.2).

    `shrinkage` is the λ of (1 − λ) C + λ (tr C / d) I under which held-out keys are likeliest; `matrix` is C itself.
    """

    matrix: Float[Tensor, "d_mlp d_mlp"]
    shrinkage: float
    layer: int
    n_tokens: int
    fingerprint: str

    @property
    def shrunk(self) -> Float[Tensor, "d_mlp d_mlp"]:
        """(1 − λ) C + λ (tr C / d) I."""
        return shrink(self.matrix, self.shrinkage)

    def solve(self, k: Float[Tensor, "d_mlp"]) -> Float[Tensor, "d_mlp"]:
        """C⁻¹ k with the shrunk C, in float64."""
        return torch.linalg.solve(self.shrunk, k.double().cpu())

    def save(self, file: Path) -> None:
        """Write to a safetensors file."""
        from safetensors.torch import save_file

        about = {"shrinkage": self.shrinkage, "layer": self.layer, "n_tokens": self.n_tokens}
        save_file({"matrix": self.matrix}, file, {"covariance": json.dumps({**about, "fingerprint": self.fingerprint})})

    @staticmethod
    def load(file: Path) -> "Covariance":
        """Read what `save` wrote."""
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            return Covariance(opened.get_tensor("matrix"), **json.loads(opened.metadata()["covariance"]))


def shrink(matrix: Float[Tensor, "d_mlp d_mlp"], shrinkage: float) -> Float[Tensor, "d_mlp d_mlp"]:
    """(1 − λ) C + λ (tr C / d) I."""
    d = len(matrix)
    return (1 - shrinkage) * matrix + shrinkage * matrix.trace() / d * torch.eye(d, dtype=matrix.dtype)


def best_shrinkage(seen: Float[Tensor, "d_mlp d_mlp"], held_out: Float[Tensor, "d_mlp d_mlp"]) -> float:
    """The λ with the least Gaussian negative log-likelihood of held-out keys, log det C_λ + tr(C_λ⁻¹ C_held-out).

    One eigendecomposition C = U S Uᵀ serves every λ, since shrinking keeps the eigenvectors.
    """
    values, vectors = torch.linalg.eigh(seen)
    spread = ((held_out @ vectors) * vectors).sum(0)
    level = values.mean()

    def loss(shrinkage: float) -> float:
        shrunk = (1 - shrinkage) * values.clamp_min(0) + shrinkage * level
        if float(shrunk.min()) <= 1e-12 * float(level):
            return float("inf")
        return float(shrunk.log().sum() + (spread / shrunk).sum())

    return min(SHRINKAGES, key=loss)


def covariance(model: Model, data: Data, layer: int, *, batch_size: int = 32, progress: bool = False) -> Covariance:
    """Estimate C = E[k kᵀ] of a layer's keys (the inputs of its output projection) over the content tokens of the data.

    Beginning-of-text and padding tokens are left out. Every fifth text is held out to choose the shrinkage, and then
    counted in. Cost: one forward pass over the data, up to the layer.

    Raises:
        ValueError: fewer than five texts, or keys that are not finite.

    Warns:
        UserWarning: fewer tokens than d_mlp, where C cannot have full rank.

    ```python
    c = covariance(model, texts, layer=2)
    c.n_tokens, c.shrinkage
    ```
    """
    site = mlp_act[layer]
    sums = torch.zeros(2, model.d_mlp, model.d_mlp, dtype=torch.float64)
    counts, n_texts, n_batches = [0, 0], 0, 0
    for acts in stream(model, data, [site], batch_size=batch_size, progress=progress):
        content = acts.tokens.content
        held_out = (torch.arange(len(content), device=content.device) + n_texts)[:, None] % 5 == 4
        for part, rows in enumerate((content & ~held_out, content & held_out)):
            k = acts[site][rows].double().cpu()
            sums[part] += k.T @ k
            counts[part] += len(k)
        n_texts, n_batches = n_texts + len(content), n_batches + 1
    if 0 in counts:
        raise ValueError(
            f"{n_texts} texts in {n_batches} batches of data are too few to hold one out of five: "
            "give at least 5 texts, better thousands"
        )
    if not bool(sums.isfinite().all()):
        raise ValueError(f"{site} of {model.name} holds NaN or infinity on these texts: its keys have no covariance")
    if sum(counts) < model.d_mlp:
        warnings.warn(
            f"{sum(counts)} tokens for {model.d_mlp} keys: the covariance cannot have full rank; give more text",
            stacklevel=2,
        )
    shrinkage = best_shrinkage(sums[0] / counts[0], sums[1] / counts[1])
    return Covariance(sums.sum(0) / sum(counts), shrinkage, layer, sum(counts), model.fingerprint)
