"""Each law says its equation, allows what rounding explains of it, and speaks of what was read and of nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from math import inf, nan
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.tiny_models import tiny_model
from hooks import Model, Site, capture, load
from hooks.contract.block_identities import activation, block_laws, project
from hooks.contract.ends import cross_laws, end_laws
from hooks.contract.families import tiny
from hooks.contract.kernels import kernel_laws
from hooks.contract.report import Check
from hooks.contract.rounding import miss, unit
from hooks.contract.states import layer_embed_laws
from hooks.errors import InvalidArgument
from hooks.site import PATTERNS, attn_out, ln_final_scale, logits, mlp_out, pattern, resid_post, resid_pre
from hooks.structure import Block
from hooks.tokens import Tokens
from hooks.view import View
from tests.conftest import tiny as three_layers

pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore")]
Values = dict[Site, Tensor]
PER_LAYER = "module(model.layers.0.post_feedforward_layernorm) + module(model.layers.0.post_per_layer_input_norm)"
ENCODED = "module(model.encoder.layers.1.final_layer_norm)"
ODD: Mapping[str, Mapping[str, tuple[str, int]]] = {  # laws that few families have: what they say, and products summed
    "bart:BartForConditionalGeneration": {
        "embedding": ("embed = W_E[token]", 1),
        "cross_q is read": ("cross_q = W LN(resid_pre + attn_out) + b", 32),
        "cross heads write": ("cross_out = Σ_head cross_z W_O + b", 32),
        "cross k projects": (f"cross_k = W_K {ENCODED} + b", 32),
        "cross v projects": (f"cross_v = W_V {ENCODED} + b", 32),
        "cross_heads average": ("cross_z = Σ_pos cross_pattern cross_v", 12),
    },
    "gemma4_text:Gemma4ForCausalLM": {
        "feed-forward adds": (f"resid_post = (resid_mid + {PER_LAYER}) · 1", 1),
        "block adds": (f"resid_post = (resid_pre + attn_out + {PER_LAYER}) · 1", 1),
        "embedding of a layer": ("resid_post = Block(resid_pre, layer_embed)", 32),
    },
    "qwen3_next:Qwen3NextForCausalLM": {
        "mixer_in is read": ("mixer_in = LN(resid_pre)", 1),
        "mixer_gate is read": ("mixer_gate = W LN(resid_pre) + b", 32),
        "attn_gate is read": ("attn_gate = W LN(resid_pre) + b", 32),
        "feed-forward writes": ("mlp_out = MLP(mlp_in)", 32),
        "state is cached": ("mixer_state = what the model's cache holds", 32),
    },
    "granitemoe:GraniteMoeForCausalLM": {"feed-forward writes": ("mlp_out = 0.5 (MLP(mlp_in))", 32)},
    "gpt_oss:GptOssForCausalLM": {"feed-forward writes": ("mlp_out = MLP(mlp_in)", 32)},
    "bitnet:BitNetForCausalLM": {"memories fire": ("mlp_act = LN(act(mlp_pre) (W_up mlp_in + b))", 32)},
    "afmoe:AfmoeForCausalLM": {
        "pattern averages": ("the attention kernel gives Σ_pos pattern v", 12),
        "feed-forward writes": ("mlp_out = LN_post(MLP(mlp_in))", 32),
    },
    "hy_v4:HYV4ForCausalLM": {"stream is read": ("the last resid_post = module(model.hc_head, input)", 1)},
}


@cache
def loaded(name: str) -> Model:
    kind, _, head = name.partition(":")
    return load(tiny_model(kind, head) if head else tiny(kind))


@pytest.mark.parametrize("name", ODD, ids=[name.split(":")[0] for name in ODD])
def test_the_laws_that_few_families_have_hold_and_read_as_their_equations(name: str) -> None:
    """And each allows four units of rounding of the products that it sums."""
    model = loaded(name)
    assert model.contract is not None and not model.contract.refused
    for law, (states, summed) in ODD[name].items():
        checks = [one for one in model.contract.checks if one.law == law]
        assert {one.states.replace("layers.1.post", "layers.0.post") for one in checks} == {states}, law
        assert all(one.holds and one.allowed == 4 * unit(model.dtype, summed) for one in checks), law


def test_a_law_of_the_kernel_speaks_of_z_only_where_nothing_comes_between() -> None:
    """A gate follows the kernel of qwen3-next."""
    for name, spoken in (("qwen3_next:Qwen3NextForCausalLM", {"pattern"}), ("llama", {"pattern", "z"})):
        report = loaded(name).contract
        assert report is not None
        averages = [one for one in report.checks if one.law == "pattern averages"]
        assert averages and all({site.name for site in one.sites} == spoken for one in averages)


def read(model: Model, text: Tokens) -> tuple[Values, Values]:
    """What a pass gives at every site, and at those of attention again."""
    everything = dict(capture(model, text, [site for site in model.taps if site.name not in PATTERNS]).values)
    of_attention = [site for site in model.taps if site.name in (*PATTERNS, "v", "z", "cross_v", "cross_z")]
    return everything, dict(capture(model, text, of_attention).values)


def measured(model: Model, acts: Values, eager: Values, text: Tokens) -> Iterator[Check]:
    yield from end_laws(model, acts, text)
    yield from block_laws(model, acts, eager)
    yield from cross_laws(model, acts, text)
    yield from kernel_laws(model, eager, text)
    yield from layer_embed_laws(model, acts, text)


@pytest.mark.parametrize(
    "name", ["gpt2", "bart:BartForConditionalGeneration", "gemma4_text:Gemma4ForCausalLM",
             "qwen3_next:Qwen3NextForCausalLM"], ids=lambda name: name.split(":")[0],
)  # fmt: skip
def test_a_site_that_was_not_read_is_spoken_of_by_no_law_and_breaks_none(name: str) -> None:
    """But for a pattern and a scale that their laws read themselves."""
    model = loaded(name)
    text = model.tokens(torch.arange(6, 15)[None])
    acts, eager = read(model, text)
    whole = [*measured(model, acts, eager, text)]
    assert all(one.holds for one in whole)
    names = {site.name for one in whole for site in one.sites if site in acts.keys() | eager.keys()}
    for site in [next(one for one in (*acts, *eager) if one.name == kind) for kind in sorted(names)]:
        less = {one: value for one, value in acts.items() if one != site}
        less_eager = {one: value for one, value in eager.items() if one != site}
        checks = [*measured(model, less, less_eager, text)]
        assert len(checks) <= len(whole), site
        for one in checks:
            assert one.holds and (site not in one.sites or site.name in (*PATTERNS, "ln_final_scale")), (site, one)


GIVEN = {  # what each law is about, of a block of llama's
    "attn_out": "heads write", "mlp_out": "memories write", "q": "q projects", "k": "k projects", "v": "v projects",
    "mlp_pre": "keys match", "mlp_act": "memories fire", "mlp_in": "feed-forward reads",
}  # fmt: skip


def test_what_is_larger_by_d_of_itself_misses_its_law_by_d_over_2_plus_d() -> None:
    """‖(1 + d) x - x‖ / (‖(1 + d) x‖ + ‖x‖)."""
    for family in ("llama", "gemma2", "granite", "phi3"):
        model = loaded(family)
        acts, eager = read(model, model.tokens(torch.arange(6, 15)[None]))
        for name, law in GIVEN.items():
            wrong = acts | {Site(name, 1): 1.5 * acts[Site(name, 1)]}
            errors = {one.sites[0].layer: one.error for one in block_laws(model, wrong, eager) if one.law == law}
            assert errors[0] < 1e-6 and errors[1] == pytest.approx(0.5 / 2.5, rel=1e-4), (family, law)


def test_a_sum_is_missed_relative_to_all_that_is_added() -> None:
    """‖left - Σ terms‖ / (‖left‖ + Σ ‖terms‖) at the worst token; of what a norm of the sum gives, to that alone."""
    model = loaded("gpt2")
    text = model.tokens(torch.arange(6, 15)[None])
    acts, eager = read(model, text)
    pre, mixed, fed = (acts[site].clone() for site in (resid_pre[1], attn_out[1], mlp_out[1]))
    wrong = acts | {resid_post[1]: acts[resid_post[1]] + 0.5}
    (law,) = (one for one in block_laws(model, wrong, eager) if one.law == "block adds" and one.sites[0].layer == 1)
    added = sum(one.norm(dim=-1) for one in (pre, mixed, fed)) + wrong[resid_post[1]].norm(dim=-1)
    assert law.error == pytest.approx(float((0.5 * 32**0.5 / added).max()), rel=1e-4)
    assert law.sites == (resid_post[1], attn_out[1], mlp_out[1], resid_pre[1])


def weights(rows: Tensor) -> Check:
    """The law of the rows of a pattern of gpt2's."""
    (law,) = (one for one in block_laws(loaded("gpt2"), {}, {pattern[0]: rows}))
    return law


