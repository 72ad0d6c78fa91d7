"""Stacks of blocks, where a model keeps them in no one list, or hands more than a stream from block to block."""

import pytest
import torch
from torch import Tensor

from benchmarks.tiny_models import VOCAB, tiny_model
from hooks import Model, capture, intervene, load
from hooks.interventions import replace
from hooks.position import everywhere
from hooks.site import attn_out, mixer_out, mlp_out, resid_post, resid_pre

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
