"""Dictionaries compared direction by direction: with the truth, with another seed's, with themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Natural
from hooks.direction import wide
from hooks.errors import InvalidArgument
from hooks.summary import summarise

if TYPE_CHECKING:
    from pandas import DataFrame

FLOOR_DRAWS = 5


@dataclass(frozen=True)
class Matching:
    """Which latent is matched to each true direction, and how well, next to what random directions reach.

    `mcc` is the mean |cosine| of the matched pairs; `floor` the same for as many random directions, a mean over
    draws.
    """

    mcc: float
    floor: float
    latents: Int[Tensor, "n"]
    cosines: Float[Tensor, "n"]

    __repr__ = summarise

    def __str__(self) -> str:
        return f"MCC {self.mcc:.3f} over {len(self.latents)} directions, where random directions reach {self.floor:.3f}"

    def to_pandas(self) -> "DataFrame":
        """A row for each matched true direction, in order: its latent, and their cosine."""
        from pandas import DataFrame

        return DataFrame({"latent": self.latents.tolist(), "cosine": self.cosines.tolist()})


def match_truth(
    rows: Float[Tensor, "latent d_model"], truth: Float[Tensor, "n d_model"], *, seed: Natural = 0
) -> Matching:
    """Match decoder rows to the true directions one to one, so that the mean |cosine| is the largest (MCC).

    The match is the Hungarian one. Where there are more true directions than rows, the rows are matched to as many
    of them. |cosine| hides signs: look at `cosines` where they matter.

    Raises:
        InvalidArgument: a direction of length 0 or not finite, or other widths.

    Examples:
        >>> match_truth(torch.eye(3), torch.eye(3)).mcc
        1.0
    """
    if rows.shape[1] != truth.shape[1]:
        raise InvalidArgument(f"decoder rows are {rows.shape[1]} wide and true directions {truth.shape[1]}")
    generator = torch.Generator().manual_seed(seed)
    floors = []
    for _ in range(FLOOR_DRAWS):
        random = torch.randn(rows.shape, generator=generator)
        floors.append(float(_match(random, truth)[1].abs().mean()))
    latents, cosines = _match(rows, truth)
    return Matching(float(cosines.abs().mean()), sum(floors) / len(floors), latents, cosines)


def stability(dictionaries: Sequence[Float[Tensor, "latent d_model"]]) -> Float[Tensor, "n"]:
    """The mean |cosine| of Hungarian-matched rows, for each pair of dictionaries trained from other seeds.

    Raises:
        InvalidArgument: fewer than two dictionaries.

    Examples:
        >>> stability([torch.eye(3), torch.eye(3).flip(0)]).tolist()
        [1.0]
    """
    if len(dictionaries) < 2:
        raise InvalidArgument(f"stability compares dictionaries of several seeds; {len(dictionaries)} were given")
    pairs = combinations(dictionaries, 2)
    return torch.stack([_match(a, b)[1].abs().mean() for a, b in pairs])


def nearest_rows(rows: Float[Tensor, "latent d_model"]) -> Float[Tensor, "latent"]:
    """The largest cosine of each decoder row with another one: near 1 where two latents say the same.

    Raises:
        InvalidArgument: fewer than two rows, or one of length 0 or not finite.

    Examples:
        >>> nearest_rows(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])).tolist()
        [1.0, 1.0, 0.0]
    """
    if len(rows) < 2:
        raise InvalidArgument(f"{len(rows)} rows were given: the nearest other one needs at least two")
    unit = _unit(rows)
    found = [(part @ unit.T) for part in unit.split(1024)]
    cosines = torch.cat([c.diagonal_scatter(c.new_full((len(c),), -1.0), i * 1024) for i, c in enumerate(found)])
    return cosines.amax(1)


def _match(rows: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """For each matched true direction, in order, the row and its cosine."""
    from scipy.optimize import linear_sum_assignment

    a, b = _unit(truth.detach()), _unit(rows.detach())
    dtype = torch.promote_types(a.dtype, b.dtype)
    cosines = a.to(dtype) @ b.to(dtype).T
    left, right = linear_sum_assignment(-cosines.abs().numpy())
    return torch.as_tensor(right), cosines[left, right]


def _unit(rows: Tensor) -> Tensor:
    rows = wide(rows)
    norms = rows.norm(dim=1, keepdim=True)
    if len(bad := (~((norms > 0) & norms.isfinite())).nonzero()):
        row = int(bad[0, 0])
        raise InvalidArgument(f"row {row} has length {norms[row].item():g}: it has no direction")
    return (rows / norms).cpu()
