"""Cells of a map: squares of a grid, each with the rows in it, their mean, and how much alike they are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.summary import summarise

if TYPE_CHECKING:
    from pandas import DataFrame

MARGIN = 0.1


@final
@dataclass(frozen=True, eq=False)
class Cell:
    """A square of the grid with rows enough in it.

    Attributes:
        row, column: where it is; rows count from the bottom.
        members: the rows in it, those nearest to their mean first.
        dispersion: `1 − ‖mean of unit rows‖`: 0 where all point one way.
        label: the most frequent, or None without labels.
        purity: its share.
    """

    row: int
    column: int
    members: Int[Tensor, "n"]
    dispersion: float
    label: str | None
    purity: float | None

    __repr__ = summarise

    def __len__(self) -> int:
        return len(self.members)


@final
@dataclass(frozen=True, eq=False)
class Cells:
    """A map cut into cells.

    Every row is in a cell, in a square of too few, or outside: `Σ |cell| + sparse + outside = n`.

    Attributes:
        cells: those with rows enough.
        side: squares along each axis.
        low, high: the corners of the grid on the map.
        sparse: rows in squares of too few.
        outside: rows outside the grid.
    """

    cells: tuple[Cell, ...]
    side: int
    low: tuple[float, float]
    high: tuple[float, float]
    sparse: int
    outside: int

    def __repr__(self) -> str:
        held = sum(map(len, self.cells))
        return (
            f"Cells({len(self.cells)} of {self.side} × {self.side}, {held} rows in them, {self.sparse} in squares of "
            f"too few, {self.outside} outside)"
        )

    def to_pandas(self) -> "DataFrame":
        """A row per cell: where it is, how many rows are in it, dispersion, label and purity."""
        from pandas import DataFrame

        rows = [(cell.row, cell.column, len(cell), cell.dispersion, cell.label, cell.purity) for cell in self.cells]
        return DataFrame(rows, columns=["row", "column", "n", "dispersion", "label", "purity"])

    def centre(self, number: int) -> tuple[float, float]:
        """Where the middle of a cell is on the map."""
        cell, (x0, y0), (x1, y1) = self.cells[number], self.low, self.high
        return x0 + (cell.column + 0.5) * (x1 - x0) / self.side, y0 + (cell.row + 0.5) * (y1 - y0) / self.side


def cut_cells(
    xy: Float[Tensor, "n 2"],
    unit: Float[Tensor, "n d_model"],
    labels: Sequence[str] | None = None,
    *,
    side: Count = 20,
    least: Count = 5,
) -> Cells:
    """Return the cells of a map: half-open squares over the 1st to 99th percentile of each axis and a tenth more.

    Rows outside are left out, not moved to the edge, where unlike ones would be averaged.

    Args:
        xy: where the rows are.
        unit: the rows, centred and of length 1.
        labels: of the rows.
        side: squares along each axis.
        least: rows that a cell has at least.

    Raises:
        InvalidArgument: no square has that many rows.

    Examples:
        >>> xy = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 1.0], [0.9, 1.0]])
        >>> cut_cells(xy, torch.eye(4), side=2, least=2)
        Cells(2 of 2 × 2, 4 rows in them, 0 in squares of too few, 0 outside)
    """
    low, high = torch.quantile(xy, 0.01, dim=0), torch.quantile(xy, 0.99, dim=0)
    room = MARGIN * (high - low).clamp_min(1e-6)
    low, high = low - room, high + room
    at = ((xy - low) / (high - low) * side).floor().long()
    inside = ((at >= 0) & (at < side)).all(1)
    square = torch.where(inside, at[:, 1] * side + at[:, 0], -1)
    counts = torch.bincount(square[inside], minlength=side * side)
    found = [_cell(square, number, unit, labels, side) for number in (counts >= least).nonzero().flatten().tolist()]
    if not found:
        raise InvalidArgument(f"no square of {side} × {side} has {least} of the {len(xy)} rows: give fewer squares")
    held, ends = sum(map(len, found)), [(float(x), float(y)) for x, y in (low, high)]
    return Cells(tuple(found), side, ends[0], ends[1], int(inside.sum()) - held, int((~inside).sum()))


def _cell(
    square: Int[Tensor, "n"], number: int, unit: Float[Tensor, "n d_model"], labels: Sequence[str] | None, side: int
) -> Cell:
    members = (square == number).nonzero().flatten()
    mean = unit[members].mean(0)
    members = members[(unit[members] @ mean).argsort(descending=True, stable=True)]
    label, n = None, 0
    if labels is not None:
        label, n = Counter([str(labels[i]) for i in members.tolist()]).most_common(1)[0]
    purity = None if label is None else n / len(members)
    return Cell(number // side, number % side, members, float(1 - mean.norm()), label, purity)
