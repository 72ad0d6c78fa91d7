"""The kernels of a convolution as pictures: how colourful each is, and which way its stripes run."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import Network
from hooks.errors import InvalidArgument
from hooks.site import conv_pre
from hooks.summary import summarise

if TYPE_CHECKING:
    from pandas import DataFrame


@final
@dataclass(frozen=True, eq=False)
class Kernels:
    """Kernels of a first convolution.

    Attributes:
        weights: of each.
        colourfulness: `‖w − its mean over colours‖ / ‖w‖`: 0 of a grey kernel.
        orientation: the direction of its stripes in degrees from the horizontal, in [0, 180).
        oriented: how much of its power is in that direction: 0 of a blob, 1 of a grating.
        frequency: of its strongest wave, in cycles for each pixel.
    """

    weights: Float[Tensor, "n channel height width"]
    colourfulness: Float[Tensor, "n"]
    orientation: Float[Tensor, "n"]
    oriented: Float[Tensor, "n"]
    frequency: Float[Tensor, "n"]

    __repr__ = summarise

    def to_pandas(self) -> "DataFrame":
        """One row for each kernel.

        Examples:
            ```python
            read_kernels(net).to_pandas()
            ```
        """
        import pandas

        columns = ("colourfulness", "orientation", "oriented", "frequency")
        return pandas.DataFrame({name: getattr(self, name).tolist() for name in columns})

    def pictures(self) -> Float[Tensor, "n channel height width"]:
        """Each kernel as a picture: 0 is grey, and its largest weight black or white."""
        return 0.5 + 0.5 * self.weights / self.weights.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-9)


def read_kernels(model: Network) -> Kernels:
    """Return the kernels of the convolution that reads the picture.

    The orientation is that of the mean of `e^{2iθ}` over the power spectrum, θ the angle of a wave; stripes run across
    the wave.

    Raises:
        InvalidArgument: the model has no convolution that reads colours.

    Examples:
        ```python
        read_kernels(load_net("convnet")).orientation
        ```
    """
    module = model.tap(conv_pre[0]).module if conv_pre[0] in model.taps else None
    if not isinstance(module, nn.Conv2d) or module.in_channels != 3:
        raise InvalidArgument(f"{model.name} has no first convolution that reads three colours")
    return measure_kernels(next(p for p in module.parameters() if p.ndim == 4).detach())


def measure_kernels(weights: Float[Tensor, "n channel height width"]) -> Kernels:
    """Return what kernels look for.

    Examples:
        >>> grey = torch.ones(1, 3, 5, 5)
        >>> float(measure_kernels(grey).colourfulness)
        0.0
    """
    w = weights.float()
    grey = w.mean(1, keepdim=True)
    colourfulness = (w - grey).flatten(1).norm(dim=1) / w.flatten(1).norm(dim=1).clamp_min(1e-12)
    size = 32
    centred = w - w.mean((2, 3), keepdim=True)
    power = torch.fft.fft2(centred, s=(size, size)).abs().square().sum(1)
    down, across = torch.fft.fftfreq(size)[:, None], torch.fft.fftfreq(size)
    angle, frequency = torch.atan2(down, across.expand(size, size)), (down.square() + across.square()).sqrt()
    total = power.sum((1, 2)).clamp_min(1e-12)
    wave = torch.complex((power * (2 * angle).cos()).sum((1, 2)), (power * (2 * angle).sin()).sum((1, 2)))
    stripes = (wave.angle() / 2 * 180 / math.pi + 90) % 180
    strongest = frequency.flatten()[power.flatten(1).argmax(1)]
    return Kernels(w, colourfulness, stripes, wave.abs() / total, strongest)
