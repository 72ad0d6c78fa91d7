"""A processor gives pictures a size, cuts out their middle and scales their colours, each by a closed form."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hooks import Images, Processor
from hooks.errors import InvalidArgument
from hooks.images import Scaling
from hooks.processor import processor_of, read_processor

RANDOM = torch.Generator().manual_seed(0)


def test_what_is_said_of_nothing_changes_nothing() -> None:
    pixels = torch.rand(2, 3, 5, 7, generator=RANDOM)
    assert processor_of({}) == Processor() == Processor(None, None, (0.0,) * 3, (1.0,) * 3, "bilinear")
    for scaling in (Processor().scaling(), Scaling(), processor_of({}).scaling()):
        assert scaling.slot == 0 and torch.equal(scaling.apply(pixels), pixels)
    read = Processor().read(pixels)
    assert torch.equal(read.pixels, pixels) and read.names is None
    given = Images(pixels)
    assert Processor().read(given) is given


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"size": {"shortest_edge": 8}, "crop_size": 6}, Processor(8, (6, 6))),
        ({"size": {"height": 4, "width": 5}, "resample": 0}, Processor((4, 5), mode="nearest")),
        ({"size": [4, 5], "resample": 2}, Processor((4, 5), mode="bilinear")),
        ({"size": 9, "do_resize": True, "resample": 3}, Processor(9, mode="bicubic")),
        ({"size": 9, "do_resize": False}, Processor()),
        ({"crop_size": [6, 4], "do_center_crop": False}, Processor()),
        ({"crop_size": {"height": 6, "width": 4}}, Processor(None, (6, 4))),
        ({"image_mean": [0.1, 0.2, 0.3]}, Processor(mean=(0.1, 0.2, 0.3))),
        ({"image_mean": [0.1], "image_std": [0.4]}, Processor(mean=(0.1,), std=(0.4,))),
        ({"image_mean": [0.1], "image_std": [0.4], "do_normalize": False}, Processor()),
        ({"image_std": [0.4], "do_normalize": True}, Processor()),
    ],
)
def test_a_file_is_read_as_its_names_say(said: dict[str, Any], wanted: Processor) -> None:
    assert processor_of(said) == wanted


def test_a_way_of_resizing_that_is_not_known_and_a_file_that_is_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="resample 1 is not known"):
        processor_of({"resample": 1})
    assert read_processor(tmp_path) is None


def test_a_new_size_takes_every_second_pixel_or_the_mean_of_those_around() -> None:
    pixels = torch.rand(1, 3, 4, 8, generator=RANDOM)
    nearest = Processor((2, 4), mode="nearest").read(pixels).pixels
    assert torch.equal(nearest, pixels[:, :, ::2, ::2])
    step = torch.tensor([0.0, 1.0]).expand(1, 3, 2, 2)
    wider = Processor((2, 4)).read(step).pixels
    torch.testing.assert_close(wider, torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(1, 3, 2, 4))
    stripes = torch.tensor([1.0, 0.0, 0.0, 1.0] * 8).expand(1, 3, 32, 32)
    grey = Processor((8, 8)).read(stripes).pixels  # a weighted mean over two periods, and not of the two in the middle
    torch.testing.assert_close(grey[..., 1:-1], torch.full((1, 3, 8, 6), 0.5))


def test_colours_that_overshoot_at_an_edge_stay_colours() -> None:
    step = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 3, 4, 4)
    free = F.interpolate(step, size=(8, 8), mode="bicubic", antialias=True)
    assert float(free.min()) < 0 and float(free.max()) > 1
    read = Processor((8, 8), mode="bicubic").read(step).pixels
    torch.testing.assert_close(read, free.clamp(0, 1))


def test_the_shorter_edge_becomes_the_size_and_the_other_keeps_its_share() -> None:
    reads = Processor(4)
    for shape, wanted in (((6, 9), (4, 6)), ((9, 6), (6, 4)), ((2, 3), (4, 6)), ((4, 7), (4, 7))):
        pixels = torch.rand(1, 3, *shape, generator=RANDOM)
        assert reads.read(pixels).size == reads.read(Images(pixels)).size == wanted
    given = Images(torch.rand(1, 3, 7, 4, generator=RANDOM))
    assert reads.read(given) is given
    same = Images(torch.rand(1, 3, 4, 5, generator=RANDOM))
    assert Processor((4, 5)).read(same) is same
    assert Processor((5, 4)).read(same).size == (5, 4)


def test_what_is_cut_out_is_the_middle() -> None:
    pixels = torch.arange(35.0).view(1, 1, 5, 7).expand(1, 3, 5, 7) / 35
    reads = Processor(crop=(2, 3))
    for given in (pixels, Images(pixels)):
        assert torch.equal(reads.read(given).pixels, pixels[:, :, 1:3, 2:5])
    inside = Images(pixels[:, :, :2, :3])
    assert reads.read(inside) is inside
    with pytest.raises(InvalidArgument, match=r"\(2, 3\) cannot be cut from pictures of \(5, 2\)"):
        reads.read(pixels[..., :2])
    whole = Processor(crop=(5, 7)).read(pixels)
    assert torch.equal(whole.pixels, pixels)


def test_a_pixel_of_a_smaller_mask_is_on_where_half_of_it_was() -> None:
    masks = {
        "half": torch.tensor([[True, False], [False, True]]),
        "quarter": torch.tensor([[True, False], [False, False]]),
        "most": torch.tensor([[True, True], [False, True]]),
    }
    given = Images(torch.rand(1, 3, 2, 2, generator=RANDOM), {name: mask[None] for name, mask in masks.items()})
    read = Processor((1, 1)).read(given)
    assert {name: mask.tolist() for name, mask in read.masks.items()} == {
        "half": [[[True]]], "quarter": [[[False]]], "most": [[[True]]],
    }  # fmt: skip


def test_pictures_are_named_by_their_files_where_all_are_files(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    array = np.zeros((4, 4, 3), np.uint8)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        pil.fromarray(array).save(file)
    reads = Processor()
    assert reads.read(files).names == tuple(map(str, files))
    assert reads.read(str(files[0])).names == (str(files[0]),) == reads.read(files[0]).names
    for mixed in ([files[0], array], [array, array], array):
        assert reads.read(mixed).names is None
    with pytest.raises(InvalidArgument, match=r"have one size, got \(4, 4\) and \(5, 4\): give the processor"):
        reads.read([array, np.zeros((5, 4, 3), np.uint8)])
