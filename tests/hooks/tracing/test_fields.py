"""What a place of a map sees, against a picture of which one row or column is not a number: what sees it is none."""

from collections.abc import Callable
from functools import reduce

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hooks.tracing.fields import Span, spans
from hooks.tracing.record import Trace, record

SIZE = (24, 32)
PICTURE = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)) + 0.5


class Seeing(nn.Module):
    """A function of a picture as a model."""

    def __init__(self, see: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.see = see

    def forward(self, picture: Tensor) -> Tensor:
        return self.see(picture)


def spans_of(model: nn.Module) -> tuple[tuple[Span, Span] | None, Trace]:
    """What the places of what a model gives see, as far as that is known."""
    trace = record(model, lambda: model(PICTURE))
    whole = trace.calls[0]
    return spans(trace, whole.inputs[0]).get(whole.outputs[None]), trace


@torch.no_grad()
def seen_along(model: nn.Module, axis: int) -> list[list[int]]:
    """For each row (axis 0) or column (1) of what a model gives, those of the picture that it sees."""
    found: list[list[int]] = []
    for pixel in range(SIZE[axis]):
        spoilt = PICTURE.clone()
        spoilt.select(axis + 2, pixel).fill_(torch.nan)
        spoils = model(spoilt).isnan().flatten(0, 1).any(dim=0).any(dim=1 - axis)
        found = found or [[] for _ in spoils]
        for place in spoils.nonzero().flatten().tolist():
            found[place].append(pixel)
    return found


def added(*parts: nn.Module) -> Callable[[Tensor], Tensor]:
    """The sum of what some parts give."""
    return lambda x: reduce(Tensor.add, [part(x) for part in parts])


def conv(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> nn.Module:
    return nn.Conv2d(3, 3, kernel, stride, padding, dilation)


WEIGHT = torch.ones(3, 3, 3, 3)
NETWORKS: dict[str, Callable[[Tensor], Tensor]] = {
    "convolution": nn.Conv2d(3, 4, (3, 5), stride=(2, 3), padding=(1, 2), dilation=(2, 1)),
    "convolution with one number for both axes": lambda x: F.conv2d(x, WEIGHT, None, [2], [1], [2]),
    "convolutions one after the other": nn.Sequential(conv(3, 2, 1), nn.BatchNorm2d(3).eval(), conv(4, 3, 2)),
    "largest": nn.MaxPool2d((3, 2), stride=(2, 3), padding=(1, 0), dilation=(2, 1)),
    "largest with the stride of its kernel": nn.Sequential(conv(2), nn.MaxPool2d((2, 3))),
    "largest with one number": lambda x: F.max_pool2d(x, [3], [2], [1], [2]),
    "mean": nn.Sequential(conv(3, 2), nn.AvgPool2d((3, 2), stride=(1, 2), padding=(1, 0))),
    "mean with the stride of its kernel": lambda x: F.avg_pool2d(x, (4, 2)),
    "mean of all but the border": nn.AvgPool2d(3, 2, 1, ceil_mode=False, count_include_pad=False),
    "sum of a narrow and a wide one": added(conv(1), conv(5, padding=2)),
    "sum of a wide and a narrow one": added(conv(5, padding=2), conv(1)),
    "sum of an early and a late one": added(conv(3, 4, 1), conv(3, 4)),
    "sum of a late and an early one": added(conv(3, 4), conv(3, 4, 1)),
    "sum of ones wider across": added(nn.Conv2d(3, 3, 1, (2, 3)), nn.Conv2d(3, 3, (3, 5), (2, 3), (1, 2))),
    "sum of three": added(conv(1), conv(3, padding=1), conv(5, padding=2)),
    "a number times and a weight for all": lambda x: torch.tensor([2.0]) * (3 * F.relu(x)) + torch.ones(3, 1, 1),
    "side by side": lambda x: F.conv2d(torch.cat([x, F.silu(x)], dim=1), torch.ones(1, 6, 3, 2), stride=2),
}  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
def test_a_place_sees_the_pixels_that_spoil_it(network: str) -> None:
    model = Seeing(NETWORKS[network])
    found, _ = spans_of(model)
    assert found is not None
    for axis in (0, 1):
        seen = seen_along(model, axis)
        low, high = (
            [edge + i * found[axis].stride for i in range(len(seen))] for edge in (found[axis].low, found[axis].high)
        )
        first = {i: pixels[0] for i, pixels in enumerate(seen) if low[i] >= 0}
        last = {i: pixels[-1] for i, pixels in enumerate(seen) if high[i] <= SIZE[axis]}
        assert first == {i: low[i] for i in first} != {}
        assert last == {i: high[i] - 1 for i in last} != {}


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "turned round": lambda x: x.flip(2),
    "a sum with the same turned round": lambda x: x + x.flip(2),
    "the same turned round and a sum": lambda x: x.flip(2) + x,
    "a sum with one place for all": lambda x: x + F.avg_pool2d(x, SIZE),
    "one place for all and a sum": lambda x: F.avg_pool2d(x, SIZE) + x,
    "places as many in other steps down": added(nn.Conv2d(3, 3, (1, 1), (2, 1)), nn.Conv2d(3, 3, (13, 1))),
    "places as many in other steps across": added(nn.Conv2d(3, 3, (1, 1), (1, 2)), nn.Conv2d(3, 3, (1, 17))),
    "spread out": nn.ConvTranspose2d(3, 3, 3, padding=1),
    "a convolution by what is no weight of a known map": lambda x: F.conv2d(x.flip(3), WEIGHT),
    "made of nothing": lambda x: torch.zeros(x.shape),
    "a list of numbers": lambda x: F.relu(x.flatten(1)),
}


@pytest.mark.parametrize("network", UNKNOWN)
def test_of_what_is_made_in_another_way_nothing_is_said(network: str) -> None:
    assert spans_of(Seeing(UNKNOWN[network]))[0] is None


def test_a_layer_widens_a_span_by_its_reach_in_steps_of_what_it_reads() -> None:
    """From l + i·s to l + i·s + 1 + (k - 1)·s, less p·s, as Araujo, Norris and Sim have it (2019)."""
    assert Span(2.0, 5.0, 6.0).through(kernel=3, stride=4, padding=1) == Span(8.0, 3.0, 8.0)
    assert Span(2.0, 5.0, 6.0).through(kernel=3, stride=4, padding=1, dilation=2) == Span(8.0, 3.0, 12.0)


def test_the_picture_sees_itself_and_an_answer_that_is_no_tensor_stops_nothing() -> None:
    def see(x: Tensor) -> Tensor:
        return F.relu(x) if float(x.mean()) > 0 else x

    found, trace = spans_of(Seeing(see))
    assert found == (Span(1.0, 0.0, 1.0), Span(1.0, 0.0, 1.0))
    assert any(not op.makes for op in trace.ops)
