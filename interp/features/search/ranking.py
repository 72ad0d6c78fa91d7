"""The best F1 of every latent at once, from sparse codes, and whether two halves of the texts agree on it."""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.features.reading import Reading
from interp.features.search.rows import Rows

COMPARED = 50  # of the best latents of either half


@dataclass(frozen=True)
class Entries:
    """The activations above 0 of rows, one entry per row and latent: the row's largest."""

    row: Int[Tensor, "n"]
    latent: Int[Tensor, "n"]
    value: Float[Tensor, "n"]

    def at(self, kept: Bool[Tensor, "..."]) -> "Entries":
        """The entries of the rows that are kept."""
        here = kept[self.row]
        return Entries(self.row[here], self.latent[here], self.value[here])

    def column(self, latent: int, n_rows: int) -> Float[Tensor, "n"]:
        """One latent's activation on every row."""
        here = self.latent == latent
        return self.value.new_zeros(n_rows).index_put_((self.row[here],), self.value[here])


def pool_entries(reading: Reading, rows: Rows) -> Entries:
    """Pool the codes of tokens to rows, keeping them sparse."""
    on = (reading.values > 0) & (rows.row_of >= 0)[:, None]
    row = rows.row_of[:, None].expand_as(on)[on]
    key, place = (row * reading.d_sae + reading.indices[on]).unique(return_inverse=True)
    value = reading.values.new_zeros(len(key)).scatter_reduce_(0, place, reading.values[on], "amax")
    return Entries(key // reading.d_sae, key % reading.d_sae, value)


class Ranking:
    """The entries of each latent in falling order, made once; F1 for any labels is then read off them.

    Taking the entries down to one of value v as detections gives F1 = 2 TP / (detected + P). Its maximum over v is
    at a positive entry, so only those are looked at.
    """

    def __init__(self, entries: Entries, d_sae: int) -> None:
        # Positive floats are ordered as their bits are, so one integer sort orders by latent, then falling value.
        falling = 0x7FFFFFFF - entries.value.float().view(torch.int32).long()
        key, order = ((entries.latent << 32) | falling).sort()
        self.d_sae = d_sae
        self.row, self.latent, self.value = entries.row[order], entries.latent[order], entries.value[order]
        self.last_of_ties = torch.searchsorted(key, key, right=True) - 1
        self.first = torch.searchsorted(self.latent, torch.arange(d_sae + 1))
        self.detected = self.last_of_ties - self.first[self.latent] + 1

    def _f1(self, y: Bool[Tensor, "..."], positive: int) -> tuple[Int[Tensor, "n"], Float[Tensor, "n"]]:
        """The positive entries, and the F1 of the threshold just below each."""
        at = y.index_select(0, self.row).nonzero().flatten()
        latent = self.latent.index_select(0, at)
        before = torch.searchsorted(latent, torch.arange(self.d_sae))  # positive entries of earlier latents
        hits = torch.arange(1, len(at) + 1) - before.index_select(0, latent)
        return at, 2 * hits / (self.detected.index_select(0, at) + positive)

    def highest(self, y: Bool[Tensor, "..."], positive: int) -> float:
        """The highest F1 of any latent at any threshold above 0."""
        f1 = self._f1(y, positive)[1]
        return float(f1.max()) if len(f1) else 0.0

    def best(self, y: Bool[Tensor, "..."], positive: int) -> tuple[Float[Tensor, "latent"], Float[Tensor, "latent"]]:
        """Each latent's highest F1 and the threshold that reaches it, halfway down to the next activation (or to 0)."""
        at, f1 = self._f1(y, positive)
        highest = f1.new_zeros(self.d_sae).scatter_reduce_(0, self.latent[at], f1, "amax")
        reached = at[f1 == highest[self.latent[at]]]
        after = self.last_of_ties[reached] + 1
        inside = after < self.first[self.latent[reached] + 1]
        below = torch.where(inside, self.value[after.clamp(max=len(self.value) - 1)], 0.0)
        value = self.value[reached]
        halfway = (value + below) / 2
        halfway = torch.where(halfway < value, halfway, below)  # neighbours in their precision have no middle
        return highest, halfway.new_zeros(self.d_sae).scatter_reduce_(0, self.latent[reached], halfway, "amax")


@final
@dataclass(frozen=True)
class Stability:
    """`rank` of the best latent when the other half is searched (1: it is best there too), and `correlation`.

    `correlation` is Spearman's, of the F1 that the latents which are among the 50 best on either half reach on each.
    """

    rank: int
    correlation: float

    def __str__(self) -> str:
        return (
            f"on the other half of the texts the best latent ranks {self.rank} (1 is best); rank correlation of "
            f"the halves {self.correlation:.2f}"
        )


def compare_halves(here: Float[Tensor, "latent"], there: Float[Tensor, "latent"]) -> Stability:
    """Compare the F1 of all latents on two halves of the texts, the first the one searched.

    Examples:
        >>> compare_halves(torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.8, 0.6, 0.1])).rank
        1
    """
    best = int(here.argmax())
    rank = 1 + int((there > there[best]).sum())
    top = min(COMPARED, len(here))
    either = torch.cat([here.topk(top).indices, there.topk(top).indices]).unique()
    ranks = torch.stack([_ranks(f1[either]) for f1 in (here, there)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    length = ranks.norm(dim=1).prod()
    correlation = float(ranks[0] @ ranks[1] / length) if float(length) > 0 else 0.0
    return Stability(rank, correlation)


def _ranks(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks from 1, equal values sharing their mean rank."""
    ordered = values.sort().values
    low, high = torch.searchsorted(ordered, values), torch.searchsorted(ordered, values, right=True)
    return (low + high + 1).double() / 2