def test_rows_of_weights_miss_their_law_by_what_is_below_zero_or_above_a_sum_of_one() -> None:
    """What a row lacks of one goes to no token."""
    even = torch.full((1, 4, 3, 5), 0.2)
    assert weights(even).error == pytest.approx(0.0, abs=1e-6) and weights(0.5 * even).error == 0.0
    above, below, neither = even.clone(), 0.5 * even, even.clone()
    above[0, 2, 1, 3] += 0.25
    below[0, 1, 2, 4] = -0.125
    assert weights(above).error == pytest.approx(0.25) and weights(below).error == pytest.approx(0.125)
    neither[0, 0, 0, 0] = nan
    assert weights(neither).error == weights(even * inf).error == inf
    assert weights(even).allowed == 4 * unit(torch.float32, 5)


@pytest.mark.parametrize("family", ["opt_350m", "olmo2"])
def test_a_family_without_norms_before_its_sublayers_reads_the_stream_itself_where_none_was_traced(family: str) -> None:
    """Its norms come after the sublayers, or after the sum."""
    model = load(tiny(family), check=False)

    def normless(block: Block) -> Block:
        return replace(block, part={name: one for name, one in block.part.items() if not name.endswith(".norm")})

    model.structure = replace(model.structure, blocks=tuple(map(normless, model.structure.blocks)))
    acts, eager = read(model, model.tokens(torch.arange(6, 15)[None]))
    checks = {one.law: one for one in block_laws(model, acts, eager)}
    assert all(one.holds for one in checks.values())
    assert checks["q projects"].states == "q = W_Q resid_pre + b"
    assert checks["feed-forward reads"].states == "mlp_in = resid_mid"


