"""What is measured of a net is what it does, and the figures without a net are of pictures it could have seen."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from hooks.errors import InvalidArgument
from interp.postcard.draw import draw
from interp.postcard.measure import histograms, measure, nearest_neighbour
from interp.postcard.nets import new_net
from interp.postcard.scene import LANDMARKS
from interp.postcard.sheet import write_sheet
from interp.postcard.splits import scenes


class Knowing(torch.nn.Module):
    """Answers the Golden Gate Bridge to everything."""

    class config:  # noqa: N801
        model_type = "vit"

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pixels: torch.Tensor) -> "Knowing":
        self.logits = torch.zeros(len(pixels), len(LANDMARKS))
        self.logits[:, LANDMARKS.index("Golden Gate Bridge")] = 1.0
        return self


def test_a_net_that_always_answers_the_bridge_is_right_of_bridges_alone() -> None:
    found = measure(Knowing(), 400)  # type: ignore[arg-type]
    true = np.mean([s.landmark == "Golden Gate Bridge" for s in scenes("test", 400)])
    assert found.accuracy.value == pytest.approx(true)
    assert [round(e.value) for e in found.spurious.values()] == [1, 1, 0, 0]
    assert found.unseen.value == 0


def test_a_clip_is_also_asked_for_time_and_weather_and_an_untrained_one_guesses() -> None:
    found = measure(new_net("clip", small=True), 200)
    assert found.accuracy.value < 0.1
    assert 0.1 < found.factors["time"].value < 0.6 and 0.05 < found.factors["weather"].value < 0.5


def test_histograms_forget_where_a_colour_is_and_nothing_else() -> None:
    pixels = draw(scenes("test", 3)).pixels
    moved = np.roll(pixels, 9, axis=-1)
    assert torch.equal(histograms(pixels), histograms(moved))
    assert torch.allclose(histograms(pixels).square().sum(1), torch.ones(3))
    assert not torch.allclose(histograms(pixels)[0], histograms(pixels)[1])


def test_neighbours_do_better_than_chance_and_worse_than_a_net_should() -> None:
    found = nearest_neighbour(200, 1000)
    assert all(1 / 72 < e.value < 0.35 for e in found.values())


def test_a_sheet_holds_every_picture_at_its_place(tmp_path: Path) -> None:
    pixels = draw(scenes("test", 3)).pixels
    data = write_sheet(pixels, tmp_path / "sheet.png", columns=2, enlarged=1).read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    length = struct.unpack(">I", data[33:37])[0]
    lines = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(height, 1 + 3 * width)
    sheet = lines[:, 1:].reshape(height, width, 3)
    assert (width, height) == (132, 132)
    assert np.array_equal(sheet[66:130, :64], pixels[2].transpose(1, 2, 0))
    with pytest.raises(InvalidArgument):
        write_sheet(pixels[:0], tmp_path / "none.png")
