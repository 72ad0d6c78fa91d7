"""Make pictures that an objective is large for: gradient ascent under small moves, turns and changes of size."""

import math
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hooks import Images, Network
from hooks.border import Count, Natural
from hooks.errors import NotFinite
from hooks.progress import progress_bar
from interp.visualisation.canvas import Canvas, Colours
from interp.visualisation.objective import Objective, alikeness, values_of

RATE = 0.05


@final
@dataclass(frozen=True)
class Moves:
    """How a picture is moved at random before each step, so that nothing rests on single pixels.

    Attributes:
        shift: pixels to each side at most.
        turn: degrees at most.
        size: it is larger or smaller by this share at most.
    """

    shift: float = 4.0
    turn: float = 10.0
    size: float = 0.1

    def apply(
        self, pixels: Float[Tensor, "batch channel height width"], random: torch.Generator
    ) -> Float[Tensor, "batch channel height width"]:
        """Return each picture moved by its own draw; what comes in at the edge continues the picture.

        Examples:
            >>> still = Moves(0.0, 0.0, 0.0)
            >>> x = torch.rand(1, 3, 8, 8)
            >>> bool(torch.equal(still.apply(x, torch.Generator()), x))
            True
        """
        if self.shift == self.turn == self.size == 0:
            return pixels
        n, (height, width) = len(pixels), pixels.shape[2:]
        drawn = 2 * torch.rand(4, n, generator=random) - 1
        angle, grown = math.radians(self.turn) * drawn[0], 1 + self.size * drawn[1]
        cos, sin = angle.cos() / grown, angle.sin() / grown
        x, y = 2 * self.shift * drawn[2] / width, 2 * self.shift * drawn[3] / height
        theta = torch.stack([torch.stack([cos, -sin, x], -1), torch.stack([sin, cos, y], -1)], 1)
        grid = F.affine_grid(theta, [n, 3, height, width], align_corners=False)
        return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


@final
@dataclass(frozen=True, eq=False)
class Visualisation:
    """Pictures that were made for an objective.

    Attributes:
        objective: what it was.
        pictures: as they became.
        values: of the objective, for each, unmoved.
        begun: the same before the first step.
        steps: how many were made.
    """

    objective: Objective
    pictures: Images
    values: Float[Tensor, "n"]
    begun: Float[Tensor, "n"]
    steps: int

    def __repr__(self) -> str:
        best = f"{float(self.begun.max()):.3g} to {float(self.values.max()):.3g}"
        return f"Visualisation({self.objective}: {best} in {self.steps} steps, {len(self.pictures)} pictures)"


def visualise(
    model: Network,
    objective: Objective,
    *,
    n: Count = 1,
    steps: Count = 256,
    rate: float = RATE,
    moves: Moves = Moves(),  # noqa: B008
    colours: Colours | None = None,
    canvas: Canvas | None = None,
    seed: Natural = 0,
    progress: bool = True,
) -> Visualisation:
    """Return pictures that make an objective large (Olah, Mordvintsev and Schubert 2017, doi:10.23915/distill.00007).

    What maximises a unit is not what it is for: read the result with `compare_with_natural`, which sets it next to
    real pictures, and against the same of a random direction and of an untrained net.

    Args:
        model: a net that reads pictures, with its processor.
        objective: what is to be large.
        n: how many pictures, which begin from other noise.
        steps: of Adam.
        rate: of learning.
        moves: at random before each step.
        colours: of real pictures, by `measure_colours`.
        canvas: what to begin from; by default new noise by frequency, of the size that the model reads.
        seed: of the noise and the moves.
        progress: show a bar.

    Raises:
        NotFinite: the objective became NaN or infinite.

    Cost: a pass forward and one backward for each step.

    Examples:
        ```python
        visualise(load_net("convnet"), channel(conv_pre[2], 5), n=4).pictures
        ```
    """
    size = next(iter(model.grids.values())).size
    canvas = Canvas(n, size, colours=colours, seed=seed) if canvas is None else canvas
    random = torch.Generator().manual_seed(seed)
    stepper = torch.optim.Adam([canvas.parameters], lr=rate)
    frozen = [weight for weight in model.hf.parameters() if weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(False)
    try:
        begun = values_of(model, objective, canvas.pixels().detach())[0]
        for _ in progress_bar(range(steps), desc=str(objective), progress=progress):
            values, acts = values_of(model, objective, moves.apply(canvas.pixels(), random).clamp(0.0, 1.0))
            loss = -values.sum()
            if objective.diversity:
                loss = loss + objective.diversity * alikeness(acts)
            if not bool(loss.isfinite()):
                raise NotFinite(f"{objective} became {float(loss)}: take a smaller rate")
            stepper.zero_grad()
            loss.backward()
            stepper.step()
        pictures = Images(canvas.pixels().detach())
        values = values_of(model, objective, pictures.pixels)[0]
    finally:
        for weight in frozen:
            weight.requires_grad_(True)
    return Visualisation(objective, pictures, values.detach().cpu(), begun.detach().cpu(), steps)
