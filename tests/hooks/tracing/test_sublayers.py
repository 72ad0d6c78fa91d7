"""What the terms of a block's sum are, of blocks whose parts a test writes itself."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hooks.tracing.record import Trace, record
from hooks.tracing.residual import BlockCall, residual_sum
from hooks.tracing.sublayers import Sublayer, is_projection, reach_of, sublayers

N, D, HEADS, WIDE = 11, 6, 2, 14
pytestmark = pytest.mark.usefixtures("seed")


@pytest.fixture
def seed() -> None:
    torch.manual_seed(0)


class Root(nn.Module):
    """An encoder of a text of another length, an embedding, and blocks that read both."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.encoder, self.embed, self.blocks = nn.Linear(D, D), nn.Linear(D, D), nn.ModuleList(blocks)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        encoded, x = self.encoder(other), self.embed(x)
        for block in self.blocks:
            x = block(x, encoded)
        return x


class Adding(nn.Module):
    """x plus what each part gives of it, one after the other; a part that is no module is the block's own doing."""

    def __init__(self, *parts: Callable[..., Tensor]) -> None:
        super().__init__()
        self.kept = nn.ModuleList([part for part in parts if isinstance(part, nn.Module)])
        self.parts = parts

    def forward(self, x: Tensor, encoded: Tensor) -> Tensor:
        for part in self.parts:
            x = x + (part(x, encoded) if getattr(part, "reads_both", False) else part(x))
        return x


def traced(*blocks: nn.Module, n_encoded: int = 7) -> tuple[Trace, list[list[Sublayer]]]:
    """What tracing finds in each block."""
    root, x, other = Root(*blocks), torch.randn(1, N, D), torch.randn(1, n_encoded, D)
    trace = record(root, lambda: root(x, other), N)
    calls = [next(call for call in trace.calls if call.module is block) for block in blocks]
    encoded = trace.after({value for call in trace.calls if call.path == "encoder" for value in call.outputs.values()})
    found: list[list[Sublayer]] = []
    for call in calls:
        block = BlockCall(call, 0, None, repeated=False)
        found.append(sublayers(trace, block, residual_sum(trace, block), encoded, N))
    return trace, found


def kinds_of(*parts: Callable[..., Tensor]) -> list[Sublayer]:
    return traced(Adding(*parts))[1][0]


def names_of(*parts: Callable[..., Tensor]) -> list[str]:
    return [kind.name for kind in kinds_of(*parts)]


def modules_of(kind: Sublayer) -> dict[str, nn.Module]:
    return {name: call.module for name, call in kind.parts.items()}


Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
SEEN, SCALE = torch.ones(N, N).tril().bool(), torch.full((HEADS, 1, 1), 0.5)


def by_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def by_masked_kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=SEEN)


def by_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).masked_fill(~SEEN, -torch.inf).softmax(-1) @ v


