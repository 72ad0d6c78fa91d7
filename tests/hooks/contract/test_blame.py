"""Blame falls on no site that is right: families whose blocks differ from most in one thing."""

import pytest
import torch
from torch import Tensor

from benchmarks.tiny_models import VOCAB, tiny_model
from hooks import capture, load
from hooks.site import attn_out, resid_post

IDS = torch.randint(6, VOCAB, (1, 9), generator=torch.Generator().manual_seed(1))
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("kind", "name"), [("apertus", "ApertusForCausalLM"), ("gpt_oss", "GptOssForCausalLM")], ids=["apertus", "gpt_oss"]
)
def test_no_right_site_is_refused_and_every_layer_is_measured(kind: str, name: str) -> None:
    """Apertus has a nonlinearity with weights; gpt-oss has sinks in its attention, and biases in its experts."""
    report = load(tiny_model(kind, name)).contract
    assert report is not None
    assert not report.refused
    assert {one.sites[0].layer for one in report.checks if one.law in ("block adds", "heads write")} == {0, 1}


@torch.no_grad()
def test_what_attention_adds_is_taken_after_the_norm_of_the_layers_that_have_one_there() -> None:
    """OLMo-hybrid's attention is followed by a norm; its linear attention is not."""
    model, got = load(tiny_model("olmo_hybrid", "OlmoHybridForCausalLM")), dict[str, Tensor]()
    assert model.contract is not None
    assert not model.contract.refused
    block = model.hf.model.layers[1]
    block.post_attention_layernorm.register_forward_hook(lambda _m, _a, out: got.update(added=out.clone()))
    block.register_forward_hook(lambda _m, _a, out: got.update(post=out.clone()))
    acts = capture(model, IDS, [attn_out[1], resid_post[1]])
    assert torch.equal(acts[attn_out[1]], got["added"])
    assert torch.equal(acts[resid_post[1]], got["post"])


@pytest.mark.parametrize("kind", ["codegen:CodeGenForCausalLM", "hrm_text:HrmTextForCausalLM"])
def test_a_family_that_no_table_fits_is_loaded_by_what_it_does(kind: str) -> None:
    model = load(tiny_model(*kind.split(":")))
    assert {"resid_pre", "resid_post"} <= {site.name for site in model.sites}
