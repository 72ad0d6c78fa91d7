"""Input normalisation: an affine map of activations, z = (x - m) M, that is folded into the weights afterwards."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.summary import summarise
from interp.common.digests import digest_of_tensors

ROW_NORMS = ("layer_norm", "constant_norm_rescale")
SAMPLE = 65_536  # rows that a normalisation is measured on, at most


@final
@dataclass(frozen=True, eq=False)
class Normalisation:
    """z = (x - m) M, and back x = z M^-1 + m; one map for each layer where rows have a layer axis.

    Examples:
        >>> n = Normalisation(torch.ones(2), 2 * torch.eye(2), torch.eye(2) / 2)
        >>> n(torch.tensor([[1.0, 3.0]])).tolist()
        [[0.0, 4.0]]
    """

    mean: Float[Tensor, "*d d_model"]
    matrix: Float[Tensor, "*d d_model d_model"]
    inverse: Float[Tensor, "*d d_model d_model"]

    __repr__ = summarise

    def __call__(self, x: Float[Tensor, "n *d d_model"]) -> Float[Tensor, "n *d d_model"]:
        """Normalise: z = (x - m) M."""
        m, M = self.mean.to(x), self.matrix.to(x)
        if M.ndim > 2:
            return ((x - m).movedim(0, -2) @ M).movedim(-2, 0)
        return ((x - m)[..., None, :] @ M)[..., 0, :]

    def back(self, z: Float[Tensor, "n *d d_model"]) -> Float[Tensor, "n *d d_model"]:
        """Undo it: x = z M^-1 + m."""
        return (z[..., None, :] @ self.inverse.to(z))[..., 0, :] + self.mean.to(z)

    def digest(self) -> str:
        """A digest of m and M, by which one is recognised."""
        return digest_of_tensors(self.mean, self.matrix)

    def doubles(
        self, device: torch.device
    ) -> tuple[Float[Tensor, "*d d_model"], Float[Tensor, "..."], Float[Tensor, "..."]]:
        """m, M and M^-1 in float64, for products that are rounded once."""
        return tuple(t.to(device, torch.float64) for t in (self.mean, self.matrix, self.inverse))  # pyright: ignore


@final
@dataclass(frozen=True)
class RowNorm:
    """Each row normalised by itself, z = (x - m) / s, and back x_hat = z_hat s + m; as SAELens does it.

    `layer_norm`: m is the row's mean and s its standard deviation over d - 1 (what divides is s + 1e-5);
    `constant_norm_rescale`: m = 0 and s = ||x|| / sqrt(d). Neither is an affine map of x, so that it cannot become
    part of the weights.

    Examples:
        >>> round(RowNorm("constant_norm_rescale")(torch.tensor([[3.0, 4.0]])).norm().item() ** 2, 5)
        2.0
    """

    kind: str

    def __post_init__(self) -> None:
        if self.kind not in ROW_NORMS:
            raise UnknownName(
                f"rows are not normalised by '{self.kind}'; did you mean {nearest(self.kind, ROW_NORMS)}?"
            )

    def __call__(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """Normalise: z = (x - m) / s."""
        m, s = self.measure(x)
        return (x - m) / (s + (1e-5 if self.kind == "layer_norm" else 0.0))

    def back(self, z: Float[Tensor, "*n d_model"], x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """Undo it with the rows x that were read: z s + m."""
        m, s = self.measure(x)
        return z * s + m

    def measure(self, x: Float[Tensor, "*n d_model"]) -> tuple[Float[Tensor, "*n _"], Float[Tensor, "*n _"]]:
        """m and s of each row."""
        if self.kind == "layer_norm":
            return x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        s = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        return torch.zeros_like(s), s


def expected_norm(source: Iterable[Float[Tensor, "n *d d_model"]]) -> Normalisation:
    """Scale so that E||z|| = sqrt(d) (Anthropic, April 2024): m = 0, M = sqrt(d) / E||x||.

    Raises:
        InvalidArgument: the source is empty, or all its activations are 0.

    Examples:
        >>> float(expected_norm([torch.full((10, 4), 5.0)]).matrix[0, 0])
        0.2
    """
    x = _sample(source)
    norm = x.norm(dim=-1).mean(0)
    if not bool((norm > 0).all()):
        raise InvalidArgument("all activations are 0: no scale gives them a norm of sqrt(d)")
    return _make_scale(torch.zeros_like(x[0]), x.shape[-1] ** 0.5 / norm)


def rms_scaling(source: Iterable[Float[Tensor, "n *d d_model"]]) -> Normalisation:
    """Scale so that E||z||^2 = d, without centring: m = 0, M = 1 / rms(x).

    Raises:
        InvalidArgument: the source is empty, or all its activations are 0.

    Examples:
        >>> float(rms_scaling([torch.tensor([[2.0], [-2.0]])]).matrix[0, 0])
        0.5
    """
    x = _sample(source)
    rms = x.pow(2).mean((0, -1)).sqrt()
    if not bool((rms > 0).all()):
        raise InvalidArgument("all activations are 0: no scale gives them a root mean square of 1")
    return _make_scale(torch.zeros_like(x[0]), 1 / rms)


def mean_centring(source: Iterable[Float[Tensor, "n *d d_model"]]) -> Normalisation:
    """Subtract the mean, m = E x, and scale what is left to E||z||^2 = d.

    Raises:
        InvalidArgument: the source is empty, or its activations never vary.

    Examples:
        >>> mean_centring([torch.tensor([[0.0], [2.0]])]).mean.tolist()
        [1.0]
    """
    x = _sample(source)
    m = x.mean(0)
    variance = (x - m).pow(2).sum(-1).mean(0)
    if not bool((variance > 0).all()):
        raise InvalidArgument(f"all {len(x)} activations are the same vector: they have no scale")
    return _make_scale(m, (x.shape[-1] / variance).sqrt())


def whitening(source: Iterable[Float[Tensor, "n *d d_model"]], *, epsilon: float | int = 1e-3) -> Normalisation:
    """Whiten: m = E x and M = E (Lambda + epsilon l)^-1/2 from the covariance E Lambda E^T (arXiv:2511.13981).

    l is the mean eigenvalue, so that `epsilon` has no unit. The largest entry of an eigenvector is positive, so that
    all devices give the same. Measured in float64.

    Raises:
        InvalidArgument: the source is empty, or its activations never vary.

    Examples:
        ```python
        source = activations_of(model, texts, resid_post[4])
        train(sae, normalise_source(source, whitening(source)))
        ```
    """
    if not 0 <= epsilon < math.inf:
        raise InvalidArgument(f"epsilon is {epsilon}; it must be finite and at least 0")
    x = _sample(source)
    m = x.mean(0)
    about = (x - m).movedim(0, -2)
    variances, vectors = torch.linalg.eigh(about.mT @ about / len(x))
    largest = vectors.gather(-2, vectors.abs().argmax(-2, keepdim=True))
    vectors = vectors * largest.sign()
    mean = variances.mean(-1, keepdim=True)
    if not bool((mean > 0).all()):
        raise InvalidArgument(f"all {len(x)} activations are the same vector: they cannot be whitened")
    deviation = (variances.clamp(min=0) + epsilon * mean).sqrt()
    return Normalisation(m, vectors / deviation[..., None, :], deviation[..., None] * vectors.mT)


def side_by_side(reads: Normalisation, writes: Normalisation) -> Normalisation:
    """The normalisation of rows [x, y], as a transcoder's source gives them, from one for each.

    Examples:
        >>> n = Normalisation(torch.ones(2), torch.eye(2), torch.eye(2))
        >>> side_by_side(n, n).mean.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    return Normalisation(
        torch.cat([reads.mean, writes.mean]),
        torch.block_diag(reads.matrix, writes.matrix),
        torch.block_diag(reads.inverse, writes.inverse),
    )


def _make_scale(mean: Tensor, scale: Tensor) -> Normalisation:
    identity = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return Normalisation(mean, scale[..., None, None] * identity, identity / scale[..., None, None])


def _sample(source: Iterable[Tensor]) -> Tensor:
    """Rows from the beginning of a source, in float64."""
    if isinstance(source, Tensor):
        raise InvalidArgument(
            f"the source is a tensor of shape {tuple(source.shape)}: give tensor_source(x), which has batches"
        )
    parts, count = [], 0
    for part in islice(source, SAMPLE):
        parts.append(part)
        count += len(part)
        if count >= SAMPLE:
            break
    if not count:
        raise InvalidArgument("there are no activations to measure a normalisation on: the source gave no rows")
    x = torch.cat(parts)[:SAMPLE].double()
    if not bool(x.isfinite().all()):
        row = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        raise InvalidArgument(f"activations hold NaN or infinity, first in row {row}: they have no scale")
    return x
