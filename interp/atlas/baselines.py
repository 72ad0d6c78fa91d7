"""What to set next to a space: spaces that need no model, of pixels and of colours, and a query drawn by chance."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hooks import Images
from interp.atlas.space import Space

BINS = 4


def random_query(space: Space, seed: int = 0) -> Float[Tensor, "d_model"]:
    """A point that is no item, drawn from where the items are: how near its neighbours are is what chance gives.

    `μ + Σ_i g_i (x_i − μ) / √n` with `g` normal, which has the mean and the covariance of the rows.

    Examples:
        >>> float(random_query(Space(torch.tensor([[0.0, 3.0], [1.0, 3.0]]), ("a", "b")))[1])
        3.0
    """
    rows = space.rows.float().cpu()
    drawn = torch.randn(len(rows), generator=torch.Generator().manual_seed(seed))
    return (rows.mean(0) + drawn @ (rows - rows.mean(0)) / len(rows) ** 0.5).to(space.rows.device)


def pixel_space(pictures: Images, names: Sequence[str], *, blur: int = 1) -> Space:
    """The space of pixels; blurred, each is the mean of `blur` × `blur` of them.

    Examples:
        >>> pixel_space(Images(torch.rand(2, 3, 8, 8)), ("a", "b"), blur=4).rows.shape
        torch.Size([2, 12])
    """
    return Space(F.avg_pool2d(pictures.pixels, blur).flatten(1), tuple(names))


def histogram_space(pictures: Images, names: Sequence[str]) -> Space:
    """The space of square roots of the shares of 4 × 4 × 4 bins of colour, whose distance is Hellinger's.

    Examples:
        >>> histogram_space(Images(torch.rand(2, 3, 8, 8)), ("a", "b")).rows.square().sum(1).round(decimals=4)
        tensor([1., 1.])
    """
    return Space(histograms(pictures.pixels), tuple(names), "euclid")


def histograms(pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch n"]:
    """The square roots of the shares of the bins.

    Examples:
        >>> float(histograms(torch.zeros(1, 3, 2, 2))[0, 0])
        1.0
    """
    red, green, blue = (pixels * BINS).long().clamp(max=BINS - 1).unbind(1)
    bins = ((red * BINS + green) * BINS + blue).flatten(1)
    counts = torch.zeros(len(bins), BINS**3).scatter_add_(1, bins, torch.ones(bins.shape))
    return (counts / bins.shape[1]).sqrt()
