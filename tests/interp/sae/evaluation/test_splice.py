"""Autoencoders inside the model: identities of the splice, and what the model loses by it against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from hooks import Model, capture, intervene
from hooks.errors import InvalidArgument
from hooks.interventions import apply, mean
from hooks.site import mlp_act, mlp_in, mlp_out, resid_post, z
from interp.sae import (
    Crosscoder,
    Recovery,
    Standard,
    TopK,
    Transcoder,
    ablate_latents,
    change_latents,
    check_fits,
    clamp_latents,
    expected_norm,
    fold_normalisation,
    recovery,
    scale_latents,
    splice,
)

SITES = (resid_post[1], mlp_act[1], z[1])


def at(model: Model, site, d_sae: int = 40) -> TopK:
    width = torch.tensor(model.tap(site).shape).prod().item()
    sae = TopK(int(width), d_sae, k=6, seed=3)
    with torch.no_grad():
        sae.b_dec += 0.1
    sae.site, sae.fingerprint = site, model.fingerprint
    return sae


def perfect(model: Model, site) -> Standard:
    """An autoencoder that reconstructs exactly: each dimension and its negative are latents."""
    d = model.d_model
    sae = Standard(d, 2 * d)
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([torch.eye(d), -torch.eye(d)], dim=1))
        sae.W_dec.copy_(sae.W_enc.T)
    sae.site = site
    return sae


def seen(model: Model, texts: list[str], site, change) -> tuple[Tensor, Tensor]:
    """The site's values at content tokens before and after an intervention."""
    before = capture(model, texts, site)
    with intervene(model, {site: change}):
        after = capture(model, texts, site)
    return before.flat(site).flatten(1), after.flat(site).flatten(1)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_splice_puts_the_reconstruction_in_place(gpt2: Model, texts: list[str], site) -> None:
    sae = at(gpt2, site)
    before, after = seen(gpt2, texts, site, splice(sae))
    assert torch.allclose(after, sae(before), atol=1e-5)
    assert not torch.allclose(after, before, atol=0.1)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_with_the_error_kept_an_unchanged_code_leaves_every_logit(gpt2: Model, texts: list[str], site) -> None:
    clean = gpt2.run(texts)
    with intervene(gpt2, {site: change_latents(at(gpt2, site), lambda f: f)}):
        assert torch.equal(gpt2.run(texts), clean)


@pytest.mark.parametrize("site", SITES, ids=str)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (ablate_latents([2, 5]), lambda f: 0 * f),
        (clamp_latents([2, 5], 1.5), lambda f: 0 * f + 1.5),
        (scale_latents([2, 5], 3.0), lambda f: 3 * f),
    ],
    ids=["ablated", "clamped", "scaled"],
)
def test_changed_latents_move_activations_along_their_rows_alone(
    gpt2: Model, texts: list[str], site, change, expected
) -> None:
    sae = at(gpt2, site)
    before, after = seen(gpt2, texts, site, change_latents(sae, change))
    own = sae.encode(before)[:, [2, 5]]
    assert bool((own > 0).any())
    assert torch.allclose(after - before, (expected(own) - own) @ sae.W_dec[[2, 5]], atol=1e-4)


def test_a_change_that_writes_in_place_is_one_that_returns_again_and_another_shape_is_refused(
    gpt2: Model, texts: list[str]
) -> None:
    def silenced(f: Tensor) -> Tensor:
        f[:, [2, 5]] = 0
        return f

    sae = at(gpt2, SITES[0])
    written, returned = (
        seen(gpt2, texts, SITES[0], change_latents(sae, c))[1] for c in (silenced, ablate_latents([2, 5]))
    )
    before = capture(gpt2, texts, SITES[0]).flat(SITES[0])
    assert torch.equal(written, returned) and not torch.allclose(written, before)
    with (
        pytest.raises(ValueError, match=r"made latents of shape \(\d+, 1\) from \(\d+, 40\): return as many"),
        intervene(gpt2, {SITES[0]: change_latents(sae, lambda f: f[:, :1])}),
    ):
        gpt2.run(texts)


