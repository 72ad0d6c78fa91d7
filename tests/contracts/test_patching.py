"""The laws of every way to tell what patching does: a new estimator is one line in the table."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Model, Position, capture, intervene
from hooks.interventions import replace
from hooks.position import last
from hooks.site import attn_out, mlp_act, mlp_out, q, resid_mid, resid_post, resid_pre, z
from interp.circuits import (
    PatchEffect,
    SweepPlaces,
    attribution_patching,
    denoising,
    each_head,
    each_head_and_position,
    each_layer,
    each_position,
    integrated_attribution,
    logit_difference,
    noising,
    patch_sweep,
)
from tests.interp.circuits.handmade import CLEAN, CORRUPT, linear_gpt2

Estimator = Callable[..., PatchEffect]
ESTIMATORS: dict[str, Estimator] = {
    "patch_sweep": patch_sweep,
    "attribution_patching": attribution_patching,
    "integrated_attribution": integrated_attribution,
}
SWEEPS = {
    "stream by position": each_position(resid_pre),
    "heads": each_head(z),
    "heads by position": each_head_and_position([z[1]]),
    "feed-forward": each_layer(mlp_out),
    "neurons by position": each_position([mlp_act[1]]),
    "attention": each_layer([attn_out[0], resid_mid[1], resid_post[2]]),
}
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def linear(hf_model: Callable[..., Any], tokenizer: Any) -> Model:
    return linear_gpt2(hf_model, tokenizer)


@pytest.fixture(params=ESTIMATORS.values(), ids=ESTIMATORS)
def estimate(request: pytest.FixtureRequest) -> Estimator:
    return request.param


@pytest.fixture(scope="module", params=SWEEPS.values(), ids=SWEEPS)
def over(request: pytest.FixtureRequest) -> SweepPlaces:
    return request.param


def one_by_one(model: Model, base: list[str], donor: list[str], over: SweepPlaces) -> Tensor:
    """m of every patch, each in a forward pass of its own through the whole model."""
    given, found = capture(model, donor, [*over.find_sites(model)]), []
    tokens = model.tokens(base)
    metric = logit_difference(model, ["a", "b"], "c")
    for site in over.find_sites(model):
        for mask in over.masks(tokens.ids.shape[1], model.tap(site).shape):
            chosen = mask if mask.ndim == 1 else mask.any(1)
            heads = torch.ones(1, dtype=torch.bool) if mask.ndim == 1 else mask.any(0)
            own = capture(model, base, [site])[site]
            value = torch.where(heads[:, None], given[site], own) if mask.ndim == 2 else given[site]
            at = Position("chosen", lambda t, chosen=chosen: chosen.expand(len(t), -1))
            with torch.no_grad(), intervene(model, {site: replace(value[:, chosen].flatten(0, 1), at=at)}):
                found.append(metric(model.run(tokens)[:, -1]))
    extent = over.extent(tokens.ids.shape[1], model.tap(over.find_sites(model)[0]).shape)
    return torch.stack(found, 1).unflatten(1, (len(over.find_sites(model)), *extent))


@pytest.fixture(scope="module")
def real(over: SweepPlaces, linear: Model) -> Tensor:
    return one_by_one(linear, CORRUPT, CLEAN, over)


def test_on_a_linear_network_every_estimate_is_what_patching_one_by_one_gives(
    estimate: Estimator, over: SweepPlaces, linear: Model, real: Tensor
) -> None:
    metric = logit_difference(linear, ["a", "b"], "c")
    found = estimate(linear, denoising(CLEAN, CORRUPT), metric, over=over)
    assert found.patched.shape == real.shape
    torch.testing.assert_close(found.patched, real, rtol=1e-5, atol=1e-5)
    assert float(found.difference.abs().max()) > 1e-2


def test_of_identical_runs_every_effect_is_exactly_nothing(estimate: Estimator, over: SweepPlaces, gpt2: Model) -> None:
    found = estimate(gpt2, denoising(CLEAN, CLEAN), logit_difference(gpt2, "a", "c"), over=over)
    assert bool((found.difference == 0).all())
    with pytest.raises(ValueError, match="no share of the way between them"):
        _ = found.effect


def test_on_a_linear_network_noising_undoes_what_denoising_does(estimate: Estimator, linear: Model) -> None:
    metric, over = logit_difference(linear, "a", "c"), each_head(z)
    there = estimate(linear, denoising(CLEAN, CORRUPT), metric, over=over)
    back = estimate(linear, noising(CLEAN, CORRUPT), metric, over=over)
    torch.testing.assert_close(back.difference, -there.difference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back.effect, there.effect, rtol=1e-4, atol=1e-5)
    assert there.kind.startswith("denoising") and back.kind.startswith("noising")


def test_each_text_gets_the_effects_it_has_alone(estimate: Estimator, gpt2: Model) -> None:
    both = estimate(gpt2, denoising(CLEAN, CORRUPT), logit_difference(gpt2, ["a", "b"], "c"), over=each_position(q))
    for row, answer in enumerate("ab"):
        alone = estimate(
            gpt2, denoising(CLEAN[row], CORRUPT[row]), logit_difference(gpt2, answer, "c"), over=each_position(q)
        )
        torch.testing.assert_close(both.patched[row], alone.patched[0], rtol=1e-4, atol=1e-5)


def test_sites_are_named_as_everywhere_and_each_once(estimate: Estimator, gpt2: Model) -> None:
    patching, metric = denoising(CLEAN, CORRUPT), logit_difference(gpt2, ["a", "b"], "c")
    of = [estimate(gpt2, patching, metric, over=each_layer([resid_pre[layer]])).patched for layer in range(3)]
    for sites, layers in (
        ((resid_pre[layer] for layer in range(3)), [0, 1, 2]),
        ("resid_pre.*", [0, 1, 2]),
        (resid_pre[1], [1]),
        ("resid_pre.1", [1]),
        (["resid_pre.2", resid_pre[0]], [2, 0]),
    ):
        over = each_layer(sites)
        found = estimate(gpt2, patching, metric, over=over)
        assert found.sites == over.find_sites(gpt2) == tuple(resid_pre[layer] for layer in layers)
        torch.testing.assert_close(found.patched, torch.cat([of[layer] for layer in layers], 1), rtol=1e-5, atol=1e-6)
    for twice in ([resid_pre[1]] * 2, ["resid_pre.*", resid_pre[1]]):
        with pytest.raises(ValueError, match=r"resid_pre.1 is named twice: name each site of a sweep once"):
            estimate(gpt2, patching, metric, over=each_layer(twice))
    with pytest.raises(ValueError, match=r"write resid_pre\[0\]"):
        estimate(gpt2, patching, metric, over=each_layer("resid_pre"))


def test_bad_input_never_gives_a_number(estimate: Estimator, gpt2: Model) -> None:
    metric = logit_difference(gpt2, "a", "c")
    for clean, over, said in (
        ("fog", each_head(z), "tokens in the clean run and"),
        (["fog over"] * 2, each_head(z), "2 texts are to be patched with 1|1 texts are to be patched with 2"),
        ("fog over", each_head(resid_pre), "has no heads"),
        ("fog over", SweepPlaces(()), "no sites were given"),
    ):
        with pytest.raises(ValueError, match=said.replace("3 tokens", "(4|9) tokens")):
            estimate(gpt2, denoising(clean, "fig ever"), metric, over=over)
    for wrong, said in ((lambda x: x.mean(), "shape"), (lambda x: x[:, 0] / 0, "NaN or infinity")):
        with pytest.raises(ValueError, match=said):
            estimate(gpt2, denoising("fog over", "fig ever"), wrong, over=each_head(z))
    with pytest.raises(ValueError, match="1 of them do|texts of equal length"):
        estimate(gpt2, denoising(["fog", "a bay"], ["fig", "a hat"]), metric, over=each_position(resid_pre))
    with pytest.raises(ValueError, match="a metric reads one"):
        estimate(
            gpt2, denoising("fog", "fig"), metric, over=each_head(z), at=last | Position("bos", lambda t: t.special)
        )
