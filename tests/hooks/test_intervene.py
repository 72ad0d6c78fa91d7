"""Interventions do what they say in every pass, say what they did, and leave nothing over."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Direction, Intervention, Model, Position, Site, capture, intervene
from hooks.interventions import add, apply, clamp, mean, noise, project_out, replace, scale, zero
from hooks.position import after, everywhere, first, generated, index, last, prompt, substring
from hooks.site import (
    attn_out,
    embed,
    ln_final_scale,
    logits,
    mlp_act,
    mlp_out,
    pattern,
    q,
    resid_mid,
    resid_post,
    resid_pre,
    z,
)

TEXTS = ["The Golden Gate Bridge", "Fog over", "Bay."]
V = torch.randn(32, generator=torch.Generator().manual_seed(5))


def test_a_glob_intervenes_at_every_site_that_it_matches(gpt2: Model) -> None:
    with intervene(gpt2, {"mlp_out.*": zero()}):
        one = gpt2.run("Fog")
    with intervene(gpt2, {mlp_out[i]: zero() for i in range(gpt2.n_layers)}):
        assert torch.equal(one, gpt2.run("Fog"))
    with pytest.raises(ValueError, match=r"mlp_out\.1 is named twice"):
        intervene(gpt2, {mlp_out[1]: zero(), "mlp_out.*": zero()})


def hooks_on(model: Model) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.hf.modules())


def changeable(model: Model) -> list[Site]:
    """The sites outside the blocks and in the middle one that can be changed."""
    return [site for site in model.sites if site.layer in (None, 1) and not model.tap(site).read_only]


def test_replacing_a_site_by_itself_changes_no_bit(model: Model) -> None:
    tokens = model.tokens(TEXTS)
    plain, acts = model.run(tokens), capture(model, tokens, changeable(model))
    for site in changeable(model):
        with intervene(model, {site: replace(acts[site])}) as receipt:
            assert torch.equal(model.run(tokens), plain), site
        assert receipt[site].relative_change == 0.0


def test_every_site_matters_and_is_changed_where_it_is_captured(model: Model) -> None:
    tokens = model.tokens(TEXTS)
    plain, acts = model.run(tokens), capture(model, tokens, changeable(model))
    content = tokens.content
    for site in changeable(model):
        with intervene(model, {site: scale(1.5)}):
            changed, seen = model.run(tokens), capture(model, tokens, site)[site]
        before = acts[site]
        torch.testing.assert_close(seen[content], 1.5 * before[content])
        assert torch.equal(seen[tokens.mask & ~content], before[tokens.mask & ~content])
        assert not torch.equal(changed[content], plain[content]), site


def test_patching_the_stream_of_another_text_gives_its_logits(decoder: Model) -> None:
    """Both texts begin alike, so that all that differs flows through the tokens replaced."""
    one, other = "Fog over the bay", "Fog near the sea"
    for site in (resid_pre[0], resid_post[0], resid_pre[2], resid_post[2]):
        acts = capture(decoder, other, site)
        with intervene(decoder, {site: replace(acts[site])}):
            torch.testing.assert_close(decoder.run(one), decoder.run(other))


def test_what_is_added_to_the_middle_of_the_stream_reaches_its_end(fresh: Any) -> None:
    """The stream goes past the norm as well as through it: adding at attn_out is adding at resid_mid."""
    for family in ("gpt2", "llama", "gemma2", "qwen2"):
        model = fresh(family)
        with intervene(model, {resid_mid[1]: add(V)}):
            middle, there = model.run(TEXTS), capture(model, TEXTS, [resid_post[1], mlp_out[1]])
        with intervene(model, {attn_out[1]: add(V)}):
            torch.testing.assert_close(model.run(TEXTS), middle, atol=1e-4, rtol=1e-3)
        with intervene(model, {resid_mid[1]: add(V), mlp_out[1]: replace(there[mlp_out[1]])}):
            again = capture(model, TEXTS, resid_post[1])
        torch.testing.assert_close(again[resid_post[1]], there[resid_post[1]], atol=1e-4, rtol=1e-3)


def test_changing_one_head_is_changing_what_its_output_weights_write(gpt2: Model) -> None:
    vector = torch.zeros(4, 8)
    vector[2] = V[:8]
    w_o = gpt2.module(z[1]).weight.detach().view(4, 8, 32)
    with intervene(gpt2, {z[1]: add(vector)}):
        by_head = gpt2.run(TEXTS)
    with intervene(gpt2, {attn_out[1]: add(V[:8] @ w_o[2])}):
        torch.testing.assert_close(gpt2.run(TEXTS), by_head, atol=1e-4, rtol=1e-3)


def test_changing_a_memory_coefficient_adds_its_value(llama: Model) -> None:
    vector = torch.zeros(48)
    vector[7] = 2.0
    with intervene(llama, {mlp_act[1]: add(vector)}):
        by_memory = llama.run(TEXTS)
    with intervene(llama, {mlp_out[1]: add(2.0 * llama.w_out(1)[7].detach())}):
        torch.testing.assert_close(llama.run(TEXTS), by_memory, atol=1e-4, rtol=1e-3)


CACHED: list[tuple[Site, Intervention]] = [
    (resid_post[1], add(3 * V)),
    (resid_post[1], add(3 * V, at=generated)),
    (resid_post[1], add(3 * V, at=prompt)),
    (resid_post[1], add(3 * V, at=last)),
    (resid_post[0], zero(at=substring("o"))),
    (resid_pre[1], noise(2.0, seed=1)),
    (mlp_out[1], mean(4 * V, at=after("o"))),
    (attn_out[0], clamp(V, 9.0, at=~last)),
    (mlp_act[2], scale(-2.0, at=first(2) | generated)),
    (embed, replace(2 * V, at=index(-2))),
    (q[1], scale(3.0)),
    (z[0], zero()),
    (logits, apply(lambda a: a.roll(1, dims=-1), at=generated)),
]


def read_again(model: Model, text: str, plan: dict[Site, Intervention], n: int) -> str:
    """What greedy decoding says when the whole text is read again for every token."""
    tokens, said = model.tokens(text), []
    for _ in range(n):
        now = {site: one for site, one in plan.items() if tokens.prompt_pos or one.at != generated}
        with intervene(model, now) if now else nullcontext():
            new = model.run(tokens)[:, -1:].argmax(-1)
        if int(new) == 256:
            break
        said.append(int(new))
        tokens = tokens.extend(new, torch.ones_like(new).bool(), torch.zeros_like(new).bool())
    return model.tokenizer.decode(said)


@pytest.mark.parametrize(("site", "one"), CACHED, ids=str)
def test_decoding_with_a_cache_gives_token_for_token_what_reading_again_gives(
    gpt2: Model, site: Site, one: Intervention
) -> None:
    with intervene(gpt2, {site: one}) as receipt:
        cached = gpt2.generate("Fog over", max_new_tokens=4)
    assert cached == read_again(gpt2, "Fog over", {site: one}, 4)
    assert receipt[site].fired > 0


def test_decoding_with_a_cache_is_reading_again_in_every_family_and_batch(decoder: Model) -> None:
    texts = ["Fog over", "No bay to see"]
    for plan in (dict(CACHED[6:9]), dict([CACHED[1], CACHED[4], CACHED[10]])):
        with intervene(decoder, plan):
            cached = decoder.generate(texts, max_new_tokens=4)
        assert cached == [read_again(decoder, text, plan, 4) for text in texts]


CHAINS: dict[str, tuple[list[Intervention], Callable[[Tensor, Tensor], Tensor]]] = {
    "add, then scale": ([add(3 * V), scale(2.0)], lambda a, _: 2 * (a + 3 * V)),
    "scale, then add": ([scale(2.0), add(3 * V)], lambda a, _: 2 * a + 3 * V),
    "add, then add to generated tokens": (
        [add(3 * V), add(V.roll(1) * 4, at=generated)],
        lambda a, new: a + 3 * V + 4 * V.roll(1) * new[:, None],
    ),
    "add to generated tokens, then scale": (
        [add(3 * V, at=generated), scale(2.0)],
        lambda a, new: 2 * (a + 3 * V * new[:, None]),
    ),
}


def logits_changed_by_hand(
    model: Model, ids: Tensor, n_given: int, change: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Logits of one plain pass of the Hugging Face model over a whole text, block 1 changed by torch's own hook.

    The first token begins the text and is special, so no intervention reaches it.
    """
    new = (torch.arange(1, ids.shape[1]) >= n_given).float()

    def hook(_: Any, __: Any, out: Any) -> Any:
        a = out[0] if isinstance(out, tuple) else out
        changed = torch.cat([a[:, :1], change(a[:, 1:], new)], 1)
        return (changed, *out[1:]) if isinstance(out, tuple) else changed

    handle = model.hf.transformer.h[1].register_forward_hook(hook)
    try:
        return model.hf(ids, use_cache=False).logits[0].detach()
    finally:
        handle.remove()


