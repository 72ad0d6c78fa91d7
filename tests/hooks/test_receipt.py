"""A receipt counts what was done, and measures on request how far the output moved."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hooks import Model, Position, Site, capture, intervene
from hooks.finite import Watch
from hooks.interventions import add, apply, replace, scale, zero
from hooks.position import everywhere, first, generated, last, prompt, special, substring
from hooks.site import logits, mlp_act, mlp_out, resid_post

V = torch.randn(32, generator=torch.Generator().manual_seed(5))
TEXTS = ["The Golden Gate Bridge", "Fog over", "Bay o."]


def test_the_divergence_is_kullback_and_leiblers_from_the_clean_run_to_the_changed_one(gpt2: Model) -> None:
    tokens, site = gpt2.tokens(TEXTS), resid_post[1]
    for at in (everywhere, last, substring("o") | last):
        clean = gpt2.run(tokens)[at.mask(tokens)].log_softmax(-1)
        with intervene(gpt2, {site: add(V, at=first(2))}) as receipt:
            changed = gpt2.run(tokens)[at.mask(tokens)].log_softmax(-1)
            found = receipt.kl(TEXTS, at=at)
        expected = F.kl_div(changed, clean, log_target=True, reduction="none").sum(-1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert bool((found >= 0).all()) and bool((found > 1e-3).any())


def test_setting_the_output_gives_the_divergence_of_the_two_distributions_in_closed_form(gpt2: Model) -> None:
    """Against a uniform output: KL(p || uniform) = log(vocab) - H(p)."""
    clean = gpt2.run("Fog")[0, -1].log_softmax(-1)
    with intervene(gpt2, {logits: zero(at=last)}) as receipt:
        found = receipt.kl("Fog", at=last)
    entropy = -(clean.exp() * clean).sum()
    torch.testing.assert_close(found, (torch.tensor(257.0).log() - entropy)[None], atol=1e-5, rtol=1e-4)


def test_what_moves_all_logits_alike_diverges_by_nothing_and_never_by_less(gpt2: Model) -> None:
    text = " ".join(TEXTS)
    with intervene(gpt2, {logits: add(torch.full((257,), 7.3))}) as receipt:
        changed = gpt2.run(text)[0, 1:].detach().log_softmax(-1)
        found = receipt.kl(text)
    clean = gpt2.run(text)[0, 1:].detach().log_softmax(-1)
    rounded = (clean.exp() * (clean - changed)).sum(-1)
    assert bool((rounded < 0).any()) and float(rounded.abs().max()) < 1e-5
    assert bool((found >= 0).all()) and float(found.max()) < 1e-5


def test_what_changes_nothing_diverges_by_nothing_and_outer_blocks_count(gpt2: Model) -> None:
    with intervene(gpt2, {resid_post[0]: scale(1.0)}) as receipt:
        assert not bool(receipt.kl("Fog").any())
    with intervene(gpt2, {resid_post[0]: add(V)}) as outer:
        alone = outer.kl("Fog")
        with intervene(gpt2, {resid_post[1]: scale(1.0)}) as inner:
            assert torch.equal(inner.kl("Fog"), alone)
    assert bool((alone > 0).all())


def test_the_measured_pass_is_counted_and_the_clean_one_is_not(gpt2: Model) -> None:
    with intervene(gpt2, {resid_post[0]: add(V)}) as receipt:
        receipt.kl("Fog")
    assert (receipt.passes, receipt[resid_post[0]].fired, receipt[resid_post[0]].prefill_tokens) == (1, 1, 3)


def test_after_the_block_there_is_nothing_to_measure(gpt2: Model) -> None:
    with intervene(gpt2, {resid_post[0]: add(V)}) as receipt:
        gpt2.run("Fog")
    with pytest.raises(RuntimeError, match=r"the block has ended, .*: call receipt\.kl inside it"):
        receipt.kl("Fog")


def test_tokens_touched_are_those_selected_one_by_one_in_prefill_and_decode(decoder: Model) -> None:
    prompts = ["Fog over", "Bay"]
    counts = {everywhere: (11, 6), prompt: (11, 0), generated: (0, 6), last: (2, 0), last | generated: (2, 6)}
    for at, (prefill, decode) in counts.items():
        with intervene(decoder, {mlp_out[1]: scale(1.0, at=at)}) as receipt:
            made = decoder.generate(prompts, max_new_tokens=4)
        did = receipt[mlp_out[1]]
        if all(len(decoder.tokens(text).ids[0]) == 5 for text in made):  # no text ended early
            assert (did.prefill_tokens, did.decode_tokens) == (prefill, decode), at
        assert did.fired == (1 if prefill else 0) + (3 if decode else 0)
        assert did.relative_change == 0.0


def test_one_token_changed_twice_in_a_pass_is_one_token(gpt2: Model) -> None:
    chain = [scale(2.0, at=last), scale(3.0, at=first(2)), scale(0.5, at=last | special)]
    with intervene(gpt2, {mlp_act[0]: chain}) as receipt:
        gpt2.run("Fog")
    assert receipt[mlp_act[0]].prefill_tokens == 4
    assert receipt[mlp_act[0]].relative_change == pytest.approx((0.0 + 2.0 + 2.0 + 0.5) / 4, rel=1e-5)


def test_rules_of_ones_own_are_separated_also_under_one_name(gpt2: Model) -> None:
    none, one = (Position("mine", lambda read, n=n: read.given & (read.given.cumsum(dim=1) <= n)) for n in (0, 1))
    with (
        pytest.raises(RuntimeError, match=r"nothing was changed by scale\(at=mine\) at mlp_act\.0: 1 forward pass"),
        intervene(gpt2, {mlp_act[0]: [scale(2.0, at=none), scale(3.0, at=one)]}) as receipt,
    ):
        gpt2.run("Fog")
    assert receipt[mlp_act[0]].prefill_tokens == 1
    assert receipt[mlp_act[0]].relative_change == pytest.approx(2.0, rel=1e-5)


def test_a_change_of_nothing_at_all_is_no_change_and_one_from_nothing_is_infinite(gpt2: Model) -> None:
    def relative(outer: Any, inner: Any) -> float:
        with intervene(gpt2, {mlp_out[0]: outer}), intervene(gpt2, {mlp_out[0]: inner}) as receipt:
            gpt2.run("Fog")
        return receipt[mlp_out[0]].relative_change

    assert relative(replace(torch.zeros(32)), scale(2.0)) == 0.0
    assert relative(replace(torch.zeros(32)), add(V)) == float("inf")


def test_a_site_named_twice_is_refused_however_it_is_written(gpt2: Model) -> None:
    plan: dict[Site | str, Any] = {resid_post[1]: add(V), "resid_post.1": scale(2.0)}
    with pytest.raises(ValueError, match=r"resid_post\.1 is named twice: give its interventions as one list"):
        intervene(gpt2, plan)


def test_what_is_not_finite_is_found_wherever_the_pass_stops(gpt2: Model) -> None:
    """At the end of a pass; or, when capture leaves it early, at the end of the block."""
    broken: list[Any] = [scale(2.0), apply(lambda a: a / 0)]
    with (
        pytest.raises(ValueError, match=r"at mlp_out\.0 gave NaN or infinity; .* there did not hold some"),
        intervene(gpt2, {mlp_out[0]: broken, mlp_out[1]: scale(2.0)}),
    ):
        gpt2.run("Fog")
        raise AssertionError("the pass must not return")
    with (
        pytest.raises(ValueError, match=r"<lambda>\(at=everywhere\) at mlp_out\.0 gave NaN or infinity"),
        intervene(gpt2, {mlp_out[0]: broken}),
    ):
        capture(gpt2, "Fog", mlp_out[0])


def test_a_watch_names_the_first_change_that_was_not_finite_and_forgets_it() -> None:
    def note(watch: Watch, called: str, old: Tensor, new: Tensor) -> None:
        watch.note(called, old, new)

    good, bad = torch.ones(1, 3), torch.tensor([[1.0, float("nan"), 2.0]])
    watch = Watch()
    watch.check()
    for called, old, new in (("a", good, good), ("b", bad, bad), ("b", good, good), ("c", good, bad)):
        note(watch, called, old, new)
    with pytest.raises(ValueError, match="^b gave NaN or infinity; the model's own values there already held some"):
        watch.check()
    note(watch, "c", good, good)
    watch.check()
