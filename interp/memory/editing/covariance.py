"""The second moment of a feed-forward layer's keys, streamed, with a shrinkage chosen by held-out likelihood."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan, sqrt
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from hooks import Model, stream
from hooks.border import Count
from hooks.capture import Data
from hooks.errors import InvalidArgument
from hooks.fingerprint import fingerprint
from hooks.json_file import Kind, parse_contents
from hooks.site import mlp_act
from hooks.summary import summarise
from hooks.tensor_file import read_tensors, write_tensors
from interp.common.digests import digest_of_data
from interp.common.made_of import check_own
from interp.memory.editing.edit import list_applied

SHRINKAGES = (0.0, *(10 ** (quarter / 4) for quarter in range(-24, 1)))


class CovarianceHeader(TypedDict):
    """What a file says of a covariance."""

    shrinkage: float
    layer: int
    n_tokens: int
    fingerprint: str
    error: float


KIND: Final = Kind("covariance", "covariance", "Covariance.save", CovarianceHeader)


@dataclass(frozen=True, eq=False)
class Covariance:
    """C = E[k kᵀ] over content tokens, uncentred, in float64 (Meng et al. 2022, appendix E.2).

    Attributes:
        matrix: C itself.
        shrinkage: the λ of (1 − λ) C + λ (tr C / d) I under which held-out keys are likeliest.
        layer: whose keys.
        n_tokens: how many.
        fingerprint: of the weights whose keys they are, as they were then.
        error: the standard error of C, ‖Ĉ − C‖/‖C‖ as estimated from the held-out part; it halves with four times the
            text.
        changed_by: what changed the passes besides the weights.
    """

    matrix: Float[Tensor, "d_mlp d_mlp"]
    shrinkage: float
    layer: int
    n_tokens: int
    fingerprint: str
    error: float = nan
    changed_by: tuple[str, ...] = ()

    __repr__ = summarise

    @cached_property
    def spectrum(self) -> tuple[Float[Tensor, "d_mlp"], Float[Tensor, "d_mlp d_mlp"]]:
        """Eigenvalues of C, the smallest first, and its eigenvectors as columns; decomposed once."""
        return tuple(torch.linalg.eigh(self.matrix.double()))

    @property
    def shrunk(self) -> Float[Tensor, "d_mlp d_mlp"]:
        """(1 − λ) C + λ (tr C / d) I."""
        return shrink(self.matrix, self.shrinkage)

    def solve(self, k: Float[Tensor, "*n d_mlp"]) -> Float[Tensor, "*n d_mlp"]:
        """C⁻¹ k of one key or several with the shrunk C, in float64.

        Raises:
            InvalidArgument: a shrunk C without an inverse.
        """
        values, vectors = self.spectrum
        held = (1 - self.shrinkage) * values + self.shrinkage * values.mean()
        if not float(held[0]) > 1e-14 * float(held[-1]):
            raise InvalidArgument(
                f"the covariance of layer {self.layer} has rank below {len(held)} at shrinkage {self.shrinkage:g}: "
                "estimate it on more text, or give it a shrinkage above 0"
            )
        return (k.double().cpu() @ vectors / held) @ vectors.T

    def save(self, file: Path) -> None:
        """Write to a safetensors file.

        Raises:
            WrongState: it was estimated while something besides the weights changed what the model computes.
        """
        check_own("covariance", self.changed_by)
        about = {
            "shrinkage": self.shrinkage, "layer": self.layer, "n_tokens": self.n_tokens, "error": self.error,
            "fingerprint": self.fingerprint,
        }  # fmt: skip
        write_tensors(file, KIND, {"matrix": self.matrix}, about)

    @staticmethod
    def load(file: Path) -> "Covariance":
        """Read what `save` wrote.

        Raises:
            MissingFile: there is no such file.
            DamagedFile: it is torn, changed, or holds something else.
        """
        tensors, about = read_tensors(file, KIND)
        return parse_contents(file, KIND, lambda: Covariance(tensors["matrix"], **about))


def shrink(matrix: Float[Tensor, "d_mlp d_mlp"], shrinkage: float) -> Float[Tensor, "d_mlp d_mlp"]:
    """(1 − λ) C + λ (tr C / d) I."""
    d = len(matrix)
    return (1 - shrinkage) * matrix + shrinkage * matrix.trace() / d * torch.eye(d, dtype=matrix.dtype)


def choose_shrinkage(seen: Float[Tensor, "d_mlp d_mlp"], held_out: Float[Tensor, "d_mlp d_mlp"]) -> float:
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


def covariance(
    model: Model, data: Data, layer: int, *, batch_size: Count = 32, cache: Path | None = None, progress: bool = True
) -> Covariance:
    """Estimate C = E[k kᵀ] of a layer's keys (the inputs of its output projection) over the content tokens of the data.

    All else is as for `covariances`.

    Examples:
        ```python
        c = covariance(model, texts, layer=2)
        c.n_tokens, c.shrinkage, c.error
        ```
    """
    (found,) = covariances(model, data, (layer,), batch_size=batch_size, cache=cache, progress=progress)
    return found


def covariances(
    model: Model,
    data: Data,
    layers: Sequence[int],
    *,
    batch_size: Count = 32,
    cache: Path | None = None,
    progress: bool = True,
) -> tuple[Covariance, ...]:
    """Estimate C = E[k kᵀ] of the keys of several layers in one pass over the data.

    Beginning-of-text and padding tokens are left out. Every fifth text is held out to choose the shrinkage and to
    estimate the error, and is then included.

    Args:
        model: the model.
        data: texts or a data set, as `capture` takes them.
        layers: whose keys.
        batch_size: texts per forward pass.
        cache: a folder to keep the result in, by the model's fingerprint, the edits applied to it and the texts; read
            from there the next time.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no layers, fewer than five texts, keys that are not finite; a cache for data that are no list
            of texts and no `datasets.Dataset`.
        WrongState: a cache, and a block of interventions is open.

    Warns:
        UserWarning: fewer tokens than d_mlp, where C cannot have full rank.

    Cost: one forward pass over the data, up to the last layer; none when read from the cache.

    Examples:
        ```python
        early, late = covariances(model, texts, (1, 2), cache=Path("covariances"))
        ```
    """
    if not layers:
        raise InvalidArgument("no layers were named: give at least one")
    if cache is not None:
        model.running.check_unchanged(
            "a cache keeps the keys of the model without them: measure outside the block, or leave `cache` out"
        )
    files = [None if cache is None else cache / f"{_key(model, data, layer)}.safetensors" for layer in layers]
    missing = [layer for layer, file in zip(layers, files, strict=True) if file is None or not file.exists()]
    made = dict(zip(missing, _estimate(model, data, missing, batch_size, progress), strict=True)) if missing else {}
    found = []
    for layer, file in zip(layers, files, strict=True):
        if layer not in made and file is not None:
            found.append(Covariance.load(file))
            continue
        found.append(made[layer])
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            made[layer].save(file)
    return tuple(found)


def _key(model: Model, data: Data, layer: int) -> str:
    """What names a covariance on disk: model, the edits applied to it, layer and texts."""
    digest = digest_of_data(data)
    if digest is None:
        raise InvalidArgument(
            f"a cache needs data that can be read again: give a list of texts or a data set, not {type(data).__name__}"
        )
    named = " ".join([model.fingerprint, fingerprint(model.hf), *list_applied(model), str(layer), digest])
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _estimate(model: Model, data: Data, layers: Sequence[int], batch_size: int, progress: bool) -> list[Covariance]:
    sites, made_of = [mlp_act[layer] for layer in layers], (fingerprint(model.hf), model.running.changed_by)
    sums = torch.zeros(len(layers), 2, model.d_mlp, model.d_mlp, dtype=torch.float64)
    counts, n_texts, n_batches = [0, 0], 0, 0
    for acts in stream(model, data, sites, batch_size=batch_size, progress=progress):
        content = acts.tokens.content
        held_out = (torch.arange(len(content), device=content.device) + n_texts)[:, None] % 5 == 4
        for part, rows in enumerate((content & ~held_out, content & held_out)):
            for i, site in enumerate(sites):
                k = acts[site][rows].float()
                sums[i, part] += (k.T @ k).double().cpu()
            counts[part] += int(rows.sum())
        n_texts, n_batches = n_texts + len(content), n_batches + 1
    if 0 in counts:
        raise InvalidArgument(
            f"{n_texts} texts in {n_batches} batches of data are too few to hold one out of five: "
            "give at least 5 texts, better thousands"
        )
    if sum(counts) < model.d_mlp:
        warnings.warn(
            f"{sum(counts)} tokens for {model.d_mlp} keys: the covariance cannot have full rank; give more text",
            stacklevel=4,
        )
    for i, site in enumerate(sites):
        if not bool(sums[i].isfinite().all()):
            raise InvalidArgument(
                f"{site} of {model.name} holds NaN or infinity on these texts: its keys have no covariance"
            )
    return [
        replace(pool_halves(sums[i, 0], sums[i, 1], counts), layer=layer, fingerprint=made_of[0], changed_by=made_of[1])
        for i, layer in enumerate(layers)
    ]


def pool_halves(
    seen: Float[Tensor, "d_mlp d_mlp"], held_out: Float[Tensor, "d_mlp d_mlp"], counts: Sequence[int]
) -> Covariance:
    """The covariance from the sums of k kᵀ over two parts of the data, with its shrinkage and standard error.

    Two means over n₁ and n₂ tokens differ by D with E‖D‖² = σ²(1/n₁ + 1/n₂), and their mean errs by σ²/(n₁ + n₂).
    """
    n, m = counts
    whole = (seen + held_out) / (n + m)
    gap = (seen / n - held_out / m).norm() / whole.norm()
    shrinkage = choose_shrinkage(seen / n, held_out / m)
    return Covariance(whole, shrinkage, -1, n + m, "", float(gap) * sqrt(n * m) / (n + m))
