"""Mixtures of experts in blocks that a test wrote: what tracing finds of them, and what is read and written inside."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hooks.dense_mixture import DenseMixture
from hooks.errors import InvalidArgument, WrongState
from hooks.experts import ExpertAccessor, Mixture, of_expert
from hooks.mixture_hooks import check_experts, put_back, seen_by
from hooks.site import Site
from hooks.taps import Tap
from hooks.tracing.experts import TracedMixture, expert_taps, mixture_of
from hooks.tracing.record import Trace, record
from hooks.tracing.residual import BlockCall, residual_sum
from hooks.tracing.sublayers import Sublayer

D, HIDDEN, EXPERTS, K, N_POS = 8, 6, 4, 2, 5
SITES = ("router_logits", "expert_choice", "expert_weights", "expert_act", "expert_out", "shared_out")


class Router(nn.Module):
    """Gives weights and choice, and computes something narrower after them; with `deep` by a product of three axes."""

    def __init__(self, deep: bool = False) -> None:
        super().__init__()
        self.deep, self.weight, self.extra = deep, nn.Parameter(torch.randn(D, EXPERTS)), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = x @ (self.weight[None] if self.deep else self.weight)
        gain = self.extra(x).mean(dim=-1, keepdim=True).sigmoid()
        weights, choice = logits.topk(K, dim=-1)
        return weights.softmax(dim=-1) * gain, choice


class Experts(nn.Module):
    """Each of two matrices in and one out; a product that is of no tokens comes after them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gates = (nn.Parameter(torch.randn(EXPERTS, D, HIDDEN)) for _ in range(2))
        self.last = nn.Parameter(torch.randn(EXPERTS, HIDDEN, D))
        self.bias, self.square = nn.Parameter(torch.randn(EXPERTS, D)), nn.Parameter(torch.randn(50, 50))

    def act(self, x: Tensor, expert: int) -> Tensor:
        return torch.tanh(x @ self.first[expert]) * (x @ self.gates[expert])

    def one(self, x: Tensor, expert: int) -> Tensor:
        return self.act(x, expert) @ self.last[expert] + self.bias[expert]

    def forward(self, x: Tensor, choice: Tensor, weights: Tensor) -> Tensor:
        rows, choice, weights = x.reshape(-1, D), choice.reshape(-1, choice.shape[-1]), weights.flatten(0, -2)
        total = torch.zeros_like(rows)
        for expert in range(EXPERTS):
            token, k = torch.where(choice == expert)
            total = total.index_add(0, token, self.one(rows[token], expert) * weights[token, k, None])
        total = total + 0 * (self.square @ self.square).sum()
        return total.view(x.shape)


class Sparse(nn.Module):
    """A router, its experts, and two modules next to them; `how` says what becomes of them."""

    def __init__(self, how: Callable[..., Tensor], deep: bool = False, **parts: nn.Module) -> None:
        super().__init__()
        self.how, self.deep, self.router, self.experts = how, deep, Router(deep), Experts()
        self.shared, self.gate, self.scale = nn.Linear(D, D), nn.Linear(D, 1), nn.Parameter(torch.ones(D))
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        flat = x if self.deep else x.flatten(0, 1)
        return self.how(self, flat).view(x.shape)

    def mixed(self, flat: Tensor) -> Tensor:
        weights, choice = self.router(flat)
        if self.deep:
            return self.experts(weights=weights, choice=choice, x=flat)
        return self.experts(flat, choice, weights)


