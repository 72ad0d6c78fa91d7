"""What of a tensor is a site, the divisor of a norm, and the way to the logits, each against its formula."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks.site import Site
from hooks.taps import MergedAxes, Tap, _argument, _by_place, _place
from hooks.unembed import unembed
from hooks.view import View, norm_scale

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(2, 5, 7, generator=RANDOM, dtype=torch.float64) + 3.0


def test_a_view_reads_features_times_a_factor_in_heads_and_writes_them_back_where_they_were() -> None:
    raw, rows = torch.randn(2, 3, 6, generator=RANDOM), torch.tensor([5, 0, 3, 2])
    for factor in (2.0, torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])):
        by = torch.full((6,), 2.0) if isinstance(factor, float) else factor
        whole = View(factor=factor)
        torch.testing.assert_close(whole.read(raw), raw * by)
        torch.testing.assert_close(whole.write(raw, raw * by + 1), raw + 1 / by)
    some = View(rows, 0.5, heads=2)
    value = some.read(raw)
    assert torch.equal(value, (raw[..., [5, 0, 3, 2]] / 2).view(2, 3, 2, 2))
    changed = some.write(raw, value + 1)
    assert torch.equal(changed[..., [1, 4]], raw[..., [1, 4]])
    torch.testing.assert_close(changed[..., rows], raw[..., rows] + 2)
    assert View().read(raw) is raw and View().write(raw, value) is value
    assert View(heads=3).read(raw).shape == (2, 3, 3, 2)
    for one in (raw, raw[0], raw[0, 0], raw[None]):
        assert torch.equal(View(heads=2).write(one, View(heads=2).read(one)), one)


class Rms(nn.Module):
    """Root mean square, with its eps under a name of its own, or none."""

    def __init__(self, weight: float, **eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((7,), weight, dtype=torch.float64))
        for name, value in eps.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        eps = vars(self).get("variance_epsilon", vars(self).get("eps", 0.0))
        return self.weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


class Bare(nn.Module):
    """Layer norm without weights (OLMo's), which does not say its eps; its width only where it is given one."""

    def __init__(self, *width: int) -> None:
        super().__init__()
        if width:
            self.normalized_shape = width

    def forward(self, x: Tensor) -> Tensor:
        shape = vars(self).get("normalized_shape", (x.shape[-1],))
        return F.layer_norm(x, shape, eps=3e-5)


@pytest.mark.parametrize("size", [1e-3, 1.0, 40.0])
@pytest.mark.parametrize("named", [{"eps": 0.25}, {"variance_epsilon": 0.25}, {}])
def test_the_divisor_of_a_root_mean_square_does_not_centre_whatever_its_weights(
    size: float, named: dict[str, float]
) -> None:
    norm = Rms(size, **named)
    wanted = (X.square().mean(-1, keepdim=True) + sum(named.values())).sqrt()
    torch.testing.assert_close(norm_scale(norm)(X), wanted)


@pytest.mark.parametrize("size", [1e-3, 1.0, 40.0])
def test_the_divisor_of_a_layer_norm_is_of_what_is_centred(size: float) -> None:
    norm = nn.LayerNorm(7, eps=0.25, dtype=torch.float64)
    nn.init.constant_(norm.weight, size)
    wanted = (X.var(-1, correction=0, keepdim=True) + 0.25).sqrt()
    torch.testing.assert_close(norm_scale(norm)(X), wanted)
    got = norm_scale(norm)(X.bfloat16())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=0.02, atol=0)


@pytest.mark.parametrize("norm", [Bare(7), Bare()], ids=["of seven", "of any width"])
def test_the_eps_of_a_norm_without_weights_is_found_by_what_it_gives(norm: nn.Module) -> None:
    small = X * 1e-3  # so that eps counts
    wanted = (small.var(-1, correction=0, keepdim=True) + 3e-5).sqrt()
    torch.testing.assert_close(norm_scale(norm)(small), wanted, rtol=1e-3, atol=0)


def head(**said: Any) -> Any:
    """What `unembed` asks of a model."""
    linear = nn.Linear(7, 4, bias=False, dtype=torch.float64)
    torch.nn.init.orthogonal_(linear.weight)
    own = {name: said.pop(name) for name in ("logit_scale", "get_decoder") if name in said}
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(**said))
    return SimpleNamespace(config=config, get_output_embeddings=lambda: linear, **own)


@pytest.mark.parametrize(
    ("said", "factor", "cap"),
    [
        ({}, 1.0, None),
        ({"logit_scale": 2.0}, 2.0, None),
        ({"logit_scale": 0.25}, 0.25, None),
        ({"logit_scale": None, "logits_scaling": 4.0}, 0.25, None),
        ({"logits_scaling": 0.5}, 2.0, None),
        ({"final_logit_softcapping": 3.0}, 1.0, 3.0),
        ({"logits_scaling": 0.5, "final_logit_softcapping": 3.0}, 2.0, 3.0),
    ],
)
def test_logits_are_scaled_and_then_capped(said: dict[str, Any], factor: float, cap: float | None) -> None:
    hf, norm = head(**said), nn.LayerNorm(7, dtype=torch.float64)
    for final in (norm, None):
        plain = F.linear(X if final is None else norm(X), hf.get_output_embeddings().weight) * factor
        wanted = plain if cap is None else cap * torch.tanh(plain / cap)
        torch.testing.assert_close(unembed(hf, final, X), wanted)