def test_latents_that_do_not_exist_are_refused(gpt2: Model, texts: list[str]) -> None:
    with (
        pytest.raises(IndexError, match=r"latents \[40\] do not exist; this autoencoder has latents 0 to 39"),
        intervene(gpt2, {SITES[0]: change_latents(at(gpt2, SITES[0]), ablate_latents([1, 40]))}),
    ):
        gpt2.run(texts)


def test_what_cannot_be_in_one_place_is_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="a transcoder writes elsewhere than it reads"):
        splice(Transcoder(8, 16))
    sae = at(gpt2, SITES[0])
    sae.normalisation = expected_norm([torch.randn(9, gpt2.d_model)])
    with pytest.raises(ValueError, match="read normalised activations"):
        splice(sae)
    assert splice(fold_normalisation(sae)).fingerprint == gpt2.fingerprint


def test_a_site_the_model_lacks_or_another_width_is_named(gpt2: Model) -> None:
    sae = at(gpt2, SITES[0])
    assert check_fits(sae, gpt2) == SITES[0]
    sae.site = resid_post[11]
    with pytest.raises(ValueError, match=r"reads resid_post\.11, which .* lacks; its nearest are 'resid_post\.\d'"):
        check_fits(sae, gpt2)
    sae.site = mlp_act[1]
    with pytest.raises(ValueError, match=r"reads 32 dimensions at mlp_act\.1; .* has 48 there"):
        check_fits(sae, gpt2)


def own_words(model: Model) -> Tensor:
    """Ids that the model itself thinks likeliest: what changes it makes them less likely."""
    ids = torch.tensor([[256, first] for first in (5, 60, 120, 180, 240)])
    for _ in range(6):
        ids = torch.cat([ids, model.run(ids)[:, -1:, :256].detach().argmax(-1)], dim=1)
    return ids


def test_of_several_sites_each_must_have_the_width_that_is_read_or_written_there(gpt2: Model) -> None:
    narrow, crosscoder = Transcoder(32, 40, d_out=7), Crosscoder(32, 40, n_layers=2)
    narrow.sites, crosscoder.sites = (mlp_in[1], mlp_out[1]), (resid_post[1], mlp_act[1])
    with pytest.raises(ValueError, match=r"writes 7 dimensions at mlp_out\.1; .* has 32 there: load the model"):
        check_fits(narrow, gpt2)
    with pytest.raises(ValueError, match=r"reads 32 dimensions at mlp_act\.1; .* has 48 there"):
        check_fits(crosscoder, gpt2)
    fits = Transcoder(32, 40, d_out=48)
    fits.sites, crosscoder.sites = (mlp_in[1], mlp_act[1]), (resid_post[1], mlp_out[1])
    assert check_fits(fits, gpt2) == mlp_in[1] and check_fits(crosscoder, gpt2) == resid_post[1]


def test_a_perfect_reconstruction_recovers_all_and_the_mean_none_of_mean_ablation(gpt2: Model) -> None:
    site, said = resid_post[1], own_words(gpt2)
    exact = recovery(perfect(gpt2, site), gpt2, said, batch_size=2)
    assert exact.of_zero == pytest.approx(1, abs=1e-5) and exact.of_mean == pytest.approx(1, abs=1e-4)
    assert exact.kl_sae == pytest.approx(0, abs=1e-6) and exact.kl_of_mean == pytest.approx(1, abs=1e-5)
    blind = perfect(gpt2, site)
    with torch.no_grad():
        blind.W_dec.zero_()
        blind.b_dec.copy_(capture(gpt2, said, site).flat(site).mean(0))
    nothing = recovery(blind, gpt2, said, batch_size=3)
    assert nothing.of_mean == pytest.approx(0, abs=1e-5) and nothing.kl_of_mean == pytest.approx(0, abs=1e-5)
    assert nothing.ce_mean == pytest.approx(exact.ce_mean, abs=1e-5)
    assert nothing.tokens == exact.tokens


