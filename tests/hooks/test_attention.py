"""A pattern is read next to the model's own kernel: every other site keeps its every bit, and it is eager's pattern."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from benchmarks.tiny_models import tiny_model
from hooks import Model, Site, capture, check, intervene, load
from hooks.attention import KernelAccessor, KernelCall, every_kernel, kind_of_attention, needs_eager, pattern_of
from hooks.contract.families import tiny
from hooks.errors import WrongState
from hooks.interventions import zero
from hooks.site import pattern, q, resid_post, z

FAMILIES = ["gpt2", "gpt_neox", "llama", "mistral", "qwen3", "gemma3", "olmo2", "granite", "falcon", "mixtral", "bert"]
IDS = torch.randint(6, 99, (1, 11), generator=torch.Generator().manual_seed(1))


def patterns(model: Model) -> list[Site]:
    return [site for site in model.sites if site.name == "pattern"]


def others(model: Model) -> list[Site]:
    return [site for site in model.sites if site.name != "pattern"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pattern_leaves_every_other_site_bit_for_bit_and_is_that_of_eager_attention(
    family: str, dtype: torch.dtype
) -> None:
    model = load(tiny(family), dtype=dtype)
    assert model.hf.config._attn_implementation == "sdpa"
    assert patterns(model) == [pattern[0], pattern[1]]
    alone = capture(model, IDS, others(model))
    together = capture(model, IDS, [*others(model), *patterns(model)])
    for site in others(model):
        assert torch.equal(alone[site], together[site]), site

    hf = tiny(family)
    hf.config._attn_implementation = "eager"
    eager = load(hf, dtype=dtype, check=False)
    assert eager.taps[pattern[0]].inside is None
    close = 2e-6 if dtype == torch.float32 else 4e-2  # eager attention rounds its scores
    for site in patterns(model):
        torch.testing.assert_close(together[site], capture(eager, IDS, site)[site], atol=close, rtol=0)
        total = together[site].float().sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total), atol=close, rtol=0)


@pytest.mark.parametrize(("kind", "name"), [("gpt_oss", "GptOssForCausalLM"), ("gemma2", "Gemma2ForCausalLM")])
def test_sinks_and_soft_caps_run_eager_attention_anyway_and_keep_every_bit(kind: str, name: str) -> None:
    model = load(tiny_model(kind, name), dtype=torch.bfloat16)
    alone = capture(model, IDS, others(model))
    together = capture(model, IDS, [*others(model), *patterns(model)])
    assert patterns(model)
    assert all(torch.equal(alone[site], together[site]) for site in others(model))


MASKS: dict[str, Callable[[], dict[str, Any]]] = {
    "none": dict,
    "causal": lambda: {"is_causal": True},
    "seen": lambda: {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril().triu(-2)},
    "added": lambda: {"attn_mask": torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(3))},
    "scaled": lambda: {"scale": 0.7, "is_causal": True},
    "blind": lambda: {"attn_mask": (torch.arange(5)[:, None] > 1).expand(5, 5)},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_pattern_averages_values_into_what_torchs_kernel_gives(mask: str, kv_heads: int) -> None:
    random = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 5, 8, generator=random)
    key, value = (torch.randn(2, kv_heads, 5, d, generator=random) for d in (8, 6))
    given = MASKS[mask]() | {"enable_gqa": kv_heads == 2}
    made = pattern_of(query, key, value, **given) @ value.repeat_interleave(4 // kv_heads, dim=1)
    torch.testing.assert_close(made, F.scaled_dot_product_attention(query, key, value, **given), atol=1e-6, rtol=1e-5)


def test_rows_weigh_the_tokens_of_a_padded_text_and_none_of_its_padding(
    decoder: Model, padded_left: Callable[[Model], Model]
) -> None:
    for model in (decoder, padded_left(decoder)):
        acts = capture(model, ["Fog over the bay", "Fog"], pattern[1])
        for row, mask in enumerate(acts.tokens.mask):
            real = acts[pattern[1]][row][:, mask]
            assert not bool(real[..., ~mask].any())
            torch.testing.assert_close(real.sum(-1), torch.ones(real.shape[:-1]), atol=1e-5, rtol=0)


def test_the_pattern_is_of_what_was_written_before_the_kernel() -> None:
    model = load(tiny("llama"))
    with intervene(model, {q[1]: zero()}):
        acts = capture(model, IDS, [pattern[0], pattern[1]])
    even = torch.ones(11, 11).tril()
    torch.testing.assert_close(acts[pattern[1]][0, 2], even / even.sum(-1, keepdim=True))
    assert not torch.allclose(acts[pattern[0]][0, 2], even / even.sum(-1, keepdim=True), atol=1e-2)


def test_a_pattern_is_read_and_not_written() -> None:
    with pytest.raises(ValueError, match="intervene at z.0 or attn_out.0 instead"):
        intervene(load(tiny("llama")), {pattern[0]: zero()})


def test_several_who_ask_for_one_pattern_each_get_it_and_nothing_is_left() -> None:
    model, got = load(tiny("gpt2")), list[Tensor]()
    handles = [model.tap(pattern[0]).attach(got.append) for _ in range(2)]
    acts = capture(model, IDS, [pattern[0], z[0]])
    for handle in handles:
        handle.remove()
    assert len(got) == 2
    assert all(torch.equal(one, acts[pattern[0]]) for one in got)
    assert _get_current_function_mode_stack() == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_pass_that_ends_inside_attention_leaves_no_mode(error: type[BaseException]) -> None:
    model = load(tiny("llama"))

    def fail(*_: object) -> None:
        raise error

    handle = model.module(z[0]).register_forward_pre_hook(fail)
    with pytest.raises(error):
        capture(model, IDS, [pattern[0], resid_post[1]])
    handle.remove()
    assert _get_current_function_mode_stack() == []
    assert capture(model, IDS, pattern[0])[pattern[0]].shape == (1, 4, 11, 11)


def test_another_kind_of_attention_set_after_loading_is_refused_with_the_fix() -> None:
    model = load(tiny("llama"))
    model.hf.set_attn_implementation("eager")
    with pytest.raises(WrongState, match="its attention is 'eager' now: load it again"):
        capture(model, IDS, pattern[0])
    assert capture(load(model.hf), IDS, pattern[0])[pattern[0]].shape == (1, 4, 11, 11)


def test_a_module_that_runs_twice_has_a_pattern_of_each_call() -> None:
    model = load(tiny_model("albert", "AlbertForMaskedLM"))
    assert model.taps[pattern[0]].module is model.taps[pattern[1]].module
    acts = capture(model, IDS, [pattern[0], pattern[1]])
    for site in acts.values:
        alone = capture(model, IDS, site)
        assert torch.equal(alone[site], acts[site])
    assert not torch.allclose(acts[pattern[0]], acts[pattern[1]])


@pytest.mark.parametrize(
    ("kind", "name", "between"),
    [("afmoe", "AfmoeForCausalLM", "a gate"), ("bitnet", "BitNetForCausalLM", "norms"),
     ("gemma4_text", "Gemma4ForCausalLM", "a norm of the values"), ("doge", "DogeForCausalLM", "a scaled stream")],
)  # fmt: skip
def test_what_comes_between_two_sites_that_are_right_is_blamed_on_neither(kind: str, name: str, between: str) -> None:
    report = load(tiny_model(kind, name)).contract
    assert report is not None
    assert not report.refused, between
    assert "pattern averages" in {one.law for one in report.checks}


def test_a_nonlinearity_that_is_no_module_is_measured() -> None:
    report = load(tiny_model("lfm2", "Lfm2ForCausalLM")).contract
    assert report is not None
    assert report.holds
    assert {one.sites[0] for one in report.checks if one.law == "memories fire"} == {
        Site("mlp_act", layer) for layer in range(2)
    }


def test_a_kernel_that_does_not_average_by_its_pattern_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(*args: Any, **kwargs: Any) -> Tensor:
        return pattern_of(*args, **kwargs).roll(1, dims=-1)

    monkeypatch.setattr("hooks.attention.pattern_of", shifted)
    report = check(load(tiny("llama"), check=False))
    assert {site.name for site in report.refused} == {"pattern"}
    assert not next(one for one in report.checks if one.law == "pattern averages").holds


def test_the_pattern_of_another_layer_is_reported_where_a_gate_follows_the_kernel() -> None:
    model = load(tiny_model("afmoe", "AfmoeForCausalLM"), check=False)
    wrong = replace(model.taps[pattern[1]], site=pattern[0])
    assert isinstance(wrong.inside, KernelAccessor)
    model.taps = {**model.taps, pattern[0]: wrong}
    assert "q reaches" in {one.law for one in check(model).checks if not one.holds}


def test_a_module_without_a_configuration_is_captured_and_names_no_kind_of_attention() -> None:
    net = load(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    assert kind_of_attention(net.hf) == ""
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(capture(net, x, "module(0)")["module(0)"][:, 0], net.hf[0](x))


def test_a_row_that_sees_nothing_is_zeros_in_its_own_head_alone() -> None:
    random = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 3, 4, generator=random) for _ in range(2))
    mask = torch.ones(1, 2, 3, 3, dtype=torch.bool)
    mask[0, 1, 2] = False
    made = pattern_of(query, key, attn_mask=mask)
    plain = (query @ key.transpose(-1, -2) / 2).softmax(-1)
    torch.testing.assert_close(made, plain * mask)


def test_keys_and_values_may_be_given_to_a_kernel_by_place_or_by_name() -> None:
    random = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 5, 8, generator=random)
    key, value = (torch.randn(1, 2, 5, d, generator=random) for d in (8, 6))
    more = {"is_causal": True, "enable_gqa": True}
    calls = [
        KernelCall((query, key, value), more),
        KernelCall((query, key), {"value": value, **more}),
        KernelCall((), {"query": query, "key": key, "value": value, **more}),
        KernelCall((query, key, value, None, 0.0, True), {"enable_gqa": True}),
    ]
    wanted = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    for call in calls:
        torch.testing.assert_close(call.average(), wanted)
        assert torch.equal(call.output(), wanted)


class TwoKernels(nn.Module):
    """Attention that calls its kernel once by place, and once by name with another scale."""

    def forward(self, x: Tensor) -> Tensor:
        once = F.scaled_dot_product_attention(x, x, x, is_causal=True)
        return F.scaled_dot_product_attention(query=once, key=once, value=once, scale=3.0)


def test_the_first_kernel_of_a_module_is_watched_and_every_kernel_gives_what_it_gives_alone() -> None:
    net, x = TwoKernels(), torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    plain, calls, given = net(x), list[KernelCall](), list[Tensor]()
    hooks = KernelAccessor(net, "sdpa").watching(calls.append)
    handles = [
        net.register_forward_pre_hook(hook, with_kwargs=True) if before else
        net.register_forward_hook(hook, with_kwargs=True, always_call=True) for before, _, hook in hooks
    ]  # fmt: skip
    with every_kernel(given.append):
        assert torch.equal(net(x), plain)
    assert len(calls) == 1 and torch.equal(calls[0].pattern, pattern_of(x, x, is_causal=True))
    assert len(given) == 2 and torch.equal(given[1], plain)
    torch.testing.assert_close(given[0], pattern_of(x, x, is_causal=True) @ x)
    assert _get_current_function_mode_stack() == []
    for handle in handles:
        handle.remove()


def test_a_pass_needs_eager_attention_where_a_pattern_has_no_kernel(gpt2: Model) -> None:
    read = gpt2.tap(pattern[0])
    bare, other = replace(read, inside=None), gpt2.tap(resid_post[0])
    assert read.inside is not None
    assert [needs_eager(taps) for taps in ([], [other], [read], [read, other])] == [False] * 4
    assert all(needs_eager(taps) for taps in ([bare], [other, bare], [bare, read]))


def test_the_kind_of_attention_is_that_of_the_text_and_else_of_the_whole() -> None:
    def kind(text: dict[str, Any], whole: str) -> str:
        config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(**text), _attn_implementation=whole)
        model: Any = SimpleNamespace(config=config)
        return kind_of_attention(model)

    assert kind({"_attn_implementation": "eager"}, "sdpa") == "eager"
    assert kind({"_attn_implementation": None}, "sdpa") == kind({}, "sdpa") == "sdpa"