class Block(nn.Module):
    """Adds a sublayer to the stream."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


def seeded(make: Callable[[], nn.Module]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def text(n: int = N_POS) -> Tensor:
    return torch.randn(1, n, D, generator=torch.Generator().manual_seed(1))


def traced(block: nn.Module, n_pos: int = N_POS, repeated: bool = False) -> TracedMixture | None:
    trace = record(block, lambda: block(x=text(n_pos)), n_pos)
    call = BlockCall(trace.calls[0], "x", None, repeated)
    return mixture_of(trace, call, kind_of(trace, call))


def kind_of(trace: Trace, call: BlockCall) -> Sublayer:
    (term,) = residual_sum(trace, call).terms
    return Sublayer("mlp_out", term, next(one for one in trace.calls if one.path == "mlp"))


def sparse(how: Callable[..., Tensor], deep: bool = False, **parts: Callable[[], nn.Module]) -> Any:
    return seeded(lambda: Block(Sparse(how, deep, **{name: make() for name, make in parts.items()})))


SHARED = (lambda m, x: m.mixed(x) + m.shared(x), lambda m, x: m.shared(x) + m.mixed(x))
GATED = (
    lambda m, x: m.mixed(x) + m.shared(x) * m.gate(x).sigmoid(),
    lambda m, x: m.gate(x).sigmoid() * m.shared(x) + m.mixed(x),
)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("how", "factor", "shared", "gate", "explained"),
    [
        (lambda m, x: m.mixed(x), 1.0, False, False, True),
        (lambda m, x: m.mixed(x) * 2.5, 2.5, False, False, True),
        (lambda m, x: 2.5 * m.mixed(x), 2.5, False, False, True),
        (SHARED[0], 1.0, True, False, True),
        (SHARED[1], 1.0, True, False, True),
        (lambda m, x: m.mixed(x) * 2.5 + m.shared(x), 2.5, True, False, True),
        (GATED[0], 1.0, True, True, True),
        (GATED[1], 1.0, True, True, True),
        (lambda m, x: m.mixed(x) * m.scale, 1.0, False, False, False),
        (lambda m, x: torch.tanh(m.mixed(x)), 1.0, False, False, False),
        (lambda m, x: m.mixed(x) + 1.0, 1.0, False, False, False),
        (lambda m, x: m.mixed(x) - m.shared(x), 1.0, False, False, False),
        (lambda m, x: m.mixed(x) + m.scale, 1.0, False, False, False),
        (lambda m, x: m.mixed(x) + torch.tanh(m.shared(x)), 1.0, False, False, False),
        (lambda m, x: m.mixed(x) + m.shared(x) * 0.5, 1.0, False, False, False),
        (lambda m, x: m.mixed(x) + m.shared(x) * m.scale, 1.0, False, False, False),
        (lambda m, x: m.mixed(x) + m.shared(x) * m.gate(x).tanh(), 1.0, False, False, False),
        (lambda m, x: m.mixed(x) + m.shared(x) * m.gate(x * 2).sigmoid(), 1.0, False, False, False),
    ],
)
def test_what_a_sublayer_makes_of_its_experts_is_known_or_said_to_be_unknown(
    how: Callable[..., Tensor], factor: float, shared: bool, gate: bool, explained: bool, deep: bool
) -> None:
    block = sparse(how, deep)
    found = traced(block)
    assert found is not None
    mixture, mlp = found.mixture, block.mlp
    assert isinstance(mixture, Mixture)
    assert (found.explained, mixture.factor) == (explained, factor)
    assert mixture.shared is (mlp.shared if shared else None)
    assert mixture.gate is (mlp.gate if gate else None)
    assert (mixture.experts, mixture.router) == (mlp.experts, mlp.router)
    assert mixture.slots == (("x", "choice", "weights") if deep else (0, 1, 2))
    assert (mixture.n_experts, mixture.n_chosen, found.d_expert) == (EXPERTS, K, HIDDEN)
    assert (mixture.block, mixture.slot) == (block, "x")


def test_the_router_is_the_innermost_module_that_gives_the_choice_and_its_last_wide_product_tells_experts_apart() -> (
    None
):
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Router()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.inner(x)

    block = sparse(SHARED[0], router=Outer)
    found = traced(block)
    assert found is not None
    assert (found.mixture.router, found.mixture.n_experts) == (block.mlp.router.inner, EXPERTS)


def test_experts_that_give_the_choice_on_are_not_their_router() -> None:
    class Passing(Experts):
        def forward(self, x: Tensor, choice: Tensor, weights: Tensor) -> Any:
            return super().forward(x, choice, weights), choice

    block = sparse(lambda m, x: m.mixed(x)[0], experts=Passing)
    found = traced(block)
    assert found is not None
    assert found.mixture.router is block.mlp.router


def test_a_choice_that_no_module_gives_has_no_router() -> None:
    def inline(m: Any, x: Tensor) -> Tensor:
        weights, choice = (x @ m.router.weight).topk(K, dim=-1)
        return m.experts(x, choice, weights)

    found = traced(sparse(inline))
    assert found is not None
    assert (found.mixture.router, found.mixture.n_experts, found.mixture.n_chosen) == (None, 0, K)


class Picks(nn.Module):
    """Chooses by logits that it is given."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits.topk(K, dim=-1).indices


@pytest.mark.parametrize("outside", [True, False])
def test_how_many_experts_there_are_is_said_by_a_product_within_the_router_alone(outside: bool) -> None:
    """And which module it is by the choice: the weights are made elsewhere."""

    class Within(Picks):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(D, EXPERTS)

        def forward(self, logits: Tensor) -> Tensor:
            return super().forward(self.inner(logits))

    def by_logits(m: Any, x: Tensor) -> Tensor:
        logits = x @ m.router.weight
        choice = m.picks(logits if outside else x)
        return m.experts(x, choice, logits.gather(-1, choice)) + m.shared(x)

    block = sparse(by_logits, picks=Picks if outside else Within)
    found = traced(block)
    assert found is not None
    assert (found.mixture.router, found.mixture.n_experts) == (block.mlp.picks, 0 if outside else EXPERTS)


class More(Experts):
    """Experts that are given something more."""

    def forward(self, *given: Tensor) -> Tensor:  # type: ignore[override]
        whole = [one for one in given if not one.is_floating_point() and one.ndim > 1]
        x, weights = (next(one for one in given if one.is_floating_point() and one.shape[-1:] == (n,)) for n in (D, K))
        return super().forward(x, whole[-1], weights) if whole else x


