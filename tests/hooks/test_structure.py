"""What tracing finds around the blocks, in models whose parts a test writes itself."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import Site
from hooks.structure import Structure, _name_stacks, find_structure, short_text, structure_of
from hooks.tracing.record import record
from hooks.tracing.stacks import Stack
from tests.hooks.tracing.planted import VOCAB, Attention, D, FeedForward, Planted, planted

N = 11
X = torch.randn(1, N, D, generator=torch.Generator().manual_seed(0))


class Sequential(nn.Module):
    """Attention, then a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(), FeedForward()

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        x = x + self.attn(x, seen)
        return x + self.mlp(x)


def model(depth: int = 3, between: Callable[[Tensor, int], Tensor] = lambda x, _: x) -> Planted:
    return planted(lambda _: Sequential(), depth, between)


def test_the_ends_of_a_stack_of_three_are_what_reads_its_last_block() -> None:
    hf = model()
    found = find_structure(hf)
    assert [block.module for block in found.main] == [*hf.blocks]
    assert (found.final_norm, found.head) == (hf.norm, hf.head)
    assert (found.path, found.joined, found.reader, found.why) == ("blocks", True, Site.module("norm", "input"), "")
    assert [block.layer for block in found.blocks] == [0, 1, 2]
    assert [one.name for one in found.main[1].sublayers] == ["attn_out", "mlp_out"]
    for name, number in (("attn_out", 0), ("mlp_out", 1)):
        assert found.main[2].sublayer(name) is found.main[2].sublayers[number]
    assert found.main[2].sublayer("mixer_out") is None


@pytest.mark.parametrize("changed", [1, 2])
def test_blocks_one_of_which_reads_what_another_makes_of_the_one_before_are_not_joined(changed: int) -> None:
    assert not find_structure(model(between=lambda x, layer: torch.tanh(x) if layer == changed else x)).joined


class Around(nn.Module):
    """Blocks of a stream, and what some function makes of what they give."""

    def __init__(self, after: Callable[["Around", Tensor], object]) -> None:
        super().__init__()
        self.blocks, self.norm, self.scale = nn.ModuleList([Sequential(), Sequential()]), nn.LayerNorm(D), nn.Tanh()
        self.head, self.both, self.other = nn.Linear(D, VOCAB), Both(), nn.LayerNorm(D)
        self.idle, self.fold, self.turn, self.after = nn.Identity(), Fold(), Turn(), after

    def forward(self, x: Tensor) -> object:
        for block in self.blocks:
            x = block(x, torch.ones(N, N).tril().bool())
        return self.after(self, x)


class Both(nn.Module):
    """Two tensors of one or two."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (2 * x, 3 * x) if y is None else (x + y, x - y)


class Fold(nn.Module):
    """A number for each token."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1).T


