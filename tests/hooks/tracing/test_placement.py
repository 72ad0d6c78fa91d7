"""Where the sites of a block are that no family has, against plain hooks on the modules that a test planted."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hooks import Model, capture, check, load
from hooks.site import attn_out, k, mlp_in, mlp_out, pattern, q, resid_mid, resid_post, v
from tests.hooks.tracing.planted import IDS, Attention, D, FeedForward, planted


def given_and_made(model: Model, *modules: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """What each module is given first, and what it gives, in a plain pass."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    handles = [
        module.register_forward_hook(lambda m, args, output: found.update({id(m): (args[0], output)}))
        for module in modules
    ]
    with torch.no_grad():
        model.hf(IDS)
    for handle in handles:
        handle.remove()
    return [found[id(module)] for module in modules]


class Turned(nn.Module):
    """Attention and feed-forward read the stream through a matrix, the second through a norm before it too."""

    def __init__(self, _: int) -> None:
        super().__init__()
        self.turn, self.norm, self.squeeze = nn.Linear(D, D), nn.LayerNorm(D), nn.Tanh()
        self.attn, self.mlp = Attention(), FeedForward()

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.attn(self.turn(x), seen)
        return x + self.mlp(self.squeeze(self.turn(self.norm(x))))


@pytest.fixture(scope="module")
def turned() -> Model:
    return load(planted(Turned))


def test_what_is_read_through_modules_that_are_no_norms_has_its_sites(turned: Model) -> None:
    assert turned.contract is not None
    assert turned.contract.holds, turned.contract
    for layer, block in enumerate(turned.hf.blocks):
        ours = capture(turned, IDS, [q[layer], k[layer], v[layer], mlp_in[layer]])
        parts = given_and_made(turned, block.attn.q, block.attn.k, block.attn.v, block.mlp)
        for site, (_, made) in zip((q, k, v), parts, strict=False):
            assert torch.equal(ours[site[layer]].flatten(2), made)
        assert torch.equal(ours[mlp_in[layer]], parts[3][0])


def test_a_law_names_the_modules_in_the_order_in_which_the_stream_goes_through_them(turned: Model) -> None:
    assert turned.contract is not None
    states = {check.law: check.states for check in turned.contract.checks}
    assert states["q projects"] == "q = W Linear(resid_pre) + b"
    assert states["feed-forward reads"] == "mlp_in = Tanh(Linear(LN(resid_pre + attn_out)))"


def test_a_law_of_modules_in_another_order_is_missed() -> None:
    model = load(planted(Turned), check=False)
    blocks = []
    for block in model.structure.blocks:
        through, stage = block.reads["mlp_in"]
        blocks.append(replace(block, reads={**block.reads, "mlp_in": (through[::-1], stage)}))
    model.structure = replace(model.structure, blocks=tuple(blocks))
    assert mlp_in[0] in check(model).refused


def test_the_pattern_of_a_class_that_calls_torchs_kernel_whatever_its_configuration_says_is_read(turned: Model) -> None:
    """transformers calls the attention of a class that says nothing 'eager'."""
    assert turned.hf.config._attn_implementation == "eager"
    block = turned.hf.blocks[1].attn
    (_, made_q), (_, made_k) = given_and_made(turned, block.q, block.k)
    heads_q, heads_k = (one.unflatten(-1, (2, 8)).transpose(1, 2) for one in (made_q, made_k))
    scores = heads_q @ heads_k.mT / 8**0.5
    hidden = ~torch.ones(6, 6, dtype=torch.bool).tril()
    wanted = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    torch.testing.assert_close(capture(turned, IDS, pattern[1])[pattern[1]], wanted)


def mean_so_far(x: Tensor) -> Tensor:
    """What moves something from token to token, and is no module."""
    return x.cumsum(dim=1) / torch.arange(1, x.shape[1] + 1)[:, None]


class Summed(nn.Module):
    """A sum of terms, each given by a module or computed by the block itself."""

    def __init__(self, mixing: Sequence[str], feeding: Sequence[str]) -> None:
        super().__init__()
        self.mixing, self.feeding, self.attn, self.mlp = mixing, feeding, Attention(), FeedForward()

    def mid(self, x: Tensor, seen: Tensor) -> Tensor:
        for kind in self.mixing:
            x = x + (self.attn(x, seen) if kind == "module" else mean_so_far(x))
        return x

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = self.mid(x, seen)
        for kind in self.feeding:
            x = x + (self.mlp(x) if kind == "module" else torch.tanh(x))
        return x


@pytest.mark.parametrize(
    ("mixing", "feeding", "measured"),
    [
        ("module", "module", True),
        ("module", "module inline", True),
        ("inline", "module", True),
        ("module inline", "module", True),
        ("inline module", "module", True),
        ("inline", "module inline", False),
        ("module inline", "module inline", False),
        ("inline module", "inline module", False),
    ],
)
def test_the_middle_is_served_where_all_on_one_side_of_it_is_given_by_modules(
    mixing: str, feeding: str, measured: bool
) -> None:
    """Else no law ties it to what can be read."""
    model = load(planted(lambda _: Summed(mixing.split(), feeding.split())))
    assert (resid_mid[1] in model.sites) == measured
    assert (attn_out[1] in model.sites) == ("module" in mixing)
    assert (mlp_out[1] in model.sites) == (feeding == "module")
    if measured:
        before, seen = capture(model, IDS, resid_post[0])[resid_post[0]], torch.ones(6, 6, dtype=torch.bool).tril()
        with torch.no_grad():
            wanted = model.hf.blocks[1].mid(before, seen)
        torch.testing.assert_close(capture(model, IDS, resid_mid[1])[resid_mid[1]], wanted)


def test_two_models_of_the_same_weights_that_compute_something_else_each_have_their_own_report() -> None:
    """One adds a mean over tokens where the other adds attention; nothing but their code says so."""
    reports = [
        load(planted(lambda _, mixing=mixing: Summed(mixing, ["module"]))) for mixing in (["module"], ["inline"])
    ]
    first, second = (model.contract for model in reports)
    assert first is not None
    assert second is not None
    assert first.holds
    assert "left padding" in {check.law for check in second.checks if not check.holds}, "its mean counts padding"
    assert load(planted(lambda _: Summed(["module"], ["module"]))).contract is first
