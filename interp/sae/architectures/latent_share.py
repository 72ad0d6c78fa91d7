"""Which latents of a dictionary a process holds: all, or of each of some equally long runs one part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


@final
@dataclass(frozen=True)
class LatentShare:
    """Of each of `runs` equally long runs of d_sae latents, the `rank`-th of `world` equal parts.

    An autoencoder has one run, a cross-layer transcoder one for each layer. A process numbers its own latents locally,
    from 0, one run after the other.

    Examples:
        >>> LatentShare(12, runs=2, rank=1, world=3).ranges
        (range(2, 4), range(8, 10))
    """

    d_sae: int
    runs: int = 1
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.per_run * self.runs

    @property
    def per_run(self) -> int:
        """How many latents of one run are held."""
        return self.d_sae // (self.runs * self.world)

    @property
    def ranges(self) -> tuple[range, ...]:
        """The numbers of the latents that are held, one range for each run."""
        starts = ((run * self.world + self.rank) * self.per_run for run in range(self.runs))
        return tuple(range(start, start + self.per_run) for start in starts)

    def number(self, local: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """The numbers among all latents of some that are held.

        Examples:
            >>> LatentShare(12, runs=2, rank=1, world=3).number(torch.tensor([0, 3])).tolist()
            [2, 9]
        """
        run, place = local // self.per_run, local % self.per_run
        return (run * self.world + self.rank) * self.per_run + place

    def locate(self, latents: Int[Tensor, "..."]) -> tuple[Int[Tensor, "..."], Bool[Tensor, "..."]]:
        """Their local numbers, and which of them are held; 0 for those that are not.

        Examples:
            >>> LatentShare(12, runs=2, rank=1, world=3).locate(torch.tensor([9, 4]))
            (tensor([3, 0]), tensor([ True, False]))
        """
        part, place = latents // self.per_run, latents % self.per_run
        mine = part % self.world == self.rank
        return torch.where(mine, part // self.world * self.per_run + place, 0), mine

    def local(self, latent: int) -> int:
        """The local number of a latent that is held."""
        return latent // self.per_run // self.world * self.per_run + latent % self.per_run

    def part(self, every: Shaped[Tensor, "latent ..."]) -> Shaped[Tensor, "_ ..."]:
        """What belongs to the latents that are held, in the order of their local numbers."""
        return every.unflatten(0, (self.runs, self.world, self.per_run))[:, self.rank].flatten(0, 1)

    def join(self, parts: Sequence[Shaped[Tensor, "_ ..."]]) -> Shaped[Tensor, "latent ..."]:
        """What belongs to all latents, from what each process has of its own, by rank."""
        return torch.stack([part.unflatten(0, (self.runs, self.per_run)) for part in parts], dim=1).flatten(0, 2)