class Turn(nn.Module):
    """Tokens first, then the texts."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1) * 2


def around(after: Callable[[Around, Tensor], object]) -> tuple[Around, Structure]:
    whole: Any = Around(after)
    return whole, structure_of(whole, record(whole, lambda: whole(X), N))


ENDS: dict[str, tuple[Callable[[Around, Tensor], object], str | None, str | None, str | None]] = {
    "norm and head": (lambda m, y: m.head(m.norm(y)), "norm", "head", "norm"),
    "logits by name": (lambda m, y: {"logits": m.head(m.norm(y)), "more": y}, "norm", "head", "norm"),
    "logits first": (lambda m, y: (m.head(m.norm(y)), y), "norm", "head", "norm"),
    "another thing first": (lambda m, y: (y * 2, m.head(m.norm(y))), "norm", None, "norm"),
    "a head without a norm": (lambda m, y: m.head(y), None, "head", "head"),
    "no norm of what the blocks give": (lambda m, y: m.head(m.norm(y * 2)), None, None, None),
    "a head on what a norm makes further": (lambda m, y: m.head(m.norm(y).tanh()), "norm", None, "norm"),
    "a scale of the logits": (lambda m, y: m.scale(m.head(m.norm(y))), "norm", None, "norm"),
    "a second norm": (lambda m, y: m.head(m.norm(y) + m.other(y)), "norm", None, "norm"),
    "a head of two": (lambda m, y: m.both(m.norm(y), y)[0], "norm", None, "norm"),
    "a head that gives two": (lambda m, y: m.both(m.norm(y))[0], "norm", "both", "norm"),
    "read second": (lambda m, y: m.both(y * 2, y)[0], None, None, None),
    "norms run twice": (lambda m, y: m.head(m.norm(m.both(y * 2, y)[0]) + m.norm(y)), "norm", None, None),
}  # fmt: skip


@pytest.mark.parametrize("way", ENDS)
def test_the_final_norm_the_head_and_the_reader_are_those_of_what_the_last_block_gives(way: str) -> None:
    after, norm, head, reader = ENDS[way]
    whole, found = around(after)
    assert found.final_norm is (None if norm is None else whole.get_submodule(norm))
    assert found.head is (None if head is None else whole.get_submodule(head))
    assert found.reader == (None if reader is None else Site.module(reader, "input"))


def test_what_each_module_gives_and_is_given_first_sits_where_it_has_tokens() -> None:
    def after(m: Around, y: Tensor) -> Tensor:
        m.idle(torch.arange(N)[None])
        m.fold(y)
        m.scale(m.turn(y))
        return m.head(m.both(y, y * 2)[1])

    whole, found = around(after)
    gives = {
        name: found.modules.get(Site.module(name)) for name in ("both", "turn", "scale", "head", "idle", "fold", "")
    }
    reads = {name: found.modules.get(Site.module(name, "input")) for name in gives}
    assert [name for name, tap in gives.items() if tap is not None] == ["both", "turn", "scale", "head"]
    assert [name for name, tap in reads.items() if tap is not None] == ["both", "turn", "scale", "head", "fold"]
    for taps, side in ((gives, "output"), (reads, "input")):
        for name, tap in taps.items():
            if tap is not None:
                assert (tap.module, tap.side, tap.part) == (whole.get_submodule(name), side, 0)
                assert tap.axes == ((0,) if name == "scale" or (name, side) == ("turn", "output") else None)
                assert tap.shape == ((VOCAB,) if (name, side) == ("head", "output") else (D,))


def test_a_text_of_one_token_is_not_turned() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Sequential()])

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks[0](x, torch.ones(1, 1).bool())

    whole: Any = One()
    trace = record(whole, lambda: whole(X[:, :1]), 1)
    found = structure_of(whole, trace)
    assert found.modules[Site.module("blocks.0.mlp")].axes is None


def test_the_short_text_is_eleven_ordinary_tokens_or_as_many_as_the_context_holds() -> None:
    hf = model(1)
    text = short_text(hf)
    assert text.ids.shape == (1, 11)
    assert 6 <= int(text.ids.min()) < int(text.ids.max()) < VOCAB
    assert bool(text.mask.all()) and not bool(text.special.any())
    assert torch.equal(short_text(hf).ids, text.ids)
    hf.config.max_position_embeddings = 4
    assert short_text(hf).ids.shape == (1, 4)


@pytest.mark.parametrize(("n_vocab", "drawn"), [(3, {2}), (6, {5}), (7, {6}), (8, {6, 7})])
def test_the_tokens_of_a_small_vocabulary_are_from_the_seventh_on_or_its_last(n_vocab: int, drawn: set[int]) -> None:
    hf = model(1)
    hf.embed = nn.Embedding(n_vocab, D)
    assert {*short_text(hf).ids.flatten().tolist()} == drawn


def named(paths: list[str], **config: bool) -> list[str]:
    hf: Any = SimpleNamespace(config=SimpleNamespace(**config)) if config else SimpleNamespace()
    return [name for name, _ in _name_stacks(hf, [Stack(path, ()) for path in paths])]


def test_stacks_are_named_after_their_side_or_else_after_what_holds_them() -> None:
    assert named(["layers"]) == named(["model.layers"], is_encoder_decoder=False) == [""]
    assert named(["model.decoder.layers"], is_encoder_decoder=True) == ["decoder"]
    assert named(["model.encoder.layers", "model.decoder.layers"], is_encoder_decoder=True) == ["encoder", "decoder"]
    assert named(["encoder.block", "decoder.block"], is_encoder_decoder=True) == ["encoder", "decoder"]
    assert named(["model.local.layers", "model.whole.layers"]) == ["local", "whole"]
    assert named(["towers.0.layers", "towers.1.layers"]) == ["towers", "towers_1_layers"]
    assert named(["first", "second"]) == ["first", "second"]
    assert named(["a.b.c.layers", "layers"]) == ["c", "layers"]
