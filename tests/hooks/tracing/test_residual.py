"""The sum that makes a block's output, read off blocks whose arithmetic a test wrote, against that arithmetic."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks.tracing.record import Trace, record
from hooks.tracing.residual import (
    AddedTerm,
    BlockCall,
    Stream,
    StreamNorm,
    Sum,
    evaluate,
    format_sum,
    from_stage,
    is_norm,
    is_plain,
    residual_sum,
    stages,
    terms_of,
)

D, N_POS = 4, 5
Written = Callable[[Any, Tensor], Tensor]


class Twofold(nn.Module):
    """A sublayer that is a sum itself."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class Pair(nn.LayerNorm):
    """A norm that gives something next to what it norms."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), torch.ones(1)


class Gated(nn.LayerNorm):
    """A norm of one thing times another."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * gate


class Block(nn.Module):
    """Parts that a written block may use: `a` and `m` make terms; the rest is its own."""

    def __init__(self, written: Written) -> None:
        super().__init__()
        self.written, self.a, self.m = written, Twofold(), nn.Linear(D, D)
        self.norm, self.pair, self.gated, self.tanh = nn.LayerNorm(D), Pair(D), Gated(D), nn.Tanh()
        shapes = {"bias": (D,), "number": (), "one": (1, 1, 1), "wide": (1, 1, D), "places": (N_POS, D)}
        for name, shape in {**shapes, "steps": (N_POS, 1)}.items():
            self.register_parameter(name, nn.Parameter(1 + torch.rand(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, x)


def traced(written: Written) -> tuple[Block, Trace, BlockCall]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block, x = Block(written), torch.randn(1, N_POS, D)
    trace = record(block, lambda: block(x), N_POS)
    return block, trace, BlockCall(trace.calls[0], 0, None, repeated=False)


def read(written: Written) -> Sum:
    _, trace, call = traced(written)
    return residual_sum(trace, call)


READ: dict[str, tuple[Written, str, list[str]]] = {  # what it is, how it reads, what gives its terms
    "stream first": (lambda b, x: x + b.a(x), "resid_pre + a", ["a"]),
    "stream last": (lambda b, x: b.a(x) + x, "resid_pre + a", ["a"]),
    "one after the other": (lambda b, x: (y := x + b.a(x)) + b.m(y), "resid_pre + a + m", ["a", "m"]),
    "in the order of computing": (lambda b, x: (a := b.a(x), x + b.m(x) + a)[1], "resid_pre + m + a", ["a", "m"]),
    "taken away": (lambda b, x: x - b.a(x), "resid_pre - a", ["a"]),
    "added in place": (lambda b, x: (x + b.a(x)).add_(b.m(x)), "resid_pre + a + m", ["a", "m"]),
    "the same twice": (lambda b, x: (a := b.a(x), x + a + a)[1], "resid_pre + a + a", ["a"]),
    "a number times the stream": (lambda b, x: 2 * x + b.a(x), "resid_pre · 2 + a", ["a"]),
    "a weight times the stream": (lambda b, x: b.bias * x + b.a(x), "weight · resid_pre + a", ["a"]),
    "a part of the stream": (lambda b, x: x / 4 + b.a(x), "resid_pre / 4 + a", ["a"]),
    "a sum scaled in place": (lambda b, x: (x + b.a(x)).mul_(2), "(resid_pre + a) · 2", ["a"]),
    "a sum divided in place": (lambda b, x: (x + b.a(x)).div_(b.bias), "(resid_pre + a) / weight", ["a"]),
    "a bias first of all": (lambda b, x: x + b.bias + b.a(x), "resid_pre + weight + a", ["a"]),
    "a weight with axes": (lambda b, x: x * b.wide + b.a(x), "resid_pre · weight + a", ["a"]),
    "a weight spread": (lambda b, x: x * b.bias.expand(1, N_POS, D) + b.a(x), "resid_pre · weight + a", ["a"]),
    "a weight of weights": (lambda b, x: x * b.bias.sigmoid() + b.a(x), "resid_pre · weight + a", ["a"]),
    "a norm after": (lambda b, x: b.norm(x + b.a(x)), "LN(resid_pre + a)", ["a"]),
    "a norm between": (lambda b, x: (y := b.norm(x + b.a(x))) + b.m(y), "LN(resid_pre + a) + m", ["a", "m"]),
    "a norm that gives two": (lambda b, x: b.pair(x + b.a(x))[0], "LN(resid_pre + a)", ["a"]),
    "two in brackets": (lambda b, x: x + (b.a(x) + b.m(x)), "resid_pre + a + m", ["a", "m"]),
    "two in brackets, scaled": (lambda b, x: x + (b.a(x) + b.m(x)) * 0.5, "resid_pre + (a + m) · 0.5", ["a", "m"]),
    "two in brackets, weighed": (lambda b, x: x + b.bias * (b.a(x) + b.m(x)), "resid_pre + weight · (a + m)",
                                 ["a", "m"]),
    "two in brackets, divided": (lambda b, x: x + (b.a(x) + b.m(x)) / 4, "resid_pre + (a + m) / 4", ["a", "m"]),
    "a difference in brackets": (lambda b, x: x + (b.a(x) - b.m(x)), "resid_pre + nothing", ["nothing"]),
    "a product of two": (lambda b, x: x + b.a(x) * b.m(x), "resid_pre + nothing", ["nothing"]),
    "a weight divided by a term": (lambda b, x: x + b.bias / b.m(x), "resid_pre + nothing", ["nothing"]),
    "a function of a term": (lambda b, x: x + torch.tanh(b.a(x)), "resid_pre + nothing", ["nothing"]),
    "a weight for each token": (lambda b, x: x + b.places + b.m(x), "resid_pre + nothing + m", ["nothing", "m"]),
    "a number for each token": (lambda b, x: x + b.steps.expand(N_POS, D) + b.m(x), "resid_pre + nothing + m",
                                ["nothing", "m"]),
    "what has no maker comes first": (lambda b, x: x + b.tanh(x) + b.places, "resid_pre + tanh + nothing",
                                      ["nothing", "tanh"]),
    "no stream": (lambda b, x: b.a(x) + b.m(x), "a + m", ["a", "m"]),
}  # fmt: skip


def giver(found: Sum, term: int) -> str:
    calls = found.terms[term].calls
    return calls[0].path if calls else "nothing"


@pytest.mark.parametrize(("written", "reads", "gives"), READ.values(), ids=READ)
def test_a_blocks_sum_is_the_one_that_it_was_written_as(written: Written, reads: str, gives: list[str]) -> None:
    """The expression, given another stream and other terms, gives what the block gives whose parts give them."""
    block, trace, call = traced(written)
    found = residual_sum(trace, call)
    assert found.expr is not None
    names = [giver(found, term) for term in range(len(found.terms))]
    assert names == gives
    assert format_sum(found.expr, names) == reads
    assert terms_of(found.expr) == frozenset(range(len(gives)))
    shape = trace.tensor(call.x).shape
    made = {n: trace.tensor(one.value).reshape(-1, N_POS, D).expand(shape) for n, one in enumerate(found.terms)}
    with torch.no_grad():
        torch.testing.assert_close(evaluate(found.expr, trace.tensor(call.x), made), trace.tensor(call.y))
        if "nothing" in names:
            return
        x, *others = torch.randn(1 + len(names), 1, N_POS, D, generator=torch.Generator().manual_seed(1))
        stubs = {name: lambda _, other=other: other for name, other in zip(names, others, strict=True)}
        parts = {name: getattr(block, name) for name in ("norm", "pair", "bias", "wide")}
        wanted = written(SimpleNamespace(**parts | stubs), x)
        torch.testing.assert_close(evaluate(found.expr, x, dict(enumerate(others))), wanted)


@pytest.mark.parametrize(
    ("written", "factor"),
    [
        (lambda b, x: x + b.m(x), 1.0),
        (lambda b, x: x + b.m(x) * 0.25, 0.25),
        (lambda b, x: x + 0.25 * b.m(x), 0.25),
        (lambda b, x: x + b.m(x) / 8, 0.125),
        (lambda b, x: x + b.m(x).mul_(3), 3.0),
        (lambda b, x: x + b.m(x).div_(8), 0.125),
        (lambda b, x: x + b.bias * b.m(x), "bias"),
        (lambda b, x: x + b.m(x) * b.bias, "bias"),
        (lambda b, x: x + b.one * b.m(x), "one"),
        (lambda b, x: x + b.number * b.m(x), "number"),
        (lambda b, x: x + b.m(x) * b.wide.expand(1, N_POS, D), "wide"),
        (lambda b, x: x + b.m(x) / b.bias, "1 / bias"),
    ],
)
def test_what_a_term_is_multiplied_by_is_its_factor(written: Written, factor: float | str) -> None:
    block, trace, call = traced(written)
    found = residual_sum(trace, call)
    (term,) = found.terms
    assert found.expr is not None
    assert format_sum(found.expr, ["m"]) == "resid_pre + m"
    assert term.value == trace.root(next(one for one in trace.calls if one.path == "m").outputs[None])
    if not isinstance(factor, str):
        assert term.factor == factor
    else:
        weight = getattr(block, factor.removeprefix("1 / "))
        torch.testing.assert_close(term.factor, (1 / weight if "/" in factor else weight), check_stride=False)


@pytest.mark.parametrize(
    ("written", "reads"),
    [
        (lambda b, x: b.number * x + b.m(x), "1.5 · resid_pre + m"),
        (lambda b, x: x * b.one + b.m(x), "resid_pre · 1.5 + m"),
        (lambda b, x: x * b.bias + b.m(x), "resid_pre · weight + m"),
    ],
)
def test_a_weight_that_is_one_number_reads_as_that_number(written: Written, reads: str) -> None:
    block, trace, call = traced(lambda b, x: written(b, x))
    with torch.no_grad():
        for one in (block.number, block.one):
            nn.init.constant_(one, 1.5)  # type: ignore[arg-type]
    found = residual_sum(trace, call)
    assert found.expr is not None
    assert format_sum(found.expr, ["m"]) == reads


@pytest.mark.parametrize(
    "written",
    [
        lambda _, x: x,
        lambda b, x: b.a(x) - x,
        lambda b, x: b.bias / x,
        lambda b, x: x * b.m(x),
        lambda b, x: b.m(x) * x,
        lambda b, x: torch.tanh(x + b.m(x)),
        lambda b, x: b.gated(x + b.m(x), b.bias),
        lambda b, _: b.places[None] * 1,
        lambda b, _: b.places,
        lambda b, x: b.m(x),
        lambda b, x: b.a(x) * b.m(x),
        lambda b, x: b.m(x) + 1.0,
        lambda b, x: b.a(x) + torch.tanh(b.m(x)),
        lambda b, x: torch.tanh(b.m(x)) + b.a(x),
        lambda b, x: torch.add(x, b.m(x), alpha=2),
        lambda b, x: torch.add(b.a(x), b.m(x), alpha=2),
        lambda b, x: torch.div(x, 2, rounding_mode="floor"),
    ],
)
def test_what_is_no_sum_with_the_stream_or_of_modules_alone_has_none(written: Written) -> None:
    found = read(written)
    assert found.expr is None
    assert found.terms == ()
    assert found.stream == frozenset()


def test_a_difference_times_a_setting_within_a_term_is_a_term_of_its_own() -> None:
    found = read(lambda b, x: x + torch.add(b.a(x), b.m(x), alpha=2))
    assert [one.calls for one in found.terms] == [()]


def test_the_stages_of_the_stream_are_its_sums_and_norms_with_the_terms_in_them() -> None:
    _, trace, call = traced(lambda b, x: b.norm(x + 0.5 * b.a(x)) + (b.m(x) + b.tanh(x)) * 2)
    found = residual_sum(trace, call)
    assert found.expr is not None
    assert [sorted(terms) for _, terms in stages(found.expr)] == [[0], [0], [0, 1, 2]]
    norm = next(one for one in trace.calls if one.path == "norm")
    assert stages(found.expr)[:2] == [
        (trace.root(norm.inputs[0]), frozenset([0])),
        (trace.root(norm.outputs[None]), frozenset([0])),
    ]
    assert stages(found.expr)[2][0] == trace.root(call.y)
    assert found.stream == {value for value, _ in stages(found.expr)}


def test_where_a_block_keeps_no_stream_its_first_term_is_what_its_second_may_read() -> None:
    _, trace, call = traced(lambda b, x: (a := b.a(x)) + b.m(a))
    found = residual_sum(trace, call)
    assert found.stream == {trace.root(next(one for one in trace.calls if one.path == "a").outputs[None])}


def test_a_sum_from_a_stage_on_is_what_is_left_of_it() -> None:
    _, trace, call = traced(lambda b, x: b.norm((y := b.norm(x + b.a(x))) + b.m(y)))
    found = residual_sum(trace, call)
    assert found.expr is not None
    stage = found.expr.inner.args[0]  # type: ignore[union-attr]
    assert isinstance(stage, StreamNorm)
    assert stage.name == "norm"
    left = from_stage(found.expr, stage)
    assert format_sum(left, ["a", "m"], "resid_mid") == "LN(resid_mid + m)"
    assert format_sum(found.expr, ["a", "m"]) == "LN(LN(resid_pre + a) + m)"
    assert isinstance(from_stage(found.expr, found.expr), Stream)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        (lambda b, x: x + b.a(x), True),
        (lambda b, x: x + (b.a(x) + b.m(x)), True),
        (lambda b, x: (x + b.a(x)).add_(b.m(x)), True),
        (lambda b, x: x + 0.5 * b.a(x), True),  # the factor is the term's
        (lambda b, x: x + b.bias + b.a(x), False),
        (lambda b, x: x - b.a(x), False),
        (lambda b, x: 2 * x + b.a(x), False),
        (lambda b, x: b.a(x) + x * 2, False),
        (lambda b, x: b.norm(x) + b.a(x), False),
        (lambda b, x: b.a(x) + b.m(x), False),
    ],
)
def test_a_plain_sum_adds_terms_to_the_stream_and_does_nothing_else(written: Written, plain: bool) -> None:
    found = read(written)
    assert found.expr is not None
    assert is_plain(found.expr) == plain


def test_a_term_alone_is_no_plain_sum_and_the_stream_alone_is() -> None:
    assert is_plain(Stream())
    assert not is_plain(AddedTerm(0))


class Scale(nn.Module):
    """A number for each feature."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))


class TableNorm(Scale):
    """Called a norm, with a matrix."""


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (nn.LayerNorm(D), True),
        (nn.LayerNorm(D, elementwise_affine=False), True),
        (Scale(D), True),
        (Scale(), True),
        (nn.Tanh(), False),
        (nn.Linear(D, D), False),
        (nn.Linear(D, D, bias=False), False),
        (TableNorm(D, D), False),
    ],
)
def test_a_norm_is_called_so_or_has_weights_and_none_is_a_matrix(module: nn.Module, wanted: bool) -> None:
    assert is_norm(module) == wanted
