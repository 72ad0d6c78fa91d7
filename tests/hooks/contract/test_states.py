"""The laws of what a block has of its own: a state that the cache holds, an embedding that it reads, a kernel's z."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.tiny_models import tiny_model
from hooks import Model, capture, load
from hooks.contract import states
from hooks.contract.families import tiny
from hooks.contract.kernels import kernel_laws
from hooks.contract.states import layer_embed_laws, state_laws
from hooks.site import layer_embed, pattern, v, z
from hooks.taps import OneCall
from hooks.tokens import Tokens

pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def mamba() -> Model:
    return load(tiny_model("mamba2", "Mamba2ForCausalLM"), check=False)


def text_of(model: Model, length: int) -> Tokens:
    return model.tokens(torch.arange(6, 6 + length)[None])


@torch.no_grad()
def test_states_are_compared_with_the_caches_after_four_tokens_and_at_the_end(mamba: Model) -> None:
    lengths = list[int]()

    def note(_m: Any, _a: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("use_cache"):
            lengths.append(kwargs["input_ids"].shape[1])

    handle = mamba.hf.register_forward_pre_hook(note, with_kwargs=True)
    for n, wanted in ((7, [4, 7]), (4, [4]), (3, [3])):
        lengths.clear()
        laws = [*state_laws(mamba, text_of(mamba, n))]
        assert all(one.holds for one in laws) and len(laws) == mamba.n_layers
        assert lengths == wanted
    handle.remove()


@torch.no_grad()
@pytest.mark.parametrize("wrong", [4, 7])
def test_a_state_that_is_another_in_one_place_misses_its_law_by_what_it_misses_there(
    mamba: Model, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    """‖x - 2 x‖ / (‖x‖ + ‖2 x‖) = 1/3."""
    cache_after = states._cache_after

    def doubled(model: Model, text: Tokens) -> Any:
        cache = cache_after(model, text)
        if text.ids.shape[1] == wrong:
            for layer in cache.layers:
                layer.recurrent_states[0].mul_(2)
        return cache

    monkeypatch.setattr(states, "_cache_after", doubled)
    for law in state_laws(mamba, text_of(mamba, 7)):
        assert law.error == pytest.approx(1 / 3, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("slack", [4.0, 0.0])
def test_a_block_that_does_not_read_the_embedding_it_is_given_misses_its_law_wholly(
    monkeypatch: pytest.MonkeyPatch, slack: float
) -> None:
    """Whatever rounding may explain: it gives just the same without."""
    monkeypatch.setattr(states, "SLACK", slack)
    model = load(tiny_model("gemma4_text", "Gemma4ForCausalLM"), check=False)
    model.hf.model.layers[1].per_layer_projection.weight.zero_()
    text = text_of(model, 9)
    acts = capture(
        model, text, [site for site in model.taps if site.name in ("layer_embed", "resid_pre", "resid_post")]
    )
    laws = {one.sites[0]: one for one in layer_embed_laws(model, acts.values, text)}
    assert laws[layer_embed[0]].holds
    assert laws[layer_embed[1]].error == 1.0


def kernels_of(model: Model) -> tuple[Tokens, dict[Any, torch.Tensor]]:
    text = text_of(model, 9)
    return text, dict(capture(model, text, [one[layer] for one in (pattern, v, z) for layer in range(2)]).values)


@torch.no_grad()
def test_a_z_that_is_what_another_kernel_gives_is_not_the_average_of_this_ones_values() -> None:
    model = load(tiny("llama"), check=False)
    text, acts = kernels_of(model)
    laws = [*kernel_laws(model, acts | {z[0]: acts[z[1]]}, text)]
    assert {(one.law, one.sites[0].name, one.sites[0].layer, one.holds) for one in laws} == {
        ("pattern averages", "pattern", 0, True),
        ("heads average", "z", 0, False),
        ("pattern averages", "pattern", 1, True),
        ("heads average", "z", 1, True),
    }


@torch.no_grad()
def test_a_z_that_is_just_what_the_kernel_gives_is_spoken_of_even_where_rounding_may_explain_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hooks.contract.kernels.SLACK", 0.0)
    model = load(tiny("llama"), check=False)
    text, acts = kernels_of(model)
    laws = [*kernel_laws(model, acts, text)]
    assert [one.sites for one in laws if one.law == "pattern averages"] == [(pattern[0], z[0]), (pattern[1], z[1])]
    assert [one.sites for one in laws if one.law == "heads average"] == [
        (z[layer], pattern[layer], v[layer]) for layer in range(2)
    ]


@torch.no_grad()
def test_a_pattern_of_a_call_that_no_kernel_had_is_measured_by_no_law() -> None:
    model = load(tiny("llama"), check=False)
    text, acts = kernels_of(model)
    model.taps = {**model.taps, pattern[0]: replace(model.taps[pattern[0]], call=OneCall(1, model.hf))}
    assert {one.sites[0] for one in kernel_laws(model, acts, text)} == {pattern[1], z[1]}