def given_in(order: Callable[..., tuple[Any, ...]]) -> Callable[..., Tensor]:
    def how(m: Any, x: Tensor) -> Tensor:
        weights, choice = m.router(x)
        return m.experts(*order(m, x, choice, weights))

    return how


@pytest.mark.parametrize(
    ("order", "slots"),
    [
        (lambda _m, x, c, w: (x, c, w), (0, 1, 2)),
        (lambda _m, x, c, w: (w, c, x), (2, 1, 0)),
        (lambda _m, x, c, w: (c.to(torch.int32).long(), x, w), (1, 0, 2)),
        (lambda _m, x, c, w: (x, c, w, torch.ones(3)), (0, 1, 2)),
        (lambda _m, x, c, w: (x, c, w, torch.ones(())), (0, 1, 2)),
        (lambda _m, x, c, w: (x, c.bincount() if c.ndim == 1 else c.flatten().bincount(), c, w), (0, 2, 3)),
        (lambda _m, x, c, w: (x, c, w, w * 2), None),
        (lambda _m, x, c, w: (x, c, w, x * 2), None),
        (lambda _m, x, c, w: (x, c, w[:, :1] * w), (0, 1, 2)),
        (lambda _m, x, c, w: (x, c.flatten(), w), None),
        (lambda _m, x, c, w: (x.repeat(2, 1), c, w), None),
        (lambda _m, x, c, w: (x, c.repeat(2, 1), w.repeat(2, 1)), None),
    ],
)
def test_experts_are_called_with_a_row_of_numbers_a_choice_and_its_weights_for_each_token(
    order: Callable[..., tuple[Any, ...]], slots: tuple[int, int, int] | None
) -> None:
    """In any order, and next to what is none of these; where two could be one of them it is not known which."""

    class Takes(More):
        def forward(self, *given: Tensor) -> Tensor:  # type: ignore[override]
            if slots is None:
                return next(one for one in given if one.shape[-1:] == (D,))[:N_POS].tanh()
            return super().forward(*given)

    found = traced(sparse(given_in(order), experts=Takes))
    if slots is None:
        assert found is None
    else:
        assert found is not None
        assert isinstance(found.mixture, Mixture)
        assert found.mixture.slots == slots


def test_a_block_that_runs_more_than_once_and_a_term_of_no_module_have_no_mixture() -> None:
    block = sparse(SHARED[0])
    assert traced(block) is not None
    assert traced(block, repeated=True) is None
    trace = record(block, lambda: block(x=text()), N_POS)
    call = BlockCall(trace.calls[0], "x", None, repeated=False)
    assert mixture_of(trace, call, Sublayer("mlp_out", kind_of(trace, call).term)) is None


