"""Where places are in a picture: cells, what they see and what of them a mask covers, counted pixel by pixel."""

from math import inf

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks import Network, Site, Tokens, load
from hooks.errors import InvalidArgument, OutOfRange
from hooks.grid import Grid, as_json, from_json
from hooks.images import Images
from hooks.position import cls, everywhere, patch, region, special, where

ODD = Grid((3, 2), (4.0, 3.0), (1.5, 2.0), (6.0, 5.0), (11, 7), front=1)
FINE = Grid((5, 6), (1.0, 1.0), (0.5, 0.5), (1.0, 1.0), (5, 6), front=1)
PAIRS = Grid((3, 4), (2.0, 2.0), (1.0, 1.0), (2.0, 2.0), (6, 8))


def cell_by_hand(grid: Grid, row: int, column: int) -> tuple[float, float, float, float]:
    """Half a stride either way of a place's centre, within the picture."""
    down, across = (grid.first[i] + grid.stride[i] * n for i, n in ((0, row), (1, column)))
    top, left = max(down - grid.stride[0] / 2, 0.0), max(across - grid.stride[1] / 2, 0.0)
    return top, left, min(down + grid.stride[0] / 2, grid.size[0]), min(across + grid.stride[1] / 2, grid.size[1])


def coverage_by_hand(grid: Grid, mask: Tensor) -> Tensor:
    """For each place the part of its cell that is in lit pixels, in parts of half a pixel."""
    found = [0.0] * grid.front
    fine = mask.repeat_interleave(2, 0).repeat_interleave(2, 1).double()
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            top, left, bottom, right = (int(2 * one) for one in cell_by_hand(grid, row, column))
            cell = fine[top:bottom, left:right]
            found.append(float(cell.mean()) if cell.numel() else 0.0)
    return torch.tensor(found)


def test_places_are_counted_row_by_row_after_those_before_the_picture() -> None:
    assert len(ODD) == 7 and len(PAIRS) == 12
    numbers = [ODD.place(row, column) for row in range(3) for column in range(2)]
    assert numbers == [1, 2, 3, 4, 5, 6]
    for row, column, said in ((3, 0, "row 3 .* there are 3"), (0, 2, "column 2 .* there are 2"), (-1, 0, "row -1")):
        for ask in (ODD.place, ODD.cell, ODD.receptive_field):
            with pytest.raises(OutOfRange, match=said):
                ask(row, column)


def test_cells_are_half_a_stride_either_way_and_end_with_the_picture() -> None:
    assert ODD.cell(0, 0) == (0.0, 0.5, 3.5, 3.5) and ODD.cell(2, 1) == (7.5, 3.5, 11.0, 6.5)
    for grid in (ODD, FINE, PAIRS):
        for row in range(grid.shape[0]):
            for column in range(grid.shape[1]):
                assert grid.cell(row, column) == cell_by_hand(grid, row, column)


def test_what_a_place_sees_is_a_field_around_its_centre_within_the_picture() -> None:
    assert ODD.receptive_field(0, 0) == (range(0, 4), range(0, 4))  # 1.5 +- 3 and 2 +- 2.5, rounded to even
    assert ODD.receptive_field(1, 1) == (range(2, 8), range(2, 7))
    assert ODD.receptive_field(2, 0) == (range(6, 11), range(0, 4))
    whole = Grid((2, 2), (3.0, 2.0), (1.5, 1.0), (inf, 2.0), (6, 4))
    assert whole.receptive_field(1, 1) == (range(6), range(2, 4))


@pytest.mark.parametrize("grid", [ODD, FINE, PAIRS], ids=["odd", "fine", "pairs"])
def test_coverage_is_the_lit_share_of_each_cell(grid: Grid) -> None:
    masks = torch.rand(3, *grid.size, generator=torch.Generator().manual_seed(0)) < 0.5
    wanted = torch.stack([coverage_by_hand(grid, mask) for mask in masks])
    torch.testing.assert_close(grid.coverage(masks), wanted, atol=1e-6, rtol=0)


def test_a_place_whose_cell_is_outside_of_the_picture_is_covered_by_nothing() -> None:
    beyond = Grid((3, 1), (2.0, 4.0), (-2.0, 2.0), (2.0, 4.0), (4, 4))
    assert beyond.coverage(torch.ones(1, 4, 4, dtype=torch.bool)).tolist() == [[0.0, 1.0, 1.0]]


def test_a_grid_comes_back_from_what_a_file_holds_of_it() -> None:
    for grid in (ODD, PAIRS, Grid((1, 2), (4.0, 2.0), (2.0, 1.0), (inf, 3.0), (4, 4), 2)):
        assert from_json(as_json(grid)) == grid
    assert as_json(Grid((1, 2), (4.0, 2.0), (2.0, 1.0), (inf, 3.0), (4, 4)))["field"] == [None, 3.0]


def places_of(grid: Grid, n: int = 3, images: Images | None = None) -> Tokens:
    """n pictures of which a site has these places."""
    one = torch.zeros(n, 1, dtype=torch.long)
    site = Site.module("it")
    given: dict[int | str, Tensor] | None = {0: torch.zeros(n, 3, *grid.size)} if images is None else None
    tokens = Tokens(one, one == 0, one > 0, inputs=given, images=images, grids={site: grid})
    return tokens.places(len(grid), site)


RECTANGLES = [
    (0, 0, 1, 1),
    (0, 0, 5, 1),
    (0, 0, 1, 6),
    (1, 2, 4, 5),
    (-3, -2, 2, 3),
    (2, 3, 99, 99),
    (0.6, 1.4, 3.4, 4.6),
]


