"""A sweep over the places of pictures finds where a label is, and measures its controls."""

from typing import Any

import pytest
import torch
from torch import nn

from hooks import Images, Network, Processor, capture, load
from hooks.errors import InvalidArgument
from hooks.position import everywhere, index, patch
from hooks.site import conv_act, conv_pre, logits
from probes import Examples, gather, sweep
from probes.untrained_model import make_untrained_model

RANDOM = torch.Generator().manual_seed(0)
N = 48


def pictures() -> tuple[Images, list[bool]]:
    """Noise, and in half of it one bright square, in the places of row 1 and column 2."""
    pixels = torch.rand(N, 3, 16, 16, generator=RANDOM) * 0.5
    bright = [i % 2 == 0 for i in range(N)]
    for i in range(0, N, 2):
        pixels[i, :, 4:8, 8:12] += 0.5
    return Images(pixels), bright


@pytest.fixture(scope="module")
def net() -> Network:
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return load(body.eval(), inputs=torch.zeros(1, 3, 16, 16), processor=Processor())


def test_the_place_where_a_label_is_planted_is_found_and_no_other(net: Network) -> None:
    shown, bright = pictures()
    examples = Examples(shown, bright, [*range(N)])
    grid = sweep(net, examples, [conv_pre[0]], [patch(1, 2), patch(3, 3)], permutations=5)
    assert grid.best == (conv_pre[0], patch(1, 2))
    assert float(grid.accuracy[0, 0]) > 0.95 and float(grid.accuracy[0, 1]) < 0.8
    assert grid.controls.embedding.value > 0.7  # the pixels say it too


def test_a_cell_has_the_row_of_its_place(net: Network) -> None:
    shown, _ = pictures()
    cells = gather(net, shown, [conv_act[0], logits], [index(0)], batch_size=7)
    acts = capture(net, shown, [conv_act[0], logits])
    ((site, position), *_) = cells.rows
    torch.testing.assert_close(cells.rows[site, position], acts[conv_act[0]][:, 0])


def test_a_position_of_several_places_is_refused(net: Network) -> None:
    with pytest.raises(InvalidArgument, match=r"selects 16 places of conv_act.0 in picture 0"):
        gather(net, pictures()[0], [conv_act[0]], [everywhere])


def test_equal_pictures_in_two_groups_are_refused() -> None:
    shown, bright = pictures()
    twice = Images(torch.cat([shown.pixels[:2], shown.pixels[:1]]))
    with pytest.raises(InvalidArgument, match="is in groups '0' and '2'"):
        Examples(twice, [True, False, True], [0, 1, 2])


def test_an_untrained_net_has_other_weights_of_the_same_shapes_by_seed(net: Network) -> None:
    fresh: Any = make_untrained_model(net, 3)
    again: Any = make_untrained_model(net, 3)
    pairs = [*zip(net.hf.parameters(), fresh.hf.parameters(), again.hf.parameters(), strict=True)]
    assert all(a.shape == b.shape and not torch.equal(a, b) and torch.equal(b, c) for a, b, c in pairs)
    assert fresh.sites == net.sites and fresh.processor == net.processor
