"""Changes are taken back in the other order, whatever happens, and hooks run when they were asked to."""

import pytest
import torch
from torch import Tensor, nn

from hooks.temporary import Temporary, grad_mode


class Fails(nn.Module):
    """A module that may fail."""

    fails = False

    def forward(self, x: Tensor, *, by: float = 1.0) -> Tensor:
        if self.fails:
            raise ZeroDivisionError
        return x * by


def test_changes_are_taken_back_the_last_first_also_where_one_is_interrupted() -> None:
    done: list[int] = []

    def fail_once() -> None:
        done.append(9)
        if done == [9]:
            raise KeyError("once")

    with pytest.raises(KeyError), Temporary() as changes:
        for number in range(3):
            changes.make(lambda: None, lambda number=number: done.append(number))
        changes.make(lambda: None, fail_once)
    assert done == [9, 9, 2, 1, 0]


def test_a_hook_is_called_after_a_pass_that_failed_only_if_it_was_asked_to_and_with_names_likewise() -> None:
    net, x, got = Fails(), torch.ones(1), list[tuple[str, int]]()
    with Temporary() as changes:
        changes.hook(net, lambda *given: got.append(("plain", len(given))))
        changes.hook(net, lambda *given: got.append(("named", len(given))), with_kwargs=True)
        changes.hook(net, lambda *given: got.append(("always", len(given))), always=True)
        changes.pre_hook(net, lambda *given: got.append(("before", len(given))))
        net(x, by=2.0)
        assert got == [("before", 3), ("plain", 3), ("named", 4), ("always", 3)]
        got.clear()
        net.fails = True
        with pytest.raises(ZeroDivisionError):
            net(x)
        assert got == [("before", 3), ("always", 3)]
    net.fails = False
    got.clear()
    net(x)
    assert not got and not net._forward_hooks and not net._forward_pre_hooks


@pytest.mark.parametrize("on", [True, False])
def test_the_mode_of_gradients_is_the_one_asked_for_inside_and_the_one_there_was_after(on: bool) -> None:
    for before in (True, False):
        with grad_mode(before):
            with grad_mode(on):
                assert torch.is_grad_enabled() is on
            assert torch.is_grad_enabled() is before
