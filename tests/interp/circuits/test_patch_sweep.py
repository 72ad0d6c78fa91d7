"""A sweep is what patching one place at a time gives, whatever is shared and skipped on the way."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hooks import Model, capture, intervene
from hooks.interventions import scale
from hooks.resume import hold
from hooks.site import embed, logits, mlp_out, pattern, resid_post, resid_pre, v, z
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
from interp.memory.editing.datastore import Datastore
from tests.contracts.test_patching import one_by_one
from tests.interp.circuits.handmade import CLEAN, CORRUPT


def test_in_every_family_a_sweep_is_patching_one_by_one_through_the_whole_model(model: Model) -> None:
    metric = logit_difference(model, ["a", "b"], "c")
    for over in (each_position([resid_pre[2]]), each_head([v[1]]), each_layer([embed])):
        found = patch_sweep(model, denoising(CLEAN, CORRUPT), metric, over=over, batch_size=5)
        torch.testing.assert_close(found.patched, one_by_one(model, CORRUPT, CLEAN, over), rtol=1e-4, atol=1e-5)


def test_patching_all_of_the_stream_gives_the_donor_and_patching_nothing_the_base(model: Model) -> None:
    metric = logit_difference(model, ["a", "b"], "c")
    whole = patch_sweep(model, noising(CLEAN, CORRUPT), metric, over=each_layer(resid_pre))
    torch.testing.assert_close(whole.effect, torch.ones(3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole.base, metric(model.run(CLEAN)[:, -1]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.donor, metric(model.run(CORRUPT)[:, -1]), rtol=1e-4, atol=1e-5)
    start = patch_sweep(model, noising(CLEAN, CORRUPT), metric, over=each_position([resid_pre[0]]))
    assert bool((start.difference[:, 0, 0] == 0).all())  # both begin with the same token


def test_a_patch_reaches_no_token_before_it(gpt2: Model) -> None:
    over = each_position(resid_post)
    found = patch_sweep(gpt2, denoising(CLEAN, CORRUPT), logit_difference(gpt2, "a", "c"), over=over)
    assert bool((found.difference[:, -1, :-1].abs() < 1e-5).all())
    assert bool((found.difference[:, -1, -1].abs() > 1e-2).all())


def test_how_many_patches_share_a_pass_changes_nothing(llama: Model) -> None:
    metric = logit_difference(llama, ["a", "b"], "c")
    one, many = (
        patch_sweep(llama, denoising(CLEAN, CORRUPT), metric, over=each_head(z), batch_size=n).patched for n in (1, 64)
    )
    torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


def test_only_blocks_from_the_patched_one_on_are_run(gpt2: Model) -> None:
    ran: list[int] = []
    hooks = [
        block.mlp.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(gpt2.blocks)
    ]
    try:
        patch_sweep(gpt2, denoising(CLEAN, CORRUPT), logit_difference(gpt2, "a", "c"), over=each_head([z[2]]))
    finally:
        for hook in hooks:
            hook.remove()
    assert ran.count(0) == ran.count(1) == 2  # the base run and the donor's
    assert ran.count(2) == 3


def test_resuming_unchanged_gives_the_same_stream_in_every_copy(model: Model) -> None:
    held = hold(model, ["fog over", "a bay"])
    for layer in range(model.n_layers):
        with torch.no_grad():
            again = held.resume(layer, {}, times=3)
        real = held.activations.tokens.mask
        torch.testing.assert_close(again[1::3][real], held.final[real], rtol=1e-4, atol=1e-5)


def test_what_other_blocks_change_stays_changed(gpt2: Model) -> None:
    metric = logit_difference(gpt2, ["a", "b"], "c")
    with intervene(gpt2, {mlp_out[0]: scale(0.3), mlp_out[2]: scale(2.0)}):
        found = patch_sweep(gpt2, denoising(CLEAN, CORRUPT), metric, over=each_head([z[1]]))
        expected = metric(gpt2.run(CLEAN)[:, -1])
    torch.testing.assert_close(found.donor, expected)
    with intervene(gpt2, {mlp_out[0]: scale(0.3), mlp_out[2]: scale(2.0)}):
        whole = patch_sweep(gpt2, denoising(CLEAN, CORRUPT), metric, over=each_layer([resid_pre[1]]))
    torch.testing.assert_close(whole.patched[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_patching_the_logits_gives_the_donor_and_interventions_after_the_last_block_act_on_every_patch(
    gpt2: Model,
) -> None:
    metric = logit_difference(gpt2, ["a", "b"], "c")
    patching, over = denoising(CLEAN, CORRUPT), each_layer([resid_pre[1], logits])
    assert float(patch_sweep(gpt2, patching, metric, over=over).effect[1]) == pytest.approx(1.0, abs=1e-5)
    plain = patch_sweep(gpt2, patching, metric, over=each_head(z))
    with intervene(gpt2, {logits: scale(3.0)}):
        tripled = patch_sweep(gpt2, patching, metric, over=each_head(z))
        whole = patch_sweep(gpt2, patching, metric, over=over)
    for name in ("base", "donor", "patched"):
        torch.testing.assert_close(getattr(tripled, name), 3 * getattr(plain, name), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.patched[:, 1], whole.donor)


def test_a_memory_that_votes_at_the_logits_votes_in_every_patch(gpt2: Model) -> None:
    """A stored state that every token is near gives its token the same share of each prediction."""
    store = Datastore("mlp_in.2", torch.zeros(1, 32), torch.tensor([7]), 1e6, 0.9)
    over = each_position([resid_pre[1]])
    undo = store.attach(gpt2)
    try:
        found = patch_sweep(gpt2, denoising(CLEAN, CORRUPT), lambda said: said.softmax(-1)[:, 7], over=over)
    finally:
        undo()
    assert bool((found.patched >= 0.9).all()) and bool((found.base >= 0.9).all())
    plain = patch_sweep(gpt2, denoising(CLEAN, CORRUPT), lambda said: said.softmax(-1)[:, 7], over=over)
    torch.testing.assert_close(found.patched, 0.9 + 0.1 * plain.patched, rtol=1e-5, atol=1e-6)


def test_a_block_whose_forward_was_replaced_has_it_back_after_a_sweep(fresh: Callable[..., Model]) -> None:
    model = fresh("gpt2")
    plain = model.blocks[0].forward
    replaced = model.blocks[0].forward = lambda x, *args, **kwargs: plain(2 * x, *args, **kwargs)
    before = model.run(CLEAN)
    patch_sweep(model, denoising(CLEAN, CORRUPT), logit_difference(model, "a", "c"), over=each_head([z[1]]))
    assert model.blocks[0].forward is replaced and "forward" not in vars(model.blocks[1])
    assert torch.equal(model.run(CLEAN), before)


def test_nothing_is_left_after_by_a_metric_that_fails(gpt2: Model) -> None:
    before, calls = gpt2.run(CLEAN), [0]

    def failing(logits: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == 3:
            raise ZeroDivisionError
        return logits[:, 0]

    with pytest.raises(ZeroDivisionError):
        patch_sweep(gpt2, denoising(CLEAN, CORRUPT), failing, over=each_position([resid_pre[2]]))
    assert torch.equal(gpt2.run(CLEAN), before)
    assert all("forward" not in vars(block) and not block._forward_pre_hooks for block in gpt2.blocks)


def test_predicted_effects_on_the_embeddings_sum_to_the_whole_and_the_error_falls_as_the_square(gpt2: Model) -> None:
    was = gpt2.dtype
    gpt2.hf.double()
    try:
        metric = logit_difference(gpt2, ["a", "b"], "c")
        errors = []
        for steps in (8, 16):
            found = integrated_attribution(
                gpt2, denoising(CLEAN, CORRUPT), metric, over=each_position([embed]), steps=steps
            )
            errors.append((found.difference.sum((1, 2)) - (found.donor - found.base)).abs())
    finally:
        gpt2.hf.to(was)
    assert bool((errors[1] < errors[0] / 3).all())
    assert bool((errors[1] < 0.01 * (found.donor - found.base).abs()).all())


def test_what_is_patched_together_is_predicted_to_do_the_sum_of_what_its_parts_are(model: Model) -> None:
    metric, runs = logit_difference(model, ["a", "b"], "c"), denoising(CLEAN, CORRUPT)

    def predicted(over: SweepPlaces) -> Tensor:
        return attribution_patching(model, runs, metric, over=over).difference

    parts = predicted(each_head_and_position([z[1]]))
    assert parts.shape[2] > 1 < parts.shape[3]
    torch.testing.assert_close(predicted(each_position([z[1]])), parts.sum(2), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(predicted(each_head([z[1]])), parts.sum(3), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(predicted(each_layer([z[1]])), parts.sum((2, 3)), rtol=1e-4, atol=1e-6)


def test_attribution_is_the_limit_of_patching_as_the_donor_nears_the_base(gpt2: Model) -> None:
    """Halving the way between the runs must quarter the error: the slope is right, the rest second order."""
    metric, over, errors = logit_difference(gpt2, "a", "c"), each_position([resid_pre[1]]), []
    base, donor = gpt2.tokens(CORRUPT), gpt2.tokens(CLEAN)
    here, there = (capture(gpt2, tokens, [resid_pre[1]])[resid_pre[1]].double() for tokens in (base, donor))
    gpt2.hf.double()
    try:
        predicted = attribution_patching(gpt2, denoising(donor, base), metric, over=over).difference[:, 0, 4]
        held = hold(gpt2, base)
        m = metric(gpt2.unembed(held.final[:, -1]))
        for share in (1e-2, 5e-3):

            def nearer(a: Tensor, share: float = share) -> Tensor:
                a = a.clone()
                a[:, 4] += share * (there - here)[:, 4]
                return a

            with torch.no_grad():
                moved = metric(gpt2.unembed(held.resume(1, {resid_pre[1]: nearer})[:, -1])) - m
            errors.append((moved - share * predicted).abs())
    finally:
        gpt2.hf.float()
    assert bool((errors[0] < 0.05 * (1e-2 * predicted).abs() + 1e-6).all())
    assert bool((errors[1] < errors[0] / 3 + 1e-9).all())


def test_the_interval_is_over_texts_and_holds_the_effect(gpt2: Model) -> None:
    clean, corrupt = ["fog over", "a baysun", "so it is"], ["fig ever", "a hatsun", "so at as"]
    found = patch_sweep(
        gpt2, denoising(clean, corrupt), lambda x: x[:, 5] + 20 * x[:, 7].sign(), over=each_layer([resid_pre[0]])
    )
    low, high = found.interval(draws=50)
    torch.testing.assert_close(low, torch.ones(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(high, torch.ones(1), atol=1e-4, rtol=0)
    alone = patch_sweep(gpt2, denoising("fog", "fig"), lambda x: x[:, 5], over=each_layer([resid_pre[0]]))
    with pytest.raises(ValueError, match="over 1 text says nothing"):
        alone.interval()


def patched(model: Model, gaps: Tensor, moved: Tensor) -> PatchEffect:
    """Texts whose runs differ by `gaps`, in which one patch moves the metric by `moved`."""
    base = torch.full_like(gaps, 0.5)
    return PatchEffect("denoising", (resid_pre[0],), (), model.tokens("a"), base, base + gaps, (base + moved)[:, None])


def test_the_effect_is_the_ratio_of_the_means_and_not_the_mean_of_the_ratios(gpt2: Model) -> None:
    found = patched(gpt2, torch.tensor([1.0, 10.0]), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(found.effect, torch.tensor([1 / 11]))


def test_the_interval_of_a_mean_is_that_of_the_central_limit(gpt2: Model) -> None:
    """Where every gap is 1 the effect is a mean, so its interval is mean +- 1.96 standard errors."""
    moved = torch.randn(400, generator=torch.Generator().manual_seed(0)) + 0.3
    low, high = patched(gpt2, torch.ones(400), moved).interval(draws=2000)
    error = 1.96 * float(moved.std()) / 400**0.5
    assert float(low) == pytest.approx(float(moved.mean()) - error, abs=0.08 * error)
    assert float(high) == pytest.approx(float(moved.mean()) + error, abs=0.08 * error)


def test_draws_in_which_the_runs_do_not_differ_are_left_out_of_the_interval(gpt2: Model) -> None:
    """A quarter of the draws hold the first text alone, whose runs agree; in all others the effect is one half."""
    found = patched(gpt2, torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.5]))
    assert torch.equal(found.interval(), torch.full((2, 1), 0.5))
    for draws, of, message in (
        (0, found, "draws is 0: draw the texts at least once"),
        (1, patched(gpt2, torch.eye(50)[0], torch.ones(50)), "in none of 1 draws of the texts: draw them more often"),
        (9, patched(gpt2, torch.tensor([-1.0, 1.0]), torch.ones(2)), "the metric is 0.5 in both runs"),
    ):
        with pytest.raises(ValueError, match=message):
            of.interval(draws)


def test_a_model_of_half_precision_has_effects_and_their_interval_in_full(fresh: Callable[..., Model]) -> None:
    model = fresh("gpt2")
    model.hf.bfloat16()
    metric = logit_difference(model, "a", "c")
    for estimate in (patch_sweep, attribution_patching):
        found = estimate(model, denoising(CLEAN, CORRUPT), metric, over=each_layer([resid_pre[0]]))
        assert found.base.dtype == found.effect.dtype == found.interval(draws=20).dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(found.base, metric(model.run(CORRUPT)[:, -1].float()))


def test_a_place_that_cannot_be_patched_is_named_with_one_that_can(gpt2: Model) -> None:
    metric = logit_difference(gpt2, "a", "c")
    for run, message in (
        (lambda: patch_sweep(gpt2, denoising("a", "b"), metric, over=each_head(pattern)), "sweep over z or attn_out"),
        (lambda: logit_difference(gpt2, "ab", "c"), r"'ab' is 2 tokens, \['a', 'b'\]"),
        (lambda: patch_sweep(gpt2, denoising("a", "b"), metric, over=each_head(z), batch_size=0), "at least 1 row"),
        (
            lambda: patch_sweep(gpt2, denoising("a", "b"), logit_difference(gpt2, ["a", "b"], "c"), over=each_head(z)),
            "2 answers were given for 1 texts",
        ),
        (
            lambda: integrated_attribution(gpt2, denoising("a", "b"), metric, over=each_head(z), steps=0),
            "at least 1 point",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run()


def test_a_patch_effect_is_a_table_of_texts_and_places_and_a_line_that_names_the_largest(gpt2: Model) -> None:
    metric = logit_difference(gpt2, "a", "c")
    found = patch_sweep(gpt2, denoising(CLEAN, CORRUPT), metric, over=each_head_and_position([z[0], z[2]]))
    frame = found.to_pandas()
    assert [*frame.columns] == ["text", "site", "head", "position", "base", "donor", "patched", "difference"]
    assert len(frame) == found.patched.numel()
    row = frame[(frame.text == 0) & (frame.site == "z.2") & (frame["head"] == 3) & (frame.position == 2)]
    assert row.patched.item() == pytest.approx(float(found.patched[0, 1, 3, 2]))
    assert row.difference.item() == pytest.approx(float(found.difference[0, 1, 3, 2]))
    mean = frame.groupby(["site", "head", "position"]).difference.mean()
    site, head, position = mean.abs().idxmax()
    assert f"most at {site} {head} {position}: {mean[site, head, position]:+.3f}" in repr(found)
    assert len(repr(found)) < 120
