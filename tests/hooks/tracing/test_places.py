"""Where the sites of one block sit, for blocks that a test wrote: the module and the side of each, and its shape."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hooks.site import Site
from hooks.taps import MergedAxes, Tap
from hooks.tracing.placement import Placement
from hooks.tracing.record import record
from hooks.tracing.residual import BlockCall, format_sum, residual_sum
from hooks.tracing.sublayers import sublayers
from tests.hooks.tracing.planted import D_MLP, HEADS, D, FeedForward

N_POS = 11
Written = Callable[..., Any]


class Attention(nn.Module):
    """Heads of width 8; `gated` says where what multiplies their result comes from."""

    def __init__(self, n_kv: int = HEADS, gated: str = "", wide: int = 8) -> None:
        super().__init__()
        self.gated, self.wide = gated, wide
        self.q = nn.Linear(D, 2 * D if gated == "q" else D)
        self.k, self.v, self.o = nn.Linear(D, 8 * n_kv), nn.Linear(D, wide * n_kv), nn.Linear(HEADS * wide, D)
        self.gate = nn.Linear(D, D)
        if gated == "heads":
            self.q = nn.Linear(D, D + HEADS)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        other = x if other is None else other
        q, gate = self.q(x), None
        if self.gated == "heads":
            q, gate = q.split((D, HEADS), dim=-1)
            gate = gate[..., None]
        q = q.unflatten(-1, (HEADS, -1))
        if self.gated == "q":
            q, gate = q.chunk(2, dim=-1)
        if self.gated == "gate":
            gate = self.gate(x).unflatten(-1, (HEADS, -1))
        k, v = self.k(other).unflatten(-1, (-1, 8)), self.v(other).unflatten(-1, (-1, self.wide))
        q, k, v = (one.transpose(1, 2) for one in (q, k, v))
        z = F.scaled_dot_product_attention(q, k, v, enable_gqa=k.shape[1] != HEADS).transpose(1, 2)
        return self.o((z if gate is None else z * gate.sigmoid()).flatten(2))


class Eager(Attention):
    """Attention without a kernel; gives the pattern too."""

    def forward(self, x: Tensor, other: Tensor | None = None) -> Any:
        q, k, v = (one(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.q, self.k, self.v))
        pattern = (q @ k.mT).softmax(dim=-1)
        made = self.o((pattern @ v).transpose(1, 2).flatten(2))
        return made if other is not None else (made, pattern)


class Twice(Attention):
    """The difference of two attentions, each by a kernel."""

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        del other
        q, k, v = (one(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.q, self.k, self.v))
        first, second = (F.scaled_dot_product_attention(q * by, k, v) for by in (1.0, 2.0))
        return self.o((first - second).transpose(1, 2).flatten(2))


class Gated(FeedForward):
    """W_out (gelu(W_gate x) * W_in x)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(D, D_MLP)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.gate(x)) * self.up(x))


