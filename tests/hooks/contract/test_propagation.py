"""The laws of reach, by what they write and what they ask for, on planted values that can be worked out by hand."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.tiny_models import tiny_model
from hooks import Model, Site, capture, load
from hooks.contract import propagation
from hooks.contract.families import tiny
from hooks.contract.propagation import (
    _adds_plainly,
    _arrives,
    _block,
    _half,
    _needs,
    _norm_spans_heads,
    _on_next,
    _on_pattern,
    _on_stream,
    _write_noise,
    reach_laws,
)
from hooks.contract.report import Check
from hooks.contract.rounding import unit
from hooks.site import attn_out, k, mlp_act, mlp_in, mlp_out, pattern, q, resid_mid, resid_post, resid_pre, v, z
from hooks.tokens import Tokens

pytestmark = pytest.mark.usefixtures("unchecked")


@cache
def model_of(family: str) -> Model:
    """A tiny model that nothing here changes."""
    return load(tiny(family), check=False)


@cache
def bart() -> Model:
    return load(tiny_model("bart", "BartForConditionalGeneration"), check=False)


def text(model: Model, n_pos: int) -> Tokens:
    return model.tokens(torch.arange(6, 6 + n_pos)[None])


def written(site: Site, a: Tensor, row: int = 1) -> Tensor:
    """What writing noise adds, after a look that it is in one row and that what was given is left as it is."""
    before = a.clone()
    added = _write_noise(row, site, a) - before
    assert torch.equal(a, before) and not added[:row].any() and not added[row + 1 :].any()
    return added[row]


@pytest.mark.parametrize(
    ("site", "tokens"),
    [(resid_pre[0], [2]), (mlp_act[1], [2]), (z[0], [2]), (v[0], [0, 1, 2, 3, 4, 5, 6]), (q[0], [2, 3, 4]),
     (k[0], [0, 1]), (Site("cross_k", 0, "decoder"), [0, 1]), (Site("cross_v", 0, "decoder"), [0, 1, 2, 3, 4, 5, 6])],
)  # fmt: skip
def test_noise_is_written_at_one_token_or_where_a_part_of_attention_is_asked(site: Site, tokens: list[int]) -> None:
    for heads in (1, 2, 5):
        added = written(site, torch.zeros(3, 7, heads, 4))
        half = max(1, heads // 2) if site.name[-1] in "qk" else heads
        assert (added != 0).flatten(1).any(dim=1).nonzero().flatten().tolist() == tokens
        assert (added != 0).any(dim=2).any(dim=0).tolist() == [head < half for head in range(heads)]


@pytest.mark.parametrize("site", [resid_pre[0], v[0], q[0]])
@pytest.mark.parametrize(("scale", "size"), [(0.0, 1.0), (0.1, 1.0), (1.5, 1.5), (20.0, 20.0)])
def test_noise_is_ten_times_what_is_there_and_at_least_ten(site: Site, scale: float, size: float) -> None:
    """Of what is there the root mean square counts, here that of an even number of values of one size and two signs."""
    token = {"resid_pre": slice(2, 3), "v": slice(0, 6), "q": slice(2, 5)}[site.name]
    a = torch.full((3, 6, 4, 8), 1e3)
    a[1, token] = scale
    a[1, token, :, ::2] *= -1
    drawn = torch.randn(
        (token.stop - token.start, 2 if site == q[0] else 4, 8), generator=torch.Generator().manual_seed(1)
    )
    added = written(site, a)[token, : drawn.shape[1]]
    torch.testing.assert_close(added, 10 * size * drawn, rtol=1e-4, atol=1e-4)


def test_keys_of_the_first_two_tokens_change_by_opposite_amounts() -> None:
    added = written(k[0], torch.zeros(3, 6, 4, 8))
    drawn = torch.randn((2, 2, 8), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(added[0, :2], 10 * drawn[0])
    assert torch.equal(added[1, :2], -added[0, :2])


def test_half_of_the_heads_is_at_least_one() -> None:
    assert [_half(heads) for heads in (1, 2, 3, 4, 5, 8)] == [1, 1, 1, 2, 2, 4]


def test_what_arrives_is_more_than_rounding_and_what_moves_elsewhere_is_relative_to_what_is_there() -> None:
    """One unit of rounding of what is there has to arrive; else all is missed."""
    model, clean = model_of("gpt2"), torch.full((4, 4), 5.0)  # of size 20
    u = unit(torch.float32, 32)

    def law(site: Site, there: float, elsewhere: float, clean: Tensor = clean) -> Check:
        return _arrives(model, site, "states", torch.tensor(there**2), torch.tensor(elsewhere**2), clean)

    for there, error in ((1.1 * u * 20, 0.5 / 20), (0.9 * u * 20, 1.0), (0.0, 1.0)):
        assert law(z[0], there, 0.5).error == pytest.approx(error)
    assert law(z[0], 3.0, 0.0).error == 0.0
    assert law(z[0], 0.0, 0.0, torch.zeros(2)).error == 1.0
    assert law(z[0], 3.0, 1.0).allowed == 4 * u
    for site, name in ((q[0], "q reaches"), (Site("cross_k", 0), "k reaches"), (v[0], "writing reaches")):
        check = law(site, 3.0, 1.0)
        assert (check.law, check.sites, check.at) == (name, (site,), site)


def moved_pattern(model: Model, site: Site, *moves: tuple[int, int, float]) -> tuple[Check, float]:
    """The law of a query or key where the weight of one key moves, by so much, in a head and at a query of it.

    The row that is written is the first of three, the last is the clean one. With it, the size of the clean one.
    """
    random = torch.Generator().manual_seed(0)
    value = torch.rand(3, model.n_heads, 6, 6, generator=random)
    value[0] = value[2]
    for head, query, by in moves:
        value[0, head, query, 1] += by
    name = site.name[:-1] + "pattern"
    return _on_pattern(model, site, {replace(site, name=name): value}, 0), float(value[2].norm())


HEADS = [("gpt2", "q", 2), ("gpt2", "k", 2), ("llama", "q", 2), ("llama", "k", 2), ("falcon", "k", 4),
         ("olmo2", "q", 4), ("qwen3", "k", 2)]  # fmt: skip


@pytest.mark.parametrize(("family", "name", "heads"), HEADS)
def test_queries_move_their_rows_of_their_heads_and_keys_the_rows_that_see_them(
    family: str, name: str, heads: int
) -> None:
    """Half of the heads are written, with all queries that share a key; rows before a key is seen say nothing."""
    model, site = model_of(family), Site(name, 0)
    sees = {"q": range(2, 5), "k": range(2, 6)}[name]
    may = {"q": range(2, 5), "k": range(6)}[name]
    for head in range(4):
        for query in range(6):
            alone, size = moved_pattern(model, site, (head, query, 0.5))
            with_another, _ = moved_pattern(model, site, (0, 3, 2.0), (head, query, 0.5))
            elsewhere = 0.0 if head < heads and query in may else 0.5 / size
            assert with_another.error == pytest.approx(elsewhere, abs=1e-6)
            assert alone.error == (pytest.approx(elsewhere, abs=1e-6) if head < heads and query in sees else 1.0)


@pytest.mark.parametrize("name", ["q", "k"])
def test_what_moves_in_a_pattern_is_summed_over_its_weights(name: str) -> None:
    model, site, u = model_of("gpt2"), Site(name, 1), unit(torch.float32, 32)
    check, size = moved_pattern(model, site, (0, 3, 1.0), (2, 0, 0.3), (3, 4, -0.4))
    assert check.error == pytest.approx(0.5 / size) and check.allowed == 4 * u
    assert check.law == f"{name} reaches"
    for by, error in ((1.5, 0.0), (0.7, 1.0)):
        assert moved_pattern(model, site, (1, 4, by * u * size))[0].error == error


def test_a_norm_over_all_heads_of_queries_or_keys_is_no_norm_of_each_head() -> None:
    for family, spans in (("gpt2", False), ("qwen3", False), ("olmo2", True)):
        assert _norm_spans_heads(model_of(family), q[1]) == _norm_spans_heads(model_of(family), k[1]) == spans


def moved_next(site: Site, there: Site, *moves: tuple[int, float], heads: int = 1) -> tuple[Check, float]:
    """The law of any other site where one feature of the next moves at tokens of it, with the size of the clean one."""
    shape = (6, heads, 8) if heads > 1 else (6, 8)
    value = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    value[0] = value[2]
    for token, by in moves:
        value[0, token].flatten()[3] += by
    return _on_next(model_of("gpt2"), site, there, {there: value}, 0), float(value[2].norm())


@pytest.mark.parametrize("name", ["z", "mlp_act", "v", "cross_v", "resid_pre", "mixer_in"])
def test_what_is_written_moves_the_next_site_from_its_token_on_and_no_token_before(name: str) -> None:
    """Values are written at all tokens; a stream, and what a mixer reads, may reach one before in what reads all."""
    site, there, anywhere = Site(name, 0), resid_post[0], name in ("v", "cross_v", "resid_pre", "mixer_in")
    for heads in (1, 2):
        for token in range(6):
            with_another, size = moved_next(site, there, (4, 2.0), (token, 0.5), heads=heads)
            elsewhere = 0.0 if anywhere or token >= 2 else 0.5 / size
            assert with_another.error == pytest.approx(elsewhere)
            alone, _ = moved_next(site, there, (token, 0.5), heads=heads)
            assert alone.error == (0.0 if token >= 2 else 1.0)


def test_what_moves_at_the_next_site_is_summed_over_its_features() -> None:
    u = unit(torch.float32, 32)
    check, size = moved_next(z[0], attn_out[0], (2, 3.0), (0, 0.3), (1, 0.4))
    assert check.error == pytest.approx(0.5 / size)
    assert (check.law, check.allowed, check.sites) == ("writing reaches", 4 * u, (z[0],))
    for by, error in ((1.5, 0.0), (0.7, 1.0)):
        assert moved_next(z[0], attn_out[0], (5, by * u * size))[0].error == error


def test_what_is_written_on_the_stream_is_more_than_rounding_of_all_that_is_there() -> None:
    """Two rows of a value of 10 at three sites: more than a unit of 3 sqrt(2) 10 has to be written."""
    model, u, size = model_of("gpt2"), unit(torch.float32), 3 * 2**0.5 * 10
    for by, error in ((1.5, 0.0), (0.7, 1.0), (0.0, 1.0)):
        acts = {site: torch.zeros(3, 6, 32) for site in (resid_post[1], mlp_out[1], resid_mid[1])}
        for site, value in acts.items():
            value[..., 0] = 10.0
            value[0, 2, 1] = 0.0 if site == mlp_out[1] else by * u * size
        check = _on_stream(model, resid_mid[1], acts, 0)
        assert (check.error, check.allowed, check.law) == (error, 4 * u, "stream keeps")
    nothing = {site: torch.zeros(3, 6, 32) for site in (resid_post[1], mlp_out[1], resid_mid[1])}
    assert _on_stream(model, resid_mid[1], nothing, 0).error == 1.0


def test_what_tells_whether_a_change_arrives_is_the_pattern_the_stream_with_what_is_added_or_the_next_site() -> None:
    serial, parallel = model_of("gpt2"), model_of("gptj")
    assert _needs(serial, q[1], ()) == _needs(serial, k[1], ()) == (pattern[1],)
    for model in (serial, parallel):
        assert _needs(model, resid_pre[1], ()) == (resid_post[1], attn_out[1], mlp_out[1])
        assert _needs(model, mlp_out[1], ()) == (resid_post[1],)
        assert _needs(model, v[1], ()) == (z[1],) and _needs(model, z[1], ()) == (attn_out[1],)
    assert _needs(serial, attn_out[0], ()) == _needs(serial, resid_mid[0], ()) == (resid_post[0], mlp_out[0])
    assert _needs(parallel, attn_out[0], ()) == (resid_post[0],)  # feed-forward does not read it
    after = model_of("bert")
    assert _needs(after, attn_out[0], [resid_post[0], resid_mid[0]]) == (resid_mid[0],)
    assert _needs(after, attn_out[0], [resid_post[0]]) == _needs(after, attn_out[0], ()) == (resid_post[0],)
    assert _needs(after, mlp_in[0], [mlp_out[0]]) == (mlp_out[0],)


def test_what_attention_reads_of_an_encoder_arrives_in_its_own_pattern_and_average() -> None:
    """And the block of a site is that of its stack."""
    model = bart()
    names = {"cross_q": "cross_pattern", "cross_k": "cross_pattern", "cross_v": "cross_z", "cross_z": "cross_out"}
    for name, there in names.items():
        assert _needs(model, Site(name, 1, "decoder"), ()) == (Site(there, 1, "decoder"),)
    for stack in ("encoder", "decoder"):
        for layer in (0, 1):
            block = _block(model, Site("z", layer, stack))
            assert (block.stack, block.layer) == (stack, layer) and block in model.structure.blocks


def test_a_block_adds_plainly_where_its_output_is_the_stream_attention_and_feed_forward_alone() -> None:
    """With no norm after them (BERT) and no third term (T5's decoder); a factor of a sublayer is its own (Granite)."""
    plain = {family: _adds_plainly(model_of(family), z[1]) for family in ("gpt2", "gptj", "llama", "bert", "granite")}
    assert plain == {"gpt2": True, "gptj": True, "llama": True, "bert": False, "granite": True}
    t5 = load(tiny_model("t5", "T5ForConditionalGeneration"), check=False)
    assert [_adds_plainly(t5, Site("z", 0, stack)) for stack in ("encoder", "decoder")] == [True, False]


def test_a_text_of_six_tokens_is_long_enough() -> None:
    model = model_of("gpt2")
    assert not list(reach_laws(model, text(model, 5), model.sites))
    asked = [check.sites[0] for check in reach_laws(model, text(model, 6), model.sites)]
    names = ["resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_in", "mlp_pre", "mlp_act", "mlp_out"]
    assert sorted(map(str, asked)) == sorted(f"{name}.{layer}" for name in names for layer in (0, 1))


def test_a_site_is_asked_for_where_it_and_what_tells_of_it_are_sound() -> None:
    model = model_of("gpt2")
    for sound, asked in (([z[0], attn_out[0]], [z[0]]), ([z[0]], []), ([attn_out[0], resid_post[0]], [])):
        assert [check.sites[0] for check in reach_laws(model, text(model, 6), sound)] == asked


def test_a_pass_measures_fifty_five_sites_each_in_a_row_and_the_clean_text_in_one_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, passes = model_of("gpt2"), list[tuple[Tokens, int]]()

    def kept(model: Model, tokens: Tokens, sites: Any, batch_size: int) -> Any:
        passes.append((tokens, batch_size))
        return capture(model, tokens, sites, batch_size=batch_size)

    monkeypatch.setattr(propagation, "capture", kept)
    given, sites = text(model, 6), [z[0], q[1], mlp_out[1]]
    sound = [*sites, attn_out[0], pattern[1], resid_post[1]]
    assert [check.sites[0] for check in reach_laws(model, given, sound)] == sites
    ((tokens, batch_size),) = passes
    assert batch_size == 4 and torch.equal(tokens.ids, given.ids.expand(4, 6))
    assert tokens.mask.shape == tokens.special.shape == (4, 6)

    parts = list[list[Site]]()
    monkeypatch.setattr(propagation, "_needs", lambda *_: ())
    monkeypatch.setattr(propagation, "_chunk", lambda _model, _text, sites, _sound: parts.append(list(sites)) or [])
    many = [Site("z", layer) for layer in range(112)]
    assert not list(reach_laws(model, given, many))
    assert list(map(len, parts)) == [55, 55, 2] and sum(parts, []) == many
