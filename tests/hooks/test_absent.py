"""Why a model lacks a site: the last layer there is, what a block has instead, or the nearest names."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from hooks.absent import why_absent
from hooks.site import Site
from hooks.structure import Structure
from tests import shapes

TWO = [Site("resid_post", 0), Site("resid_post", 1), Site("z", 0), Site("logits")]


@pytest.fixture(autouse=True)
def _as_for_users() -> Any:
    with shapes.unchecked():
        yield


def test_a_layer_after_the_last_is_out_of_range_and_one_that_others_have_is_not() -> None:
    assert why_absent("tiny", Site("z", 2), TWO) == "z.2 is out of range: tiny has 2 layers, so the last is z.1"
    assert why_absent("tiny", Site("z", 5), TWO) == "z.5 is out of range: tiny has 2 layers, so the last is z.1"
    said = why_absent("tiny", Site("z", 1), TWO)
    assert said.startswith("tiny has no z.1; the nearest are 'z.0'") and "`model.sites` lists every site" in said
    assert why_absent("tiny", Site("q", 5), TWO).startswith("tiny has no q.5; the nearest are ")
    assert why_absent("tiny", Site("embed"), TWO).startswith("tiny has no embed; the nearest are ")


def test_a_name_that_no_block_has_is_answered_with_what_to_ask_for_instead() -> None:
    for name, said in (
        ("mlp_act", "mixture of experts"),
        ("mlp_pre", "mixture of experts"),
        ("cross_q", "none of its blocks reads an encoder"),
        ("mixer_out", "it mixes tokens by attention; use attn_out"),
        ("mixer_state", "none of its mixers leaves one state"),
        ("layer_embed", "none of its blocks is given an embedding"),
        ("expert_out", "no part of it is called with a choice of experts"),
    ):
        assert why_absent("tiny", Site(name, 0), TWO).startswith(f"tiny has no {name}: ")
        assert said in why_absent("tiny", Site(name, 0), TWO)
    dense_first = [*TWO, Site("mlp_act", 0)]
    assert why_absent("tiny", Site("mlp_act", 1), dense_first).startswith(
        "tiny has no mlp_act.1; the nearest are 'mlp_"
    )


def block(layer: int, names: list[str], stack: str = "", *, copies: int = 0, middle: bool = False) -> Any:
    """What is looked at in a traced block."""
    stream = SimpleNamespace(shape=(copies, 8) if copies else (8,))
    return SimpleNamespace(
        stack=stack,
        layer=layer,
        sublayers=[SimpleNamespace(name=name) for name in names],
        terms=[Site.module(f"{layer}.part{i}") for i in range(len(names))],
        taps={Site("resid_post", layer, stack): stream},
        site=lambda name: Site(name, layer, stack),
        sums=SimpleNamespace(middle=1 if middle else None, end=2),
        reads={},
    )


def why(site: Site, *blocks: Any) -> str:
    structure = cast(Structure, SimpleNamespace(blocks=blocks))
    return why_absent("tiny", site, TWO, structure)


def test_a_block_says_of_what_it_adds_why_it_is_in_no_one_place() -> None:
    parallel, twice = block(0, ["attn_out", "mlp_out"]), block(1, ["attn_out", "attn_out"])
    middle, copies = block(0, ["attn_out", "mlp_out"], "encoder", middle=True), block(1, [], "encoder", copies=4)
    every = (parallel, twice, middle, copies)
    assert "attention and feed-forward read the same stream, in parallel" in why(Site("resid_mid", 0), *every)
    assert "its block adds 2 such parts, each named by its module: module(1.part0), module(1.part1)" in why(
        Site("attn_out", 1), *every
    )
    assert "no module is given the stream after its attention" in why(Site("resid_mid", 0, "encoder"), *every)
    for name in ("resid_mid", "attn_out"):
        assert "its stream is 4 copies, mixed by weights" in why(Site(name, 1, "encoder"), *every)
    assert "no stage of its stream holds all that mixes tokens" in why(Site("resid_mid", 1), *every)


def test_a_block_says_nothing_of_what_it_does_not_add_or_adds_once() -> None:
    every = (block(0, ["attn_out", "mlp_out"]), block(1, ["attn_out"], copies=0))
    for site in (Site("attn_out", 0), Site("mixer_out", 1), Site("q", 1), Site("resid_mid", 1, "decoder")):
        assert "block adds" not in why(site, *every) and "stream" not in why(site, *every), site
    assert why(Site("mlp_out", 1), *every).startswith("tiny has no mlp_out.1; the nearest are ")
