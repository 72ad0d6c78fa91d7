"""Clamping a latent is the published edit of the reconstruction, at every token, with the error left alone."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from hooks import Model, capture
from hooks.interventions import Rows
from hooks.position import last
from hooks.site import mlp_in, mlp_out, resid_post
from interp.sae import TopK
from interp.steering import clamp_latent, steer


def clamped(sae: TopK, latent: int, multiple: float, x: Tensor) -> Tensor:
    where = torch.zeros(len(x), dtype=torch.long)
    return clamp_latent(sae, latent).dose(multiple).fn(x, Rows(where, where, where))


def rows(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def random_sae(model: Model, k: int) -> TopK:
    sae = TopK(model.d_model, 48, k=k, seed=3)
    with torch.no_grad():
        sae.W_enc.add_(0.3 * rows(model.d_model, 48, seed=4))
        sae.b_dec.copy_(rows(1, model.d_model, seed=5)[0])
        sae.max_activation.fill_(1.5)
    sae.site, sae.fingerprint = resid_post[1], model.fingerprint
    return sae


def test_clamping_replaces_the_latent_in_the_reconstruction_and_adds_the_error_back(model: Model) -> None:
    sae, x = random_sae(model, k=5), rows(40, model.d_model)
    with torch.no_grad():
        f = sae.encode(x)
        error = x - sae.decode(f)
        f[:, 7] = 4.0 * 1.5
        published = sae.decode(f) + error
        assert torch.allclose(clamped(sae, 7, 4.0, x), published, atol=1e-5)


def test_clamping_a_latent_to_its_own_value_changes_nothing(model: Model, sae: TopK) -> None:
    for i, x in enumerate(rows(8, model.d_model)):
        own = float(sae.encode(x[None]).detach()[0, i]) / 2.0
        assert torch.allclose(clamped(sae, i, own, x[None]), x[None], atol=1e-6)


def test_clamping_twice_is_clamping_once(model: Model, sae: TopK) -> None:
    x = rows(20, model.d_model) + 5 * sae.W_dec[3].detach()
    once = clamped(sae, 3, 2.0, x)
    assert torch.allclose(clamped(sae, 3, 2.0, once), once, atol=1e-5)


def test_a_clamped_activation_encodes_to_the_value_it_was_clamped_to(model: Model, sae: TopK) -> None:
    x = rows(20, model.d_model) + 5 * sae.W_dec[3].detach()
    f = sae.encode(clamped(sae, 3, 2.5, x))
    assert torch.allclose(f[:, 3], torch.full((20,), 2.5 * 2.0), atol=1e-5)
    others = torch.arange(model.d_model) != 3
    assert torch.allclose(f[:, others], sae.encode(x)[:, others], atol=1e-5)


def test_a_latent_outside_the_k_largest_counts_as_zero(model: Model, sae: TopK) -> None:
    sae.k = 1
    x = sae.b_dec.detach() + 3.0 * sae.W_dec[0].detach() + 1.0 * sae.W_dec[1].detach()
    moved = clamped(sae, 1, 1.0, x[None])[0] - x
    assert torch.allclose(moved, 2.0 * sae.W_dec[1].detach(), atol=1e-5)


def test_gradients_flow_through_a_clamp_along_everything_but_the_encoder_row(model: Model, sae: TopK) -> None:
    x = (rows(1, model.d_model) + 5 * sae.W_dec[3].detach()).requires_grad_()
    (clamped(sae, 3, 2.0, x) @ sae.W_dec[3].detach()).sum().backward()
    assert x.grad is not None and torch.allclose(x.grad, torch.zeros_like(x), atol=1e-5)


def test_every_token_but_bos_and_padding_is_clamped(model: Model, sae: TopK) -> None:
    texts = ["a bridge", "fog"]
    plain = capture(model, texts, [resid_post[1]])
    with steer(model, clamp_latent(sae, 3), 4.0):
        steered = capture(model, texts, [resid_post[1]])
    changed = (plain[resid_post[1]] != steered[resid_post[1]]).any(-1)
    assert torch.equal(changed, plain.tokens.content)


def test_a_position_limits_where_the_clamp_acts(model: Model, sae: TopK) -> None:
    with steer(model, clamp_latent(sae, 3, at=last), 4.0) as receipt:
        model.run(["a bridge", "fog"])
    assert receipt[resid_post[1]].prefill_tokens == 2


def test_clamped_greedy_text_is_the_same_with_and_without_a_cache(model: Model, sae: TopK) -> None:
    with steer(model, clamp_latent(sae, 3), 4.0):
        cached = model.generate("fog", max_new_tokens=6)
        ids = model.tokens("fog").ids
        for _ in range(6):
            ids = torch.cat([ids, model.run(ids)[:, -1:].argmax(-1)], dim=1)
    assert cached == model.tokenizer.decode(ids[0, 4:])


def test_a_latent_that_does_not_exist_is_refused(sae: TopK) -> None:
    with pytest.raises(IndexError, match="latent 32 does not exist; this autoencoder has latents 0 to 31"):
        clamp_latent(sae, 32).dose(5.0)


def test_a_latent_that_never_fired_has_no_scale(sae: TopK) -> None:
    sae.max_activation[4] = 0.0
    with pytest.raises(ValueError, match="latent 4 never fired"):
        clamp_latent(sae, 4).dose(5.0)


def test_a_dose_that_is_not_a_number_is_refused(sae: TopK) -> None:
    with pytest.raises(ValueError, match="the dose is nan: give a finite number, in units of the latent's largest"):
        clamp_latent(sae, 4).dose(float("nan"))


def test_an_autoencoder_of_another_model_is_refused(model: Model, sae: TopK) -> None:
    sae.fingerprint = "another"
    with pytest.raises(ValueError, match="another model"), steer(model, clamp_latent(sae, 3), 1.0):
        model.run("fog")


def test_a_wrong_width_is_refused(sae: TopK) -> None:
    with pytest.raises((ValueError, TypeCheckError)):
        clamped(sae, 3, 1.0, torch.zeros(2, 5))


def test_a_latent_written_at_another_site_than_it_is_read_at_is_not_clamped(sae: TopK) -> None:
    sae.sites = (mlp_in[1], mlp_out[1])
    said = r"latent 3 is read at mlp_in\.1 and written at mlp_out\.1, .*: use add_direction\(sae\.direction\(3\)\)"
    with pytest.raises(ValueError, match=said):
        clamp_latent(sae, 3)
