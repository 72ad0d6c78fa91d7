"""The gate of what a sublayer mixes, found in what a projection gives, in sublayers that a test writes itself."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hooks.tracing.gates import gate_of
from hooks.tracing.record import Trace, record

N, D, ORDER = 11, 6, [4, 1, 0, 5, 3, 2]


class Mixer(nn.Module):
    """Some function of a text, of what three projections give, and of a weight."""

    def __init__(self, does: Callable[["Mixer", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.wide, self.out = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.weight, self.does = nn.Parameter(torch.randn(D)), does

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.does(self, x))


def found(does: Callable[[Mixer, Tensor], Tensor]) -> tuple[str, tuple[int, ...]] | None:
    """The name of the projection that gives the gate, and which of its features that is."""
    mixer, x = Mixer(does), torch.randn(1, N, D, generator=torch.Generator().manual_seed(1))
    trace: Trace = record(mixer, lambda: mixer(x), N)
    gate = gate_of(trace, trace.ops, trace.calls[1:])
    return None if gate is None else (gate[0].path, gate[1])


def mean(x: Tensor) -> Tensor:
    return x.cumsum(1)


ALL = tuple(range(D))
GATES: dict[str, tuple[Callable[[Mixer, Tensor], Tensor], tuple[str, tuple[int, ...]] | None]] = {
    "sigmoid": (lambda m, x: mean(x) * m.one(x).sigmoid(), ("one", ALL)),
    "SiLU, first": (lambda m, x: nn.functional.silu(m.one(x)) * mean(x), ("one", ALL)),
    "in place": (lambda m, x: mean(x).mul_(m.one(x).sigmoid()), ("one", ALL)),
    "cast": (lambda m, x: (mean(x).double() * m.one(x).sigmoid().double()).float(), ("one", ALL)),
    "spread over a feature": (lambda m, x: mean(x) * m.one(x)[..., :1].sigmoid().expand(1, N, D), ("one", (0,))),
    "one feature": (lambda m, x: mean(x) * m.two(x)[..., 2:3].sigmoid(), ("two", (2,))),
    "a third": (lambda m, x: mean(x) * m.wide(x)[..., D : 2 * D].sigmoid(), ("wide", tuple(range(D, 2 * D)))),
    "in another order": (lambda m, x: mean(x) * m.wide(x)[..., ORDER].sigmoid(), ("wide", tuple(ORDER))),
    "by heads": (
        lambda m, x: (mean(x).view(N, 2, 3).transpose(0, 1) * m.one(x).view(N, 2, 3).transpose(0, 1).sigmoid())
        .transpose(0, 1).reshape(1, N, D),
        ("one", ALL),
    ),
    "the last of two": (lambda m, x: mean(x) * m.one(x).sigmoid() * m.two(x).sigmoid(), ("two", ALL)),
    "one of two products": (lambda m, x: m.two(x).sigmoid() * m.one(x).sigmoid(), ("one", ALL)),
    "before what mixes": (lambda m, x: mean(x * m.one(x).sigmoid()), ("one", ALL)),
    "added": (lambda m, x: mean(x) + m.one(x).sigmoid(), None),
    "times a number": (lambda m, x: mean(x) + 2 * m.one(x).sigmoid(), None),
    "after something else": (lambda m, x: mean(x) * m.one(x).tanh(), None),
    "of a sum": (lambda m, x: mean(x) * (m.one(x) + x).sigmoid(), None),
    "of a mean of features": (lambda m, x: mean(x) * m.one(x).mean(-1, keepdim=True).sigmoid(), None),
    "a feature for many": (lambda m, x: mean(x) * m.one(x)[..., [1, 1, 1, 2, 2, 2]].sigmoid(), None),
    "of no token": (lambda m, x: mean(x) * m.weight.sigmoid(), None),
    "of what is given": (lambda _, x: mean(x) * x.sigmoid(), None),
    "of some that it gives and one it does not": (
        lambda m, x: mean(x) * torch.cat([m.one(x)[..., 1:], x[..., :1]], -1).sigmoid(), None
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", GATES)
def test_a_gate_is_what_is_multiplied_last_after_a_sigmoid_or_silu_where_a_projection_gives_all_of_it(way: str) -> None:
    does, wanted = GATES[way]
    assert found(does) == wanted


def test_of_two_projections_that_give_the_same_the_last_is_the_gates() -> None:
    def does(m: Mixer, x: Tensor) -> Tensor:
        return mean(m.one(x)) * m.one(x).sigmoid()

    mixer, x = Mixer(does), torch.randn(1, N, D)
    trace = record(mixer, lambda: mixer(x), N)
    gate = gate_of(trace, trace.ops, trace.calls[1:])
    assert gate is not None and gate[0].number == 1