def test_cross_entropies_are_those_of_the_logits(gpt2: Model, texts: list[str]) -> None:
    site = resid_post[1]
    done = recovery(perfect(gpt2, site), gpt2, texts, batch_size=2)
    average = capture(gpt2, texts, site).flat(site).mean(0)

    def entropy() -> float:
        total, count = 0.0, 0
        for text in texts:
            tokens = gpt2.tokens(text)
            logs = gpt2.run(text).log_softmax(-1)[0]
            for i in range(1, tokens.ids.shape[1] - 1):  # from the first content token on
                total, count = total - float(logs[i, tokens.ids[0, i + 1]].detach()), count + 1
        assert count == done.tokens
        return total / count

    assert done.ce_clean == pytest.approx(entropy(), abs=1e-4)
    with intervene(gpt2, {site: mean(average)}):
        assert done.ce_mean == pytest.approx(entropy(), abs=1e-4)


def test_recovered_shares_and_divergences_are_those_of_the_logits(gpt2: Model) -> None:
    site, sae, said = resid_post[1], at(gpt2, resid_post[1]), own_words(gpt2)
    done = recovery(sae, gpt2, said, batch_size=2)
    average = capture(gpt2, said, site).flat(site).mean(0)

    def predicted(change) -> Tensor:
        with intervene(gpt2, {site: apply(change)}):
            return gpt2.run(said)[:, 1:-1].detach().double().log_softmax(-1).flatten(0, 1)

    logs = [predicted(change) for change in (lambda x: x, sae, lambda x: 0 * x, lambda x: 0 * x + average)]
    ce, ce_sae, ce_zero, ce_mean = (-float(each.gather(1, said[:, 2:].reshape(-1, 1)).mean()) for each in logs)
    kl, kl_zero, kl_mean = (float((logs[0].exp() * (logs[0] - each)).sum(1).mean()) for each in logs[1:])
    found = (done.ce_clean, done.ce_sae, done.ce_zero, done.ce_mean, done.kl_sae, done.kl_zero, done.kl_mean)
    assert found == pytest.approx((ce, ce_sae, ce_zero, ce_mean, kl, kl_zero, kl_mean), abs=1e-4)
    shares = ((ce_zero - ce_sae) / (ce_zero - ce), (ce_mean - ce_sae) / (ce_mean - ce))
    assert (done.of_zero, done.of_mean) == pytest.approx(shares, rel=1e-3)
    assert (done.kl_of_zero, done.kl_of_mean) == pytest.approx((1 - kl / kl_zero, 1 - kl / kl_mean), rel=1e-3)


def test_of_an_ablation_that_costs_nothing_no_share_is_recovered() -> None:
    helped = Recovery(6.0, 6.5, 5.5, 7.0, kl_sae=0.1, kl_zero=0.0, kl_mean=0.2, tokens=9)
    assert math.isnan(helped.of_zero) and math.isnan(helped.kl_of_zero)
    assert (helped.of_mean, helped.kl_of_mean) == (0.5, 0.5)
    assert "(50.0% of mean ablation recovered, zero ablation costs nothing here)" in str(helped)
    assert math.isnan(Recovery(6.0, 6.5, 6.0, 6.0, 0.1, 0.1, 0.1, 9).of_mean)


def test_a_model_that_does_not_predict_the_next_token_has_no_recovery(fresh, texts: list[str]) -> None:
    bert = fresh("bert")
    with pytest.raises(ValueError, match="BertForMaskedLM does not predict the next token, so its cross-entropy there"):
        recovery(perfect(bert, resid_post[1]), bert, texts)


def test_an_autoencoder_of_another_model_is_not_spliced_in(gpt2: Model) -> None:
    sae = at(gpt2, SITES[0])
    sae.fingerprint = "another"
    with pytest.raises(ValueError, match="another"), intervene(gpt2, {SITES[0]: splice(sae)}):
        pass


def test_a_change_by_what_is_not_finite_is_refused_before_a_model_runs() -> None:
    with pytest.raises(InvalidArgument, match="value is nan; it must be finite"):
        clamp_latents([1], float("nan"))
    with pytest.raises(InvalidArgument, match="factor is inf; it must be finite"):
        scale_latents([1], float("inf"))
