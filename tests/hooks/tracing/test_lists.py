"""Which lists of modules are stacks of blocks, for trees of modules that a test wrote."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks.tracing.record import Trace, record
from hooks.tracing.stacks import Stack, own_inputs, stacks, why_none

D, N_POS = 4, 5


class Does(nn.Module):
    """Whatever it was written to do; it has a matrix and a list of parts to do it with."""

    def __init__(self, does: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.does, self.linear, self.parts = does, nn.Linear(D, D), nn.ModuleList(parts)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.does(self, *args, **kwargs)


class Tree(nn.Module):
    """Parts by name, and what is done with them to what is given."""

    def __init__(self, runs: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.runs = runs
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.runs(self, x)


def adds(b: Any, x: Tensor, *_: Any) -> Tensor:
    return x + b.linear(x)


def drops(b: Any, x: Tensor, *_: Any) -> Tensor:
    return torch.tanh(b.linear(x))


def in_place(b: Any, x: Tensor) -> Tensor:
    return x.copy_(torch.tanh(b.linear(x)))


def listed(*does: Callable[..., Any]) -> nn.ModuleList:
    return nn.ModuleList([Does(one) for one in does])


def in_turn(tree: Any, x: Tensor) -> Tensor:
    for block in tree.blocks:
        x = block(x)
    return x


def traced(tree: nn.Module, x: Tensor | None = None) -> Trace:
    given = torch.randn(1, N_POS, D, generator=torch.Generator().manual_seed(0)) if x is None else x
    return record(tree, lambda: tree(given), N_POS)


def found(tree: nn.Module, x: Tensor | None = None) -> list[Stack]:
    return stacks(tree, traced(tree, x), N_POS)


def paths(tree: nn.Module, x: Tensor | None = None) -> list[str]:
    return [stack.path for stack in found(tree, x)]


def test_lists_inside_the_blocks_of_a_stack_are_none_of_their_own() -> None:
    def through_parts(b: Any, x: Tensor) -> Tensor:
        for part in b.parts:
            x = part(x)
        return x

    blocks = nn.ModuleList([Does(through_parts, Does(adds), Does(adds)) for _ in range(2)])
    assert paths(Tree(in_turn, blocks=blocks)) == ["blocks"]


def test_stacks_come_in_the_order_in_which_they_run() -> None:
    tree = Tree(lambda t, x: t.late[0](t.early[0](x)), late=listed(adds), early=listed(adds))
    assert paths(tree) == ["early", "late"]


def test_a_list_with_an_item_that_does_not_run_or_passes_no_stream_is_no_stack() -> None:
    assert paths(Tree(lambda t, x: t.blocks[1](t.blocks[0](x)), blocks=listed(adds, adds, adds))) == []
    flattens = lambda b, x: b.linear(x).flatten(1)  # noqa: E731
    assert paths(Tree(in_turn, blocks=listed(adds, adds, flattens))) == []
    assert paths(Tree(in_turn, blocks=listed(adds, adds, adds))) == ["blocks"]


@pytest.mark.parametrize(
    ("blocks", "joined", "is_stack"),
    [
        ([adds], True, True),
        ([drops], True, False),
        ([drops, drops], True, True),
        ([drops, drops, drops], True, True),
        ([adds, drops], False, True),
        ([drops, adds], False, True),
        ([drops, drops, drops], False, False),
    ],
)
def test_the_items_of_a_stack_pass_the_stream_on_or_one_adds_to_it(
    blocks: list[Callable[..., Any]], joined: bool, is_stack: bool
) -> None:
    def run(tree: Any, x: Tensor) -> Tensor:
        for at, block in enumerate(tree.blocks):
            x = block(x if joined or at != len(tree.blocks) - 1 else torch.tanh(x))
        return x

    assert paths(Tree(run, blocks=listed(*blocks))) == (["blocks"] if is_stack else [])


def one_stack(blocks: list[Callable[..., Any]], runs: Callable[..., Any], x: Tensor | None = None) -> Stack:
    (stack,) = found(Tree(runs, blocks=listed(*blocks)), x)
    return stack


def test_the_stream_is_the_part_in_the_shape_of_what_was_given() -> None:
    def gives_more(b: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.repeat(1, 1, 2), x + b.linear(x)

    def given_more(b: Any, wide: Tensor, x: Tensor) -> Tensor:
        return x + b.linear(x) + wide.sum()

    blocks = one_stack([gives_more, given_more], lambda t, x: t.blocks[1](*t.blocks[0](x))).blocks
    assert [(one.slot, one.part, one.repeated) for one in blocks] == [(0, 1, False), (1, None, False)]


def test_of_two_arguments_in_the_shape_of_the_stream_it_is_the_one_that_the_block_before_gave() -> None:
    first = lambda b, x, side: x + b.linear(side)  # noqa: E731
    second = lambda b, side, x: x + b.linear(side)  # noqa: E731
    blocks = one_stack([first, second], lambda t, x: t.blocks[1](s := torch.tanh(x), t.blocks[0](x, s))).blocks
    assert [one.slot for one in blocks] == [0, 1]


def test_a_block_may_give_its_stream_twice() -> None:
    twice = lambda b, x: ((y := x + b.linear(x)), y * 2)  # noqa: E731
    blocks = one_stack([twice, twice], lambda t, x: t.blocks[1](t.blocks[0](x)[0])[0]).blocks
    assert [(one.slot, one.part) for one in blocks] == [(0, 0), (0, 0)]


def test_what_keeps_another_shape_than_the_stream_is_handed_on_next_to_it() -> None:
    hands = lambda b, x, r=None: (x + b.linear(x), x[..., :2] if r is None else r + 1)  # noqa: E731
    blocks = one_stack([hands, hands, hands], lambda t, x: t.blocks[2](*t.blocks[1](*t.blocks[0](x)))[0]).blocks
    assert [(one.slot, one.part) for one in blocks] == [(0, 0)] * 3


def test_a_stream_may_become_wider_from_block_to_block() -> None:
    doubles = lambda _, x: x + torch.tanh(x)  # noqa: E731
    stack = one_stack([adds, doubles, doubles], lambda t, x: t.blocks[2](t.blocks[1](t.blocks[0](x).repeat(1, 1, 2))))
    assert len(stack.blocks) == 3


def test_two_streams_at_once_are_no_stack() -> None:
    both = lambda b, x, y: (x + b.linear(y), y + b.linear(x))  # noqa: E731
    tree = Tree(lambda t, x: t.blocks[1](*t.blocks[0](x, x * 2)), blocks=listed(both, both))
    assert paths(tree) == []
    assert why_none(tree, traced(tree)) == "the items of 'blocks' pass on two streams at once"


def test_whole_numbers_and_numbers_by_token_are_no_stream() -> None:
    both = lambda b, i, s, x: (i, s, x + b.linear(x))  # noqa: E731
    whole, by_token = torch.ones(1, N_POS, D, dtype=torch.long), torch.ones(1, N_POS)
    runs = lambda t, x: t.blocks[1](*t.blocks[0](whole, by_token, x))  # noqa: E731
    blocks = one_stack([both, both], runs).blocks
    assert [(one.slot, one.part) for one in blocks] == [(2, 2), (2, 2)]


def test_a_stream_may_have_its_tokens_before_its_batch() -> None:
    assert len(one_stack([adds, adds], in_turn, torch.ones(N_POS, 1, D)).blocks) == 2
    assert paths(Tree(in_turn, blocks=listed(adds, adds)), torch.ones(N_POS, 2, D)) == []


def test_an_item_that_runs_twice_is_a_block_each_time_and_says_so() -> None:
    stack = one_stack([adds], lambda t, x: t.blocks[0](t.blocks[0](x)))
    assert [(one.call.number, one.repeated) for one in stack.blocks] == [(0, True), (1, True)]


class Parts(nn.Module):
    """Lists next to each other; a turn runs one item of each, the last of which adds."""

    def __init__(self, order: str, between: Callable[[Tensor, int], Tensor], **lists: nn.ModuleList) -> None:
        super().__init__()
        self.order, self.between, self.other = order.split(), between, nn.Linear(D, D)
        for name, one in lists.items():
            self.add_module(name, one)

    def forward(self, x: Tensor) -> Tensor:
        for n, step in enumerate(self.order):
            x = getattr(self, step[0])[int(step[1])](self.between(x, n))
        return x


def side_by_side(order: str, between: Callable[[Tensor, int], Tensor] = lambda x, _: x, **lists: Any) -> list[Stack]:
    if not lists:
        names, depth = (
            sorted({step[0] for step in order.split()}, reverse=True),
            1 + max(int(s[1]) for s in order.split()),
        )
        lists = {name: listed(*[drops] * depth) for name in names}
    return found(Tree(lambda t, x: t.part(x), part=Parts(order, between, **lists)))


@pytest.mark.parametrize("order", ["a0 b0", "a0 b0 a1 b1", "a0 b0 c0 a1 b1 c1", "a0 b0 c0 a1 b1 c1 a2 b2 c2"])
def test_lists_of_one_part_whose_items_run_in_turn_are_blocks_from_the_first_call_to_the_last(order: str) -> None:
    """In whichever order their part has the lists."""
    steps = order.split()
    names = sorted({step[0] for step in steps}, reverse=True)
    depth = len(steps) // len(names)
    lists = {name: listed(*[drops] * depth) for name in names}
    tree = Tree(lambda t, x: t.part(x), part=Parts(order, lambda x, _: x, **lists, none=nn.ModuleList()))
    trace = traced(tree)
    (stack,) = stacks(tree, trace, N_POS)
    assert stack.path == "part.a"
    calls = {call.path: call for call in trace.calls}
    assert len(stack.blocks) == depth
    for layer, block in enumerate(stack.blocks):
        first, last = calls[f"part.a.{layer}"], calls[f"part.{names[0]}.{layer}"]
        assert (block.x, block.y) == (first.inputs[0], last.outputs[None])
        assert (block.call.path, block.call.begin, block.call.end) == ("part", first.begin, last.end)
        assert (block.call.module, block.last, block.repeated) == (first.module, last, False)


@pytest.mark.parametrize(
    ("order", "odd"),
    [
        ("a0", []),
        ("a0 b0 a1 b1 b1", []),
        ("a0 b0 a1 b1", [2]),
        ("a0 b0 a1 b1 a2 b2", [2]),
        ("a0 b0 a1 b1 a2 b2", [4]),
    ],
)
def test_a_single_list_one_that_runs_twice_and_one_with_a_break_are_no_blocks(order: str, odd: list[int]) -> None:
    assert side_by_side(order, lambda x, n: torch.tanh(x) if n in odd else x) == []


def test_lists_of_other_lengths_are_no_blocks() -> None:
    assert side_by_side("a0 b0 a1", a=listed(drops, drops), b=listed(drops)) == []


@pytest.mark.parametrize("order", ["a0 b0 a1 a2 b1 b2", "a0 b0 a1 c0 b1 c1"])
def test_lists_whose_turns_overlap_are_no_blocks_though_all_is_one_memory(order: str) -> None:
    depth = 1 + max(int(step[1]) for step in order.split())
    lists = {name: listed(*[in_place] * depth) for name in sorted({step[0] for step in order.split()})}
    straight = " ".join(f"{name}{layer}" for layer in range(depth) for name in lists)
    assert len(side_by_side(straight, lambda x, _: x, **lists)[0].blocks) == depth
    assert side_by_side(order, lambda x, _: x, **lists) == []


@pytest.mark.parametrize("odd", [0, 1])
def test_lists_of_which_a_turn_is_given_or_gives_no_stream_are_no_blocks(odd: int) -> None:
    """Its numbers are laid out without a batch there."""
    a, b = listed(drops, drops), listed(drops, drops)
    if odd:
        b[1] = Does(lambda m, x: torch.tanh(m.linear(x))[0])
    runs = lambda x, n: x[0] if odd == 0 and n == 0 else x[None] if x.ndim == 2 else x  # noqa: E731
    assert side_by_side("a0 b0 a1 b1", runs, a=a, b=b) == []


class Owned(nn.Module):
    """Token ids in; each block is given its stream and what `gives` makes for it."""

    def __init__(self, gives: Callable[[Any, Tensor, int], dict[str, Tensor]], depth: int = 2) -> None:
        super().__init__()
        self.gives, self.place, self.table = gives, nn.Linear(1, 1), nn.Embedding(9, D)
        self.wide, self.fixed = nn.Embedding(9, D * depth), nn.Parameter(torch.ones(depth, N_POS, D))
        self.blocks = nn.ModuleList([Does(self.add) for _ in range(depth)])
        self.kept = torch.zeros(())

    def add(self, b: Any, x: Tensor, **given: Tensor) -> Tensor:
        self.kept = next(iter(given.values())) * 2 if given else self.kept
        return x + b.linear(x) + sum(one.float().mean() for one in given.values())

    def forward(self, ids: Tensor) -> Tensor:
        self.place(torch.ones(1, 1))
        self.each = self.wide(ids).unflatten(-1, (-1, D))
        self.shared, self.counts = self.table(ids).tanh(), (self.table(ids) > 0).long()
        x = self.table(ids)
        for layer, block in enumerate(self.blocks):
            x = block(x, **self.gives(self, ids, layer))
        return x


def owns(gives: Callable[[Any, Tensor, int], dict[str, Tensor]], depth: int = 2) -> dict[int, int | str]:
    hf = Owned(gives, depth)
    trace = traced(hf, torch.tensor([[3, 1, 4, 1, 5]]))
    return own_inputs(trace, stacks(hf, trace, N_POS)[0])


def own(m: Any, layer: int) -> Tensor:
    return m.each[:, :, layer]


def test_what_a_block_alone_is_given_of_the_tokens_is_its_own() -> None:
    assert owns(lambda m, _, layer: {"own": own(m, layer)}) == {0: "own", 1: "own"}
    assert owns(lambda m, _, layer: {"own": own(m, layer)}, 3) == {0: "own", 1: "own", 2: "own"}
    assert owns(lambda m, _, layer: {"own": own(m, layer)} if layer else {}) == {1: "own"}


@pytest.mark.parametrize(
    "other",
    [
        lambda m, _i, _l: m.shared,  # given to every block
        lambda m, _i, layer: m.fixed[layer][None],  # not made of the tokens
        lambda m, _i, layer: (m.each[:, :, layer] * 2)[None],  # of four axes
        lambda m, _i, layer: m.each[:, :, layer, 0],  # of two
        lambda m, _i, layer: m.each[:, :, layer].mT,  # [batch d pos]
        lambda m, _i, layer: m.each[:, :, layer].transpose(0, 1),  # [pos batch d]
        lambda m, _i, layer: m.counts + layer,  # whole numbers
    ],
)
def test_what_else_a_block_is_given_is_not_its_own(other: Callable[[Any, Tensor, int], Tensor]) -> None:
    def gives(m: Any, ids: Tensor, layer: int) -> dict[str, Tensor]:
        return ({"own": own(m, layer)} if layer else {}) | {"other": other(m, ids, layer)}

    assert owns(gives) == {1: "own"}


def test_what_is_made_of_the_tokens_once_the_first_block_has_run_is_no_ones_own() -> None:
    late = owns(lambda m, ids, layer: {"own": own(m, layer), "other": m.table(ids) + layer} if layer else {})
    assert late == {1: "own"}


def test_what_the_first_block_computes_is_not_the_seconds_own() -> None:
    """Its very first operation makes it."""
    assert owns(lambda m, _, layer: {"own": m.kept if layer else own(m, layer)}) == {0: "own"}


def test_a_block_without_others_has_nothing_of_its_own() -> None:
    assert owns(lambda m, _, layer: {"own": own(m, layer)}, 1) == {}


NONE = "no list of its modules passes a stream [batch pos d] from item to item"
TURNED = "a stream [batch d pos], in which each feature has its tokens next to each other"
PLACES = "places where the text has 5 tokens: the model adds some, pads, or folds the text"


@pytest.mark.parametrize(
    ("block", "given", "why"),
    [
        (adds, (1, 7, D), f"7 {PLACES}"),
        (adds, (1, 7, 2, D), f"7 2 {PLACES}"),
        (lambda b, x: x + b.linear(x.mT).mT, (1, D, N_POS), TURNED),
        (adds, (2, 1, N_POS, D), "2 streams at once [2 batch pos d]"),
        (lambda b, x, y=None: x + b.linear(x) + (0 if y is None else y), (1, 7, D), f"7 {PLACES}"),
        (lambda b, x: (x + b.linear(x), x.sum()), (1, 7, D), f"7 {PLACES}"),
        (drops, (1, N_POS, D), ""),
        (drops, (N_POS, D), ""),
        (drops, (7, D), ""),
        (lambda b, x: b.linear(x).flatten(1), (1, 7, D), ""),
        (lambda b, x: b.linear(x.float()).long(), (1, 7, D), ""),
    ],
)  # fmt: skip
def test_why_a_list_is_no_stack_is_what_its_items_pass_on(
    block: Callable[..., Any], given: tuple[int, ...], why: str
) -> None:
    whole = why == "" and given == (1, 7, D) and "long" in block.__code__.co_names
    x = torch.ones(given, dtype=torch.long if whole else None)
    twice = "y" in block.__code__.co_varnames
    tree = Tree(lambda t, x: t.blocks[0](*((x, x * 2) if twice else (x,))), first=nn.Linear(1, 1), blocks=listed(block))
    assert why_none(tree, traced(tree, x)) == (f"the items of 'blocks' pass on {why}" if why else NONE)


def test_why_a_list_is_no_stack_may_be_that_its_items_are_not_called() -> None:
    runs = lambda t, x: t.blocks[0].forward(x)  # noqa: E731
    tree = Tree(runs, blocks=listed(adds))
    wanted = "the items of 'blocks' are run by their forward alone, not called, so nothing can be read there"
    assert why_none(tree, traced(tree)) == wanted
    idle = Tree(lambda t, x: t.other(x), other=nn.Linear(D, D), blocks=listed(adds))
    assert why_none(idle, traced(idle)) == NONE


def test_a_list_of_which_some_items_run_passes_nothing_on() -> None:
    tree = Tree(lambda t, x: t.blocks[0](x), blocks=listed(adds, adds))
    assert why_none(tree, traced(tree, torch.ones(1, 7, D))) == NONE
