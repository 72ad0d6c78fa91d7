"""Processors: how a model reads pictures: their size, and the scaling of their colours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.images import Images, Pictures, Scaling, each_picture

_MODES: Mapping[int, Literal["nearest", "bilinear", "bicubic"]] = {0: "nearest", 2: "bilinear", 3: "bicubic"}


@final
@dataclass(frozen=True)
class Processor:
    """How pictures become what a model is given: resized, cut, and `(pixel − mean) / std`.

    Attributes:
        size: height and width that pictures are resized to; a whole number is the shorter edge; None leaves them.
        crop: height and width that are cut from the middle after that; None cuts nothing.
        mean, std: of the scaling, for each channel, on pixels from 0 to 1.
        mode: how pixels are interpolated.

    Examples:
        >>> reads = Processor(size=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        >>> pictures = reads.read(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
        >>> pictures.size, float(reads.scaling().apply(pictures.pixels).max())
        ((4, 4), 2.0)
    """

    size: tuple[int, int] | int | None = None
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    mode: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    def read(self, given: Pictures) -> Images:
        """Return pictures of whatever kind as a batch of one size.

        Raises:
            InvalidArgument: pictures of several sizes where the processor gives them none, or no pictures.

        Examples:
            ```python
            model.processor.read(["bridge.png", "tower.jpg"])
            ```
        """
        if isinstance(given, Images):
            return given if self._fits(given.size) else self._resize(given)
        names = [given] if isinstance(given, str | Path) else given if isinstance(given, list | tuple) else []
        pixels = [self._resize_pixels(one[None]) for one in each_picture(given)]
        sizes = sorted({tuple(one.shape[2:]) for one in pixels})
        if len(sizes) > 1:
            raise InvalidArgument(
                f"pictures of one batch have one size, got {sizes[0]} and {sizes[-1]}: give the processor a size"
            )
        named = bool(names) and all(isinstance(one, str | Path) for one in names)
        return Images(torch.cat(pixels), names=tuple(map(str, names)) if named else None)

    def _fits(self, size: tuple[int, int]) -> bool:
        if self.crop is not None:
            return size == self.crop
        return self.size is None or size == self.size or min(size) == self.size

    def _resize(self, given: Images) -> Images:
        masks = {name: self._resize_pixels(mask[:, None].float())[:, 0] >= 0.5 for name, mask in given.masks.items()}
        return replace(given, pixels=self._resize_pixels(given.pixels), masks=masks)

    def _resize_pixels(
        self, pixels: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel row column"]:
        height, width = pixels.shape[2:]
        size = self.size
        if isinstance(size, int):
            short = min(height, width)
            size = (int(size * height / short), int(size * width / short))
        if size is not None and size != (height, width):
            smooth = {} if self.mode == "nearest" else {"antialias": True, "align_corners": False}
            pixels = F.interpolate(pixels, size=size, mode=self.mode, **smooth).clamp(0.0, 1.0)
        if self.crop is None:
            return pixels
        top, left = ((pixels.shape[2 + axis] - self.crop[axis]) // 2 for axis in (0, 1))
        if min(top, left) < 0:
            raise InvalidArgument(
                f"{self.crop} cannot be cut from pictures of {tuple(pixels.shape[2:])}: give a larger size"
            )
        return pixels[:, :, top : top + self.crop[0], left : left + self.crop[1]]

    def scaling(self, slot: int | str = 0) -> Scaling:
        """How the colours are scaled, for the argument of this place or name.

        Examples:
            >>> Processor(mean=(0.5,)).scaling("pixel_values").slot
            'pixel_values'
        """
        return Scaling(self.mean, self.std, slot)


def processor_of(said: Mapping[str, Any]) -> Processor:
    """Return the processor that a `preprocessor_config.json` describes.

    Raises:
        InvalidArgument: a kind of resizing that is not known.

    Examples:
        >>> processor_of({"size": {"shortest_edge": 8}, "crop_size": 6, "image_mean": [0.5] * 3}).crop
        (6, 6)
    """
    size = _size(said.get("size")) if said.get("do_resize", True) else None
    crop = _size(said.get("crop_size")) if said.get("do_center_crop", "crop_size" in said) else None
    crop = (crop, crop) if isinstance(crop, int) else crop
    if (number := said.get("resample", 2)) not in _MODES:
        raise InvalidArgument(f"resample {number} is not known: 0 is nearest, 2 bilinear, 3 bicubic")
    scaled = said.get("do_normalize", True) and "image_mean" in said
    mean = tuple(said["image_mean"]) if scaled else (0.0, 0.0, 0.0)
    std = tuple(said.get("image_std", (1.0, 1.0, 1.0))) if scaled else (1.0, 1.0, 1.0)
    return Processor(size, crop, mean, std, _MODES[number])


def _size(said: Any) -> tuple[int, int] | int | None:
    if isinstance(said, Mapping):
        return said["shortest_edge"] if "shortest_edge" in said else (said["height"], said["width"])
    return tuple(said) if isinstance(said, list | tuple) else said


def read_processor(folder: str | Path, revision: str | None = None) -> Processor | None:
    """Return the processor that is next to a model's weights, in a folder or on the hub; None without one.

    Examples:
        ```python
        read_processor("google/vit-base-patch16-224")
        ```
    """
    from transformers.utils import cached_file

    given = {} if revision is None else {"revision": revision}
    name = "preprocessor_config.json"
    file = cached_file(str(folder), name, _raise_exceptions_for_missing_entries=False, **given)
    return None if file is None else processor_of(json.loads(Path(file).read_text(encoding="utf-8")))