class Elementwise(nn.Module):
    """Experts that multiply by no matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(EXPERTS, D))

    def forward(self, x: Tensor, choice: Tensor, weights: Tensor) -> Tensor:
        return (x[:, None] * self.weight[choice] * weights[..., None]).sum(dim=1)


def test_experts_without_a_product_of_matrices_have_no_hidden_layer() -> None:
    found = traced(sparse(SHARED[0], experts=Elementwise))
    assert found is not None
    assert found.d_expert == 0
    assert "expert_act" not in {tap.site.name for tap in taps_of(found)}
    assert isinstance(found.mixture, Mixture)
    one = torch.zeros(N_POS, K, dtype=torch.long)
    with pytest.raises(WrongState, match="Elementwise does not multiply matrix by matrix"):
        found.mixture.memories((text()[0], one, torch.ones(N_POS, K)), {})


def taps_of(found: TracedMixture) -> list[Tap]:
    return [*expert_taps(lambda name: Site(name, 0), found, D)]


def test_every_site_of_a_mixture_has_its_module_and_the_shape_of_a_token() -> None:
    block = sparse(GATED[0])
    found = traced(block)
    assert found is not None
    mlp, shapes = block.mlp, [(EXPERTS,), (K,), (K,), (K, HIDDEN), (K, D), (D,)]
    taps = taps_of(found)
    assert [tap.site.name for tap in taps] == [*SITES]
    assert [tap.module for tap in taps] == [mlp.router, *[mlp.experts] * 4, mlp.shared]
    assert [tap.shape for tap in taps] == shapes
    assert [of_expert(tap, 3).shape for tap in taps[3:5]] == [(HIDDEN,), (D,)]
    assert of_expert(taps[4], 3).site == Site("expert_out", 0, expert=3)


class Ran:
    """A block run with edits at some of its sites, the first edit first; what each saw is kept."""

    def __init__(self, block: Any, edits: dict[str, Any], x: Tensor | None = None) -> None:
        found = traced(block)
        assert found is not None
        taps = {tap.site.name: tap for tap in taps_of(found)}
        self.seen: dict[str, Tensor] = {}
        handles = []
        for name, edit in edits.items():
            site, _, expert = name.partition(" ")
            tap = of_expert(taps[site], int(expert)) if expert else taps[site]
            handles.append(tap.attach(lambda a, name=name, edit=edit: self._seen(name, a, edit)))
        try:
            with torch.no_grad():
                self.output = block(x=text() if x is None else x)
        finally:
            for handle in handles:
                handle.remove()

    def _seen(self, name: str, a: Tensor, edit: Any) -> Tensor | None:
        self.seen[name] = a.clone()
        return None if edit is None else edit(a)


def by_hand(mlp: Any, x: Tensor) -> dict[str, Tensor]:
    """What is at every site, from the weights; x of one text [1 token d]."""
    rows = x[0]
    logits = rows @ mlp.router.weight
    weights, choice = logits.topk(K, dim=-1)
    weights = weights.softmax(dim=-1) * mlp.router.extra(rows).mean(dim=-1, keepdim=True).sigmoid()
    pairs = [[int(one) for one in row] for row in choice]
    act = torch.stack(
        [torch.stack([mlp.experts.act(row, e) for e in one]) for row, one in zip(rows, pairs, strict=True)]
    )
    out = torch.stack(
        [torch.stack([mlp.experts.one(row, e) for e in one]) for row, one in zip(rows, pairs, strict=True)]
    )
    made = {"router_logits": logits, "expert_choice": choice.float(), "expert_weights": weights, "expert_act": act}
    made |= {"expert_out": out, "shared_out": mlp.shared(rows) * mlp.gate(rows).sigmoid()}
    return {name: one[None] for name, one in made.items()}


@pytest.fixture(params=[False, True], ids=["flat", "deep"])
def block(request: pytest.FixtureRequest) -> Any:
    return sparse(GATED[0], request.param)


@torch.no_grad()
def test_what_is_read_inside_a_mixture_is_what_its_weights_say(block: Any) -> None:
    wanted, ran = by_hand(block.mlp, text()), Ran(block, dict.fromkeys(SITES))
    choice = wanted["expert_choice"].long()
    assert 1 in choice.flatten().bincount(), "an expert serves one token alone, as the test needs"
    for name in SITES:
        torch.testing.assert_close(ran.seen[name], wanted[name])
    torch.testing.assert_close(ran.output, block(text()))
    for expert in range(EXPERTS):
        one = Ran(block, {f"expert_act {expert}": None, f"expert_out {expert}": None}).seen
        serves = (choice == expert)[..., None]
        for name in ("expert_act", "expert_out"):
            torch.testing.assert_close(one[f"{name} {expert}"], (wanted[name] * serves).sum(dim=2))


def added(wanted: dict[str, Tensor]) -> Tensor:
    return (wanted["expert_weights"][..., None] * wanted["expert_out"]).sum(dim=2) + wanted["shared_out"]


@torch.no_grad()
def test_what_is_written_inside_a_mixture_flows_on(block: Any) -> None:
    x, mlp = text(), block.mlp
    wanted = by_hand(mlp, x)
    torch.testing.assert_close(block(x), x + added(wanted))
    half = lambda a: a / 2  # noqa: E731
    for name in ("expert_weights", "expert_out", "shared_out"):
        torch.testing.assert_close(Ran(block, {name: half}).output, x + added(wanted | {name: wanted[name] / 2}))
    choice = wanted["expert_choice"].long()
    bias = mlp.experts.bias[choice]
    halved = (wanted["expert_out"] - bias) / 2 + bias
    torch.testing.assert_close(Ran(block, {"expert_act": half}).output, x + added(wanted | {"expert_out": halved}))
    both = Ran(block, {"expert_act": half, "expert_out": half})
    torch.testing.assert_close(both.output, x + added(wanted | {"expert_out": halved / 2}))
    torch.testing.assert_close(both.seen["expert_out"], halved)
    twice = Ran(block, {"expert_act": half, "expert_act ": half})
    quarter = (wanted["expert_out"] - bias) / 4 + bias
    torch.testing.assert_close(twice.output, x + added(wanted | {"expert_out": quarter}))
    for expert in range(EXPERTS):
        serves = (choice == expert)[..., None]
        for name, out in (("expert_out", wanted["expert_out"] / 2), ("expert_act", halved)):
            one = torch.where(serves, out, wanted["expert_out"])
            output = Ran(block, {f"{name} {expert}": half}).output
            torch.testing.assert_close(output, x + added(wanted | {"expert_out": one}))


@torch.no_grad()
def test_a_choice_that_is_written_keeps_its_weights_and_logits_that_are_written_decide_both(block: Any) -> None:
    x, mlp = text(), block.mlp
    wanted = by_hand(mlp, x)
    other = (EXPERTS - 1) - wanted["expert_choice"]
    out = torch.stack([
        torch.stack([mlp.experts.one(x[0, token], int(expert)) for expert in other[0, token]]) for token in range(N_POS)
    ])[None]  # fmt: skip
    ran = Ran(block, {"expert_choice": lambda _: other, "expert_weights": None})
    torch.testing.assert_close(ran.output, x + added(wanted | {"expert_out": out}))
    torch.testing.assert_close(ran.seen["expert_weights"], wanted["expert_weights"])
    ran = Ran(block, {"router_logits": lambda a: -a, "expert_weights": None, "expert_choice": None})
    turned = (-wanted["router_logits"]).topk(K, dim=-1)
    gain = wanted["expert_weights"].sum(dim=-1, keepdim=True)
    torch.testing.assert_close(ran.seen["expert_weights"], turned.values.softmax(dim=-1) * gain)
    assert torch.equal(ran.seen["expert_choice"].long(), turned.indices)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_memories_are_named_before_what_is_made_of_them(kind: str) -> None:
    block = sparse(GATED[0]) if kind == "sparse" else dense()
    with pytest.raises(WrongState, match="name expert_act first"):
        Ran(block, {"expert_out": lambda a: a * 2, "expert_act": lambda a: a * 2})
    Ran(block, {"expert_out": lambda a: a * 2, "expert_act": None})
    Ran(block, {"expert_act": lambda a: a * 2})


def test_two_texts_at_once_have_what_each_has_alone(block: Any) -> None:
    x = torch.cat([text(), text().flip(1)])
    if block.mlp.deep:
        return  # its experts are of one text
    together, alone = Ran(block, dict.fromkeys(SITES), x), Ran(block, dict.fromkeys(SITES), x[1:])
    for name in SITES:
        torch.testing.assert_close(together.seen[name][1:], alone.seen[name])


@torch.no_grad()
def test_a_pass_that_raised_calls_no_edit(block: Any) -> None:
    found = traced(block)
    assert found is not None
    asked: list[Tensor] = []
    for name in SITES:
        tap = next(tap for tap in taps_of(found) if tap.site.name == name)
        assert tap.inside is not None
        for before, module, call in tap.inside.hooks(lambda a: asked.append(a)):
            if not before:
                assert call(module, (text(),), {}, None) is None
    assert asked == []


@torch.no_grad()
def test_shared_experts_may_be_called_by_keyword() -> None:
    block = sparse(lambda m, x: m.mixed(x) + m.shared(input=x) * m.gate(x).sigmoid())
    ran = Ran(block, {"shared_out": lambda a: a * 2})
    wanted = by_hand(block.mlp, text())
    torch.testing.assert_close(ran.seen["shared_out"], wanted["shared_out"])
    torch.testing.assert_close(ran.output, text() + added(wanted | {"shared_out": wanted["shared_out"] * 2}))


@torch.no_grad()
def test_experts_that_take_no_choice_of_one_give_what_each_gives_alone() -> None:
    class Several(Experts):
        def forward(self, x: Tensor, choice: Tensor, weights: Tensor) -> Tensor:
            if choice.shape[-1] != K:
                raise ValueError("each token has two experts")
            return super().forward(x, choice, weights)

    block = sparse(GATED[0], experts=Several)
    torch.testing.assert_close(
        Ran(block, {"expert_out": None}).seen["expert_out"], by_hand(block.mlp, text())["expert_out"]
    )


@torch.no_grad()
@pytest.mark.parametrize("least", [1, K])
def test_what_experts_give_is_what_their_own_kernel_gives_and_what_they_read_is_seen_in_their_loop(least: int) -> None:
    """A module of transformers computes by a fused kernel in place of the loop that it wraps."""

    def fused(loop: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(loop)
        def forward(self: Any, x: Tensor, choice: Tensor, weights: Tensor) -> Tensor:
            if choice.shape[-1] < least:
                raise ValueError("the kernel takes more experts")
            into, gate = (torch.einsum("nd,nkdh->nkh", x, one[choice]) for one in (self.first, self.gates))
            act = into.tanh() * gate
            made = torch.einsum("nkh,nkhd->nkd", act, self.last[choice]) + self.bias[choice]
            return 1.01 * (made * weights[..., None]).sum(dim=1)

        return forward

    class Fused(Experts):
        forward = fused(Experts.forward)  # type: ignore[assignment]

    block = sparse(GATED[0], experts=Fused)
    wanted, seen = by_hand(block.mlp, text()), Ran(block, {"expert_act": None, "expert_out": None}).seen
    torch.testing.assert_close(seen["expert_act"], wanted["expert_act"])
    torch.testing.assert_close(seen["expert_out"], 1.01 * wanted["expert_out"])


@torch.no_grad()
def test_a_product_whose_matrix_is_given_by_keyword_is_seen() -> None:
    class Keyword(Experts):
        def act(self, x: Tensor, expert: int) -> Tensor:
            return torch.tanh(F.linear(x, weight=self.first[expert].T)) * (x @ self.gates[expert])

        def one(self, x: Tensor, expert: int) -> Tensor:
            return F.linear(self.act(x, expert), weight=self.last[expert].T, bias=self.bias[expert])

    block = sparse(GATED[0], experts=Keyword)
    wanted = by_hand(block.mlp, text())
    ran = Ran(block, {"expert_act": lambda a: 0 * a})
    torch.testing.assert_close(ran.seen["expert_act"], wanted["expert_act"])
    bias = block.mlp.experts.bias[wanted["expert_choice"].long()]
    torch.testing.assert_close(ran.output, text() + added(wanted | {"expert_out": bias}))


class Scores(nn.Module):
    """Scores each expert, zero where it is not chosen, next to the logits or alone."""

    def __init__(self, n_experts: int, alone: bool = False) -> None:
        super().__init__()
        self.weight, self.alone, self.odd = nn.Parameter(torch.randn(D, n_experts)), alone, False

    def forward(self, x: Tensor) -> Any:
        logits = x @ self.weight
        top = logits.topk(min(K, logits.shape[1] - 1) or 1)
        scores = torch.full_like(logits, -torch.inf).scatter(1, top.indices, top.values).sigmoid()
        if self.odd:
            scores = scores * (torch.arange(len(x)) > 0)[:, None]
        return scores if self.alone else (logits, scores)


class Batched(nn.Module):
    """Experts that each run over all rows of theirs; products of other sizes come after their own."""

    def __init__(self, n_experts: int) -> None:
        super().__init__()
        self.n_experts = n_experts
        self.first, self.gates = (nn.Parameter(torch.randn(n_experts, D, HIDDEN)) for _ in range(2))
        self.last = nn.Parameter(torch.randn(n_experts, HIDDEN, D))
        self.bias = nn.Parameter(torch.randn(n_experts, 1, D))
        self.flat, self.deep = nn.Parameter(torch.randn(n_experts, n_experts)), nn.Parameter(torch.randn(7, 3, 3))

    def one(self, x: Tensor, expert: int) -> tuple[Tensor, Tensor]:
        act = torch.tanh(x @ self.first[expert]) * (x @ self.gates[expert])
        return act, act @ self.last[expert] + self.bias[expert]

    def forward(self, rows: Tensor) -> Tensor:
        x = rows.view(self.n_experts, -1, D)
        made = torch.bmm(torch.bmm(x, mat2=self.first).tanh() * torch.bmm(x, self.gates), self.last) + self.bias
        other = (self.flat @ self.flat).sum() + torch.bmm(self.deep, self.deep).sum()
        return (made + 0 * other).view(-1, D)


class Dense(nn.Module):
    """Every expert reads every token times its score, and what all give is added."""

    def __init__(self, n_experts: int, how: Callable[..., Tensor], alone: bool) -> None:
        super().__init__()
        self.n_experts, self.how = n_experts, how
        self.router, self.experts, self.shared = Scores(n_experts, alone), Batched(n_experts), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x.flatten(0, 1)).view(x.shape)

    def rows(self, flat: Tensor) -> Tensor:
        given = self.router(flat)
        scores = given if self.router.alone else given[1]
        return flat.repeat(self.n_experts, 1) * scores.t().reshape(-1, 1)

    def mixed(self, flat: Tensor) -> Tensor:
        return self.experts(self.rows(flat)).reshape(self.n_experts, -1, D).sum(dim=0)


def dense(how: Callable[..., Tensor] = SHARED[0], n_experts: int = EXPERTS, alone: bool = False) -> Any:
    return seeded(lambda: Block(Dense(n_experts, how, alone)))


@pytest.mark.parametrize("n_experts", [2, 3, 4])
@pytest.mark.parametrize(
    ("how", "shared", "explained"),
    [
        (lambda m, x: m.mixed(x), False, True),
        (SHARED[0], True, True),
        (SHARED[1], True, True),
        (lambda m, x: m.shared(x).add_(m.mixed(x)), True, True),
        (lambda m, x: m.mixed(x) + torch.tanh(x), False, False),
        (lambda m, x: torch.tanh(m.mixed(x)), False, False),
        (lambda m, x: m.experts(m.rows(x)).view(m.n_experts, -1, D).mean(0) + m.shared(x), False, False),
        (lambda m, x: m.experts(m.rows(x)).view(m.n_experts, -1, D).tanh().sum(0) + m.shared(x), False, False),
    ],
)
def test_experts_that_run_over_every_token_are_found_with_what_is_added_to_them(
    how: Callable[..., Tensor], shared: bool, explained: bool, n_experts: int
) -> None:
    block = dense(how, n_experts)
    found = traced(block)
    assert found is not None
    mixture, mlp = found.mixture, block.mlp
    assert isinstance(mixture, DenseMixture)
    assert (mixture.experts, mixture.router, mixture.part) == (mlp.experts, mlp.router, 1)
    assert (mixture.n_experts, mixture.n_chosen, found.d_expert) == (n_experts, min(K, n_experts - 1), HIDDEN)
    assert mixture.shared is (mlp.shared if shared else None)
    assert (found.explained, mixture.factor, mixture.gate) == (explained, 1.0, None)
    assert (mixture.block, mixture.slot) == (block, "x")


def test_scores_that_a_router_gives_turned_are_its_own() -> None:
    class Turned(Scores):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x).t().contiguous().t()

    def build() -> nn.Module:
        block = Block(Dense(EXPERTS, SHARED[0], alone=True))
        block.mlp.router = Turned(EXPERTS, alone=True)
        return block

    found = traced(seeded(build))
    assert found is not None
    assert isinstance(found.mixture, DenseMixture)
    assert (found.mixture.part, found.mixture.n_chosen) == (None, K)


class Widened(Batched):
    """Experts that give more features than they are given."""

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows).repeat(1, 2)


class GivenMore(Batched):
    """Experts that are given something else too."""

    def forward(self, rows: Tensor, other: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(rows) + 0 * other.sum()


def without(m: Any, x: Tensor) -> Tensor:
    """The scores are computed by the sublayer itself."""
    scores = (x @ m.router.weight).sigmoid()
    return m.experts(x.repeat(m.n_experts, 1) * scores.t().reshape(-1, 1)).view(m.n_experts, -1, D).sum(0)


@pytest.mark.parametrize(
    ("how", "experts"),
    [
        (lambda m, x: m.experts(m.rows(x))[:, :D].view(m.n_experts, -1, D).sum(0), Widened),
        (lambda m, x: m.experts(m.rows(x), x).view(m.n_experts, -1, D).sum(0), GivenMore),
        (lambda m, x: m.experts(m.rows(x) + 1.0).view(m.n_experts, -1, D).sum(0), Batched),
        (lambda m, x: m.experts(m.rows(x) * 2.0).view(m.n_experts, -1, D).sum(0), Batched),
        (lambda m, x: m.experts(m.rows(x).flip(0).cumsum(0)).view(m.n_experts, -1, D).sum(0), Batched),
        (without, Batched),
    ],
)  # fmt: skip
def test_what_is_no_module_of_scored_rows_is_no_mixture(
    how: Callable[..., Tensor], experts: Callable[[int], nn.Module]
) -> None:
    def build() -> nn.Module:
        block = Block(Dense(EXPERTS, how, alone=False))
        block.mlp.experts = experts(EXPERTS)
        return block

    assert traced(seeded(build)) is None


def test_a_gate_of_every_token_is_no_mixture_of_one_and_tokens_of_more_or_fewer_experts_are_none() -> None:
    assert traced(dense(n_experts=1)) is None
    uneven = dense()
    uneven.mlp.router.odd = True
    assert traced(uneven) is None


def dense_by_hand(mlp: Any, x: Tensor, sign: float = 1.0) -> dict[str, Tensor]:
    """What is at every site; with a sign, where the logits are multiplied by it."""
    rows = x[0]
    logits = sign * (rows @ mlp.router.weight)
    raw, choice = logits.topk(K, dim=-1)
    weights = raw.sigmoid()
    both = [
        [mlp.experts.one(w * row, int(e)) for w, e in zip(ws, es, strict=True)]
        for row, ws, es in zip(rows, weights, choice, strict=True)
    ]
    act, given = (torch.stack([torch.stack([one[n][0] if one[n].ndim > 1 else one[n] for one in row]) for row in both])
                  for n in (0, 1))  # fmt: skip
    unread = torch.stack([mlp.experts.one(0 * rows[0], e)[1][0] for e in range(mlp.n_experts)])
    idle = unread.sum(dim=0) - unread[choice].sum(dim=1)
    made = {"router_logits": logits, "expert_choice": choice.float(), "expert_weights": weights, "expert_act": act}
    made |= {"expert_out": given / weights[..., None], "shared_out": mlp.shared(rows), "idle": idle}
    return {name: one[None] for name, one in made.items()}


def dense_added(wanted: dict[str, Tensor]) -> Tensor:
    """What the experts give, those that are not chosen for a row of zeros."""
    return added(wanted) + wanted["idle"]


@torch.no_grad()
@pytest.mark.parametrize("alone", [False, True])
def test_what_is_read_in_experts_that_run_over_every_token_is_what_their_weights_say(alone: bool) -> None:
    block, x = dense(alone=alone), text()
    wanted, ran = dense_by_hand(block.mlp, x), Ran(block, dict.fromkeys(SITES))
    for name in SITES:
        torch.testing.assert_close(ran.seen[name], wanted[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ran.output, block(x))
    torch.testing.assert_close(block(x), x + dense_added(wanted), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("alone", [False, True])
def test_what_is_written_in_experts_that_run_over_every_token_flows_on(alone: bool) -> None:
    block, x = dense(alone=alone), text()
    experts, wanted = block.mlp.experts, dense_by_hand(block.mlp, x)
    half = lambda a: a / 2  # noqa: E731

    def close(edits: dict[str, Any], changed: dict[str, Tensor]) -> None:
        torch.testing.assert_close(Ran(block, edits).output, x + dense_added(wanted | changed), rtol=1e-4, atol=1e-5)

    close({"expert_out": half}, {"expert_out": wanted["expert_out"] / 2})
    close({"shared_out": half}, {"shared_out": wanted["shared_out"] / 2})
    choice, weights = wanted["expert_choice"].long(), wanted["expert_weights"][..., None]
    bias = experts.bias[:, 0][choice] / weights
    halved = (wanted["expert_out"] - bias) / 2 + bias
    close({"expert_act": half}, {"expert_out": halved})
    close({"expert_act": half, "expert_act ": half}, {"expert_out": (wanted["expert_out"] - bias) / 4 + bias})
    for expert in range(EXPERTS):
        serves = (choice == expert)[..., None]
        close({f"expert_out {expert}": half}, {"expert_out": wanted["expert_out"] * (1 - serves / 2)})
        close({f"expert_act {expert}": half}, {"expert_out": torch.where(serves, halved, wanted["expert_out"])})
    turned = dense_by_hand(block.mlp, x, -1.0)
    ran = Ran(block, {"router_logits": lambda a: -a})
    torch.testing.assert_close(ran.output, x + dense_added(turned), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("alone", [False, True])
def test_weights_and_choice_written_there_are_the_scores_that_the_experts_read(alone: bool) -> None:
    block, x = dense(alone=alone), text()
    experts, wanted = block.mlp.experts, dense_by_hand(block.mlp, x)
    ran = Ran(block, {"expert_weights": lambda a: 0 * a, "expert_out": None})
    nothing = torch.stack([experts.one(torch.zeros(D), expert)[1][0] for expert in range(EXPERTS)])
    choice = Ran(block, {"expert_weights": lambda a: 0 * a, "expert_choice": None}).seen["expert_choice"].long()
    torch.testing.assert_close(ran.seen["expert_out"], nothing[choice])
    torch.testing.assert_close(ran.output, x + wanted["shared_out"] + nothing.sum(dim=0))
    other = (EXPERTS - 1) - wanted["expert_choice"]
    ran = Ran(block, {"expert_choice": lambda _: other, "expert_weights": None})
    given = nothing.sum(dim=0).expand(N_POS, D).clone()
    for token in range(N_POS):
        for weight, expert in zip(wanted["expert_weights"][0, token], other[0, token].long().tolist(), strict=True):
            given[token] += experts.one(weight * x[0, token], expert)[1][0] - nothing[expert]
    torch.testing.assert_close(ran.output, x + wanted["shared_out"] + given, rtol=1e-4, atol=1e-5)
    halved = Ran(block, {"expert_weights": lambda a: a / 2, "expert_act": None})
    rows = [[weight / 2 * row for weight in ws] for ws, row in zip(wanted["expert_weights"][0], x[0], strict=True)]
    act = torch.stack([
        torch.stack([experts.one(row, int(e))[0] for row, e in zip(some, es, strict=True)])
        for some, es in zip(rows, wanted["expert_choice"][0], strict=True)
    ])[None]  # fmt: skip
    torch.testing.assert_close(halved.seen["expert_act"], act)


def test_logits_are_named_before_the_weights_that_follow_from_them() -> None:
    half = lambda a: a / 2  # noqa: E731
    with pytest.raises(WrongState, match="name it first"):
        Ran(dense(), {"expert_weights": half, "router_logits": half})
    Ran(dense(), {"expert_weights": half, "router_logits": None})


def test_experts_that_do_not_multiply_all_at_once_have_no_hidden_layer() -> None:
    class Single(Batched):
        def forward(self, rows: Tensor) -> Tensor:
            x = rows.view(self.n_experts, -1, D)
            return torch.stack([self.one(one, expert)[1] for expert, one in enumerate(x)]).view(-1, D)

    def build() -> nn.Module:
        block = Block(Dense(EXPERTS, SHARED[0], alone=False))
        block.mlp.experts = Single(EXPERTS)
        return block

    found = traced(seeded(build))
    assert found is not None
    assert (found.d_expert, found.explained) == (0, True)


def test_a_written_choice_is_of_whole_numbers_from_0_to_the_last_expert() -> None:
    check_experts(torch.tensor([[0.0, 3.0]]), 4)
    check_experts(torch.tensor([[0.0, 9.0]]), 0)  # where it is not known how many there are
    for value, why in (
        (-1.0, "and -1 was written"),
        (0.5, "and 0.5 was written"),
        (-0.5, "and -0.5"),
        (4.0, "are 4 exp"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            check_experts(torch.tensor([[1.0, value]]), 4)


def test_what_is_of_one_expert_is_zero_elsewhere_and_put_back_where_it_serves() -> None:
    value, choice = torch.arange(8.0).view(2, 2, 2) + 1, torch.tensor([[3, 0], [1, 2]])
    assert torch.equal(seen_by(value, choice, None), value)
    assert torch.equal(seen_by(value, choice, 0), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    put = put_back(value, choice, 0, -torch.ones(2, 2))
    assert torch.equal(put, torch.tensor([[[1.0, 2.0], [-1.0, -1.0]], [[5.0, 6.0], [7.0, 8.0]]]))
    assert put_back(value, choice, None, -value) is not value


def test_an_interrupted_pass_leaves_nothing() -> None:
    found = traced(sparse(SHARED[0]))
    assert found is not None
    site = ExpertAccessor(found.mixture, "expert_out")  # type: ignore[arg-type]
    found.mixture.flow.act = found.mixture.flow.out = torch.ones(1)
    site.end()
    assert (found.mixture.flow.act, found.mixture.flow.out) == (None, None)