@pytest.mark.parametrize("nested", [False, True], ids=["one list", "two blocks"])
@pytest.mark.parametrize("name", CHAINS)
def test_while_decoding_a_later_intervention_of_a_chain_changes_what_the_earlier_ones_made(
    fresh: Callable[..., Model], name: str, nested: bool
) -> None:
    model = fresh("gpt2")
    (one, two), change = CHAINS[name]
    ids = model.tokens("Fog over").ids
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 256}
    settings |= {"attention_mask": torch.ones_like(ids), "return_dict_in_generate": True, "output_logits": True}
    outer, inner = ([one], [two]) if nested else ([one, two], None)
    with (
        intervene(model, {resid_post[1]: outer}),
        intervene(model, {resid_post[1]: inner}) if inner else nullcontext(),
    ):
        made = model.hf.generate(ids, use_cache=True, **settings)
    whole = logits_changed_by_hand(model, made.sequences, ids.shape[1], change)
    torch.testing.assert_close(torch.cat(made.logits), whole[ids.shape[1] - 1 : -1], atol=1e-4, rtol=1e-3)


def test_padding_on_either_side_changes_nothing_under_an_intervention(
    decoder: Model, padded_left: Callable[[Model], Model]
) -> None:
    plan = {resid_post[0]: add(3 * V, at=last), mlp_out[1]: noise(1.0, seed=2), z[2]: scale(2.0, at=first(2))}
    right, left = decoder.tokens(TEXTS), padded_left(decoder).tokens(TEXTS)
    with intervene(decoder, plan):
        ours = decoder.run(right)[right.mask]
    with intervene(padded_left(decoder), plan):
        theirs = padded_left(decoder).run(left)[left.mask]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_hugging_faces_own_generation_is_intervened_on_too(decoder: Model) -> None:
    plan = {resid_post[1]: add(3 * V)}
    with intervene(decoder, plan) as ours:
        expected = decoder.generate("Fog over", max_new_tokens=6)
    ids = decoder.tokens("Fog over").ids
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "pad_token_id": 256}
    with intervene(decoder, plan) as theirs:
        said = decoder.hf.generate(ids, do_sample=False, **settings)
    assert decoder.tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True) == expected
    assert theirs[resid_post[1]] == ours[resid_post[1]]
    logit = {logits: apply(lambda a: a.roll(1, dims=-1), at=generated | last)}
    with intervene(decoder, logit):
        expected = decoder.generate("Fog over", max_new_tokens=6)
    with intervene(decoder, logit):
        said = decoder.hf.generate(ids, do_sample=False, **settings)
    assert decoder.tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True) == expected
    with intervene(decoder, {resid_post[1]: add(3 * V, at=generated)}) as beams:
        decoder.hf.generate(ids, do_sample=False, num_beams=3, **settings)
    assert beams[resid_post[1]].prefill_tokens == 0 < beams[resid_post[1]].decode_tokens