def with_a_bias(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scores and averages by one operation each, that adds."""
    scores = torch.baddbmm(SEEN.float().expand(HEADS, N, N), q[0], k[0].mT)
    return torch.baddbmm(torch.ones(HEADS, N, D // HEADS), scores[None].softmax(-1)[0], v[0])[None]


def with_places(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Another product comes before that of queries and keys."""
    shift = torch.ones(HEADS, N, 1) @ torch.ones(HEADS, 1, N)
    return (q @ k.mT + shift).softmax(-1) @ v


def scaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Queries are multiplied by a weight."""
    return (q * SCALE @ k.mT).softmax(-1) @ v


def with_a_sink(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    more = torch.zeros(1, HEADS, 1, D // HEADS)
    return (q @ torch.cat([k, more], 2).mT).softmax(-1) @ torch.cat([v, more], 2)


class Attention(nn.Module):
    """Attention of a text, or of what an encoder gives, in some way."""

    def __init__(self, mix: Mix = by_kernel, across: bool = False, heads: int | None = HEADS) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))
        self.mix, self.reads_both, self.heads = mix, across, heads

    def forward(self, x: Tensor, encoded: Tensor | None = None) -> Tensor:
        read = x if encoded is None else encoded
        parts = [self.q(x), self.k(read), self.v(read)]
        if self.heads is None:
            return self.o(self.mix(*parts))
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in parts)
        return self.o(self.mix(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """W_out act(W_in x)."""

    def __init__(self, act: Callable[[Tensor], Tensor], wide: int = WIDE) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(D, WIDE), act, nn.Linear(wide, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class Gated(nn.Module):
    """W_out (act(W_g x) · W_in x), with what is done to the product."""

    def __init__(self, act: Callable[[Tensor], Tensor], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(D, WIDE), nn.Linear(D, WIDE), nn.Linear(WIDE, D)
        self.act, self.inner = act, inner

    def forward(self, x: Tensor) -> Tensor:
        product = self.act(self.gate(x)) * self.up(x)
        return self.down(product if self.inner is None else self.inner(product))


@pytest.mark.parametrize("mix", [by_kernel, by_masked_kernel, by_softmax, with_a_bias, with_places, scaled])
def test_attention_has_its_projections_and_heads_however_it_is_computed(mix: Mix) -> None:
    attention = Attention(mix)
    trace, ((kind, other),) = traced(Adding(attention, FeedForward(nn.GELU())))
    assert (kind.name, other.name) == ("attn_out", "mlp_out")
    assert kind.root is not None and kind.root.module is attention
    assert modules_of(kind) == {"q": attention.q, "k": attention.k, "v": attention.v, "o": attention.o}
    assert (kind.n_heads, kind.norm, kind.act, kind.gate, kind.reach) == (HEADS, None, None, None, None)
    assert ("scaled_dot_product" if "kernel" in mix.__name__ else "softmax") in trace.ops[kind.meets].name
    assert other.meets == -1 and other.n_heads is None and other.reach is None


def test_attention_without_an_axis_of_heads_does_not_say_how_many_it_has() -> None:
    (kind,) = kinds_of(attention := Attention(by_softmax, heads=None))
    assert (kind.name, kind.n_heads) == ("attn_out", None)
    assert modules_of(kind) == {"q": attention.q, "k": attention.k, "v": attention.v, "o": attention.o}


def test_attention_to_more_keys_than_tokens_is_attention() -> None:
    (kind,) = kinds_of(Attention(with_a_sink))
    assert (kind.name, kind.n_heads) == ("attn_out", HEADS)


@pytest.mark.parametrize(("mix", "n_encoded"), [(by_kernel, 7), (by_softmax, N)])
def test_attention_to_an_encoder_is_cross_attention_and_to_a_stream_that_has_read_it_is_not(
    mix: Mix, n_encoded: int
) -> None:
    blocks = [Adding(Attention(by_softmax), Attention(mix, across=True), FeedForward(nn.ReLU())) for _ in range(2)]
    _, found = traced(*blocks, n_encoded=n_encoded)
    assert [[kind.name for kind in kinds] for kinds in found] == [["attn_out", "cross_out", "mlp_out"]] * 2


class Joint(nn.Module):
    """Queries, keys and values of one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.o((q @ k.mT).softmax(-1) @ v)


class Apart(nn.Module):
    """Queries of two projections, keys without any."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.v, self.o = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.o(((self.one(x) + self.two(x)) @ x.mT).softmax(-1) @ self.v(x))


class Dense(nn.Module):
    """The pattern is what a projection gives (Tay et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.scores, self.v, self.o = nn.Linear(D, N), nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.scores(x).softmax(-1) @ self.v(x))


class Weighed(Joint):
    """Values are weighed one by one and summed."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.o(((q @ k.mT).softmax(-1)[..., None] * v[:, None]).sum(2))


@pytest.mark.parametrize("kind", [Joint, Apart, Dense, Weighed])
def test_attention_whose_queries_keys_and_values_are_of_no_projection_each_has_its_last_alone(
    kind: type[nn.Module],
) -> None:
    (found,) = kinds_of(attention := kind())
    assert found.name == "attn_out"
    assert modules_of(found) == {"o": attention.o}


class GatedAttention(nn.Module):
    """What attention averages, or its average, is multiplied by the sigmoid of what a projection gives."""

    def __init__(self, mix: Mix, early: bool, late: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.gate, self.o = (nn.Linear(D, D) for _ in range(5))
        self.mix, self.early, self.late = mix, early, late

    def forward(self, x: Tensor) -> Tensor:
        gate, v = self.gate(x).sigmoid(), self.v(x)
        parts = (self.q(x), self.k(x), v * gate if self.early else v)
        z = self.mix(*(one.unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in parts)).transpose(1, 2).flatten(2)
        return self.o(z * gate if self.late else z)


@pytest.mark.parametrize("mix", [by_kernel, by_softmax])
def test_the_gate_of_attention_multiplies_its_average_and_not_what_it_averages(mix: Mix) -> None:
    parts = [GatedAttention(mix, early, late) for early, late in ((True, False), (False, True), (True, True))]
    found = kinds_of(*parts)
    assert [kind.name for kind in found] == ["attn_out"] * 3
    assert found[0].gate is None
    for kind, part in zip(found[1:], parts[1:], strict=True):
        assert kind.gate is not None
        assert (kind.gate[0].module, kind.gate[1]) == (part.gate, tuple(range(D)))


def test_the_gate_of_another_mixer_multiplies_what_it_mixes() -> None:
    class GatedMean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.o = nn.Linear(D, D), nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            return self.o(x.cumsum(1) * F.silu(self.gate(x)))

    (kind,) = kinds_of(mixer := GatedMean())
    assert (kind.name, modules_of(kind)) == ("mixer_out", {"o": mixer.o})
    assert kind.gate is not None and kind.gate[0].module is mixer.gate


class Longer(nn.Module):
    """A further projection, of what one makes of the average."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.attention, self.further = Attention(mix), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.further(torch.tanh(self.attention(x)))


@pytest.mark.parametrize("mix", [by_kernel, by_softmax])
def test_attention_inside_something_larger_makes_a_mixer_of_it(mix: Mix) -> None:
    (kind,) = kinds_of(longer := Longer(mix))
    assert (kind.name, kind.reach, kind.n_heads) == ("mixer_out", None, None)
    assert modules_of(kind) == {"o": longer.further}


def of_shape(*shape: int) -> Callable[[Tensor], Tensor]:
    """A softmax in some shape, all of which scales what is added."""

    def softmax(x: Tensor) -> Tensor:
        size = torch.Size(shape).numel()
        return torch.tanh(x) * (x.flatten()[:1] * torch.ones(size)).view(shape).softmax(-1).sum()

    return softmax


@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        ((1, N, N), True),
        ((1, HEADS, N, N), True),
        ((1, HEADS, N, N + 3), True),
        ((1, HEADS, N, N - 3), False),
        ((1, N, N + 3), False),
        ((1, N, D), False),
        ((1, D, N), False),
        ((1, HEADS, D, N), False),
        ((1, N, D, N), False),
        ((N, N), False),
        ((1, HEADS, 1, N, N), True),
        ((1, HEADS, 1, N, N + 3), True),
    ],
)
def test_a_softmax_is_of_attention_where_each_token_has_a_weight_for_each_and_maybe_for_more(
    shape: tuple[int, ...], pattern: bool
) -> None:
    assert names_of(of_shape(*shape)) == ["attn_out" if pattern else "mlp_out"]