@pytest.mark.parametrize("grid", [ODD, FINE, PAIRS], ids=["odd", "fine", "pairs"])
def test_a_region_selects_the_places_of_which_half_the_cell_or_more_is_in_it(grid: Grid) -> None:
    tokens = places_of(grid)
    for top, left, bottom, right in RECTANGLES:
        lit = torch.zeros(grid.size, dtype=torch.bool)
        for row in range(grid.size[0]):
            for column in range(grid.size[1]):
                lit[row, column] = round(top) <= row < round(bottom) and round(left) <= column < round(right)
        wanted = coverage_by_hand(grid, lit) >= 0.5
        at = region(top, left, bottom, right)
        if not bool(wanted.any()):
            with pytest.raises(InvalidArgument, match="holds no place of this site"):
                at.mask(tokens)
            continue
        assert at.mask(tokens).tolist() == [wanted.tolist()] * 3, (top, left, bottom, right)


def test_half_a_cell_is_enough_and_less_is_not() -> None:
    tokens = places_of(PAIRS)
    half, less = torch.zeros(2, 6, 8, dtype=torch.bool)
    half[:, 3] = True
    less[0, 3] = True
    assert where(half).mask(tokens)[0].tolist() == [False, True, False, False] * 3
    assert not bool(where(less).mask(tokens).any())
    assert region(0, 3, 6, 4).mask(tokens)[0].tolist() == [False, True, False, False] * 3


def test_a_mask_that_came_with_each_picture_selects_in_each_its_own_places_and_none_before_them() -> None:
    masks = torch.rand(3, *FINE.size, generator=torch.Generator().manual_seed(1)) < 0.4
    tokens = places_of(FINE, images=Images(torch.zeros(3, 3, *FINE.size), {"lit": masks}))
    assert where("lit").mask(tokens)[:, 1:].tolist() == masks.flatten(1).tolist()
    for at in (where("lit"), where(~masks[0]), region(0, 0, 5, 6), everywhere):
        assert not bool(at.mask(tokens)[:, 0].any())
    for at in (cls, special):
        assert at.mask(tokens).tolist() == [[True, *[False] * 30]] * 3
    assert patch(2, 3).mask(tokens).nonzero()[:, 1].tolist() == [1 + 2 * 6 + 3] * 3


def test_a_batch_knows_the_grid_of_the_site_it_is_asked_for_and_no_other() -> None:
    a, b, c = (Site.module(name) for name in "abc")
    turned = Grid((4, 3), (1.5, 8 / 3), (0.75, 4 / 3), (inf, inf), (6, 8))
    one = torch.zeros(2, 1, dtype=torch.long)
    read = Tokens(one, one == 0, one > 0, inputs={0: torch.zeros(2, 3, 6, 8)}, grids={a: PAIRS, b: turned, c: FINE})
    at_a = read.places(12, a)
    assert at_a.grid == PAIRS and at_a.places(12, a) is at_a
    assert at_a.places(12, b).grid == turned and at_a.places(31, c).grid == FINE
    assert at_a.places(7, c).grid is None, "of another size its places are not known"
    assert at_a.places(7).ids.tolist() == [[0, 1, 2, 3, 4, 5, 6]] * 2 and not bool(at_a.places(7).special.any())
    bare = Tokens(one, one == 0, one > 0, inputs={0: torch.zeros(2, 3)})
    assert bare.places(1) is bare and bare.places(4).grids is None
    text = Tokens(one, one == 0, one > 0)
    assert text.places(9) is text


class Patches(nn.Module):
    """A convolution with its own strides, a map made in another way, and sequences of as many places and more."""

    def __init__(self, more: int) -> None:
        super().__init__()
        self.more, self.conv, self.head = more, nn.Conv2d(3, 4, (3, 5), stride=(2, 3)), nn.Linear(4, 2)
        self.made, self.read, self.pooled, self.few, self.vector = (nn.Identity() for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.made(F.interpolate(y, size=(3, 2), mode="bilinear", align_corners=False))
        sequence = y.flatten(2).transpose(1, 2)
        self.read(torch.cat([sequence.new_zeros(len(x), self.more, 4), sequence], 1))
        one = self.pooled(z.mean((2, 3), keepdim=True))
        self.few(one.flatten(2).transpose(1, 2).expand(-1, 3, -1))
        return self.head(self.vector(one.flatten(1)))


def network(more: int) -> Network:
    torch.manual_seed(0)
    return load(Patches(more), inputs=torch.rand(2, 3, 13, 17))


def test_the_grids_of_a_net_are_those_of_its_strides_or_divide_the_picture_evenly() -> None:
    grids = network(0).grids
    of_conv = Grid((6, 5), (2.0, 3.0), (1.5, 2.5), (3.0, 5.0), (13, 17))
    assert grids[Site.module("conv")] == of_conv
    even = grids[Site.module("made")]
    assert (even.shape, even.size, even.field) == ((3, 2), (13, 17), (inf, inf))
    assert even.stride == pytest.approx((13 / 3, 8.5)) and even.first == pytest.approx((13 / 6, 4.25))


def test_a_sequence_has_the_grid_of_the_map_with_as_many_places_less_at_most_eight() -> None:
    for more in (0, 3, 8, 9):
        grids = network(more).grids
        if more > 8:
            assert Site.module("read") not in grids
            continue
        found = grids[Site.module("read")]
        assert found == Grid((6, 5), (2.0, 3.0), (1.5, 2.5), (inf, inf), (13, 17), more)
    assert Site.module("few") not in network(0).grids, "a map of one place is the grid of no sequence"
