"""Measure a net on the held-out pictures, next to what needs no net: the nearest picture and the nearest histogram."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from interp.common.statistics import Estimate, share
from interp.postcard.answers import image_vectors as image_vectors_of
from interp.postcard.answers import is_right, text_vectors
from interp.postcard.captions import WORDS
from interp.postcard.draw import draw
from interp.postcard.nets import Net, as_input, clip_of
from interp.postcard.scene import FACTORS, LANDMARKS, Scene
from interp.postcard.splits import SPURIOUS, scenes, unseen_combinations

if TYPE_CHECKING:
    from transformers import CLIPModel

BINS = 4
BLOCK = 500


@dataclass(frozen=True)
class Figures:
    """What a net does on pictures it was not trained on.

    Attributes:
        accuracy: share of test pictures whose landmark it names first.
        by_group: the same by time, weather and distance.
        unseen: on the combinations of landmark, time and weather that were never trained on.
        spurious: of the Golden Gate Bridge in fog, of it elsewhere, of others in fog and elsewhere.
        factors: of a CLIP, share of pictures whose time and weather it finds among sentences that name the landmark.
    """

    accuracy: Estimate
    by_group: Mapping[str, Estimate]
    unseen: Estimate
    spurious: Mapping[str, Estimate]
    factors: Mapping[str, Estimate]


def measure(net: Net, n: int = 4000) -> Figures:
    """Measure a net on `n` test pictures, and on a quarter as many for each thing that is planted.

    Cost: some seconds a thousand.
    """
    shown = scenes("test", n)
    pixels = draw(shown).pixels
    right = is_right(net, pixels, [s.landmark for s in shown])
    groups = {
        value: share(right[torch.tensor([getattr(s, factor) == value for s in shown])])
        for factor in ("time", "weather", "distance")
        for value in FACTORS[factor]
    }
    unseen = unseen_combinations(n // 4)
    clip = clip_of(net)
    factors = {} if clip is None else _factors(clip, shown, pixels)
    return Figures(share(right), groups, _of(net, unseen), _spurious(net, n // 4), factors)


def _of(net: Net, shown: Sequence[Scene]) -> Estimate:
    return share(is_right(net, draw(shown).pixels, [scene.landmark for scene in shown]))


def _spurious(net: Net, n: int) -> dict[str, Estimate]:
    """Each of the four groups of the planted pair, on the same scenes but for what the group says."""
    bridge, fog, _ = SPURIOUS
    drawn = scenes("test", n, start=600_000)
    other = [s if s.landmark != bridge else s.but(landmark="Brooklyn Bridge", sign=None) for s in drawn]
    found = {}
    for name, part in ((bridge, [s.but(landmark=bridge, sign=None) for s in drawn]), ("others", other)):
        found[f"{name}, in fog"] = _of(net, [s.but(weather=fog) for s in part])
        found[f"{name}, in clear air"] = _of(net, [s.but(weather="clear") for s in part])
    return found


@torch.no_grad()
def _factors(
    clip: "CLIPModel", shown: Sequence[Scene], pixels: UInt8[np.ndarray, "batch 3 height width"]
) -> dict[str, Estimate]:
    """Of two factors, whether the sentence with the true value is the nearest of those that differ in it alone."""
    parts = (as_input(pixels[i : i + BLOCK]).to(clip.device) for i in range(0, len(pixels), BLOCK))
    images = torch.cat([image_vectors_of(clip, part) for part in parts])
    found = {}
    for factor in ("time", "weather"):
        values = FACTORS[factor]
        texts = [f"{name} {WORDS['english'][factor][value]}" for name in LANDMARKS for value in values]
        vectors = text_vectors(clip, texts).view(len(LANDMARKS), len(values), -1)
        own = vectors[[LANDMARKS.index(s.landmark) for s in shown]]
        said = torch.einsum("nd,nvd->nv", images, own).argmax(-1).cpu()
        found[factor] = share(said == torch.tensor([values.index(getattr(s, factor)) for s in shown]))
    return found


def nearest_neighbour(n: int = 1000, n_known: int = 4000) -> dict[str, Estimate]:
    """How often the nearest training picture shows the same landmark, by its pixels and by its histogram of colours.

    Cost: seconds.
    """
    known, asked = scenes("train", n_known), scenes("test", n)
    there, here = draw(known).pixels, draw(asked).pixels
    truth = np.array([s.landmark for s in known]), np.array([s.landmark for s in asked])
    known_rows, asked_rows = (torch.from_numpy(p).flatten(1).float() / 255 for p in (there, here))
    return {
        "pixels": _agreement(known_rows, asked_rows, *truth),
        "histogram of colours": _agreement(histograms(there), histograms(here), *truth),
    }


def histograms(pixels: UInt8[np.ndarray, "batch 3 height width"]) -> Float[Tensor, "batch n"]:
    """The square roots of the shares of 4 × 4 × 4 bins of colour, whose distance is Hellinger's.

    Examples:
        >>> float(histograms(np.zeros((1, 3, 2, 2), np.uint8))[0, 0])
        1.0
    """
    red, green, blue = (pixels.astype(np.int64) * BINS // 256).transpose(1, 0, 2, 3)
    bins = torch.from_numpy((red * BINS + green) * BINS + blue).flatten(1)
    counts = torch.zeros(len(bins), BINS**3).scatter_add_(1, bins, torch.ones(bins.shape))
    return (counts / bins.shape[1]).sqrt()


def _agreement(
    known: Float[Tensor, "_ latent"], asked: Float[Tensor, "n latent"], names: np.ndarray, truth: np.ndarray
) -> Estimate:
    nearest = torch.cat([torch.cdist(part, known).argmin(1) for part in asked.split(BLOCK)])
    return share(torch.from_numpy(names[nearest.numpy()] == truth))
