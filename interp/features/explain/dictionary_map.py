"""A map of a dictionary: its decoder directions in the plane, similar ones near each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Count, Natural
from hooks.errors import InvalidArgument, OutOfRange
from hooks.summary import summarise
from interp.common.statistics import Estimate, mean_with_interval
from interp.common.umap_library import lay_out
from interp.sae import SAE, decoder_rows
from interp.sae.architectures.sae import check_whole

if TYPE_CHECKING:
    from pandas import DataFrame

BLOCK = 1024  # rows whose distances to all others are held at once


@final
@dataclass(frozen=True)
class DictionaryMap:
    """Where latents are in the plane, and how far to believe it.

    `kept` is the share of a latent's `neighbours` nearest by cosine that are among its nearest in the plane, as a mean
    over latents; `chance` is that share for places dealt out at random. Distances between far apart latents mean
    nothing.
    """

    latents: tuple[int, ...]
    xy: Float[Tensor, "latent 2"]
    neighbours: int
    kept: Estimate
    chance: float

    __repr__ = summarise

    def __str__(self) -> str:
        return (
            f"{len(self.latents):,} latents in the plane; it keeps {self.kept.value:.0%} of the {self.neighbours} "
            f"nearest neighbours ({self.kept.ends('.0%')}; chance {self.chance:.1%})"
        )

    def to_pandas(self) -> "DataFrame":
        """A row for each latent, with its place in the plane."""
        from pandas import DataFrame

        x, y = self.xy.T.tolist()
        return DataFrame({"latent": self.latents, "x": x, "y": y})


def map_dictionary(
    sae: SAE, latents: Sequence[int] | None = None, *, neighbours: Count = 15, seed: Natural = 0
) -> DictionaryMap:
    """UMAP of the rows of W_dec by cosine distance (McInnes et al. 2018, arXiv:1802.03426), on one thread.

    Places x, y minimise the cross entropy of the fuzzy neighbourhoods in the dictionary and in the plane. Same seed,
    same map. `latents` are all of them unless given: leave out those that never fire.

    Raises:
        MissingExtra: umap-learn is not installed; `pip install 'interp-workbench[map]'` brings it.
        OutOfRange: a latent that does not exist.
        InvalidArgument: one given twice, or not more than twice as many latents as neighbours.

    Cost: about three seconds per thousand latents, and ten to load the library.

    Examples:
        ```python
        drawn = map_dictionary(sae)
        print(drawn.kept.value, "against", drawn.chance)
        ```
    """
    chosen = list(range(sae.d_sae)) if latents is None else list(latents)
    for latent in chosen:
        if not 0 <= latent < sae.d_sae:
            raise OutOfRange(f"latent {latent} does not exist; this autoencoder has latents 0 to {sae.d_sae - 1}")
    if len(set(chosen)) != len(chosen):
        raise InvalidArgument(f"a latent is given twice among {len(chosen)}: give each once")
    if not 1 < neighbours < len(chosen) / 2:
        raise InvalidArgument(
            f"{len(chosen)} latents and {neighbours} neighbours were given: give 2 neighbours at least, and more than "
            "twice as many latents"
        )
    check_whole(sae, "a map of a dictionary")
    rows = decoder_rows(sae, chosen).flatten(1).float().cpu()
    unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    xy = lay_out(unit, n_neighbors=neighbours, metric="cosine", random_state=seed)
    same = _share_kept(_nearest(unit, neighbours), _nearest(xy, neighbours))
    kept = mean_with_interval(same)
    return DictionaryMap(tuple(chosen), xy, neighbours, kept, neighbours / (len(chosen) - 1))


def _nearest(points: Float[Tensor, "latent *d"], k: int) -> Int[Tensor, "latent n"]:
    """The k nearest others of each; for unit rows the nearest are those of largest cosine."""
    found = []
    for first in range(0, len(points), BLOCK):
        distance = torch.cdist(points[first : first + BLOCK], points)
        distance[:, first : first + BLOCK].fill_diagonal_(torch.inf)
        found.append(distance.topk(k, largest=False).indices)
    return torch.cat(found)


def _share_kept(one: Int[Tensor, "latent n"], other: Int[Tensor, "latent n"]) -> Float[Tensor, "latent"]:
    """For each row the share of its entries that are also in the other's."""
    parts = zip(one.split(BLOCK), other.split(BLOCK), strict=True)
    return torch.cat([(a[:, :, None] == b[:, None, :]).any(2).double().mean(1) for a, b in parts])