def test_a_kernel_that_attends_to_no_tokens_is_no_attention() -> None:
    class OverFeatures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.o = nn.Linear(D, D)

        def forward(self, x: Tensor) -> Tensor:
            heads = x.view(N, HEADS, D // HEADS).transpose(0, 1)[None].transpose(2, 3)
            one = x.unflatten(-1, (D, 1))[0, :, None]
            return self.o(F.scaled_dot_product_attention(one, one, one)[:, 0, :, 0][None] + 0 * heads.sum())

    assert names_of(OverFeatures()) == ["mlp_out"]


class Moved(nn.Module):
    """Each token and the one that is k before it."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k, self.act = k, nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + F.pad(x, (0, 0, self.k, 0))[:, :N])


class Averaged(nn.Module):
    """The mean of a token and all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.idle(x.cumsum(1) / torch.arange(1, N + 1)[:, None])


class Chain(nn.Sequential):
    """Parts one after the other."""


@pytest.mark.parametrize(
    ("parts", "names", "reaches"),
    [
        ([Attention, Moved], ["attn_out", "mlp_out"], [None, 1]),
        ([Averaged, Moved], ["mixer_out", "mlp_out"], [None, 1]),
        ([partial(Moved, 3), Averaged], ["mlp_out", "mixer_out"], [3, None]),
        ([Attention, Moved, partial(FeedForward, torch.tanh)], ["attn_out", "mixer_out", "mlp_out"], [None, 1, None]),
        ([Attention, Attention, Moved], ["attn_out", "attn_out", "mixer_out"], [None, None, 1]),
        ([Moved, partial(Moved, 2)], ["mixer_out", "mixer_out"], [1, 2]),
        ([partial(Moved, N - 4)], ["mixer_out"], [None]),
    ],
)
def test_what_reaches_a_few_tokens_next_to_the_one_part_that_reaches_all_is_the_feed_forward(
    parts: list[Callable[[], nn.Module]], names: list[str], reaches: list[int | None]
) -> None:
    found = kinds_of(*(part() for part in parts))
    assert [kind.name for kind in found] == names
    assert [kind.reach for kind in found] == reaches


class Then(nn.Module):
    """Some parts in turn, in one line of the block's own."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor, encoded: Tensor) -> Tensor:
        del encoded
        y = x
        for part in self.parts:
            y = part(y)
        return x + y


@pytest.mark.parametrize("first", [[Averaged], [nn.Linear(D, D), Averaged], [Averaged, nn.Linear(D, D)]])
def test_what_reaches_a_few_tokens_of_what_another_part_gives_reaches_as_far_as_that(
    first: list[type[nn.Module] | nn.Module],
) -> None:
    parts = [one if isinstance(one, nn.Module) else one() for one in first]
    ((kind,),) = traced(Then(*parts, Moved()))[1]
    assert (kind.name, kind.reach) == ("mixer_out", None)
    ((kind,),) = traced(Then(nn.Linear(D, D), Moved()))[1]
    assert (kind.name, kind.reach) == ("mixer_out", 1)


W, BIAS = torch.randn(D, D, generator=torch.Generator().manual_seed(1)), torch.ones(1, N, N)
INLINE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a sum over tokens": (lambda x: x.cumsum(1), "mixer_out"),
    "tokens in turn": (lambda x: x.roll(1, 1).tanh(), "mixer_out"),
    "a Fourier transform": (lambda x: torch.fft.fft(x, dim=1).real, "mixer_out"),
    "products of tokens": (lambda x: torch.bmm(torch.bmm(x, x.mT), x), "mixer_out"),
    "products of tokens and a bias": (lambda x: torch.baddbmm(BIAS, x, x.mT) @ torch.ones(N, D), "mixer_out"),
    "a matrix": (lambda x: x @ W, "mlp_out"),
    "a matrix and a bias": (lambda x: torch.baddbmm(x, x, W[None]), "mlp_out"),
    "each token": (torch.tanh, "mlp_out"),
}  # fmt: skip


@pytest.mark.parametrize("way", INLINE)
def test_what_a_block_does_itself_mixes_tokens_where_they_meet_in_an_operation(way: str) -> None:
    part, name = INLINE[way]
    (kind,) = kinds_of(part)
    assert (kind.name, kind.root, kind.reach) == (name, None, None)
    assert (modules_of(kind), kind.act, kind.norm) == ({}, None, None)


def test_a_feed_forward_layer_has_its_matrices_and_its_nonlinearity() -> None:
    plain, gated = FeedForward(nn.GELU()), Gated(nn.SiLU())
    one, other = kinds_of(plain, gated)
    assert modules_of(one) == {"in": plain.up, "out": plain.down} and one.act is plain.act
    assert modules_of(other) == {"gate": gated.gate, "in": gated.up, "out": gated.down} and other.act is gated.act
    assert [kind.root and kind.root.module for kind in (one, other)] == [plain, gated]


ALONE: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "one operation": (F.gelu, True),
    "two": (lambda x: x.relu().square(), True),
    "a shape between": (lambda x: x.view(N, WIDE).sigmoid().view(1, N, WIDE), True),
    "a number by name": (lambda x: F.softplus(x, beta=2.0), True),
    "times itself": (lambda x: x * x, True),
    "in place": (lambda x: x.relu_(), False),
    "one that is read twice": (lambda x: (1.7 * x).sigmoid() * x, False),
    "none": (lambda x: x, False),
}


@pytest.mark.parametrize("way", ALONE)
def test_a_nonlinearity_that_no_module_makes_is_the_operations_that_read_it_alone(way: str) -> None:
    act, alone = ALONE[way]
    (kind,) = kinds_of(layer := FeedForward(act))
    assert modules_of(kind) == {"in": layer.up, "out": layer.down}
    assert (kind.act is not None) == alone
    if kind.act is not None:
        x = torch.randn(1, N, WIDE)
        torch.testing.assert_close(kind.act(x), act(x))


def test_of_a_gated_layer_the_nonlinearity_is_what_comes_before_the_product() -> None:
    (kind,) = kinds_of(layer := Gated(F.silu))
    assert modules_of(kind) == {"gate": layer.gate, "in": layer.up, "out": layer.down}
    assert kind.act is not None
    x = torch.randn(1, N, WIDE)
    torch.testing.assert_close(kind.act(x), F.silu(x))


def test_of_a_layer_that_gates_one_half_by_the_other_there_is_no_nonlinearity_of_the_whole() -> None:
    layer = FeedForward(lambda x: F.silu(x.chunk(2, dim=-1)[0]) * x.chunk(2, dim=-1)[1], WIDE // 2)
    halves = FeedForward(lambda x: (lambda pair: F.silu(pair[0]) * pair[1])(x.chunk(2, dim=-1)), WIDE // 2)
    only = FeedForward(lambda x: F.silu(x.narrow(-1, 0, WIDE // 2)), WIDE // 2)
    for kind, one in zip(kinds_of(layer, halves, only), (layer, halves, only), strict=True):
        assert (kind.name, modules_of(kind), kind.act) == ("mlp_out", {"in": one.up, "out": one.down}, None)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_norm_before_the_last_matrix_is_a_part_of_a_gated_layer(norm: type[nn.Module]) -> None:
    (kind,) = kinds_of(layer := Gated(nn.SiLU(), norm(WIDE)))
    assert modules_of(kind) == {"gate": layer.gate, "in": layer.up, "out": layer.down, "act_norm": layer.inner}


class Three(nn.Module):
    """A product of three."""

    def __init__(self) -> None:
        super().__init__()
        self.ins, self.act, self.down = (
            nn.ModuleList(nn.Linear(D, WIDE) for _ in range(3)),
            nn.SiLU(),
            nn.Linear(WIDE, D),
        )

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = (part(x) for part in self.ins)
        return self.down(self.act(one) * two * three)


class Twice(nn.Module):
    """One matrix, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(self.up(x).tanh()))


