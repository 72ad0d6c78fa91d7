"""How each site of a model that processes share is put together follows from the style of its module."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from hooks import Model, capture
from hooks.attention import KernelAccessor
from hooks.sharded_taps import _measure, _shared, share_taps
from hooks.shards import ModelRanks, TensorShard
from hooks.site import Site, attn_out, pattern, q, resid_post, z
from hooks.structure import short_text
from hooks.taps import Tap
from hooks.view import View

Seen = tuple[tuple[int, ...], float, float]


class Mesh:
    """So many processes."""

    def __init__(self, n: int) -> None:
        self.n = n

    def size(self) -> int:
        return self.n


TWO, THREE = ModelRanks(Mesh(2)), ModelRanks(Mesh(3))


@pytest.fixture
def hf() -> Any:
    """Three layers of a block, by the styles of a plan, and one whose style is stamped on it."""
    block = nn.ModuleDict({"up": nn.Linear(6, 8), "down": nn.Linear(8, 6), "both": nn.Linear(6, 16)})
    block["free"], block["odd"] = nn.Linear(6, 6), nn.Linear(8, 6)
    net: Any = nn.ModuleDict({"layers": nn.ModuleList([block])})
    net._tp_plan = {
        "layers.*.up": "colwise", "layers.0.down": "rowwise", "layers.*.both": "packed_colwise",
        "layers.*.odd": "in_a_new_way",
    }  # fmt: skip
    return net


def tap(hf: Any, name: str, side: Any = "output", shape: tuple[int, ...] = (4,), **more: Any) -> Tap:
    return Tap(Site.module(name), hf["layers"][0][name], side, shape, **more)


def seen(*last: int, sums: tuple[float, float] = (3.0, 1.0)) -> list[Seen]:
    """What processes have measured, whose last axes are so long."""
    return [((1, 5, n), *sums) for n in last]


def of(found: Tap | str) -> tuple[Any, ...]:
    assert isinstance(found, Tap) and found.shard is not None, found
    return found.shape, found.shard.axis, found.shard.size, found.shard.packed, found.view.heads


def test_a_column_wise_output_and_a_row_wise_input_are_parts_of_the_last_axis(hf: Any) -> None:
    up, down = tap(hf, "up"), tap(hf, "down", "input")
    for parts in ((4, 4), (5, 3)):
        assert of(_shared(hf, TWO, up, seen(*parts))) == ((8,), -1, 8, 1, None)
        assert of(_shared(hf, TWO, down, seen(*parts))) == ((8,), -1, 8, 1, None)
    assert of(_shared(hf, THREE, up, seen(3, 3, 2))) == ((8,), -1, 8, 1, None)
    assert of(_shared(hf, TWO, tap(hf, "both"), seen(8, 8))) == ((16,), -1, 16, 2, None)
    for one in (up, down):
        assert _shared(hf, TWO, one, seen(4, 3)) == (
            "its parts do not make up 8 features, and the plan gives its module, Linear, the style "
            f"'{'colwise' if one is up else 'rowwise'}'"
        )
    hf["layers"][0]["free"]._hf_tp_plan = "rowwise"
    assert of(_shared(hf, TWO, tap(hf, "free", "input"), seen(3, 3))) == ((6,), -1, 6, 1, None)


def test_heads_are_as_many_as_all_processes_have_and_chosen_features_are_packed_or_refused(hf: Any) -> None:
    heads = tap(hf, "up", shape=(2, 2), view=View(heads=2))
    assert of(_shared(hf, TWO, heads, seen(4, 4))) == ((4, 2), -1, 8, 1, 4)
    odd = tap(hf, "up", shape=(1, 3), view=View(heads=1))
    assert _shared(hf, TWO, odd, seen(4, 4)) == "its 8 features are no whole number of heads of 3"
    rows = View(torch.tensor([0, 1, 2]))
    assert "it is chosen features of a projection" in str(_shared(hf, TWO, tap(hf, "up", view=rows), seen(4, 4)))
    kept = _shared(hf, TWO, tap(hf, "both", shape=(3,), view=rows), seen(8, 8))
    assert of(kept) == ((3,), -1, 16, 2, None) and isinstance(kept, Tap) and kept.view.rows is rows.rows


@pytest.mark.parametrize(("name", "side"), [("up", "input"), ("down", "output"), ("free", "output"), ("odd", "input")])
def test_what_is_whole_by_its_style_is_whole_where_every_process_measures_the_same(
    hf: Any, name: str, side: str
) -> None:
    one = tap(hf, name, side)
    assert of(_shared(hf, TWO, one, seen(4, 4))) == ((4,), None, 0, 1, None)
    near = [*seen(4), *seen(4, sums=(3.001, 1.001))]
    assert of(_shared(hf, TWO, one, near)) == ((4,), None, 0, 1, None)
    styles = {
        "up": "the style 'colwise'",
        "down": "the style 'rowwise'",
        "free": "none",
        "odd": "the style 'in_a_new_way'",
    }
    said = f"its values differ between the processes, and the plan gives its module, Linear, {styles[name]}"
    for other in (seen(2), seen(4, sums=(4.0, 1.0)), seen(4, sums=(3.0, 2.0))):
        assert _shared(hf, TWO, one, [*seen(4), *other]) == said
        assert _shared(hf, THREE, one, [*seen(4, 4), *other]) == said
    assert _shared(hf, THREE, one, seen(4, 4)) == "one measured pass did not reach it in every process"


def test_what_is_read_inside_a_module_is_no_part_of_its_output(hf: Any) -> None:
    inside = tap(hf, "up", inside=KernelAccessor(hf["layers"][0]["up"], "sdpa"))
    assert of(_shared(hf, TWO, inside, seen(4, 4))) == ((4,), None, 0, 1, None)


def test_a_measured_site_is_known_by_its_shape_its_length_and_the_order_of_its_numbers(gpt2: Model) -> None:
    site = resid_post[1]
    (found,) = _measure(gpt2.hf, {site: gpt2.tap(site), pattern[0]: gpt2.tap(pattern[0])}).values()
    a = capture(gpt2, short_text(gpt2.hf), site)[site].double().flatten()
    assert found[0] == (1, len(a) // 32, 32)
    torch.testing.assert_close(
        torch.tensor(found[1:]), torch.stack([a.norm(), a @ torch.linspace(-1, 1, len(a)).double()]).float()
    )


@pytest.mark.parametrize("parts", [True, False])
def test_a_pattern_is_shared_by_heads_where_what_it_averages_is(
    llama: Model, parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two processes computes half of every projection, or all of it."""

    def both(_: ModelRanks, said: dict[Site, Seen]) -> list[dict[Site, Seen]]:
        half: dict[Site, Seen] = {}
        for site, (shape, *sums) in said.items():
            by = 2 if parts and site.name == "z" and site.layer != 2 else 1
            half[site] = ((*shape[:-1], shape[-1] // by), sums[0], sums[1])
        return [half, {site: one for site, one in half.items() if site != z[1]}]

    monkeypatch.setattr("hooks.sharded_taps.ranks_of", lambda _: TWO)
    monkeypatch.setattr(ModelRanks, "exchange", both)
    monkeypatch.setattr(llama.hf, "_tp_plan", {"model.layers.*.self_attn.o_proj": "rowwise"} if parts else {})
    shared = share_taps(llama.hf, llama.taps, llama.structure)
    for layer in (0, 2):
        whole = llama.tap(pattern[layer])
        split = TensorShard(TWO, 1, 4) if parts and layer == 0 else TensorShard(TWO)
        if parts and layer == 2:  # two wholes do not make up one
            assert z[2] in shared.refused and "its z cannot be read" in shared.refused[pattern[2]]
            continue
        found = shared.taps[pattern[layer]]
        assert found.shard is not None and found == replace(whole, shape=(4,), shard=found.shard)
        assert (found.shard.axis, found.shard.size, found.shard.packed) == (split.axis, split.size, 1)
        assert shared.taps[z[layer]].shape == (4, 8)
    assert "did not reach it" in shared.refused[z[1]] and "its z cannot be read" in shared.refused[pattern[1]]
    assert {attn_out[0], q[0], resid_post[2]} <= set(shared.taps)
    assert [site for site in llama.taps if site in shared.taps] == [*shared.taps]


def test_a_model_of_one_process_keeps_its_taps(llama: Model) -> None:
    shared = share_taps(llama.hf, llama.taps, llama.structure)
    assert shared.taps is llama.taps and not shared.refused