def test_the_receipt_says_what_was_done(gpt2: Model) -> None:
    with intervene(gpt2, {resid_post[1]: add(V), mlp_out[0]: scale(1.25, at=last)}) as receipt:
        made = gpt2.generate(["Fog over", "Bay"], max_new_tokens=4)
        acts = capture(gpt2, "Bay", mlp_out[0])
    assert [len(one) for one in made] == [4, 4]
    stream, mlp = receipt[resid_post[1]], receipt[mlp_out[0]]
    assert receipt.passes == 5
    assert (stream.fired, stream.prefill_tokens, stream.decode_tokens) == (4, 8 + 3, 3 * 2)
    assert (mlp.fired, mlp.prefill_tokens, mlp.decode_tokens) == (2, 3, 0)
    assert mlp.relative_change == pytest.approx(0.25, abs=1e-5)
    assert acts.sites == (mlp_out[0],)
    assert str(receipt).splitlines()[1].split() == ["resid_post.1", "4", "11", "6", f"{stream.relative_change:.3f}"]
    with pytest.raises(KeyError, match=r"nothing intervenes at z\.0"):
        receipt[z[0]]


def test_the_relative_change_is_the_mean_over_tokens_of_change_over_size(gpt2: Model) -> None:
    before = capture(gpt2, "Fog over", resid_post[1]).flat(resid_post[1])
    with intervene(gpt2, {resid_post[1]: add(V, 2.0)}) as receipt:
        gpt2.run("Fog over")
    expected = float((2 * V.norm() / before.norm(dim=1)).mean())
    assert receipt[resid_post[1]].relative_change == pytest.approx(expected, rel=1e-4)


