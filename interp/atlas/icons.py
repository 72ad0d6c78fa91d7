"""Icons of an atlas: for each cell a picture that is made to be as its mean is."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hooks import Images, Network
from hooks.border import Count, Natural, Positive
from hooks.errors import InvalidArgument
from hooks.fingerprint import is_of
from hooks.grid import Grid
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.atlas.activation_atlas import Atlas
from interp.atlas.space import Space
from interp.visualisation import Colours, Moves, Objective, visualise
from interp.visualisation.objective import values_of

FLOOR = 0.1


@final
@dataclass(frozen=True, eq=False)
class Icons:
    """A picture for each cell.

    Attributes:
        pictures: one for each cell, in order.
        cosine: of each picture's activation, less the mean of the sample, with its cell's: 1 where it is as wanted.
        begun: the same before the first step.
    """

    pictures: Images
    cosine: Float[Tensor, "cell"]
    begun: Float[Tensor, "cell"]

    __repr__ = summarise


def draw_icons(
    model: Network,
    atlas: Atlas,
    *,
    steps: Count = 96,
    rate: Positive = 0.05,
    power: Positive = 2.0,
    whiten: bool = False,
    moves: Moves = Moves(2.0, 5.0, 0.05),  # noqa: B008
    colours: Colours | None = None,
    seed: Natural = 0,
    batch_size: Count = 64,
    progress: bool = True,
) -> Icons:
    """Return a picture for each cell, by ascent on `mean_p (a_p − μ)·v · max(0.1, cos(a_p − μ, m))^power / ‖v‖`.

    `m` is the cell's mean less μ, that of the sample; `v = m`, or with `whiten` `v = Σ⁻¹ m` with the shrunk covariance
    of the sample (Ledoit and Wolf 2004), so that what all activations share counts less. A mean is no activation of
    any picture: look at the real examples next to the icon.

    Args:
        model: whose activations they are.
        atlas: of it.
        steps: of the ascent.
        rate: of learning.
        power: of the cosine: the larger, the less a place counts that is long and unlike the cell.
        whiten: whether v is divided by the covariance.
        moves: how the picture is moved at random before each step.
        colours: of real pictures, by `measure_colours`.
        seed: of the noise and the moves.
        batch_size: icons that are made together.
        progress: show a bar.

    Raises:
        InvalidArgument: an atlas of another site than the model has, or of another model.

    Cost: for each cell a pass forward and one backward for each step: a minute for 200 cells on one core.

    Examples:
        ```python
        draw_icons(load_net("convnet"), atlas, colours=measure_colours(pictures))
        ```
    """
    space, site = atlas.sample.space, atlas.sample.space.site
    if site is None or not is_of(model, space.fingerprint):
        raise InvalidArgument(f"the atlas is of another model or of no site ({site}): give the model it was made of")
    m = atlas.means - space.mean
    v = F.normalize(_whiten(space, m) if whiten else m, dim=-1)
    pixels, cosine, begun = [], [], []
    for cells in progress_bar(torch.arange(len(m)).split(batch_size), desc="icons", progress=progress):

        def score(acts: Tensor, grid: Grid | None, cells: Tensor = cells) -> Tensor:
            rows = acts[:, 0 if grid is None else grid.front :] - space.mean.to(acts)
            dot = torch.einsum("bpd,bd->bp", rows, v[cells].to(acts))
            like = F.cosine_similarity(rows, m[cells].to(acts)[:, None], dim=-1)
            return (dot * like.clamp_min(FLOOR) ** power).mean(1)

        objective = Objective(f"cells {int(cells[0])} to {int(cells[-1])}", site, score)
        made = visualise(
            model,
            objective,
            n=len(cells),
            steps=steps,
            rate=float(rate),
            moves=moves,
            colours=colours,
            seed=seed,
            progress=False,
        )
        still = visualise(
            model, objective, n=len(cells), steps=1, rate=1e-9, colours=colours, seed=seed, progress=False
        )
        pixels.append(made.pictures.pixels)
        cosine.append(_likeness(model, objective, made.pictures, space, m[cells]))
        begun.append(_likeness(model, objective, still.pictures, space, m[cells]))
    return Icons(Images(torch.cat(pixels)), torch.cat(cosine), torch.cat(begun))


@torch.no_grad()
def _likeness(
    model: Network, objective: Objective, pictures: Images, space: Space, m: Float[Tensor, "cell d_model"]
) -> Float[Tensor, "cell"]:
    """The cosine of the mean place of each picture with its cell's mean."""
    acts = values_of(model, objective, pictures.pixels)[1].float().cpu()
    grid = model.grids.get(objective.site)
    front = grid.front if grid is not None and len(grid) == acts.shape[1] else 0
    return F.cosine_similarity(acts[:, front:].mean(1) - space.mean, m, dim=-1)


def _whiten(space: Space, m: Float[Tensor, "cell d_model"]) -> Float[Tensor, "cell d_model"]:
    from sklearn.covariance import ledoit_wolf

    centred = space.rows.double() - space.rows.double().mean(0)
    covariance = torch.from_numpy(ledoit_wolf(centred.numpy(), assume_centered=True)[0])
    return torch.linalg.solve(covariance, m.double().T).T.float()