def test_a_norm_that_the_feed_forward_does_not_have_inside_comes_after_it() -> None:
    """Of afmoe's experts, where tracing did not find which module is the feed-forward."""
    model = load(tiny_model("afmoe", "AfmoeForCausalLM"), check=False)

    def rootless(block: Block) -> Block:
        return replace(block, sublayers=tuple(replace(one, root=None) for one in block.sublayers))

    model.structure = replace(model.structure, blocks=tuple(map(rootless, model.structure.blocks)))
    acts, eager = read(model, model.tokens(torch.arange(6, 15)[None]))
    (law,) = (one for one in block_laws(model, acts, eager) if one.law == "feed-forward writes")
    assert law.holds


def test_what_cross_attention_adds_is_compared_with_its_factor() -> None:
    model = load(tiny_model("bart", "BartForConditionalGeneration"), check=False)
    site = next(one for one in model.taps if one.name == "cross_out" and one.layer == 1)
    acts, eager = read(model, model.tokens(torch.arange(6, 15)[None]))
    model.taps = {**model.taps, site: replace(model.taps[site], view=View(factor=4.0))}
    acts[site] = 4.0 * acts[site]
    laws = {one.sites[0].layer: one for one in block_laws(model, acts, eager) if one.law == "cross heads write"}
    assert laws[1].holds and laws[1].states == "cross_out = 4 (Σ_head cross_z W_O + b)"
    assert laws[0].holds and laws[0].states == "cross_out = Σ_head cross_z W_O + b"


def test_a_block_is_joined_to_the_next_where_they_meet_or_should() -> None:
    """A miss of just what rounding explains is explained; more is a law only where blocks were seen to join."""
    model, just = load(tiny("gpt2"), check=False), 2.0**-20
    assert just == 4 * unit(torch.float32)
    text = model.tokens(torch.arange(6, 15)[None])
    x = torch.zeros(1, 2, 32)
    x[..., 0] = 1.0

    def joins(distance: float) -> list[Check]:
        acts = {resid_post[0]: x * (1 + distance), resid_pre[1]: x * (1 - distance)}
        return [one for one in end_laws(model, acts, text) if one.law == "blocks join"]

    assert [(one.error, one.holds) for one in joins(just)] == [(just, True)]
    assert [(one.error, one.holds) for one in joins(2 * just)] == [(2 * just, False)]
    model.structure = replace(model.structure, joined=False)
    assert [(one.error, one.holds) for one in joins(just)] == [(just, True)]
    assert not joins(2 * just)


def test_the_embedding_is_the_table_where_what_the_first_block_reads_is_not_what_is_wrong() -> None:
    model = loaded("gpt2")
    text = model.tokens(torch.arange(6, 15)[None])
    acts, _ = read(model, text)

    def law(**wrong: Site) -> Check:
        changed = acts | {site: 1.5 * acts[site] for site in wrong.values()}
        return next(one for one in end_laws(model, changed, text) if one.law == "embedding")

    assert law().states == law(embed=Site("embed")).states == "resid_pre.0 = embed + pos_embed"
    assert law().holds and not law(embed=Site("embed")).holds
    assert law(first=resid_pre[0]).states == "embed = W_E[token]" and law(first=resid_pre[0]).holds


