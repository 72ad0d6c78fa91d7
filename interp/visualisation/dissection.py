"""Network dissection: which units of a map are detectors of which concepts, against masks of every pixel."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Images, Network, Site, capture
from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.grid import Grid
from hooks.progress import progress_bar

if TYPE_CHECKING:
    from pandas import DataFrame

DETECTS = 0.04
Encode: TypeAlias = Callable[[Float[Tensor, "n _"]], Float[Tensor, "n _"]]


@final
@dataclass(frozen=True, eq=False)
class Dissection:
    """How units agree with concepts.

    Attributes:
        concepts: their names, in order.
        chosen: for each unit the concept with the greatest IoU on the first half of the pictures.
        iou: of each unit with its chosen concept, on the other half.
        shuffled: the same against the masks of another picture: what the places that concepts are usually in explain.
        constant: for each concept the IoU of a unit that is always on: its share of the pixels.
        best: for each concept the unit with the greatest IoU on the first half.
        best_iou: that unit's IoU with it on the other half.
        best_shuffled: the same against the masks of another picture.
    """

    concepts: tuple[str, ...]
    chosen: Int[Tensor, "n"]
    iou: Float[Tensor, "n"]
    shuffled: Float[Tensor, "n"]
    constant: Float[Tensor, "_"]
    best: Int[Tensor, "_"]
    best_iou: Float[Tensor, "_"]
    best_shuffled: Float[Tensor, "_"]

    @property
    def detectors(self) -> Bool[Tensor, "n"]:
        """Units whose IoU is above 0.04, and above that with the masks of other pictures (Bau et al. 2017)."""
        return (self.iou > DETECTS) & (self.iou > self.shuffled)

    def to_pandas(self) -> "DataFrame":
        """One row for each unit: its concept, the IoU, and that with masks of other pictures and of a unit always on.

        Examples:
            ```python
            dissect(net, pictures, conv_act[4]).to_pandas()
            ```
        """
        import pandas

        chosen = self.chosen.tolist()
        return pandas.DataFrame(
            {
                "concept": [self.concepts[i] for i in chosen],
                "iou": self.iou.tolist(),
                "shuffled": self.shuffled.tolist(),
                "constant": self.constant[self.chosen].tolist(),
                "detector": self.detectors.tolist(),
            }
        )

    def __repr__(self) -> str:
        share = float(self.detectors.float().mean())
        best = int(self.iou.argmax())
        return (
            f"Dissection({share:.0%} of {len(self.iou)} units are detectors; the best, unit {best}, of "
            f"{self.concepts[int(self.chosen[best])]!r} at IoU {float(self.iou[best]):.3f}, "
            f"{float(self.shuffled[best]):.3f} with masks of other pictures)"
        )


def dissect(
    model: Network,
    pictures: Images,
    site: Site,
    concepts: Sequence[str] | None = None,
    *,
    encode: Encode | None = None,
    quantile: float = 0.005,
    batch_size: Count = 100,
    progress: bool = True,
) -> Dissection:
    """Return which units of a site are detectors of which concepts (Bau et al. 2017, arXiv:1704.05796).

    A unit is on where it is above its threshold `T_k: P(a > T_k) = quantile`; `IoU = |on ∧ mask| / |on ∨ mask|` over
    all pixels of all pictures, each pixel having the value of the place whose cell it is in. Thresholds and the
    choice of a concept are made on the first half of the pictures, and the IoU is of the other.

    Args:
        model: a net, trained or not: an untrained one is the control.
        pictures: with masks.
        site: whose units.
        concepts: names of masks; all by default.
        encode: from the units of places to what is dissected in their place, such as `sae.encode`.
        quantile: the share of places at which a unit is on.
        batch_size: of the passes.
        progress: show a bar.

    Raises:
        InvalidArgument: pictures without masks, fewer than four of them, or a site without places in the picture.

    Cost: two forward passes over the pictures.

    Examples:
        ```python
        dissect(load_net("convnet"), draw(scenes("test", 1000)).images(), conv_act[4])
        ```
    """
    names = tuple(concepts if concepts is not None else pictures.masks)
    if not names or len(pictures) < 4:
        raise InvalidArgument(f"{len(names)} concepts in {len(pictures)} pictures: give masks, and at least 4 pictures")
    if missing := [name for name in names if name not in pictures.masks]:
        raise InvalidArgument(f"there are no masks {missing}: the pictures have {sorted(pictures.masks)}")
    grid = model.grids.get(site)
    if grid is None:
        raise InvalidArgument(f"{site} has no places in the picture: take a site of maps, such as conv_act[0]")
    half = len(pictures) // 2
    first, second = pictures[:half], pictures[half : 2 * half]
    read = partial(_acts, model, site=site, batch_size=batch_size, encode=encode, progress=progress)
    seen = torch.cat([acts.flatten(0, 1) for acts in read(first)])
    threshold = seen.kthvalue(max(1, round((1 - quantile) * len(seen))), dim=0).values
    fitted, held = (_iou(read, some, grid, names, threshold) for some in (first, second))
    moved = Images(second.pixels, {name: second.masks[name].roll(1, 0) for name in names})
    other = _iou(read, moved, grid, names, threshold)
    chosen, best = fitted.argmax(1), fitted.argmax(0)
    at, of = torch.arange(len(chosen)), torch.arange(len(names))
    constant = torch.stack([second.masks[name].float().mean() for name in names])
    each = held[at, chosen], other[at, chosen], constant, best, held[best, of], other[best, of]
    return Dissection(names, chosen, *each)


@torch.no_grad()
def _acts(
    model: Network, pictures: Images, site: Site, batch_size: int, encode: Encode | None, *, progress: bool
) -> Iterator[Float[Tensor, "batch pos _"]]:
    """The units of each place of the pictures, or the latents."""
    for start in progress_bar(range(0, len(pictures), batch_size), desc="pictures", progress=progress):
        acts = capture(model, pictures[start : start + batch_size], site)
        x = acts[site][:, model.grids[site].front :].flatten(2).float()
        yield x if encode is None else encode(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _iou(
    read: Callable[[Images], Iterator[Float[Tensor, "batch pos _"]]],
    pictures: Images,
    grid: Grid,
    names: tuple[str, ...],
    threshold: Float[Tensor, "_"],
) -> Float[Tensor, "n _"]:
    """The intersection over the union of each unit and each concept, over all pixels."""
    cell = place_of_pixels(grid)
    both = torch.zeros(len(threshold), len(names), dtype=torch.double)
    on, there = torch.zeros(len(threshold), dtype=torch.double), torch.zeros(len(names), dtype=torch.double)
    start = 0
    for acts in read(pictures):
        mask = torch.stack([pictures.masks[name][start : start + len(acts)] for name in names], 1).flatten(2).float()
        start += len(acts)
        weight = torch.zeros(len(acts), len(names), acts.shape[1])
        weight.scatter_add_(2, cell.expand(mask.shape), mask)  # pixels of the concept in each place's cell
        lit = (acts > threshold).float()
        both += torch.einsum("bpk,bcp->kc", lit, weight).double()
        size = torch.bincount(cell, minlength=acts.shape[1]).float()
        on += torch.einsum("bpk,p->k", lit, size).double()
        there += mask.sum((0, 2)).double()
    return (both / (on[:, None] + there - both).clamp_min(1.0)).float()


def place_of_pixels(grid: Grid) -> Int[Tensor, "pixel"]:
    """For each pixel the number of the place, those before the picture's own aside, in whose cell its middle is.

    Examples:
        >>> place_of_pixels(Grid((2, 2), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (4, 4))).reshape(4, 4)[0]
        tensor([0, 0, 1, 1])
    """
    lines = []
    for axis in (0, 1):
        middle = torch.arange(grid.size[axis]) + 0.5
        number = ((middle - grid.first[axis]) / grid.stride[axis] + 0.5).floor().long()
        lines.append(number.clamp(0, grid.shape[axis] - 1))
    return (lines[0][:, None] * grid.shape[1] + lines[1]).flatten()
