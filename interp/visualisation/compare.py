"""A visualisation next to real pictures: how large its value is among theirs, and whether it takes their path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Images, Network, Site, capture
from hooks.border import Count
from hooks.errors import InvalidArgument
from interp.visualisation.canvas import Colours
from interp.visualisation.objective import Objective, along, random_direction, values_of
from interp.visualisation.visualise import Moves, Visualisation, visualise

BATCH = 250


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """A visualisation next to real pictures and a control.

    Attributes:
        value: of the best picture that was made.
        greatest: of a real picture.
        quantile: the share of real pictures whose value is below.
        silent: whether no real picture brings the objective above 0.
        best: the numbers of the real pictures with the greatest values.
        path: by site, Spearman's correlation of the made picture's activations with those of the best real ones.
        natural_path: the same among the best real ones themselves.
    """

    value: float
    greatest: float
    quantile: float
    silent: bool
    best: Int[Tensor, "n"]
    path: Mapping[Site, float]
    natural_path: Mapping[Site, float]

    @property
    def path_similarity(self) -> float:
        """The mean over sites of `path` over that of `natural_path`: 1 where it goes the way real pictures go.

        NaN where real pictures have no way in common.
        """
        natural = sum(self.natural_path.values())
        return sum(self.path.values()) / natural if natural > 0 else nan

    def __repr__(self) -> str:
        return (
            f"Comparison(value {self.value:.3g}, greatest real {self.greatest:.3g}, above {self.quantile:.1%} of real "
            f"pictures, path similarity {self.path_similarity:.2f}{', silent' if self.silent else ''})"
        )


def compare_with_natural(
    model: Network, made: Visualisation, natural: Images, sites: Sequence[Site], *, top: Count = 5
) -> Comparison:
    """Return what a visualisation is next to real pictures.

    The path (Geirhos et al. 2023, arXiv:2306.04719): at each site Spearman's correlation of its activations with those
    of the real pictures that the objective is largest for, next to the same among these. A visualisation that a net
    processes unlike any real picture says little of how it processes real ones.

    Args:
        model: the net.
        made: by `visualise` on it.
        natural: real pictures, hundreds at least.
        sites: of the path, from the first to that of the objective.
        top: how many of the best real pictures are compared with.

    Raises:
        InvalidArgument: fewer real pictures than `top`, or fewer than two of them.

    Cost: one forward pass over the real pictures.

    Examples:
        ```python
        compare_with_natural(model, made, draw(scenes("test", 1000)).images(), [conv_pre[0], conv_pre[1], conv_pre[2]])
        ```
    """
    if not 2 <= top <= len(natural):
        raise InvalidArgument(f"top={top} of {len(natural)} real pictures: give at least two, and as many pictures")
    values = natural_values(model, made.objective, natural)
    best = values.topk(top).indices
    mine = int(made.values.argmax())
    real = Images(natural.pixels[best])
    acts = capture(model, real, sites)
    own = capture(model, made.pictures[mine], sites)
    path, among = {}, {}
    for site in sites:
        rows = ranks(acts[site].flatten(1))
        path[site] = float((rows @ ranks(own[site].flatten(1))[0]).mean())
        pairs = rows @ rows.T
        among[site] = float((pairs.sum() - pairs.trace()) / (top * (top - 1)))
    value = float(made.values[mine])
    return Comparison(
        value, float(values.max()), float((values < value).float().mean()), bool(values.max() <= 0), best, path, among
    )


@torch.no_grad()
def natural_values(model: Network, objective: Objective, natural: Images) -> Float[Tensor, "n"]:
    """The objective's value for each real picture."""
    return torch.cat([values_of(model, objective, part)[0].cpu() for part in natural.pixels.split(BATCH)])


def ranks(rows: Float[Tensor, "n _"]) -> Float[Tensor, "n _"]:
    """Ranks, centred and of length 1, equal values sharing their mean rank: products are Spearman's correlations.

    Examples:
        >>> r = ranks(torch.tensor([[1.0, 2.0, 3.0], [10.0, 40.0, 90.0]]))
        >>> round(float(r[0] @ r[1]), 6)
        1.0
    """
    made = torch.empty(rows.shape, dtype=torch.double)
    for i, row in enumerate(rows):
        _, number, counts = row.unique(return_inverse=True, return_counts=True)
        ends = counts.cumsum(0).double()
        made[i] = (ends - (counts.double() - 1) / 2)[number]
    made = made - made.mean(1, keepdim=True)
    return (made / made.norm(dim=1, keepdim=True).clamp_min(1e-12)).float()


def visualise_random(
    model: Network,
    made: Visualisation,
    *,
    seed: int = 0,
    steps: Count | None = None,
    moves: Moves = Moves(),  # noqa: B008
    colours: Colours | None = None,
    progress: bool = True,
) -> Visualisation:
    """Return what the same ascent makes for a direction at random at the same site: the control of a visualisation.

    Give it the moves and colours that the visualisation was made with.

    Args:
        model: the net.
        made: by `visualise` on it.
        seed: of the direction, the noise and the moves.
        steps: of Adam, by default as many as were made.
        moves: at random before each step.
        colours: of real pictures, by `measure_colours`.
        progress: show a bar.

    Cost: that of `visualise`.

    Examples:
        ```python
        visualise_random(model, made, colours=colours)
        ```
    """
    return visualise(
        model,
        along(random_direction(model, made.objective.site, seed)),
        n=len(made.pictures),
        steps=steps or made.steps,
        moves=moves,
        colours=colours,
        seed=seed,
        progress=progress,
    )
