"""Grids: where the places of a site are in the picture, in pixels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import OutOfRange
from hooks.tracing.fields import Span, spans
from hooks.tracing.record import Trace


@final
@dataclass(frozen=True)
class Grid:
    """Where the places of a site are in pictures of one size; pairs are (down, across).

    Pixel i reaches from i to i + 1. The place in row r and column c is around `first + stride · (r, c)`.

    Attributes:
        shape: rows and columns.
        stride: pixels from one place to the next.
        first: the centre of what the first place sees.
        field: how many pixels a place sees, those beyond the picture's edge included; infinite where it sees all.
        size: height and width of the picture.
        front: places before those of the picture, such as a class token.

    Examples:
        >>> Grid((8, 8), (8.0, 8.0), (4.0, 4.0), (8.0, 8.0), (64, 64)).cell(0, 1)
        (0.0, 8.0, 8.0, 16.0)
    """

    shape: tuple[int, int]
    stride: tuple[float, float]
    first: tuple[float, float]
    field: tuple[float, float]
    size: tuple[int, int]
    front: int = 0

    def __len__(self) -> int:
        return self.front + self.shape[0] * self.shape[1]

    def place(self, row: int, column: int) -> int:
        """The number of a place among the places of the site.

        Raises:
            OutOfRange: there is no such row or column.

        Examples:
            >>> Grid((8, 8), (8.0, 8.0), (4.0, 4.0), (8.0, 8.0), (64, 64), front=1).place(1, 2)
            11
        """
        for name, asked, there in (("row", row, self.shape[0]), ("column", column, self.shape[1])):
            if not 0 <= asked < there:
                raise OutOfRange(f"{name} {asked} was asked for, and there are {there}: count from 0")
        return self.front + row * self.shape[1] + column

    def cell(self, row: int, column: int) -> tuple[float, float, float, float]:
        """The part of the picture that is nearer to a place than to its neighbours: top, left, bottom, right.

        Raises:
            OutOfRange: there is no such row or column.

        Examples:
            >>> Grid((16, 16), (4.0, 4.0), (0.5, 0.5), (11.0, 11.0), (64, 64)).cell(0, 0)
            (0.0, 0.0, 2.5, 2.5)
        """
        self.place(row, column)
        (top, bottom), (left, right) = (self._edges(axis, i) for axis, i in ((0, row), (1, column)))
        return top, left, bottom, right

    def _edges(self, axis: int, i: int) -> tuple[float, float]:
        centre, half = self.first[axis] + i * self.stride[axis], self.stride[axis] / 2
        return max(0.0, centre - half), min(float(self.size[axis]), centre + half)

    def receptive_field(self, row: int, column: int) -> tuple[range, range]:
        """The rows and columns of pixels that a place sees.

        Raises:
            OutOfRange: there is no such row or column.

        Examples:
            >>> Grid((16, 16), (4.0, 4.0), (0.5, 0.5), (11.0, 11.0), (64, 64)).receptive_field(0, 2)
            (range(0, 6), range(3, 14))
        """
        self.place(row, column)
        seen = []
        for axis, i in ((0, row), (1, column)):
            low, size = self.first[axis] + i * self.stride[axis] - self.field[axis] / 2, self.size[axis]
            seen.append(range(size) if self.field[axis] == inf else range(
                max(0, round(low)), max(0, min(size, round(low + self.field[axis])))))  # fmt: skip
        return seen[0], seen[1]

    def coverage(self, mask: Bool[Tensor, "batch height width"]) -> Float[Tensor, "batch place"]:
        """The share of each place's cell that a mask of pixels covers; 0 at places before the picture's.

        Examples:
            >>> grid = Grid((2, 2), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (4, 4))
            >>> mask = torch.zeros(1, 4, 4, dtype=torch.bool)
            >>> mask[:, :2, :1] = True
            >>> grid.coverage(mask)
            tensor([[0.5000, 0.0000, 0.0000, 0.0000]])
        """
        down, across = (self._overlap(axis).to(mask.device) for axis in (0, 1))
        area = down.sum(1)[:, None] * across.sum(1)
        share = torch.einsum("rh,bhw,cw->brc", down, mask.to(down.dtype), across) / area.clamp_min(1e-9)
        return torch.nn.functional.pad(share.flatten(1), (self.front, 0))

    def _overlap(self, axis: int) -> Float[Tensor, "place pixel"]:
        """How much of each pixel is in each cell, along one axis."""
        edges = torch.tensor([self._edges(axis, i) for i in range(self.shape[axis])])
        pixel = torch.arange(self.size[axis], dtype=edges.dtype)
        low, high = edges[:, :1], edges[:, 1:]
        return (torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)).clamp_min(0.0)


def grids(trace: Trace, picture: int) -> Iterator[tuple[int, Grid]]:
    """Yield each value of a pass that has places in the picture, with its grid.

    Maps [batch channel row column] are followed from the picture through convolutions and pools; what sees all of it,
    or is made in some other way, has cells that divide the picture evenly. A sequence [batch pos d] has the grid of the
    last map with as many places, less at most 8 before them.

    Args:
        trace: a pass over pictures.
        picture: the value that is the picture.

    Examples:
        ```python
        dict(grids(trace, trace.calls[0].inputs[0]))
        ```
    """
    size = (int(trace.tensor(picture).shape[2]), int(trace.tensor(picture).shape[3]))
    found, maps = spans(trace, picture), dict[int, Grid]()
    for value in sorted({one for call in trace.calls for one in (*call.inputs.values(), *call.outputs.values())}):
        tensor = trace.tensor(value)
        if not tensor.is_floating_point():
            continue
        if tensor.ndim == 4 and tensor.shape[0] == trace.tensor(picture).shape[0]:
            grid = _of_map((int(tensor.shape[2]), int(tensor.shape[3])), size, found.get(value))
            maps[len(grid)] = grid
            yield value, grid
        elif tensor.ndim == 3:
            n = int(tensor.shape[1])
            front = next((k for k in range(9) if n - k in maps and n - k > 1), None)
            if front is not None:
                grid = maps[n - front]
                yield value, Grid(grid.shape, grid.stride, grid.first, (inf, inf), size, front)


def _of_map(shape: tuple[int, int], size: tuple[int, int], span: tuple[Span, Span] | None) -> Grid:
    even = tuple(size[i] / shape[i] for i in (0, 1))
    if span is None:
        return Grid(shape, (even[0], even[1]), (even[0] / 2, even[1] / 2), (inf, inf), size)
    first = tuple((one.low + one.high) / 2 for one in span)
    field = tuple(one.high - one.low for one in span)
    return Grid(shape, (span[0].stride, span[1].stride), (first[0], first[1]), (field[0], field[1]), size)


def as_json(grid: Grid) -> dict[str, Any]:
    """A grid as what a JSON file holds; an infinite field is None.

    Examples:
        >>> as_json(Grid((1, 1), (4.0, 4.0), (2.0, 2.0), (inf, inf), (4, 4)))["field"]
        [None, None]
    """
    field = [None if one == inf else one for one in grid.field]
    pairs = {name: [*getattr(grid, name)] for name in ("shape", "stride", "first", "size")}
    return {**pairs, "field": field, "front": grid.front}


def from_json(said: Mapping[str, Any]) -> Grid:
    """The grid that `as_json` said.

    Examples:
        >>> grid = Grid((1, 1), (4.0, 4.0), (2.0, 2.0), (inf, inf), (4, 4))
        >>> from_json(as_json(grid)) == grid
        True
    """
    field = [inf if one is None else one for one in said["field"]]
    pairs: dict[str, Any] = {name: tuple(said[name]) for name in ("shape", "stride", "first", "size")}
    return Grid(**pairs, field=(field[0], field[1]), front=said["front"])
