"""What a recorded pass says happened, against operations and calls that a test writes itself."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hooks.tracing.record import Trace, record

X = torch.rand(1, 5, 3, generator=torch.Generator().manual_seed(0)) + 0.5
Does = Callable[[Tensor], tuple[Tensor, ...]]


class Doing(nn.Module):
    """Some operations on a tensor as a model."""

    def __init__(self, does: Does) -> None:
        super().__init__()
        self.does = does

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.does(x)


def traced(does: Does, x: Tensor = X) -> tuple[Trace, int, tuple[int, ...]]:
    """The pass, the value that is given, and those that come out."""
    model, given = Doing(does), x.clone()
    trace = record(model, lambda: model(given))
    return trace, trace.calls[0].inputs[0], tuple(trace.calls[0].outputs.values())


SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda x: x.view(15),
    "an axis more": lambda x: x[:, None],
    "axes of length one that move": lambda x: x.transpose(0, 1),
    "axes of length one that move, all at once": lambda x: x.permute(1, 2, 0),
    "one piece": lambda x: x.split(5, dim=1)[0],
    "the only row": lambda x: x.select(0, 0),
    "the whole slice": lambda x: x[:, :5],
    "copy": lambda x: x.clone(),
    "precision": lambda x: x.double(),
    "a view of a copy of a view": lambda x: x.view(15).clone().view(3, 5),
}


@pytest.mark.parametrize("way", SAME)
def test_a_view_or_copy_with_all_numbers_in_order_has_the_root_of_what_it_is_of(way: str) -> None:
    trace, given, (made,) = traced(lambda x: (SAME[way](x),))
    assert made != given
    assert trace.root(made) == trace.root(given) == given
    assert torch.equal(trace.tensor(made).flatten().float(), X.flatten())


OTHER: dict[str, Callable[[Tensor], Tensor]] = {
    "axes that change places": lambda x: x.transpose(1, 2),
    "axes of two and more that change places": lambda x: x[:, :, :2].clone().permute(0, 2, 1),
    "axes of one length that change places": lambda x: x[:, :3].clone().mT,
    "part": lambda x: x[:, 1:],
    "the part that is as long, of a longer one": lambda x: torch.cat([x, x], 1)[:, 5:],
    "one of two pieces": lambda x: x.split([2, 3], dim=1)[1],
    "spread": lambda x: x[..., None].expand(1, 5, 3, 2),
    "another number": lambda x: x.relu(),
    "a sum": lambda x: x + x,
}


@pytest.mark.parametrize("way", OTHER)
def test_what_has_other_numbers_or_another_order_is_its_own_root(way: str) -> None:
    trace, _, (made,) = traced(lambda x: (OTHER[way](x),))
    assert trace.root(made) == made


def test_a_view_shares_the_memory_of_what_it_is_of_and_a_copy_does_not() -> None:
    trace, given, (view, copy, of_copy) = traced(lambda x: (x.view(15), (y := x.clone()), y.view(15)))
    assert trace.alias(view) == given
    assert trace.alias(copy) == copy
    assert trace.alias(of_copy) == copy
    assert [trace.root(one) for one in (view, copy, of_copy)] == [given] * 3


def test_a_sum_computed_twice_is_one_value_and_another_sum_or_product_is_not() -> None:
    def does(x: Tensor) -> tuple[Tensor, ...]:
        y = x.tanh()
        sums = x + y, x.clone() + y.view(1, 5, 3), torch.add(x, y, alpha=2), y + x, x + 1, x + 2
        return *sums, x * y, x * y

    trace, _, made = traced(does)
    roots = [trace.root(one) for one in made]
    assert roots[0] == roots[1] == made[0]
    assert roots[2:] == list(made[2:])


def test_a_value_is_made_by_the_operation_that_gives_it_of_what_it_reads() -> None:
    trace, given, (total, kept) = traced(lambda x: ((y := x.exp()).sum(dim=1, keepdim=True) * y, y))
    assert [op.name for op in trace.ops][-3:] == ["exp", "sum", "mul"]
    exp, summed, product = trace.ops[-3:]
    assert exp.reads == (given,)
    assert exp.makes == summed.reads == (kept,)
    assert product.reads == (*summed.makes, kept)
    assert product.makes == (total,)
    for number, op in enumerate(trace.ops):
        assert all(trace.maker[value] == number for value in op.makes)
    assert given not in trace.after({kept})
    assert trace.after({kept}) == {kept, *summed.makes, total}
    assert trace.after({total}) == {total}


def test_arguments_by_name_are_kept_but_for_tensors_and_tensors_in_place_are_numbers() -> None:
    trace, given, _ = traced(lambda x: (torch.add(x, x, alpha=3), x.to(torch.float64)))
    add = next(op for op in trace.ops if op.name == "add")
    assert add.kwargs == {"alpha": 3}
    assert [one.value for one in add.args] == [given, given]
    assert next(op for op in trace.ops if op.name == "_to_copy").kwargs["dtype"] == torch.float64


WRITES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "itself": lambda x, y: x.add_(y),
    "by a number": lambda x, _: x.mul_(2),
    "through a view": lambda x, y: x.view(15).add_(y.view(15)),
    "in part": lambda x, y: x[:, :2].copy_(y[:, :2]),
}


@pytest.mark.parametrize("way", WRITES)
def test_what_is_written_in_place_is_overwritten_and_what_is_read_is_not(way: str) -> None:
    def does(x: Tensor) -> tuple[Tensor, ...]:
        y, plain = x.tanh(), x * 2
        view = x.view(15)
        WRITES[way](x, y)
        return y, plain, view, x

    trace, given, (y, plain, view, after) = traced(does)
    assert trace.is_overwritten(given)
    assert trace.is_overwritten(view)
    assert not trace.is_overwritten(y)
    assert not trace.is_overwritten(plain)
    assert trace.is_same(given, after)
    assert not trace.is_same(given, y)


def test_one_value_is_the_same_as_its_copy_and_as_what_comes_of_it_in_place() -> None:
    trace, given, (copy, written, other) = traced(lambda x: (x.clone(), x.add_(1), x.clone() * 2))
    assert trace.is_same(given, copy)
    assert trace.is_same(given, written)
    assert written != given
    assert not trace.is_same(given, other)


class Leaf(nn.Module):
    """x · w."""

    def __init__(self, w: float = 2.0) -> None:
        super().__init__()
        self.w = w

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w


class Branch(nn.Module):
    """Two leaves and nothing else."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.one, self.two = Leaf(), Leaf(w)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


