"""Every family keeps its contract, and the page of families says what its reports say."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.zoo import RESULTS, page
from hooks import capture, load
from hooks.contract.families import FAMILIES, tiny
from hooks.site import Site, ln_final_scale, mlp_act, mlp_in, mlp_out, mlp_pre, resid_mid, resid_post, resid_pre

PAGE = Path(__file__).resolve().parents[3] / "docs" / "families.md"
RUNS = {"same as Hugging Face", "same stream", "no dropout", "batch = single", "right padding", "left padding"}
WITHIN = {"embedding", "blocks join", "unembedding", "heads write", "heads average", "feed-forward reads"}
REACH = {"writing reaches", "q reaches", "k reaches", "q projects", "k projects", "v projects"}
IDS = torch.tensor([[5, 6, 7, 8, 9], [3, 2, 11, 4, 1]])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_law_holds_and_none_is_left_out(family: str) -> None:
    model = load(tiny(family))
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


def test_no_weight_of_a_tiny_model_is_left_at_its_default() -> None:
    for family in FAMILIES:
        for name, parameter in tiny(family).named_parameters():
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