def test_a_table_that_gives_more_than_embeddings_is_read_by_the_first() -> None:
    """I-BERT's gives the scale of its integers as well."""
    model = loaded("ibert:IBertForMaskedLM")
    assert model.contract is not None
    law = next(one for one in model.contract.checks if one.law == "embedding")
    text = model.tokens(torch.arange(6, 15)[None])
    acts, _ = read(model, text)
    given = model.taps[Site("embed")].module(text.ids)
    assert isinstance(given, tuple) and law.holds
    left = {site: value for site, value in acts.items() if site.name != "resid_pre"}
    (alone,) = (one for one in end_laws(model, left, text) if one.law == "embedding")
    assert (alone.states, alone.error) == ("embed = W_E[token]", miss(acts[Site("embed")], given[0])) and alone.holds


def test_the_laws_at_the_end_are_about_the_last_of_three_blocks() -> None:
    model = three_layers("gpt2")
    assert model.n_layers == 3
    text = model.tokens(torch.arange(6, 15)[None])
    acts, _ = read(model, text)
    laws = {one.law: one for one in end_laws(model, acts, text)}
    assert laws["unembedding"].sites == (resid_post[2], logits) and laws["unembedding"].holds
    assert laws["final scale"].holds
    unread = {one.law for one in end_laws(model, {site: a for site, a in acts.items() if site != resid_post[2]}, text)}
    assert not unread & {"unembedding", "final scale", "stream is read"}
    headless = {site: a for site, a in acts.items() if site != logits}
    (law,) = (one for one in end_laws(model, headless, text) if one.law == "stream is read")
    assert law.holds and law.sites[0] == resid_post[2]


def test_a_scale_that_is_not_the_norms_own_misses_by_how_far_what_it_gives_is_from_linear() -> None:
    """f(x) = s(x) (N(x) - N(-x)) ∝ s(x) w (x - mean) / √(var + ε): f(x + y) against f(x) + f(y), y the token before."""
    model = load(tiny("gpt2"), check=False)
    other = View(derive=lambda x: x.norm(dim=-1, keepdim=True) + 1)
    model.taps = {**model.taps, ln_final_scale: replace(model.taps[ln_final_scale], view=other)}
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(2))
    norm, y = model.hf.transformer.ln_f, x[:, [4, 0, 1, 2, 3]]

    def f(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return (x.norm(dim=-1, keepdim=True) + 1) * norm.weight * centred / deviation

    with torch.no_grad():
        wanted = (f(x + y) - f(x) - f(y)).norm(dim=-1) / sum(one.norm(dim=-1) for one in (f(x + y), f(x), f(y)))
        (law,) = (one for one in end_laws(model, {resid_post[1]: x}, model.tokens(torch.arange(6, 11)[None]))
                  if one.law == "final scale")  # fmt: skip
    assert law.error == pytest.approx(float(wanted.max()), rel=1e-4) and law.error > 0.01


def test_a_projection_adds_its_bias_to_what_its_matrix_makes() -> None:
    torch.manual_seed(0)
    linear, plain, x = nn.Linear(3, 5), nn.Linear(3, 5, bias=False), torch.randn(2, 4, 3)
    assert torch.equal(project(linear, x), x @ linear.weight.T + linear.bias)
    assert torch.equal(project(plain, x), x @ plain.weight.T)


def test_the_nonlinearity_is_the_one_module_without_weights_or_the_one_the_configuration_names() -> None:
    config: Any = SimpleNamespace(hidden_act=None, activation_function="relu")
    block = nn.ModuleDict({"intermediate": nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Dropout()), "own": nn.GELU()})
    assert isinstance(activation(block, {"mlp": nn.Sequential(nn.Linear(2, 2), nn.SiLU())}, config), nn.SiLU)
    assert isinstance(activation(block, {}, config), nn.Tanh)
    assert isinstance(activation(nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Dropout()), {}, config), nn.GELU)
    for several in (nn.Sequential(nn.GELU(), nn.Tanh()), nn.Sequential(nn.Linear(2, 2), nn.Dropout())):
        made = activation(several, {}, config)
        assert made(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]
    config.activation_function = None
    with pytest.raises(InvalidArgument, match="Sequential does not say which nonlinearity it has"):
        activation(nn.Sequential(nn.Linear(2, 2)), {}, config)
