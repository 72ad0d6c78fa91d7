"""Taps of a module that runs more than once in a pass, on two threads at once."""

from collections.abc import Callable
from threading import Barrier, Thread

import torch
from torch import nn

from hooks.site import Site
from hooks.taps import MergedAxes, OneCall, Tap


class Twice(nn.Module):
    """One layer, run twice, with a rest between at which the other thread runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.rest: Callable[[], object] = lambda: None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once = self.layer(x)
        self.rest()
        return self.layer(once + 1)


def test_each_thread_counts_the_calls_of_its_own_passes() -> None:
    model, both, seen = Twice(), Barrier(2, timeout=10), {}
    model.rest = both.wait  # both have run the layer once before either runs it again
    tap = Tap(Site.module("layer"), model.layer, "output", (1,), call=OneCall(1, model))
    handle = tap.attach(lambda a: seen.setdefault(float(a.flatten()[0]), []).append(a) or None)
    threads = [Thread(target=model, args=(torch.full((1, 1, 1), start),)) for start in (10.0, 20.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handle.remove()
    assert sorted(seen) == [11.0, 21.0]


def test_each_thread_has_the_shape_of_its_own_block() -> None:
    """A block that merges batch and pos (OPT) is given tensors of several shapes by several threads."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            both.wait()
            return self.layer(x.flatten(0, 1))

    both, block, shapes = Barrier(2, timeout=10), Flat(), set()
    tap = Tap(Site.module("layer"), block.layer, "output", (3,), axes=MergedAxes(block))
    handle = tap.attach(lambda a: shapes.add(tuple(a.shape)))
    threads = [Thread(target=block, args=(torch.zeros(shape),)) for shape in ((2, 6, 3), (3, 4, 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handle.remove()
    assert shapes == {(2, 6, 3), (3, 4, 3)}