class Unlike(nn.Module):
    """Its last matrix is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.matrix = nn.Linear(D, WIDE), nn.Parameter(torch.randn(WIDE, D))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x).tanh() @ self.matrix


def test_of_a_feed_forward_layer_of_other_matrices_no_more_is_said_than_is_sure() -> None:
    three, bilinear, twice, unlike = Three(), Gated(lambda x: x), Twice(), Unlike()
    found = kinds_of(three, bilinear, twice, unlike)
    assert [kind.name for kind in found] == ["mlp_out"] * 4
    assert [modules_of(kind) for kind in found] == [{"out": three.down}, {"out": bilinear.down}, {}, {}]
    assert [kind.act for kind in found] == [None] * 4


class Adapted(nn.Linear):
    """A matrix with two small ones next to it."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__(n, m)
        self.down, self.up = nn.Linear(n, 2), nn.Linear(2, m)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.up(self.down(input))


def test_an_adapter_inside_a_projection_is_part_of_it() -> None:
    layer = FeedForward(nn.GELU())
    layer.up, layer.down = Adapted(D, WIDE), Adapted(WIDE, D)
    (kind,) = kinds_of(layer)
    assert modules_of(kind) == {"in": layer.up, "out": layer.down} and kind.act is layer.act


class Halved(nn.Module):
    """Half of what it is given, with no weight."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5


class NormOfParts(nn.Module):
    """A norm of two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.scale = nn.LayerNorm(D), Halved()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(self.norm(x))