class Mean(nn.Module):
    """The mean over tokens up to each, gated; no kernel, no softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.gate, self.o = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.into(x).cumsum(dim=1) * F.silu(self.gate(x)))


class Block(nn.Module):
    """Parts that a written block may use."""

    def __init__(self, written: Written) -> None:
        super().__init__()
        self.written, self.attn, self.mlp, self.mean = written, Attention(), FeedForward(), Mean()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(D) for _ in range(3))
        self.other, self.scale = FeedForward(), nn.Parameter(1 + torch.rand(D))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.written(self, x, *args, **kwargs)


class Around(nn.Module):
    """A block with something before it and after it."""

    def __init__(self, block: Block, runs: Written) -> None:
        super().__init__()
        self.block, self.runs, self.encoder, self.last = block, runs, nn.Linear(D, D), nn.LayerNorm(D)

    def forward(self, x: Tensor) -> Any:
        return self.runs(self, x)


def plain(m: Any, x: Tensor) -> Tensor:
    return m.last(m.block(torch.tanh(x)))


def placed(
    written: Written,
    runs: Written = plain,
    at: int = 0,
    x: Tensor | None = None,
    own: str | None = None,
    apart: bool = False,
    **parts: Any,
) -> tuple[Any, Placement, str | None, dict[Site, Tap]]:
    """The model, the placement of the block's call of that number, its middle, and its taps.

    `own` is the argument that is given to it alone; `apart` says that it is no module of its own.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Block(written)
        for name, part in parts.items():
            setattr(block, name, part())
        model = Around(block, runs).eval()
        x = torch.randn(1, N_POS, D) if x is None else x
    trace = record(model, lambda: model(x), max(x.shape[:2]))
    calls = [call for call in trace.calls if call.path == "block"]
    part, last = next(iter(calls[at].outputs)), calls[at] if apart else None
    one = BlockCall(calls[at], 0, part, repeated=len(calls) > 1, last=last)
    encoded = trace.after({v for call in trace.calls if call.path == "encoder" for v in call.outputs.values()})
    found = residual_sum(trace, one)
    kinds = tuple(sublayers(trace, one, found, encoded, trace.n_pos))
    place = Placement(model, trace, "", 3, one, found, kinds, own=own)
    middle, taps = place.find_taps()
    names = [str(site) for site in place.terms]
    return model, place, None if middle is None else format_sum(middle, names), taps


def said(model: nn.Module, taps: Mapping[Site, Tap]) -> dict[str, str]:
    """Each site and where it sits, in words."""
    paths = {id(module): path.removeprefix("block.") for path, module in model.named_modules()}
    words: dict[str, str] = {}
    for site, tap in taps.items():
        text = f"{tap.side} of {paths[id(tap.module)]} {'x'.join(map(str, tap.shape))}"
        text += "" if tap.part == 0 else f" part {tap.part}"
        text += "" if tap.view.heads is None else f" heads {tap.view.heads}"
        text += "" if tap.view.rows is None else f" rows {tap.view.rows.tolist()}"
        text += " scaled" if isinstance(tap.view.factor, Tensor) or tap.view.factor != 1.0 else ""
        text += "".join(f" {one}" for one in sorted(tap.alias))
        text += " merged" if isinstance(tap.axes, MergedAxes) else "" if tap.axes is None else f" axes {tap.axes}"
        text += "" if tap.call is None else f" call {tap.call.number}"
        text += "" if tap.inside is None else f" by {type(tap.inside).__name__}"
        words[str(site).removesuffix(".3")] = text
    return words


def pre_norm(b: Any, x: Tensor) -> Tensor:
    x = x + b.attn(b.norm1(x))
    return x + b.mlp(b.norm2(x))


class Kernel(nn.Module):
    """Torch's kernel and nothing else."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class OwnKernel(Attention):
    """Attention whose kernel is a module of its own; with `n` two kernels one right after the other."""

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        self.kernels, self.v_norm = nn.ModuleList([Kernel() for _ in range(n)]), nn.LayerNorm(8)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        del other
        q, k, v = (one(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.q, self.k, self.v))
        if not len(self.kernels):
            v = self.v_norm(v)
            return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        made = [kernel(q, k, v) for kernel in self.kernels]
        return self.o((made[0] if len(made) == 1 else made[0] - made[1]).transpose(1, 2).flatten(2))


class Other(Attention):
    """Attention that ends otherwise."""

    def __init__(self, ends: str) -> None:
        super().__init__()
        self.ends = ends
        if ends == "wider":
            self.o = nn.Linear(D + 1, D)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Any:
        del other
        heads = 1 if self.ends == "no heads" else HEADS
        q, k, v = (one(x).unflatten(-1, (heads, -1)).transpose(1, 2) for one in (self.q, self.k, self.v))
        if self.ends == "no heads":
            q, k, v = q[:, 0], k[:, 0], v[:, 0]
            return self.o((q @ k.mT).softmax(dim=-1) @ v)
        if self.ends == "no pattern":
            return self.o(((q @ k.mT).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)), None
        z = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if self.ends == "no projection":
            return z
        return self.o(torch.cat([z, x[..., :1]], dim=-1))


class Wrapped(nn.Module):
    """Three modules, one in the other, that give the same; no projection gives it."""

    def __init__(self, deep: int = 2) -> None:
        super().__init__()
        self.inner, self.up = Wrapped(deep - 1) if deep else None, nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x).sin() if self.inner is None else self.inner(x)


class Next(nn.Module):
    """Gives what it is about as its second part."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.cos(), x.sin()