def test_after_the_block_no_hook_and_no_bit_is_left(model: Model) -> None:
    plain, before = model.run(TEXTS), hooks_on(model)
    with intervene(model, {site: scale(2.0) for site in changeable(model)}):
        assert hooks_on(model) > before
        assert not torch.equal(model.run(TEXTS), plain)
    assert hooks_on(model) == before
    assert torch.equal(model.run(TEXTS), plain)


def test_after_an_exception_no_hook_and_no_bit_is_left_and_the_exception_is_the_one_raised(model: Model) -> None:
    plain, before = model.run(TEXTS), hooks_on(model)
    with pytest.raises(KeyboardInterrupt), intervene(model, {site: scale(2.0) for site in changeable(model)}):
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), intervene(model, {mlp_out[1]: apply(lambda a: a / (1 // 0))}):
        model.run(TEXTS)
    assert hooks_on(model) == before
    assert model.running.active == {}
    assert torch.equal(model.run(TEXTS), plain)


def test_blocks_nest_and_the_outer_one_acts_first(gpt2: Model) -> None:
    with intervene(gpt2, {resid_post[1]: [scale(2.0), add(V)]}):
        expected = gpt2.run(TEXTS)
    with intervene(gpt2, {resid_post[1]: scale(2.0)}) as outer:
        with intervene(gpt2, {resid_post[1]: add(V)}) as inner:
            assert torch.equal(gpt2.run(TEXTS), expected)
        gpt2.generate("Fog", max_new_tokens=3)
    assert (outer[resid_post[1]].fired, inner[resid_post[1]].fired) == (4, 1)


def test_an_intervention_that_changes_no_token_is_an_error_when_the_block_ends(gpt2: Model) -> None:
    with (
        pytest.raises(
            RuntimeError, match=r"nothing was changed by add\(at=everywhere\) at resid_post\.1: no forward pass"
        ),
        intervene(gpt2, {resid_post[1]: add(V)}),
    ):
        pass
    message = r"nothing was changed by add\(at=generated\) at z\.1: 1 forward pass\(es\) ran .* none reached a token it"
    with pytest.raises(RuntimeError, match=message), intervene(gpt2, {z[1]: add(V, at=generated), z[0]: add(V)}):
        gpt2.run("Fog")
    message = r"nothing was changed by add\(at=generated\) at z\.1: 1 forward"
    with (
        pytest.raises(RuntimeError, match=message),
        intervene(gpt2, {z[1]: [add(v := V.view(4, 8)), add(v, at=generated)]}),
    ):
        gpt2.run("Fog")
    with pytest.raises(RuntimeError, match="nothing was changed"), intervene(gpt2, {resid_post[2]: add(V)}):
        capture(gpt2, "Fog", resid_post[1])


OVERWRITING = [
    (
        [add(V), zero()],
        r"zero\(at=everywhere\) at resid_post\.1 would undo add\(at=everywhere\) there: put the overwriting",
    ),
    ([zero(), mean(V)], r"mean\(at=everywhere\) at resid_post\.1 would undo zero"),
    ([replace(V, at=last), replace(V, at=last)], r"replace\(at=last\) at resid_post\.1 would undo replace\(at=last\)"),
    ([add(V, at=last), zero()], "would undo add"),
    ([clamp(V, 1.0), clamp(2 * V, 3.0)], r"clamp\(at=everywhere\) at resid_post\.1 would undo clamp\(at=everywhere\)"),
    ([clamp(V, 1.0), project_out(-V)], r"project_out\(at=everywhere\) at resid_post\.1 would undo clamp"),
]


@pytest.mark.parametrize(("chain", "message"), OVERWRITING, ids=[message[:10] for _, message in OVERWRITING])
def test_interventions_that_undo_each_other_are_refused_before_anything_runs(
    gpt2: Model, chain: list[Intervention], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        intervene(gpt2, {resid_post[1]: chain})
    before = hooks_on(gpt2)
    with (
        pytest.raises(ValueError, match=message),
        intervene(gpt2, {resid_post[1]: chain[0]}),
        intervene(gpt2, {resid_post[1]: chain[1]}),
    ):
        gpt2.run("Fog")
    assert hooks_on(gpt2) == before


def test_overwriting_the_input_of_a_block_undoes_what_was_done_to_the_output_of_the_one_before(gpt2: Model) -> None:
    with pytest.raises(ValueError, match=r"zero\(at=everywhere\) at resid_post\.0 would undo add"):
        intervene(gpt2, {resid_pre[1]: zero(), resid_post[0]: add(V)})


def test_an_overlap_that_only_the_text_shows_is_refused_before_the_first_layer(gpt2: Model) -> None:
    ran: list[int] = []
    handle = gpt2.module(embed).register_forward_hook(lambda *_: ran.append(1))
    chain = [add(V, at=substring("og")), zero(at=first(2))]
    with pytest.raises(ValueError, match="would undo"), intervene(gpt2, {resid_post[1]: chain}):
        gpt2.run("Fog")
    assert not ran
    with intervene(gpt2, {resid_post[1]: chain}):
        gpt2.run("In the fog")
    handle.remove()


def test_what_overwrites_may_come_first_and_apart_from_the_rest(gpt2: Model) -> None:
    with intervene(gpt2, {resid_post[1]: [zero(), add(V)]}):
        both = gpt2.run("Fog")
    with intervene(gpt2, {resid_post[1]: replace(V)}):
        assert torch.equal(gpt2.run("Fog"), both)
    with intervene(gpt2, {resid_post[1]: [add(V, at=last), zero(at=first(1))]}):
        gpt2.run("Fog")


MISTAKES: list[tuple[Any, type[Exception], str]] = [
    ({"resid_pots.1": zero()}, ValueError, r"no site is called 'resid_pots\.1'; did you mean .*`model\.sites` lists"),
    ({resid_post[9]: zero()}, ValueError, r"resid_post\.9 is out of range: .* so the last is resid_post\.2"),
    (
        {pattern[1]: scale(2.0)},
        ValueError,
        r"pattern\.1 can be captured but not changed: intervene at z\.1 or attn_out\.1",
    ),
    ({ln_final_scale: scale(2.0)}, ValueError, "ln_final_scale can be captured but not changed"),
    ({resid_post[1]: []}, ValueError, r"no intervention was given for resid_post\.1: leave the site out or name one"),
    ({}, ValueError, "no interventions were given: name at least one site"),
    (
        {resid_post[1]: add(Direction(V, resid_post[1], "d", fingerprint="other"))},
        ValueError,
        r"uses a direction found in another model than .*pass its vector, `direction\.vector`",
    ),
]


@pytest.mark.parametrize(("plan", "error", "message"), MISTAKES, ids=[message[:24] for *_, message in MISTAKES])
def test_a_mistake_is_reported_before_anything_runs(
    gpt2: Model, plan: Any, error: type[Exception], message: str
) -> None:
    before = hooks_on(gpt2)
    with pytest.raises(error, match=message):
        intervene(gpt2, plan)
    assert hooks_on(gpt2) == before


WRONG: list[tuple[Callable[[Tensor], Any], str]] = [
    (
        lambda a: a[:, :-1],
        r"at mlp_out\.1 must keep shape and dtype: .* torch.float32 \(3, 32\) and returned torch.float32 \(3, 31\)",
    ),
    (lambda a: a.double(), r"must keep shape and dtype: .* returned torch.float64"),
    (lambda a: None, "must keep shape and dtype: .* returned NoneType"),
    (lambda a: a / 0, r"at mlp_out\.1 gave NaN or infinity; the model's own values there did not hold some"),
]


@pytest.mark.parametrize(("fn", "message"), WRONG, ids=["shape", "dtype", "nothing", "infinite"])
def test_a_function_must_keep_shape_and_dtype_and_stay_finite(gpt2: Model, fn: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message), intervene(gpt2, {mlp_out[1]: apply(fn)}):
        gpt2.run("Fog")


def test_a_missing_substring_is_reported_before_the_first_layer(gpt2: Model) -> None:
    with (
        pytest.raises(ValueError, match="'Bridge' is not in text 1"),
        intervene(gpt2, {z[0]: zero(substring("Bridge"))}),
    ):
        gpt2.run(["A Bridge", "Fog"])


def test_a_part_of_the_model_run_alone_is_refused(gpt2: Model) -> None:
    with (
        pytest.raises(RuntimeError, match=r"resid_post\.0 was reached outside the model's own forward"),
        intervene(gpt2, {resid_post[0]: scale(2.0)}),
    ):
        gpt2.hf.transformer(torch.tensor([[1, 2]]))


def test_a_cache_filled_outside_the_block_is_refused(gpt2: Model) -> None:
    filled = gpt2.hf(torch.tensor([[1, 2]]), use_cache=True).past_key_values
    with (
        pytest.raises(ValueError, match="a KV cache was filled outside the block: start the generation inside it"),
        intervene(gpt2, {resid_post[0]: scale(2.0)}),
    ):
        gpt2.hf(torch.tensor([[3]]), past_key_values=filled)


def test_gradients_flow_through_interventions_at_every_site(model: Model) -> None:
    tokens = model.tokens("Fog over")
    for site in changeable(model):
        vector = torch.zeros(model.tap(site).shape, requires_grad=True)
        with intervene(model, {site: add(vector)}):
            model.run(tokens)[0, -1, :3].square().sum().backward()
        assert vector.grad is not None and float(vector.grad.norm()) > 0, site


def test_the_gradient_is_the_slope(fresh: Any) -> None:
    model = fresh("gpt2")
    model.hf.double()
    tokens = model.tokens("Fog over")
    for site in changeable(model):
        step = torch.randn(model.tap(site).shape, generator=torch.Generator().manual_seed(1)).double()

        def loss(vector: Tensor, site: Site = site) -> Tensor:
            with intervene(model, {site: add(vector, at=first(3) | last)}):
                return model.run(tokens)[0, -1].logsumexp(-1)

        vector = torch.zeros_like(step, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(vector), vector)
        with torch.no_grad():
            rise = (loss(1e-5 * step) - loss(-1e-5 * step)) / 2e-5
        torch.testing.assert_close((slope * step).sum(), rise, rtol=1e-6, atol=1e-8)


def test_a_projection_can_be_differentiated_too(gpt2: Model) -> None:
    for make in (project_out, lambda v: clamp(v, 2.0)):
        vector = V.clone().requires_grad_()
        with intervene(gpt2, {resid_mid[1]: make(vector)}):
            gpt2.run("Fog")[0, -1, 0].backward()
        assert vector.grad is not None and float(vector.grad.norm()) > 0


def test_a_vector_follows_the_precision_of_the_model(hf_model: Any, tokenizer: Any) -> None:
    from hooks import load

    model = load(hf_model("llama"), tokenizer, dtype=torch.bfloat16)
    with intervene(
        model, {resid_post[1]: [add(V), clamp(V, 2.0)], mlp_out[0]: project_out(V), z[0]: noise(1.0, seed=0)}
    ):
        assert model.run("Fog").dtype == torch.bfloat16


def test_positions_may_be_combined(gpt2: Model) -> None:
    at: Position = substring("og") & ~last
    with intervene(gpt2, {resid_post[1]: add(V, at=at)}) as receipt:
        gpt2.run("Fog")
    assert receipt[resid_post[1]].prefill_tokens == 1
    assert str(everywhere | at) == "(everywhere | (substring('og') & ~last))"