class Tree(nn.Module):
    """A branch that runs twice, with what does nothing right after it, and a last leaf."""

    def __init__(self, w: float = 3.0, last: float = 5.0, head: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.idle, self.last = Branch(w), nn.Identity(), Leaf(last)
        self.head = nn.Identity() if head is None else head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.idle(self.branch(self.branch(x)))))


def test_calls_are_numbered_by_module_and_hold_the_calls_that_they_make() -> None:
    tree = Tree()
    trace = record(tree, lambda: tree(X))
    branch = ["branch", "branch.one", "branch.two"]
    assert [call.path for call in trace.calls] == ["", *branch, *branch, "idle", "last", "head"]
    assert [call.number for call in trace.calls] == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
    whole, first, second = trace.calls[0], trace.calls[1], trace.calls[4]
    assert trace.inside(whole) == trace.calls[1:]
    assert trace.inside(first) == trace.calls[2:4]
    assert trace.inside(second) == trace.calls[5:7]
    assert all(trace.inside(call) == [] for call in (*trace.calls[2:4], *trace.calls[7:]))
    assert [(call.begin, call.end) for call in trace.calls] == [
        (0, 5), (0, 2), (0, 1), (1, 2), (2, 4), (2, 3), (3, 4), (4, 4), (4, 5), (5, 5)
    ]  # fmt: skip
    assert first.outputs[None] == second.inputs[0]


def test_what_a_call_is_given_is_what_its_caller_gives_and_what_other_hooks_do_to_it_is_inside() -> None:
    leaf = Leaf()
    leaf.register_forward_pre_hook(lambda _m, args: (args[0] + 1,))
    trace = record(leaf, lambda: leaf(X))
    (call,) = trace.calls
    assert trace.tensor(call.inputs[0]) is X
    assert [op.name for op in trace.ops[call.begin : call.end]] == ["add", "mul"]
    torch.testing.assert_close(trace.tensor(call.outputs[None]), (X + 1) * 2)


def test_arguments_and_parts_of_an_output_are_kept_by_place_and_name() -> None:
    class Parts(nn.Module):
        def forward(self, x: Tensor, n: int, *, y: Tensor) -> dict[str, Tensor]:
            return {"sum": x + y, "product": x * y * n}

    model, y = Parts(), X.clone()
    trace = record(model, lambda: model(X, 2, y=y))
    (call,) = trace.calls
    assert [*call.inputs] == [0, "y"]
    assert trace.tensor(call.inputs[0]) is X and trace.tensor(call.inputs["y"]) is y
    torch.testing.assert_close(trace.tensor(call.outputs["product"]), 2 * X * y)
    torch.testing.assert_close(trace.tensor(call.outputs["sum"]), X + y)
    assert trace.n_pos == 0 and record(model, lambda: model(X, 2, y=y), 5).n_pos == 5


def test_passes_of_other_operations_numbers_or_modules_have_other_digests_and_one_done_again_the_same() -> None:
    def digest(tree: nn.Module) -> str:
        return record(tree, lambda: tree(X)).digest()

    torch.manual_seed(0)
    heads = nn.Linear(3, 3), nn.Linear(3, 3)
    others = [Tree(), Tree(w=4.0), Tree(last=6.0), Tree(head=nn.Tanh()), Tree(head=nn.Dropout().eval())]
    others += [Tree(head=head) for head in heads]
    found = [digest(tree) for tree in others]
    assert len({*found}) == len(others)
    assert digest(Tree()) == found[0]
    assert digest(Tree(head=heads[1])) == found[-1]


def test_only_calls_of_attentions_kernel_on_heads_are_noted_with_their_operations() -> None:
    def does(x: Tensor) -> tuple[Tensor, ...]:
        heads = x[:, None].tanh()
        plain = F.scaled_dot_product_attention(x, x, x)
        return plain, F.scaled_dot_product_attention(heads, heads, heads, is_causal=True), F.softmax(heads, dim=-1)

    trace, _, (_, made, _) = traced(does)
    ((begin, end),) = trace.kernels
    assert begin <= trace.maker[made] < end
    assert made in trace.after({value for op in trace.ops[begin:end] for value in op.reads})
    assert not any(op.name in ("tanh", "_softmax") for op in trace.ops[begin:end] if op.makes != (made,))
    heads = X[:, None].tanh()
    wanted = (heads @ heads.mT / 3**0.5).masked_fill(~torch.ones(5, 5).tril().bool(), -torch.inf).softmax(-1) @ heads
    torch.testing.assert_close(trace.tensor(made), wanted)
