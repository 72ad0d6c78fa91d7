"""A canvas: pictures as numbers that are optimised, by pixel or by frequency, in the colours of real pictures."""

from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Images
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise

STD = 0.01
QUIETER = 4.0


@final
@dataclass(frozen=True, eq=False)
class Colours:
    """The colours of some pictures.

    Attributes:
        mean: over pixels, as a logit.
        root: R with R Rᵀ the covariance of a pixel's colours, over its largest column's length.
    """

    mean: Float[Tensor, "channel"]
    root: Float[Tensor, "channel channel"]

    __repr__ = summarise


def measure_colours(pictures: Images) -> Colours:
    """Return the colours of pictures: those of ImageNet are wrong for others.

    Examples:
        >>> grey = torch.rand(1, 1, 8, 8).expand(1, 3, 8, 8)
        >>> measure_colours(Images(grey)).root.shape
        torch.Size([3, 3])
    """
    pixels = pictures.pixels.movedim(1, 0).flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(pixels))
    root = vectors * values.clamp_min(0.0).sqrt()
    root = root / root.norm(dim=0).max().clamp_min(1e-6)
    return Colours(pixels.mean(1).clamp(0.01, 0.99).logit().float(), root.float())


@final
class Canvas:
    """Pictures as parameters.

    By frequency: `irfft2(c_f / max(f, 1/max(h, w)))·√(hw) / 4`, so that one step moves the large and the small alike
    (Olah, Mordvintsev and Schubert 2017, doi:10.23915/distill.00007). Colours come from those given, and a sigmoid
    brings pixels between 0 and 1; with a `radius` they are `½ + r·u/‖u‖` in place of that.

    Attributes:
        parameters: what is optimised.

    Examples:
        >>> Canvas(2, (8, 8), seed=0).pixels().shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        n: Count,
        size: tuple[int, int],
        *,
        by: Literal["frequency", "pixel"] = "frequency",
        colours: Colours | None = None,
        radius: float | None = None,
        seed: Natural = 0,
    ) -> None:
        if radius is not None and not 0 < radius <= 0.5:
            raise InvalidArgument(f"a radius between 0 and 0.5 keeps pixels between 0 and 1, got {radius}")
        self.size, self.by, self.colours, self.radius = size, by, colours, radius
        random = torch.Generator().manual_seed(seed)
        height, width = size
        shape = (n, 3, height, width // 2 + 1, 2) if by == "frequency" else (n, 3, height, width)
        self.parameters = (STD * torch.randn(shape, generator=random)).requires_grad_()
        down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
        frequency = (down.square() + across.square()).sqrt().clamp_min(1.0 / max(size))
        self._scale = (height * width) ** 0.5 / frequency

    def _raw(self) -> Float[Tensor, "n channel height width"]:
        if self.by == "pixel":
            return self.parameters
        spectrum = torch.view_as_complex(self.parameters) * self._scale
        return torch.fft.irfft2(spectrum, s=self.size) / QUIETER

    def pixels(self) -> Float[Tensor, "n channel height width"]:
        """Return the pictures, from 0 to 1; gradients flow to the parameters."""
        u = self._raw()
        if self.radius is not None:
            return 0.5 + self.radius * u / u.flatten(1).norm(dim=1)[:, None, None, None]
        if self.colours is not None:
            u = torch.einsum("ck,nkhw->nchw", self.colours.root, u) + self.colours.mean[:, None, None]
        return u.sigmoid()