class GivenMore(FeedForward):
    """Is given numbers by pair of tokens and the tokens' places before the stream."""

    def forward(self, pairs: Tensor, places: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        del pairs, places
        return super().forward(x)


class Late(FeedForward):
    """Does something to what it reads before it multiplies it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.sin(x))


class Folded(FeedForward):
    """Its projections read two halves of each token's features."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(D // 2, D_MLP // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x.unflatten(-1, (2, -1)))).flatten(1))


class Masked(Mean):
    """Its gate reads what it reads times what it is given."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.into(x).cumsum(dim=1) * F.silu(self.gate(x * self.by)))


class Setting(nn.LayerNorm):
    """A norm with a setting."""

    def forward(self, x: Tensor, by: float | None) -> Tensor:  # type: ignore[override]
        return super().forward(x) * (1.0 if by is None else by)


class Flat(nn.Module):
    """A number for each feature, held by a part."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.act = nn.LayerNorm(D), nn.Tanh()

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return self.act(self.inner(x) * by)


class Sparse(nn.Module):
    """Three experts, each a number for every feature."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = Picks(), Each()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        return self.experts(flat, *self.router(flat)).view(x.shape)


class Picks(nn.Module):
    """Chooses two of three."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(D, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, choice = self.linear(x).topk(2, dim=-1)
        return choice, weights.softmax(dim=-1)


class Each(nn.Module):
    """The experts."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.randn(3, D))

    def forward(self, x: Tensor, choice: Tensor, weights: Tensor) -> Tensor:
        return (x[:, None] * self.numbers[choice] * weights[..., None]).sum(dim=1)


ENDS = {"resid_pre": "input of block 16", "resid_post": "output of block 16"}
ATTENTION = {
    "q": "output of attn.q 2x8 heads 2",
    "k": "output of attn.k 2x8 heads 2",
    "v": "output of attn.v 2x8 heads 2",
    "pattern": "output of attn 2 part 1 by KernelAccessor",
    "z": "input of attn.o 2x8 heads 2",
    "attn_out": "output of attn.o 16",
}
FEEDS = {
    "mlp_in": "input of mlp 16",
    "mlp_pre": "output of mlp.up 24",
    "mlp_act": "input of mlp.down 24",
    "mlp_out": "output of mlp.down 16",
}
MIDDLE = {"resid_mid": "input of norm2 16 shared"}
STANDARD = {**ENDS, **ATTENTION, **FEEDS, **MIDDLE}


def but(*without: str, **changed: str) -> dict[str, str]:
    return {name: said for name, said in STANDARD.items() if name not in without} | changed


def feeds(mlp: Callable[[Any, Tensor], Tensor]) -> Written:
    return lambda b, x: (y := x + b.attn(b.norm1(x))) + mlp(b, y)


def mixes(attn: Callable[[Any, Tensor], Tensor]) -> Written:
    return lambda b, x: (y := x + attn(b, x)) + b.mlp(b.norm2(y))


NO_HEADS = ("q", "k", "v", "pattern", "z")
BOTH = "resid_pre + attn_out.3"
PAIRS, PLACES = torch.zeros(1, 1, N_POS, N_POS), torch.arange(N_POS)[None]
NAMED = {"module(block.mlp.down)": "output of mlp.down 16", "module(block.other.down)": "output of other.down 16"}
OUTS = {"module(block.attn.o)": "output of attn.o 16", "module(block.more.o)": "output of more.o 16"}
MERGED = {name: f"{said} merged" for name, said in FEEDS.items()}
Q_ROWS, GATE_ROWS = [*range(8), *range(16, 24)], [*range(8, 16), *range(24, 32)]
SITTING: dict[str, tuple[Written, dict[str, Any], str | None, dict[str, str]]] = {
    "the usual block": (pre_norm, {}, BOTH, STANDARD),
    "one key for two queries": (pre_norm, {"attn": lambda: Attention(1)}, BOTH,
        but(k="output of attn.k 1x8 heads 1", v="output of attn.v 1x8 heads 1")),
    "values narrower than keys": (pre_norm, {"attn": lambda: Attention(wide=6)}, BOTH,
        but("q", "k", v="output of attn.v 2x6 heads 2", z="input of attn.o 2x6 heads 2")),
    "queries with a gate": (pre_norm, {"attn": lambda: Attention(gated="q")}, BOTH,
        but(q=f"output of attn.q 2x8 heads 2 rows {Q_ROWS}", attn_gate=f"output of attn.q 16 rows {GATE_ROWS}")),
    "queries with a gate for each head": (pre_norm, {"attn": lambda: Attention(gated="heads")}, BOTH,
        but(q=f"output of attn.q 2x8 heads 2 rows {[*range(16)]}", attn_gate="output of attn.q 2 rows [16, 17]")),
    "a gate": (pre_norm, {"attn": lambda: Attention(gated="gate")}, BOTH, but(attn_gate="output of attn.gate 16")),
    "no kernel": (mixes(lambda b, x: b.attn(b.norm1(x))[0]), {"attn": Eager}, BOTH,
        but(pattern="output of attn 2 part 1")),
    "no kernel and no second part": (mixes(lambda b, x: b.attn(b.norm1(x))[0]), {"attn": lambda: Other("no pattern")},
        BOTH, but(pattern="output of attn 2 part 1")),
    "no kernel and one tensor": (mixes(lambda b, x: b.attn(b.norm1(x), x)), {"attn": Eager}, BOTH, but("pattern")),
    "two kernels": (pre_norm, {"attn": Twice}, BOTH, but("pattern")),
    "a kernel that is a module": (pre_norm, {"attn": OwnKernel}, BOTH,
        but(pattern="output of attn.kernels.0 2 part 1 by KernelAccessor")),
    "two such, one right after the other": (pre_norm, {"attn": lambda: OwnKernel(2)}, BOTH,
        but(pattern="output of attn.kernels.0 2 part 1 by KernelAccessor")),
    "a norm right before the kernel": (pre_norm, {"attn": lambda: OwnKernel(0)}, BOTH, STANDARD),
    "no output projection": (pre_norm, {"attn": lambda: Other("no projection")}, BOTH,
        but(*NO_HEADS, attn_out="output of attn 16")),
    "no axis of heads": (pre_norm, {"attn": lambda: Other("no heads")}, BOTH, but(*NO_HEADS)),
    "an output projection of more": (pre_norm, {"attn": lambda: Other("wider")}, BOTH, but(*NO_HEADS)),
    "two attentions": (lambda b, x: x + b.attn(x) + b.more(x), {"more": Attention}, None, {**ENDS, **OUTS}),
    "two feed-forwards": (lambda b, x: (y := x + b.attn(b.norm1(x))) + b.mlp(b.norm2(y)) + b.other(y), {}, BOTH,
        {**ENDS, **ATTENTION, **NAMED, **MIDDLE}),
    "one that runs twice": (lambda b, x: (y := x + b.attn(b.norm1(x))) + b.mlp(b.norm2(y)) + b.mlp(y), {}, BOTH,
        {**ENDS, **ATTENTION, **MIDDLE}),
    "two mixers": (lambda b, x: x + b.mean(x) + b.more(x), {"more": Mean}, None,
        {**ENDS, "module(block.mean.o)": "output of mean.o 16", "module(block.more.o)": "output of more.o 16"}),
    "a mixer": (mixes(lambda b, x: b.mean(b.norm1(x))), {}, "resid_pre + mixer_out.3",
        {**ENDS, **FEEDS, **MIDDLE, "mixer_in": "input of mean 16", "mixer_gate": "output of mean.gate 16",
         "mixer_out": "output of mean.o 16"}),
    "a mixer of no stage": (mixes(lambda b, x: b.mean(x.sin())), {}, "resid_pre + mixer_out.3",
        {**ENDS, **FEEDS, **MIDDLE, "mixer_out": "output of mean.o 16"}),
    "a gate of what is masked": (mixes(lambda b, x: b.mean(x)), {"mean": lambda: Masked(1.0)},
        "resid_pre + mixer_out.3",
        {**ENDS, **FEEDS, **MIDDLE, "mixer_in": "input of mean 16", "mixer_gate": "output of mean.gate 16",
         "mixer_out": "output of mean.o 16"}),
    "a gate of something else": (mixes(lambda b, x: b.mean(x)), {"mean": lambda: Masked(2.0)},
        "resid_pre + mixer_out.3",
        {**ENDS, **FEEDS, **MIDDLE, "mixer_in": "input of mean 16", "mixer_out": "output of mean.o 16"}),
    "no feed-forward": (lambda b, x: x + b.attn(b.norm1(x)), {}, None, {**ENDS, **ATTENTION}),
    "no attention": (lambda b, x: x + b.mlp(b.norm2(x)), {}, None, {**ENDS, **FEEDS}),
    "side by side": (lambda b, x: x + b.attn(b.norm1(x)) + b.mlp(b.norm2(x)), {}, BOTH, but("resid_mid")),
    "norms after": (lambda b, x: b.norm2((y := b.norm1(x + b.attn(x))) + b.mlp(y)), {}, "LN(resid_pre + attn_out.3)",
        but(resid_mid="output of norm1 16")),
    "norms of what is added": (lambda b, x: (y := x + b.norm2(b.attn(b.norm1(x)))) + b.norm3(b.mlp(y)), {}, BOTH,
        but(attn_out="output of norm2 16", mlp_out="output of norm3 16", resid_mid="input of mlp 16 shared")),
    "factors": (lambda b, x: (y := x + b.attn(x) * 0.5) + b.scale * b.mlp(y), {}, BOTH,
        but(attn_out="output of attn.o 16 scaled", mlp_out="output of mlp.down 16 scaled",
            resid_mid="input of mlp 16 shared")),
    "a middle that is scaled later": (lambda b, x: (y := x + b.attn(b.norm1(x))) * b.scale + b.mlp(b.norm2(y)), {},
        BOTH, STANDARD),
    "a middle that is scaled later alone": (
        lambda b, x: (x + b.attn(b.norm1(x))) * b.scale + b.mlp(b.norm2(x)), {}, f"({BOTH}) · weight",
        but("resid_mid")),
    "a copy is read": (feeds(lambda b, y: b.mlp(b.norm2(y.clone()))), {}, BOTH, but("resid_mid")),
    "what is added is written over": (
        lambda b, x: (y := b.attn(b.norm1(x)).add_(x)) + b.mlp(b.norm2(y)), {}, BOTH,
        but(attn_out="output of attn.o 16 overwritten")),
    "tokens in rows": (feeds(lambda b, y: b.mlp(b.norm2(y).flatten(0, 1)).view(y.shape)), {}, BOTH, but(**MERGED)),
    "tokens in rows of two halves": (feeds(lambda b, y: b.mlp(b.norm2(y).flatten(0, 1)).view(y.shape)),
        {"mlp": Folded}, BOTH, but(**MERGED | {"mlp_pre": "output of mlp.up 2x12 merged"})),
    "given more before the stream": (feeds(lambda b, y: b.mlp(PAIRS, PLACES, b.norm2(y))), {"mlp": GivenMore}, BOTH,
        but(mlp_in="input of mlp 16 part 2")),
    "no module of its own": (feeds(lambda b, y: b.mlp.down(b.mlp.act(b.mlp.up(b.norm2(y))))), {}, BOTH,
        but(mlp_in="input of mlp.up 16")),
    "something before its projection": (feeds(lambda b, y: b.mlp(b.norm2(y))), {"mlp": Late}, BOTH, STANDARD),
    "computed by the block": (feeds(lambda _, y: y.sin()), {}, BOTH, {**ENDS, **ATTENTION}),
    "modules in modules": (feeds(lambda b, y: b.mlp(b.norm2(y))), {"mlp": Wrapped}, BOTH,
        but("mlp_pre", "mlp_act", mlp_out="output of mlp.inner.inner 16")),
    "the innermost runs elsewhere too": (
        lambda b, x: (y := x + b.attn(b.norm1(x))) + b.mlp(b.norm2(b.mlp.inner.inner(y))), {"mlp": Wrapped}, BOTH,
        but("mlp_pre", "mlp_act", mlp_out="output of mlp.inner 16",
            resid_mid="input of mlp.inner.inner 16 shared call 0")),
    "the second part": (feeds(lambda b, y: b.mlp(b.norm2(y))[1]), {"mlp": Next}, BOTH,
        but("mlp_in", "mlp_pre", "mlp_act", mlp_out="output of mlp 16 part 1")),
    "experts": (pre_norm, {"mlp": Sparse}, BOTH,
        but("mlp_pre", "mlp_act", mlp_out="output of mlp.experts 16 merged",
            router_logits="output of mlp.router 3 by ExpertAccessor",
            expert_choice="output of mlp.experts 2 by ExpertAccessor",
            expert_weights="output of mlp.experts 2 by ExpertAccessor",
            expert_out="output of mlp.experts 2x16 by ExpertAccessor")),
}  # fmt: skip


@pytest.mark.parametrize(("written", "parts", "middle", "sits"), SITTING.values(), ids=SITTING)
def test_every_site_of_a_block_sits_where_the_block_was_written_to_have_it(
    written: Written, parts: dict[str, Any], middle: str | None, sits: dict[str, str]
) -> None:
    model, _, found, taps = placed(written, **parts)
    assert said(model, taps) == sits
    assert found == middle


@pytest.mark.parametrize("at", [0, 1])
def test_where_a_block_runs_twice_each_site_is_of_one_call(at: int) -> None:
    model, _, _, taps = placed(pre_norm, lambda m, x: m.block(m.block(x)), at)
    kernel = " by KernelAccessor"
    wanted = {name: f"{one.removesuffix(kernel)} call {at}" for name, one in STANDARD.items()}
    assert said(model, taps) == wanted | {"pattern": f"{wanted['pattern']}{kernel}"}


def test_a_stream_that_is_one_part_of_what_a_block_gives_and_an_argument_of_its_own() -> None:
    def written(b: Any, x: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        return pre_norm(b, x), own.sum()

    model, _, _, taps = placed(written, lambda m, x: m.block(x, own=m.encoder(x))[0], own="own")
    assert said(model, taps) == but(layer_embed="input of block 16 part own")
    assert [*said(model, taps)][:2] == ["resid_pre", "layer_embed"]


def test_the_stream_before_a_block_of_several_modules_is_changed_for_all_of_it() -> None:
    model, _, _, taps = placed(pre_norm, apart=True)
    assert said(model, taps) == but(resid_pre="input of block 16 shared")


def test_attention_to_an_encoder_has_the_module_whose_output_it_reads_as_its_source() -> None:
    def written(b: Any, x: Tensor, other: Tensor) -> Tensor:
        x = x + b.attn(b.norm1(x))
        x = x + b.cross(b.norm3(x), other)
        return x + b.mlp(b.norm2(x))

    model, place, middle, taps = placed(written, lambda m, x: m.last(m.block(x, m.encoder(x))), cross=Attention)
    cross = {f"cross_{name.removesuffix('_out')}": one.replace("attn", "cross") for name, one in ATTENTION.items()}
    cross["cross_out"] = cross.pop("cross_attn")
    assert said(model, taps) == {**STANDARD, **cross}
    assert middle == "resid_pre + attn_out.3 + cross_out.3"
    assert place.source == Site.module("encoder")
    _, inner, _, _ = placed(written, lambda m, x: m.block(x, m.encoder(m.encoder(x))), cross=Attention)
    assert inner.source is None, "it runs twice"
    names = ("cross_attn", "cross_attn.norm", "cross_attn.o", "cross_attn.q", "cross_attn.k", "cross_attn.v")
    parts = (model.block.cross, model.block.norm3, *(getattr(model.block.cross, name) for name in "oqkv"))
    assert tuple(place.part[name] for name in names) == parts


@pytest.mark.parametrize(("n", "axes"), [(N_POS, "axes (0,)"), (2, "axes (0,)"), (1, "")])
def test_a_stream_with_its_tokens_first_is_given_with_its_batch_first(n: int, axes: str) -> None:
    model, _, _, taps = placed(lambda b, x: x + b.mlp(b.norm2(x)), x=torch.ones(n, 1, D))
    assert said(model, taps) == {name: f"{one} {axes}".strip() for name, one in {**ENDS, **FEEDS}.items()}


def test_tokens_in_rows_are_those_of_the_blocks_stream() -> None:
    model, _, _, taps = placed(feeds(lambda b, y: b.mlp(b.norm2(y).flatten(0, 1)).view(y.shape)))
    assert taps[Site("mlp_in", 3)].axes == MergedAxes(model.block, 0)


def test_a_factor_is_the_one_that_the_block_multiplies_by() -> None:
    model, _, _, taps = placed(lambda b, x: (y := x + b.attn(x) * 0.5) + b.scale * b.mlp(y))
    assert taps[Site("attn_out", 3)].view.factor == 0.5
    assert torch.equal(torch.as_tensor(taps[Site("mlp_out", 3)].view.factor), model.block.scale)


PARTS = {
    "attn.norm": "norm1", "attn": "attn", "attn.o": "attn.o", "attn.q": "attn.q", "attn.k": "attn.k",
    "attn.v": "attn.v", "mlp.norm": "norm2", "mlp": "mlp", "mlp.in": "mlp.up", "mlp.out": "mlp.down",
    "mlp.act": "mlp.act",
}  # fmt: skip
ATTENDS = {name: one for name, one in PARTS.items() if name.startswith("attn")}
FIRST = {"q": "norm1: resid_pre", "k": "norm1: resid_pre", "v": "norm1: resid_pre"}
READS = {**FIRST, "mlp_in": f"norm2: {BOTH}"}
BARE = dict.fromkeys("qkv", ": resid_pre")
THROUGH: dict[str, tuple[Written, dict[str, Any], dict[str, str], dict[str, str]]] = {
    "the usual block": (pre_norm, {}, PARTS, READS),
    "a gated feed-forward": (pre_norm, {"mlp": Gated}, {**PARTS, "mlp.gate": "mlp.gate"}, READS),
    "queries with a gate": (pre_norm, {"attn": lambda: Attention(gated="q")}, {**PARTS, "attn_gate": "attn.q"},
        {**READS, "attn_gate": "norm1: resid_pre"}),
    "no norm": (lambda b, x: (y := x + b.attn(x)) + b.mlp(y), {},
        {**PARTS, "attn.norm": "Identity", "mlp.norm": "Identity"}, {**BARE, "mlp_in": f": {BOTH}"}),
    "norms after": (lambda b, x: b.norm2((y := b.norm1(x + b.attn(x))) + b.mlp(y)), {},
        {**PARTS, "attn.norm": "Identity", "mlp.norm": "Identity"}, {**BARE, "mlp_in": f": LN({BOTH})"}),
    "more than a norm": (mixes(lambda b, x: b.attn(b.mean.o(b.mean.gate(b.norm1(x))))), {},
        {name: one for name, one in PARTS.items() if name != "attn.norm"},
        {**dict.fromkeys("qkv", "norm1 mean.gate mean.o: resid_pre"), "mlp_in": f"norm2: {BOTH}"}),
    "something else": (mixes(lambda b, x: b.attn(x.sin())), {},
        {name: one for name, one in PARTS.items() if name != "attn.norm"}, {"mlp_in": f"norm2: {BOTH}"}),
    "what gives on what it is given": (mixes(lambda b, x: b.attn(b.drop(b.norm1(x)))), {"drop": nn.Identity},
        PARTS, READS),
    "a norm with a setting": (feeds(lambda b, y: b.mlp(b.norm2(y, 2.0))), {"norm2": lambda: Setting(D)}, PARTS, FIRST),
    "a norm without one": (feeds(lambda b, y: b.mlp(b.norm2(y, None))), {"norm2": lambda: Setting(D)}, PARTS, READS),
    "what is given more": (feeds(lambda b, y: b.mlp(PAIRS, PLACES, b.norm2(y))), {"mlp": GivenMore}, PARTS, READS),
    "something before its projection": (pre_norm, {"mlp": Late}, PARTS, READS),
    "no module of its own": (feeds(lambda b, y: b.mlp.down(b.mlp.act(b.mlp.up(b.norm2(y))))), {},
        {name: one for name, one in PARTS.items() if name != "mlp"}, READS),
    "a feed-forward of numbers for each feature": (feeds(lambda b, y: b.mlp(b.norm2(y), b.scale)), {"mlp": Flat},
        {**ATTENDS, "mlp.norm": "norm2"}, READS),
    "a gate of what is masked": (lambda b, x: x + b.mean(b.norm1(x)), {"mean": lambda: Masked(1.0)},
        {"mixer_gate": "mean.gate"}, {"mixer_in": "norm1: resid_pre", "mixer_gate": "norm1: resid_pre"}),
    "a gate of something else": (lambda b, x: x + b.mean(b.norm1(x)), {"mean": lambda: Masked(2.0)}, {},
        {"mixer_in": "norm1: resid_pre"}),
}  # fmt: skip


@pytest.mark.parametrize(("written", "parts", "held", "reads"), THROUGH.values(), ids=THROUGH)
def test_the_parts_of_a_block_and_what_they_read_the_stream_through_are_those_it_was_written_with(
    written: Written, parts: dict[str, Any], held: dict[str, str], reads: dict[str, str]
) -> None:
    model, place, _, _ = placed(written, **parts)
    paths = {id(module): path.removeprefix("block.") for path, module in model.named_modules()}
    assert {name: paths.get(id(part), type(part).__name__) for name, part in place.part.items()} == held
    names = [str(site) for site in place.terms]
    through = {
        name: f"{' '.join(paths[id(one)] for one in modules)}: {format_sum(stage, names)}"
        for name, (modules, stage) in place.reads.items()
    }
    assert through == reads


INLINE: list[tuple[str, str, bool]] = [
    ("module", "module", True),
    ("module", "module inline", True),
    ("inline", "module", True),
    ("module inline", "module", True),
    ("inline", "module inline", False),
    ("module inline", "module inline", False),
]


@pytest.mark.parametrize(("mixing", "feeding", "measured"), INLINE)
def test_the_middle_is_there_where_all_on_one_side_of_it_is_given_by_modules(
    mixing: str, feeding: str, measured: bool
) -> None:
    def written(b: Any, x: Tensor) -> Tensor:
        for kind in mixing.split():
            x = x + (b.attn(b.norm1(x)) if kind == "module" else x.cumsum(dim=1) / 8)
        y = b.norm2(x)
        for kind in feeding.split():
            x = x + (b.mlp(y) if kind == "module" else x.sin())
        return x

    _, place, middle, taps = placed(written)
    assert (middle is not None) == measured
    assert (Site("resid_mid", 3) in taps) == measured
    inline = [str(site) for site in place.terms if ":" in str(site)]
    assert len(inline) == f"{mixing} {feeding}".split().count("inline")
