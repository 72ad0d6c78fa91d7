"""Stacks of blocks, where a model keeps them in no one list, or hands more than a stream from block to block."""

import pytest
import torch
from torch import Tensor

from benchmarks.tiny_models import VOCAB, tiny_model
from hooks import Model, Site, capture, intervene, load
from hooks.errors import InvalidArgument
from hooks.forward import arguments
from hooks.interventions import replace, zero
from hooks.position import everywhere
from hooks.site import attn_out, decoder, encoder, mixer_out, mlp_in, mlp_out, q, resid_post, resid_pre

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(6, VOCAB, (1, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def xlm() -> Model:
    return load(tiny_model("xlm", "XLMWithLMHeadModel"))


def test_lists_next_to_each_other_whose_items_run_in_turn_are_blocks(xlm: Model, ids: Tensor) -> None:
    with torch.no_grad():
        theirs = xlm.hf(input_ids=ids, output_hidden_states=True).hidden_states
    ours = capture(xlm, ids, ["resid_pre.*", "resid_post.*"])
    for layer in range(xlm.n_layers):
        torch.testing.assert_close(ours[resid_pre[layer]], theirs[layer])
        torch.testing.assert_close(ours[resid_post[layer]], theirs[layer + 1])


def test_what_is_written_before_such_a_block_is_read_by_all_of_it(xlm: Model, ids: Tensor) -> None:
    """The block adds attention to the stream itself, so that a change must reach the sum as well."""
    value = torch.randn(xlm.d_model, generator=torch.Generator().manual_seed(4))
    with intervene(xlm, {resid_pre[1]: replace(value, at=everywhere)}):
        ours = xlm.run(ids)
    before = xlm.hf.transformer.layer_norm2[0].register_forward_hook(lambda _m, _a, out: value.expand_as(out).clone())
    with torch.no_grad():
        theirs = xlm.hf(input_ids=ids).logits
    before.remove()
    torch.testing.assert_close(ours, theirs)


def test_what_a_router_hands_from_block_to_block_is_no_stream(ids: Tensor) -> None:
    zaya = load(tiny_model("zaya", "ZayaForCausalLM"))
    with torch.no_grad():
        theirs = zaya.hf(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    torch.testing.assert_close(capture(zaya, ids, resid_pre[1])[resid_pre[1]], theirs[1])
    assert {attn_out[0], mlp_out[0], resid_post[1]} <= set(zaya.sites)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("rwkv", "RwkvForCausalLM"), ("inkling_text", "InklingForCausalLM"), ("inkling2_text", "Inkling2ForCausalLM")],
)
def test_a_part_that_reaches_a_few_tokens_next_to_one_that_reaches_all_is_the_feed_forward(
    kind: str, name: str
) -> None:
    """RWKV's reads the token before too; Inkling's is followed by a convolution; Inkling-2's first drops its stream."""
    model = load(tiny_model(kind, name))
    assert {mixer_out[0], mlp_out[0], mixer_out[1], mlp_out[1]} <= set(model.sites)


def test_the_last_stream_is_vouched_for_by_what_reads_it_where_the_way_to_the_logits_is_longer() -> None:
    model = load(tiny_model("hy_v4", "HYV4ForCausalLM"))
    assert model.contract is not None
    law = next(check for check in model.contract.checks if check.law == "stream is read")
    assert law.holds
    assert resid_post[1] in model.sites


ODD = [
    ("cpmant", "CpmAntForCausalLM", "43 places where the text has 11 tokens"),
    ("prophetnet", "ProphetNetForCausalLM", "33 places where the text has 11 tokens"),
    ("perceiver", "PerceiverForMaskedLM", "256 places where the text has 11 tokens"),
    ("gemma3n_text", "Gemma3nForCausalLM", r"4 streams at once \[4 batch pos d\]"),
    ("reformer", "ReformerModelWithLMHead", "two streams at once"),
    ("squeezebert", "SqueezeBertForMaskedLM", "run by their forward alone, not called"),
]


@pytest.mark.parametrize(("kind", "name", "why"), ODD, ids=[kind for kind, *_ in ODD])
def test_a_model_without_a_stream_of_tokens_is_refused_with_what_its_blocks_pass_on(
    kind: str, name: str, why: str
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        load(tiny_model(kind, name))


@pytest.mark.parametrize(
    ("kind", "name", "site", "why"),
    [
        ("deepseek_v4", "DeepseekV4ForCausalLM", "attn_out", "its stream is 4 copies, mixed by weights"),
        ("hy_v4", "HYV4ForCausalLM", "resid_mid", "its stream is 4 copies, mixed by weights"),
        ("longcat_flash", "LongcatFlashForCausalLM", "attn_out", r"adds 2 such parts.*self_attn\.0\.o_proj"),
        ("longcat_flash", "LongcatFlashForCausalLM", "resid_mid", "no stage of its stream"),
        ("gptj", "GPTJForCausalLM", "resid_mid", "in parallel"),
    ],
)
def test_what_a_block_adds_in_no_one_place_is_absent_with_the_reason(
    kind: str, name: str, site: str, why: str, ids: Tensor
) -> None:
    with pytest.raises(InvalidArgument, match=why):
        capture(load(tiny_model(kind, name)), ids, Site(site, 0))


@torch.no_grad()
def test_the_embedding_of_an_encoder_decoder_is_that_of_the_table_that_runs(ids: Tensor) -> None:
    """T5 and BART say that `shared` is their table, which no pass runs: the encoder's has its weight."""
    model = load(tiny_model("t5", "T5ForConditionalGeneration"))
    table = model.hf.get_input_embeddings()
    acts = capture(model, ids, [Site("embed"), decoder.resid_pre[0]])
    torch.testing.assert_close(acts[Site("embed")], table(ids))
    with intervene(model, {Site("embed"): zero()}):
        changed = capture(model, ids, [encoder.resid_pre[0], decoder.resid_pre[0]])
    assert not changed[encoder.resid_pre[0]].any()
    assert torch.equal(changed[decoder.resid_pre[0]], acts[decoder.resid_pre[0]])


@torch.no_grad()
@pytest.mark.parametrize(("kind", "name"), [("ctrl", "CTRLLMHeadModel"), ("xlnet", "XLNetLMHeadModel")])
def test_a_table_whose_rows_are_scaled_in_place_or_come_pos_first_is_read_as_it_is(
    kind: str, name: str, ids: Tensor
) -> None:
    model = load(tiny_model(kind, name))
    torch.testing.assert_close(capture(model, ids, Site("embed"))[Site("embed")], model.hf.get_input_embeddings()(ids))


@torch.no_grad()
def test_logits_have_the_width_of_a_head_that_is_a_table(ids: Tensor) -> None:
    model = load(tiny_model("fsmt", "FSMTForConditionalGeneration"))
    assert model.contract is not None
    assert not model.contract.refused
    text = model.tokens(ids)
    theirs = model.hf(**arguments(model.hf, text)).logits
    torch.testing.assert_close(capture(model, ids, Site("logits"))[Site("logits")], theirs)


@pytest.mark.parametrize(
    ("kind", "name", "site"),
    [
        ("doge", "DogeForCausalLM", mlp_in[1]),
        ("minimax", "MiniMaxForCausalLM", mlp_in[0]),
        ("minimax", "MiniMaxForCausalLM", q[0]),
    ],
)
def test_a_part_that_reads_another_stage_than_most_is_vouched_for_by_what_tracing_saw(
    kind: str, name: str, site: Site
) -> None:
    assert site in load(tiny_model(kind, name)).sites
