"""What any module gives or is given can be captured and changed, by the module's name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hooks import Site, capture, intervene, load
from hooks.interventions import zero
from hooks.site import mlp_out, resid_post, resid_pre

IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])


def test_what_a_module_gives_and_is_given_is_what_a_plain_hook_sees(hf_model: Callable[..., Any]) -> None:
    hf, seen = hf_model("llama"), {}
    model = load(hf)
    norm = hf.model.layers[1].post_attention_layernorm
    handle = norm.register_forward_hook(lambda _m, args, out: seen.update(read=args[0].clone(), gives=out.clone()))
    model.run(IDS)
    handle.remove()
    path = "model.layers.1.post_attention_layernorm"
    for site, name in ((Site.module(path), "gives"), (Site.module(path, "input"), "read")):
        assert torch.equal(capture(model, IDS, site)[site], seen[name])


def test_a_change_of_what_a_module_gives_flows_on(hf_model: Callable[..., Any]) -> None:
    hf = hf_model("llama")
    model = load(hf)
    with intervene(model, {Site.module("model.layers.1.mlp"): zero()}) as receipt:
        changed = model.run(IDS)
    handle = hf.model.layers[1].mlp.register_forward_hook(lambda _m, _a, out: torch.zeros_like(out))
    wanted = model.run(IDS)
    handle.remove()
    assert receipt.passes == 1
    torch.testing.assert_close(changed, wanted)


def test_a_name_that_is_no_modules_is_answered_with_the_nearest(hf_model: Callable[..., Any]) -> None:
    model = load(hf_model("llama"))
    with pytest.raises(ValueError, match=r"has no module\(model\.layers\.1\.mpl\): .*'model\.layers\.1\.mlp'"):
        capture(model, IDS, Site.module("model.layers.1.mpl"))


def test_a_layer_that_runs_twice_has_a_site_for_each_call(hf_model: Callable[..., Any]) -> None:
    hf = hf_model("llama")
    layers = hf.model.layers
    hf.model.layers = nn.ModuleList([layers[0], layers[1], layers[1], layers[2]])
    hf.config.num_hidden_layers = 4
    hf.config.use_cache = hf.generation_config.use_cache = False
    model, seen = load(hf), list[torch.Tensor]()
    assert model.n_layers == 4
    handle = layers[1].mlp.register_forward_hook(lambda _m, _a, out: seen.append(out.clone()))
    model.run(IDS)
    handle.remove()
    for call, site in enumerate((mlp_out[1], mlp_out[2])):
        assert torch.equal(capture(model, IDS, site)[site], seen[call])
    acts = capture(model, IDS, [resid_post[1], resid_pre[2]])
    assert torch.equal(acts[resid_post[1]], acts[resid_pre[2]])
    with intervene(model, {mlp_out[1]: zero()}):
        changed = model.run(IDS)
    times = [0]

    def first_call(_m: Any, _a: Any, out: torch.Tensor) -> torch.Tensor:
        times[0] += 1
        return torch.zeros_like(out) if times[0] == 1 else out

    handle = layers[1].mlp.register_forward_hook(first_call)
    wanted = model.run(IDS)
    handle.remove()
    torch.testing.assert_close(changed, wanted, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="its module runs more than once in a pass"):
        capture(model, IDS, Site.module("model.layers.1.mlp"))


def test_a_configuration_that_asks_for_tuples_changes_nothing(hf_model: Callable[..., Any]) -> None:
    plain, tuples = load(hf_model("llama")), hf_model("llama")
    tuples.config.return_dict = False
    model = load(tuples)
    assert model.sites == plain.sites
    assert torch.equal(model.run(IDS), plain.run(IDS))
    assert tuples.config.return_dict is False


@pytest.mark.parametrize("context", [1, 2, 4, 7])
def test_a_model_of_a_short_context_has_the_sites_of_a_long_one(hf_model: Callable[..., Any], context: int) -> None:
    short, long = load(hf_model("gpt2", n_positions=context), check=False), load(hf_model("gpt2"), check=False)
    assert set(short.taps) == set(long.taps)