def test_a_projection_after_the_last_block_comes_before_the_unembedding() -> None:
    out = nn.Linear(9, 7, dtype=torch.float64)
    hf = head(get_decoder=lambda: SimpleNamespace(project_out=out))
    wide = torch.randn(2, 9, dtype=torch.float64, generator=RANDOM)
    torch.testing.assert_close(unembed(hf, None, wide), F.linear(out(wide), hf.get_output_embeddings().weight))


class Three(nn.Module):
    """Three numbers in, one tensor out, or several."""

    def __init__(self, gives: str = "") -> None:
        super().__init__()
        self.gives = gives

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Any:
        if self.gives == "tuple":
            return a, b, c
        return {"one": a, "two": b} if self.gives == "dict" else torch.stack([a, b, c])


ONE, TWO, FOUR = (torch.full((1, 1, 1), float(n)) for n in (1, 2, 4))


@pytest.mark.parametrize("part", [0, 1, 2, "a", "b", "c"])
@pytest.mark.parametrize("by_name", [0, 1, 2, 3])
def test_an_argument_is_read_and_changed_by_its_place_or_name_however_it_was_passed(
    part: int | str, by_name: int
) -> None:
    net, got, given = Three(), list[float](), [ONE, TWO, FOUR]
    cut = 3 - by_name
    args, kwargs = tuple(given[:cut]), dict(zip("abc"[cut:], given[cut:], strict=True))
    found = (args[part] if part < cut else None) if isinstance(part, int) else kwargs.get(part)
    wanted = [one.item() for one in given]
    at = next((i for i, one in enumerate(given) if one is found), 0)  # else the first that there is
    tap = Tap(Site.module("net"), net, "input", (1,), part)
    handle = tap.attach(lambda a: got.append(a.item()) or a + 10)
    made = net(*args, **kwargs).flatten().tolist()
    handle.remove()
    assert got == [wanted[at]]
    assert made == [one + 10 * (i == at) for i, one in enumerate(wanted)]
    assert _argument(args, kwargs, part) is given[at]
    assert _place(args, kwargs, part) == (at if at < cut else "abc"[at])


@pytest.mark.parametrize(
    ("gives", "part", "at"),
    [("tuple", 0, 0), ("tuple", 1, 1), ("tuple", 2, 2), ("tuple", "two", 0), ("dict", "two", 1)],
)
def test_a_part_of_an_output_is_read_and_changed_and_the_rest_is_kept(gives: str, part: int | str, at: int) -> None:
    net, got, given = Three(gives), list[float](), [ONE, TWO, FOUR]
    tap = Tap(Site.module("net"), net, "output", (1,), part)
    handle = tap.attach(lambda a: got.append(a.item()) or a + 10)
    made = net(*given)
    handle.remove()
    made = [one.item() for one in (made.values() if gives == "dict" else made)]
    plain = [one.item() for one in given][: len(made)]
    assert got == [plain[at]] and made == [one + 10 * (i == at) for i, one in enumerate(plain)]


def test_a_block_that_merges_texts_and_columns_is_changed_where_they_were() -> None:
    class Merges(nn.Module):
        def __init__(self, merges: bool) -> None:
            super().__init__()
            self.layer, self.merges = nn.Identity(), merges

        def forward(self, other: int, x: Tensor) -> Tensor:
            inner = self.layer(x.flatten(0, 1) if self.merges else x)
            return inner.view(x.shape)

    x = torch.arange(30.0).view(2, 3, 5)
    for merges in (True, False):
        block, shapes = Merges(merges), list[tuple[int, ...]]()
        tap = Tap(Site.module("layer"), block.layer, "output", (5,), axes=MergedAxes(block, 1))
        handle = tap.attach(
            lambda a, shapes=shapes: shapes.append(tuple(a.shape)) or a * a.new_tensor([[[1.0]], [[2.0]]])
        )
        made = block(0, x)
        handle.remove()
        assert shapes == [(2, 3, 5)]
        assert torch.equal(made, torch.stack([x[0], 2 * x[1]]))


@pytest.mark.parametrize(
    ("shape", "axes", "seen"),
    [
        ((2, 3), (), (2, 1, 3)),
        ((2, 4, 3), (1,), (2, 4, 3)),
        ((4, 2, 3), (0,), (2, 4, 3)),
        ((2, 3, 4, 5), (2, 3), (2, 20, 3)),
    ],
)
def test_places_are_one_axis_after_the_batch_and_go_back_where_they_were(
    shape: tuple[int, ...], axes: tuple[int, ...], seen: tuple[int, ...]
) -> None:
    a = torch.randn(*shape, generator=RANDOM)
    got: list[Tensor] = []
    changed = _by_place(lambda one: got.append(one) or one + one[:, :1], axes)(a)
    assert got[0].shape == seen and changed is not None and changed.shape == a.shape
    first = a.movedim(axes, tuple(range(1, 1 + len(axes)))).flatten(1, len(axes))[:, :1] if axes else a.unsqueeze(1)
    wanted = got[0] + first
    again: list[Tensor] = []
    assert _by_place(lambda one: again.append(one), axes)(changed) is None
    assert torch.equal(again[0], wanted)