class After(nn.Module):
    """A norm or scale of what a part gives, as one module."""

    def __init__(self, part: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.part, self.last = part, last

    def forward(self, x: Tensor, encoded: Tensor) -> Tensor:
        del encoded
        return x + self.last(self.part(x))


@pytest.mark.parametrize("last", [nn.LayerNorm(D), NormOfParts(), Halved()])
def test_a_norm_or_scale_after_a_part_is_no_part_of_it(last: nn.Module) -> None:
    layer, attention = FeedForward(nn.GELU()), Attention()
    _, ((fed,), (mixed,)) = traced(After(layer, last), After(attention, deepcopy(last)))
    for kind, part in ((fed, layer), (mixed, attention)):
        assert kind.norm is not None
        assert kind.norm.path.endswith(".last" if not [*last.children()] else ".last.scale")
        if not [*last.children()]:
            assert kind.root is not None and kind.root.module is part
    if not [*last.children()]:
        assert modules_of(fed) == {"in": layer.up, "out": layer.down}
        assert set(mixed.parts) == {*"qkvo"}


@pytest.mark.parametrize("last", [nn.Dropout().eval(), nn.Linear(D, D)])
def test_what_changes_nothing_after_a_part_and_a_matrix_after_it_are_no_norm_of_it(last: nn.Module) -> None:
    ((kind,),) = traced(After(FeedForward(nn.GELU()), last))[1]
    assert kind.norm is None


class NormByGate(nn.Module):
    """A norm times a gate that it is given too."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(D))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return F.rms_norm(x, (D,), self.weight) * gate.tanh()


class GatedAfter(After):
    def forward(self, x: Tensor, encoded: Tensor) -> Tensor:
        del encoded
        return x + self.last(self.part(x), x)


def test_a_norm_that_is_given_more_than_a_part_gives_is_no_norm_of_it() -> None:
    ((kind,),) = traced(GatedAfter(FeedForward(nn.GELU()), NormByGate()))[1]
    assert (kind.name, kind.norm) == ("mlp_out", None)


def test_a_table_and_a_norm_are_no_projections() -> None:
    assert is_projection(nn.Linear(3, 5))
    assert not any(map(is_projection, (nn.Embedding(3, 5), nn.LayerNorm(3), nn.Identity(), nn.Conv1d(3, 5, 1))))


class Of(nn.Module):
    """A function of its arguments as a module."""

    def __init__(self, does: Callable[..., object]) -> None:
        super().__init__()
        self.does = does

    def forward(self, *args: object, **kwargs: object) -> object:
        return self.does(*args, **kwargs)


def reach(
    does: Callable[..., object], *args: object, part: int | str | None = None, n: int = N, **kwargs: object
) -> int | None:
    """How far a function moves something."""
    module = Of(does)
    trace = record(module, lambda: module(*args, **kwargs), n)
    return reach_of(trace, trace.calls[0], trace.calls[0].outputs[part], n)


def moved(x: Tensor, k: int, axis: int = 1) -> Tensor:
    """Each token and the one k before."""
    return x + torch.cat([torch.zeros_like(x.narrow(axis, 0, k)), x.narrow(axis, 0, x.shape[axis] - k)], axis)


@pytest.mark.parametrize("k", range(N))
def test_a_module_reaches_as_far_as_it_moves_a_token_to_the_end_of_the_text(k: int) -> None:
    """The token that is changed is the fourth; what is moved beyond the end cannot be seen."""
    seen = k if k < N - 3 else 0
    x = torch.randn(1, N, D)
    assert reach(lambda x: moved(x, k), x) == seen
    assert reach(lambda x: moved(x, k), 1e4 * x) == seen
    assert reach(lambda x: moved(x, k), -x.abs()) == seen
    assert reach(lambda x: moved(x, k), x=x) == seen
    assert reach(lambda x: (x * 2, moved(x, k)), x, part=1) == seen
    assert reach(lambda x: {"y": moved(x, k), "x": x.cumsum(1)}, x, part="y") == seen
    assert reach(lambda x: moved(x, k, 0), x[0]) == seen
    assert reach(lambda x: moved(x, k, 0), x.mT[0].T[:, None]) == seen
    assert reach(lambda x: moved(x, k), x.unflatten(-1, (2, 3))) == seen
    assert reach(lambda _, x: moved(x, k), torch.arange(N)[None], x) == seen


def test_a_sum_over_all_tokens_before_reaches_to_the_end_of_the_text() -> None:
    x = torch.randn(1, N, D)
    assert reach(lambda x: x.cumsum(1), x) == N - 4
    assert reach(lambda x: x.cumsum(1), x[:, :5], n=5) == 1
    assert reach(lambda x: x.tanh(), x[:, :5], n=5) == 0
    assert reach(lambda x: x.cumsum(1), x[:, :4], n=4) is None


def test_of_what_has_no_tokens_or_cannot_be_called_again_the_reach_is_not_said() -> None:
    x = torch.randn(1, N, D)
    assert reach(lambda x: x.cumsum(1), x.mT) is None
    assert reach(lambda x: x.cumsum(1).mT, x) is None
    assert reach(lambda x: x.cumsum(1).sum(1), x) is None
    assert reach(lambda x: x * 1, torch.randn(N)) is None
    assert reach(lambda ids: ids.cumsum(1).float(), 1000 * torch.arange(1, N + 1)[None]) is None
    calls: list[Tensor] = []

    def once(x: Tensor) -> Tensor:
        calls.append(x)
        if len(calls) > 1:
            raise ValueError
        return x.cumsum(1)

    assert reach(once, x) is None


def planted_change(x: Tensor, sizes: dict[int, float], rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows to which what is said is added, place by place, when the fourth token is another than it was."""

    def does(given: Tensor) -> Tensor:
        made = rows.clone()
        for place, size in sizes.items():
            made[0, place, 0] += size * (given[0, 3] != x[0, 3]).any()
        return made + 0 * given.detach().sum()

    return does


def test_a_change_of_less_than_a_thousandth_of_all_is_none() -> None:
    x, rows = torch.randn(1, N, D), torch.full((1, N, 1), 3.0)
    norm = 3 * 7**0.5
    assert reach(planted_change(x, {6: 0.9e-3 * norm}, rows), x) == 0
    assert reach(planted_change(x, {6: 1.1e-3 * norm}, rows), x) == 3
    assert reach(planted_change(x, {}, 0 * rows), x) == 0


def test_a_token_of_which_a_hundred_thousandth_changes_at_most_is_not_reached() -> None:
    x, rows = torch.randn(1, N, D), torch.full((1, N, 1), 100.0)
    assert reach(planted_change(x, {5: 50.0, 8: 5e-4}, rows), x) == 2
    assert reach(planted_change(x, {5: 50.0, 8: 5e-2}, rows), x) == 5
    rows[0, 7:] = 0
    assert reach(planted_change(x, {5: 50.0}, rows), x) == 2
