"""Features followed over checkpoints: dictionaries matched one to the next; born, kept, split, gone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class FeatureHistory:
    """What becomes of features from each checkpoint to the next.

    Attributes:
        steps: of the checkpoints.
        kept: for each but the last, pairs of a feature and the one it is matched to.
        born: for each but the first, features that nothing before is like.
        gone: for each but the last, features that nothing after is like.
        split: for each but the last, features that two or more after are like.
        chance: for each but the last, the share kept when the later dictionary is turned at random: the control.
    """

    steps: tuple[int, ...]
    kept: tuple[tuple[tuple[int, int], ...], ...]
    born: tuple[tuple[int, ...], ...]
    gone: tuple[tuple[int, ...], ...]
    split: tuple[tuple[int, ...], ...]
    chance: tuple[float, ...]

    __repr__ = summarise

    def to_pandas(self) -> "DataFrame":
        """A row for each pair of checkpoints that follow each other."""
        from pandas import DataFrame

        names = ("kept", "born", "gone", "split")
        rows = [
            {"from": a, "to": b, **{name: len(getattr(self, name)[i]) for name in names}, "chance": self.chance[i]}
            for i, (a, b) in enumerate(zip(self.steps, self.steps[1:], strict=False))
        ]
        return DataFrame(rows)


def follow_features(
    dictionaries: Mapping[int, Float[Tensor, "latent d_model"]], *, alike: float = 0.7, seed: Natural = 0
) -> FeatureHistory:
    """Follow the directions of dictionaries, such as decoder rows, over checkpoints.

    From each to the next they are matched one to one so that the sum of cosines is the largest; a pair is kept at a
    cosine of `alike` or more. A feature is gone if no later one is so much like it, born if no earlier one is, and
    split if two or more later ones are.

    Args:
        dictionaries: by step; all in one space, so from one run.
        alike: the cosine above which two features are one.
        seed: of the control.

    Raises:
        InvalidArgument: fewer than two dictionaries, other widths, or a direction of length 0.

    Cost: a Hungarian matching for each step: seconds for thousands of latents.

    Examples:
        >>> follow_features({1: torch.eye(3), 2: torch.eye(3)[:2]}).gone
        ((2,),)
    """
    steps = sorted(dictionaries)
    widths = {dictionaries[s].shape[-1] for s in steps}
    if len(steps) < 2 or len(widths) != 1 or any(bool((dictionaries[s].norm(dim=1) == 0).any()) for s in steps):
        raise InvalidArgument(
            f"dictionaries of {len(steps)} steps and widths {sorted(widths)}: give two or more of one width, without "
            "directions of length 0"
        )
    random = torch.randn(*[widths.pop()] * 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turn = torch.linalg.qr(random).Q
    unit = [torch.nn.functional.normalize(dictionaries[s].double(), dim=1) for s in steps]
    kept, born, gone, split, chance = [], [], [], [], []
    for one, two in zip(unit, unit[1:], strict=False):
        near = one @ two.T >= alike
        kept.append(_match(one @ two.T, alike))
        born.append(_where(~near.any(0)))
        gone.append(_where(~near.any(1)))
        split.append(_where(near.sum(1) > 1))
        chance.append(len(_match(one @ (two @ turn).T, alike)) / len(one))
    return FeatureHistory(tuple(steps), tuple(kept), tuple(born), tuple(gone), tuple(split), tuple(chance))


def _match(cosines: Float[Tensor, "latent _"], alike: float) -> tuple[tuple[int, int], ...]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-cosines.numpy())
    return tuple((int(i), int(j)) for i, j in zip(rows, columns, strict=True) if float(cosines[i, j]) >= alike)


def _where(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero()[:, 0].tolist())
