"""Images: a batch of pictures as they are seen, before a model's own scaling of their colours."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument, InvalidType, MissingExtra, MissingFile, OutOfRange
from hooks.summary import summarise

Pictures: TypeAlias = Any
"""A picture or several: files, PIL pictures, arrays, tensors of whole numbers, or cells of a `datasets.Image`."""


@final
@dataclass(frozen=True)
class Scaling:
    """How a model is given pictures: `(pixel − mean) / std`, as the argument of this place or name.

    Attributes:
        mean, std: for each channel, of pixels from 0 to 1.
        slot: the argument.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    slot: int | str = 0

    __repr__ = summarise

    def apply(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Return scaled pixels; gradients flow through.

        Examples:
            >>> float(Scaling((0.5,), (0.25,)).apply(torch.ones(1, 1, 2, 2)).max())
            2.0
        """
        mean, std = (pixels.new_tensor(one)[:, None, None] for one in (self.mean, self.std))
        return (pixels - mean) / std


@final
@dataclass(frozen=True, eq=False)
class Images:
    """A batch of pictures of one size.

    Attributes:
        pixels: from 0 to 1, before any normalisation.
        masks: which pixels show what, by name.
        names: of the pictures, such as their files.
        scaling: how the model that reads them is given them; None where no model does yet.

    Examples:
        >>> pictures = Images(torch.zeros(3, 3, 8, 8))
        >>> len(pictures), pictures.size, len(pictures[:2])
        (3, (8, 8), 2)
    """

    pixels: Float[Tensor, "batch channel height width"]
    masks: Mapping[str, Bool[Tensor, "batch height width"]] = field(default_factory=lambda: MappingProxyType({}))
    names: tuple[str, ...] | None = None
    scaling: Scaling | None = None

    __repr__ = summarise

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if len(shape) != 4 or not self.pixels.is_floating_point() or 0 in shape:
            raise InvalidArgument(
                f"pixels are numbers from 0 to 1 of [batch channel height width], got {self.pixels.dtype} {shape}"
            )
        low, high = (float(end) for end in torch.aminmax(self.pixels.detach()))
        if not 0 <= low <= high <= 1:  # NaN among them makes both ends NaN
            raise InvalidArgument(
                f"pixels are numbers from 0 to 1, got {low:g} to {high:g}: divide by "
                "255, or pass a tensor that is normalised already as it is"
            )
        for name, mask in self.masks.items():
            if mask.dtype != torch.bool or tuple(mask.shape) != (shape[0], *shape[2:]):
                raise InvalidArgument(
                    f"the mask {name!r} must be bool of {[shape[0], *shape[2:]]}, got {mask.dtype} {list(mask.shape)}"
                )

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def __getitem__(self, rows: int | slice) -> "Images":
        """Take some pictures of the batch.

        Raises:
            OutOfRange: a picture that is not there.

        Examples:
            >>> len(Images(torch.zeros(3, 3, 8, 8))[1])
            1
        """
        if isinstance(rows, int):
            if not -len(self) <= rows < len(self):
                raise OutOfRange(f"picture {rows} was asked for, and there are {len(self)}")
            rows = slice(rows, rows + 1 or None)
        masks = {name: mask[rows] for name, mask in self.masks.items()}
        return replace(
            self, pixels=self.pixels[rows], masks=masks, names=None if self.names is None else self.names[rows]
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[2], self.pixels.shape[3]

    def to(self, device: torch.device) -> "Images":
        """Return the same pictures on a device.

        Examples:
            ```python
            pictures.to(torch.device("cpu"))
            ```
        """
        if all(one.device == device for one in (self.pixels, *self.masks.values())):
            return self
        masks = {name: mask.to(device) for name, mask in self.masks.items()}
        return replace(self, pixels=self.pixels.to(device), masks=masks)

    @property
    def arguments(self) -> Mapping[int | str, Float[Tensor, "batch channel height width"]]:
        """What the model is given, by the place or name of the argument."""
        scaling = self.scaling or Scaling()
        return {scaling.slot: scaling.apply(self.pixels)}


def each_picture(given: Pictures) -> list[Float[Tensor, "channel height width"]]:
    """Return pictures one by one, as numbers from 0 to 1: sizes may differ.

    Args:
        given: a picture or a list of them: a file's name, a PIL picture, an array or tensor of [height width 3],
            [3 height width] or a batch of such (whole numbers from 0 to 255, or numbers from 0 to 1), or a cell of a
            `datasets.Image` column.

    Raises:
        InvalidType: something else.
        InvalidArgument: no pictures, or an array of another shape or range.
        MissingFile: there is no such file.
        MissingExtra: a file is to be read, and Pillow is not installed.

    Examples:
        >>> each_picture(np.zeros((2, 8, 8, 3), np.uint8))[0].shape
        torch.Size([3, 8, 8])
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        if not given:
            raise InvalidArgument("got no pictures: pass a picture or a non-empty list of them")
        return [one for part in given for one in each_picture(part)]
    if isinstance(given, np.ndarray | Tensor):
        return [*_of_array(given)]
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(given, pil.Image):
        return [*_of_array(np.asarray(_rgb(given)))]
    if isinstance(given, str | Path):
        return each_picture(_open_picture(Path(given)))
    if isinstance(given, Mapping) and {"bytes", "path"} & set(given):
        held = given.get("bytes")
        return each_picture(_open_picture(Path(given["path"]) if held is None else BytesIO(held)))
    raise InvalidType(
        f"a picture is a file, a PIL picture, an array or a tensor, got {type(given).__name__}: pass one, or a list"
    )


def is_picture(cell: object) -> bool:
    """Return whether a cell of a data set is a picture, decoded or not.

    Examples:
        >>> is_picture({"bytes": b"", "path": None}), is_picture("a text")
        (True, False)
    """
    pil = sys.modules.get("PIL.Image")
    held = isinstance(cell, Mapping) and set(cell) == {"bytes", "path"}
    return held or (pil is not None and isinstance(cell, pil.Image))


def _open_picture(source: Path | BytesIO) -> Any:
    """A picture of Pillow's, read whole."""
    if isinstance(source, Path) and not source.is_file():
        raise MissingFile(f"there is no picture '{source}': give the name of a file")
    try:
        library = import_module("PIL.Image")
    except ImportError as error:
        raise MissingExtra(
            "a file of a picture is to be read, and Pillow is not installed: pip install 'interp-workbench[pictures]', "
            "or pass arrays"
        ) from error
    try:
        with library.open(source) as picture:
            return picture.convert("RGB")
    except library.UnidentifiedImageError as error:
        shown = f"'{source}'" if isinstance(source, Path) else "a cell of bytes"
        raise InvalidArgument(f"{shown} is not a picture that Pillow reads: give a PNG, JPEG or WebP") from error


def _of_array(given: np.ndarray | Tensor) -> Float[Tensor, "batch channel height width"]:
    array = torch.from_numpy(np.array(given)) if isinstance(given, np.ndarray) else given
    shape = tuple(array.shape)
    array = array[..., None] if array.ndim == 2 else array
    array = array[None] if array.ndim == 3 else array
    last, second = (array.shape[axis] in (1, 3) if array.ndim == 4 else False for axis in (-1, 1))
    if not (last or second) or not array.numel():
        raise InvalidArgument(
            f"a picture is [height width 3] or [3 height width], or a batch of such; got an array of {list(shape)}"
        )
    array = array.movedim(-1, 1) if last and not second else array
    array = array.expand(-1, 3, -1, -1) if array.shape[1] == 1 else array
    if array.dtype == torch.uint8:
        return array.float() / 255
    if not array.is_floating_point() or float(array.min()) < 0 or float(array.max()) > 1:
        raise InvalidArgument(
            f"a picture's numbers are whole from 0 to 255 (uint8) or from 0 to 1, got {array.dtype} from "
            f"{float(array.min()):g} to {float(array.max()):g}"
        )
    return array.float()


def _rgb(picture: Any) -> Any:
    """A PIL picture in three channels."""
    return picture.convert("RGB")
