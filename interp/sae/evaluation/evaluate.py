"""How well a sparse autoencoder reconstructs, and what its latents did, over a stated number of tokens."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.sae.architectures.sae import CHUNK, SAE, convert_rows
from interp.sae.data.source import Source
from interp.sae.numerics.sparse import largest_per_latent


@dataclass(frozen=True)
class Quality:
    """What a pass over activations found.

    `explained_variance` is 1 - E||y - y_hat||^2 / (E||y||^2 - ||E y||^2), y being what is reconstructed, `l0` the
    mean number of latents above 0, `dead_share` the share of latents that never were in these `tokens` tokens.
    `firings` and `max_activation` count and bound each latent.
    """

    explained_variance: float
    l0: float
    dead_share: float
    tokens: int
    firings: Int[Tensor, "latent"]
    max_activation: Float[Tensor, "latent"]

    __repr__ = summarise

    @property
    def density(self) -> Float[Tensor, "latent"]:
        """The share of tokens on which each latent is above 0."""
        return self.firings / self.tokens

    @property
    def dense_share(self) -> float:
        """The share of latents that are above 0 on more than a tenth of the tokens."""
        return float((self.density > 0.1).double().mean())

    def histogram(self, bins_per_decade: Count = 4) -> tuple[Float[Tensor, "n"], Int[Tensor, "_"]]:
        """Edges and counts of log10 density, from one firing in all tokens up to 1; dead latents are in no bin."""
        lowest = -torch.tensor(float(self.tokens)).log10().ceil()
        edges = torch.linspace(float(lowest), 0.0, int(-lowest) * bins_per_decade + 1)
        logs = self.density[self.firings > 0].log10().cpu()
        return edges, torch.histogram(logs.float(), edges).hist.long()

    def __str__(self) -> str:
        return (
            f"explained variance {self.explained_variance:.3f}, L0 {self.l0:.1f}, dead {self.dead_share:.1%} "
            f"of {len(self.firings)} latents, over {self.tokens:,} tokens"
        )


@torch.no_grad()
def evaluate(sae: SAE, source: Iterable[Float[Tensor, "n *d"]]) -> Quality:
    """Measure reconstruction and latents over one pass of a source (any batches of activations), summed in float64.

    Raises:
        InvalidArgument: the source is empty or a tensor, all its activations are the same vector, a reconstruction is
            not finite, or the source is normalised where the autoencoder reads activations as they are, or the reverse.

    Examples:
        ```python
        print(evaluate(sae, activations_of(model, held_out_texts, resid_post[4])))
        ```
    """
    sums = _Sums(sae)
    for rows in batches_for(sae, source):
        sums.add(rows)
    if not sums.n:
        raise InvalidArgument("there are no activations to evaluate on: the source gave no rows")
    return sums.quality()


@dataclass(frozen=True)
class Reconstruction:
    """How y_hat compares with y, over `tokens` tokens.

    `cosine` is the mean cosine, `norm_ratio` E||y_hat|| / E||y||, and `bias` E||y_hat||^2 / E[y . y_hat]: below 1
    where reconstructions are too short for the direction they take (Rajamanoharan et al. 2024a), 1 where no rescaling
    of y_hat would help.
    """

    cosine: float
    norm_ratio: float
    bias: float
    tokens: int


@torch.no_grad()
def reconstruction(sae: SAE, source: Iterable[Float[Tensor, "n *d"]]) -> Reconstruction:
    """Compare lengths and angles of reconstructions with those of activations, over one pass of a source.

    Raises:
        InvalidArgument: as for `evaluate`; or an activation or all reconstructions of length 0.

    Examples:
        ```python
        reconstruction(sae, held_out).bias
        ```
    """
    sums, n = torch.zeros(5, dtype=torch.float64), 0
    for rows in batches_for(sae, source):
        x, y = sae.parts(rows)
        y, y_hat = y.flatten(1).double(), sae(x).flatten(1).double()
        lengths, found = y.norm(dim=1), y_hat.norm(dim=1)
        if not bool((lengths > 0).all()):
            raise InvalidArgument(f"activation {n + int((lengths == 0).nonzero()[0])} has length 0: it has no cosine")
        along = (y * y_hat).sum(1)
        cosines = along / (lengths * found.clamp(min=1e-300))
        sums += torch.stack([cosines.sum(), lengths.sum(), found.sum(), found.pow(2).sum(), along.sum()]).cpu()
        n += len(y)
    if not n:
        raise InvalidArgument("there are no activations to evaluate on: the source gave no rows")
    cosine, length, own, squares, along = sums.tolist()
    _finite(squares, n)
    if along == 0:
        raise InvalidArgument(
            f"the reconstructions of {n} activations do not point along them at all: they have no bias"
        )
    return Reconstruction(cosine / n, own / length, squares / along, n)


def batches_for(sae: SAE, source: Iterable[Float[Tensor, "n *d"]]) -> Iterator[Float[Tensor, "n *d"]]:
    """A source's rows, checked, on the autoencoder's device and few enough at once for dense latents.

    Examples:
        ```python
        for rows in batches_for(sae, source):
            x, y = sae.parts(rows)
        ```
    """
    if isinstance(source, Tensor):
        raise InvalidArgument(
            f"the source is a tensor of shape {tuple(source.shape)}: give tensor_source(x), which has batches"
        )
    if isinstance(source, Source) and (source.normalisation is None) != (sae.normalisation is None):
        ours, theirs = ("as they are" if n is None else "normalised" for n in (sae.normalisation, source.normalisation))
        raise InvalidArgument(
            f"this autoencoder reads activations {ours} and the source gives them {theirs}: "
            "use fold_normalisation(sae) on the source as it is, or the source that sae was trained on"
        )
    for chunk in source:
        for rows in chunk.to(sae.W_dec.device).split(CHUNK):
            yield convert_rows(sae, rows)


class _Sums:
    """Running sums over rows of y, of its square and of the reconstruction's error."""

    def __init__(self, sae: SAE) -> None:
        self.sae, self.n = sae, 0
        self.y = torch.zeros(sae.b_dec.numel(), dtype=torch.float64, device=sae.W_dec.device)
        self.y_squared = self.error = torch.zeros((), dtype=torch.float64, device=sae.W_dec.device)
        self.firings = torch.zeros(sae.d_sae, dtype=torch.long, device=sae.W_dec.device)
        self.largest = torch.zeros(sae.d_sae, device=sae.W_dec.device)

    def add(self, rows: Tensor) -> None:
        x, y = self.sae.parts(rows)
        values, indices = self.sae.encode_sparse(x)
        y, y_hat = y.flatten(1).double(), self.sae.reconstruct_sparse(x, values, indices).flatten(1)
        if not self.n:
            self.origin = y.mean(0)  # sums are taken about a typical row: no cancellation for a large mean
        about = y - self.origin
        self.y = self.y + about.sum(0)
        self.y_squared = self.y_squared + about.pow(2).sum()
        self.error = self.error + (y - y_hat).pow(2).sum()
        self.firings += torch.bincount(indices[values != 0], minlength=self.sae.d_sae)
        self.largest = torch.maximum(self.largest, largest_per_latent(values, indices, self.sae.d_sae).float())
        self.n += len(rows)

    def quality(self) -> Quality:
        _finite(float(self.error), self.n)
        variance = float(self.y_squared / self.n - (self.y / self.n).pow(2).sum())
        if variance <= 0:
            raise InvalidArgument(f"all {self.n} activations are the same vector: explained variance has no meaning")
        return Quality(
            explained_variance=1 - float(self.error) / self.n / variance,
            l0=float(self.firings.sum()) / self.n,
            dead_share=float((self.firings == 0).double().mean()),
            tokens=self.n,
            firings=self.firings,
            max_activation=self.largest,
        )


def _finite(squares: float, n: int) -> None:
    if not math.isfinite(squares):
        raise InvalidArgument(
            f"reconstructions of {n} activations hold NaN or infinity, so the weights do, or are too large: train "
            "again with a lower lr"
        )
