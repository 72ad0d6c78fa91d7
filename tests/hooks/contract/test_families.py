"""Every family keeps its contract, and the page of families says what its reports say."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.zoo import RESULTS, page
from hooks import Model, capture, load
from hooks.contract.families import FAMILIES, tiny
from hooks.contract.rounding import unit
from hooks.site import Site, ln_final_scale, mlp_act, mlp_in, mlp_out, mlp_pre, resid_mid, resid_post, resid_pre
from hooks.weights import weight_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "families.md"
RUNS = {"same as Hugging Face", "same stream", "no dropout", "batch = single", "right padding", "left padding"}
WITHIN = {"embedding", "blocks join", "unembedding", "heads write", "heads average", "feed-forward reads"}
REACH = {"writing reaches", "q reaches", "k reaches", "q projects", "k projects", "v projects"}
IDS = torch.tensor([[5, 6, 7, 8, 9], [3, 2, 11, 4, 1]])
LONG = 12  # tokens of the text that is read

USUAL = {  # a block that reads the stream through norms
    "embedding": "resid_pre.0 = embed",
    "blocks join": "resid_post = the next resid_pre",
    "attention adds": "resid_mid = resid_pre + attn_out",
    "feed-forward adds": "resid_post = resid_mid + mlp_out",
    "block adds": "resid_post = resid_pre + attn_out + mlp_out",
    "q projects": "q = W_Q LN1(resid_pre) + b",
    "k projects": "k = W_K LN1(resid_pre) + b",
    "v projects": "v = W_V LN1(resid_pre) + b",
    "pattern averages": "the attention kernel gives Σ_pos pattern v",
    "heads average": "z = Σ_pos pattern v",
    "rows weigh": "pattern >= 0, Σ_pos pattern <= 1",
    "heads write": "attn_out = Σ_head z W_O + b",
    "feed-forward reads": "mlp_in = LN2(resid_mid)",
    "keys match": "mlp_pre = W_in mlp_in + b",
    "memories fire": "mlp_act = act(mlp_pre)",
    "memories write": "mlp_out = W_out mlp_act + b",
    "feed-forward writes": "",
    "unembedding": "logits = unembed(norm(the last resid_post))",
    "final scale": "ln_final_scale (norm(x) - bias) is linear in x",
}
POSITIONS = {"embedding": "resid_pre.0 = embed + pos_embed"}
EAGER = {"pattern averages": ""}  # no kernel that a pattern is read at
PARALLEL = {"attention adds": "", "feed-forward adds": "", "feed-forward reads": "mlp_in = LN1(resid_pre)"}
FEED_FORWARD_FIRST = {"block adds": "resid_post = resid_pre + mlp_out + attn_out"}
GATED = {"memories fire": "mlp_act = act(mlp_pre) (W_up mlp_in + b)"}
READS_PLAIN = {f"{name} projects": f"{name} = W_{name.upper()} resid_pre + b" for name in "qkv"} | {
    "feed-forward reads": "mlp_in = resid_mid"
}
AFTER = READS_PLAIN | {
    "attention adds": "resid_mid = LN(resid_pre + attn_out)",
    "feed-forward adds": "resid_post = LN(resid_mid + mlp_out)",
    "block adds": "",
}
POST = {
    "heads write": "attn_out = LN_post(Σ_head z W_O + b)",
    "memories write": "mlp_out = LN_post(W_out mlp_act + b)",
}
OTHERWISE: Mapping[str, Mapping[str, str]] = {  # what the laws say of a family where it is not the usual
    "gpt2": POSITIONS,
    "gpt_neo": POSITIONS | EAGER,
    "gptj": PARALLEL | EAGER,
    "gpt_neox": PARALLEL | FEED_FORWARD_FIRST | {"feed-forward reads": "mlp_in = LN2(resid_pre)"},
    "opt": POSITIONS,
    "opt_350m": AFTER | {"embedding": "resid_pre.0 = W_in embed + pos_embed", "final scale": ""},
    "bloom": EAGER | {"embedding": "resid_pre.0 = LN(embed)"},
    "falcon": PARALLEL | FEED_FORWARD_FIRST,
    "llama": GATED,
    "mistral": GATED,
    "qwen2": GATED,
    "qwen3": GATED,
    "gemma2": GATED | POST | EAGER,
    "gemma3": GATED | POST,
    "olmo2": GATED | POST | READS_PLAIN,
    "granite": GATED
    | {
        "embedding": "resid_pre.0 = 2 embed",
        "heads write": "attn_out = 0.5 (Σ_head z W_O + b)",
        "memories write": "mlp_out = 0.5 (W_out mlp_act + b)",
    },
    "phi": PARALLEL,
    "phi3": GATED,
    "mixtral": {"keys match": "", "memories fire": "", "memories write": ""}
    | {"feed-forward writes": "mlp_out = MLP(mlp_in)"},
    "bert": AFTER | {"embedding": "resid_pre.0 = LN(embed + pos_embed + type)"},
}
SUMMED = {  # how many products are summed in what a law speaks of
    "d_model": tuple(f"{name} projects" for name in "qkv")
    + ("keys match", "memories fire", "feed-forward writes", "unembedding"),
    "positions": ("pattern averages", "heads average", "rows weigh"),
}


@cache
def loaded(family: str) -> Model:
    return load(tiny(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_laws_of_a_family_are_its_equations_and_allow_four_units_of_rounding_of_the_products_they_sum(
    family: str,
) -> None:
    model = loaded(family)
    assert model.contract is not None
    checks = [one for one in model.contract.checks if one.law in USUAL]
    said = {law: {one.states for one in checks if one.law == law} for law in {one.law for one in checks}}
    assert said == {law: {states} for law, states in {**USUAL, **OTHERWISE[family]}.items() if states}
    sizes = {"d_model": 32, "positions": LONG}
    summed = {law: sizes[size] for size, laws in SUMMED.items() for law in laws}
    summed |= {"heads write": model.n_heads * model.d_head, "memories write": model.d_mlp}
    for one in checks:
        assert one.allowed == 4 * unit(model.dtype, summed.get(one.law, 1)), one


@pytest.mark.parametrize("family", FAMILIES)
def test_every_law_holds_and_none_is_left_out(family: str) -> None:
    model = loaded(family)
    report = model.contract
    assert report is not None
    assert report.holds, report
    assert not report.refused
    laws = {one.law for one in report.checks}
    assert laws >= RUNS | WITHIN | REACH
    assert ("final scale" in laws) == (ln_final_scale in model.sites)
    assert ("cached = uncached" in laws) == (family != "bert")
    assert ("attention adds" in laws) == (resid_mid[0] in model.sites)
    assert ("memories write" in laws and "memories fire" in laws) == (mlp_act[0] in model.sites)
    assert (mlp_act[0] in model.sites) == (family != "mixtral")
    assert report.passes <= 20


def test_the_page_is_what_the_results_of_the_zoo_say() -> None:
    assert PAGE.read_text("utf-8") == page(json.loads(RESULTS.read_text("utf-8")))


def test_every_tiny_model_is_of_two_layers_of_width_32_and_reads_101_tokens() -> None:
    """The last token begins and ends texts, the first pads them."""
    for family in FAMILIES:
        model, config = loaded(family), loaded(family).hf.config
        assert (model.n_layers, model.d_model, model.n_heads, model.d_vocab) == (2, 32, 4, 101), family
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (100, 100, 0), family


def widths(family: str) -> tuple[int, int, int, int]:
    """Key-value heads, the width of a head, of the feed-forward layer, and the positions there are."""
    model = loaded(family)
    shape = model.taps[Site("k", 0)].shape
    return shape[0], shape[1], model.d_mlp, getattr(model.hf.config, "max_position_embeddings", 0)


def test_the_widths_of_a_tiny_model_differ() -> None:
    """Where a family has one of its own, no width is that of the stream, so that no axis is taken for another."""
    every = {family: widths(family) for family in FAMILIES}
    plain, grouped, wide = (4, 8, 48, 64), (2, 8, 48, 64), (2, 16, 48, 64)
    assert every == {
        "gpt2": (4, 8, 128, 1024),
        "gpt_neo": plain,
        "gptj": (4, 8, 128, 2048),
        "gpt_neox": plain,
        "opt": (4, 8, 48, 2048),
        "opt_350m": (4, 8, 48, 2048),
        "bloom": (4, 8, 128, 0),
        "falcon": (1, 8, 128, 2048),
        "llama": grouped,
        "mistral": wide,
        "qwen2": grouped,
        "qwen3": wide,
        "gemma2": wide,
        "gemma3": wide,
        "olmo2": grouped,
        "granite": grouped,
        "phi": plain,
        "phi3": grouped,
        "mixtral": (2, 8, 0, 64),
        "bert": plain,
    }


SETTINGS: Mapping[str, Mapping[str, Any]] = {  # what is peculiar about a family and no width
    "gpt_neo": {"attention_layers": ["global", "local"], "window_size": 4},
    "gptj": {"rotary_dim": 4},
    "opt": {"word_embed_proj_dim": 32, "do_layer_norm_before": True},
    "opt_350m": {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "falcon": {"parallel_attn": True, "new_decoder_architecture": False},
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 4},
    "qwen2": {"tie_word_embeddings": True},
    "gemma2": {"sliding_window": 4, "query_pre_attn_scalar": 16},
    "gemma3": {"sliding_window": 4, "query_pre_attn_scalar": 16},
    "granite": {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, "logits_scaling": 3.0},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def test_what_is_peculiar_about_a_family_is_on_in_its_tiny_model() -> None:
    """A window is shorter than the text, a rotation narrower than a head, and no multiplier is 1 or another."""
    for family, settings in SETTINGS.items():
        config = loaded(family).hf.config
        assert {name: getattr(config, name) for name in settings} == settings, family
    assert loaded("qwen2").hf.lm_head.weight is loaded("qwen2").hf.model.embed_tokens.weight
    assert weight_of(loaded("opt_350m").hf.model.decoder.embed_tokens).shape == (101, 16)


def test_every_matrix_of_a_tiny_model_is_moved_by_a_fifth_and_every_other_weight_by_a_tenth() -> None:
    """From what transformers draws with the same seed; normal noise, by which no bias is zero and no norm plain."""
    import transformers

    for family in ("gpt2", "llama"):
        of = FAMILIES[family]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            drawn = getattr(transformers, of.kind + of.head)(getattr(transformers, of.kind + of.config)(**of.settings))
        pairs = [*zip(tiny(family, seed=3).parameters(), drawn.parameters(), strict=True)]
        for matrices, size in ((True, 0.2), (False, 0.1)):
            moved = torch.cat([(one - other).flatten() for one, other in pairs if (one.ndim > 1) == matrices])
            assert float(moved.detach().std()) == pytest.approx(size, rel=0.1), (family, size)


def test_a_tiny_model_is_the_one_of_seed_0_where_none_is_asked_for() -> None:
    for seed, same in ((0, True), (1, False)):
        given = zip(tiny("gpt2").parameters(), tiny("gpt2", seed=seed).parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in given) == same


def test_no_weight_of_a_tiny_model_is_left_at_its_default() -> None:
    for family in FAMILIES:
        for name, parameter in loaded(family).hf.named_parameters():
            assert parameter.std() > 0.03, (family, name)


def test_opt_merges_batch_and_position_and_its_sites_do_not() -> None:
    """Next to a feed-forward layer written by hand: relu, with the norm before it."""
    model = load(tiny("opt"))
    acts, layer = capture(model, IDS, model.sites), model.hf.model.decoder.layers[1]
    with torch.no_grad():
        x = acts[resid_pre[1]] + acts[Site("attn_out", 1)]
        h = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        h = h * layer.final_layer_norm.weight + layer.final_layer_norm.bias
        pre = h @ layer.fc1.weight.T + layer.fc1.bias
        out = pre.relu() @ layer.fc2.weight.T + layer.fc2.bias
    expected = {resid_mid[1]: x, mlp_in[1]: h, mlp_pre[1]: pre, mlp_act[1]: pre.relu(), mlp_out[1]: out}
    for site, value in (expected | {resid_post[1]: x + out}).items():
        torch.testing.assert_close(acts[site], value, atol=1e-5, rtol=1e-4)


def test_phi3_tells_the_gate_from_what_it_multiplies() -> None:
    model = load(tiny("phi3"))
    acts, mlp = capture(model, IDS, [mlp_in[0], mlp_pre[0], mlp_act[0]]), model.hf.model.layers[0].mlp
    with torch.no_grad():
        gate, up = (acts[mlp_in[0]] @ mlp.gate_up_proj.weight.T).split(48, dim=-1)
    torch.testing.assert_close(acts[mlp_pre[0]], gate, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(acts[mlp_act[0]], gate * gate.sigmoid() * up, atol=1e-5, rtol=1e-4)


def test_falcon_adds_in_place_and_mlp_out_is_what_it_was_before() -> None:
    model = load(tiny("falcon"))
    acts, mlp = capture(model, IDS, [mlp_in[1], mlp_out[1]]), model.hf.transformer.h[1].mlp
    with torch.no_grad():
        torch.testing.assert_close(acts[mlp_out[1]], mlp(acts[mlp_in[1]]), atol=1e-5, rtol=1e-4)
