"""Transcoders and crosscoders: what a linear path takes over, what two models share, and where directions belong."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hooks import Model, capture
from hooks.site import mlp_act, mlp_in, mlp_out, resid_post
from interp.sae import Crosscoder, SkipTranscoder, Transcoder, across, evaluate, pairs_of, tensor_source, train
from tests.interp.sae.planted import features

pytestmark = pytest.mark.usefixtures("unchecked")


def test_a_skip_path_learns_what_is_linear() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 6, generator=g)
    A = torch.randn(6, 5, generator=g)
    rows = torch.cat([x, x @ A + 1], dim=1)
    sae = SkipTranscoder(6, 12, d_out=5, coefficient=10.0)
    report = train(sae, tensor_source(rows), tokens=200_000, batch_size=250, lr=1e-2, progress=False)
    assert report.explained_variance > 0.99
    assert torch.allclose(sae.W_skip.T, A, atol=0.1)
    by_latents = (sae.decode(sae.encode(x)) - sae.b_dec).detach()
    assert float((by_latents.norm(dim=1) / (x @ A).norm(dim=1)).median()) < 0.05


def test_a_transcoder_finds_the_features_that_a_layer_reads_and_what_it_writes_for_each() -> None:
    g = torch.Generator().manual_seed(0)
    reads, writes = features(12, 16, g), features(12, 10, g)
    on = (torch.rand(6000, 12, generator=g) < 0.08).float()
    rows = torch.cat([on @ reads, on @ writes], dim=1)
    sae = Transcoder(16, 12, d_out=10, coefficient=0.05)
    report = train(sae, tensor_source(rows), tokens=150_000, batch_size=250, lr=1e-2, progress=False)
    assert report.explained_variance > 0.95
    f = sae.encode(on @ reads)
    written = [sae.W_dec[int(f[on[:, i] > 0].mean(0).argmax())].detach() for i in range(12)]
    cosines = torch.nn.functional.cosine_similarity(torch.stack(written), writes)
    assert float(cosines.median()) > 0.95


def test_a_crosscoder_tells_shared_features_from_one_models_own() -> None:
    g = torch.Generator().manual_seed(0)
    truth = features(18, 20, g)
    kind = torch.arange(18) % 3  # shared, the first model's, the second's
    on = (torch.rand(8000, 18, generator=g) < 0.08).float()
    places = [on * ((kind == 0) | (kind == own)) @ truth for own in (1, 2)]
    sae = Crosscoder(20, 24, n_layers=2, coefficient=0.15)
    report = train(sae, tensor_source(torch.stack(places, 1)), tokens=200_000, batch_size=250, lr=1e-2, progress=False)
    assert report.explained_variance > 0.9
    cosines = torch.nn.functional.normalize(sae.W_dec.detach().sum(1), dim=1) @ truth.T
    shares = sae.shares()[cosines.argmax(0), 0]
    assert bool((cosines.amax(0) > 0.9).all())
    assert bool(((shares[kind == 0] > 0.4) & (shares[kind == 0] < 0.6)).all())
    assert bool((shares[kind == 1] > 0.9).all()) and bool((shares[kind == 2] < 0.1).all())


def test_the_share_of_a_layer_is_its_part_of_the_norms_of_a_latents_rows() -> None:
    sae = Crosscoder(2, 2, n_layers=3)
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[[3.0, 4.0], [0.0, 5.0], [0.0, 10.0]], [[0.0, 2.0], [0.0, 0.0], [6.0, 0.0]]]))
    assert sae.shares().tolist() == [pytest.approx([0.25, 0.25, 0.5]), pytest.approx([0.25, 0.0, 0.75])]


def flat(model: Model, texts: list[str], site: object) -> Tensor:
    return capture(model, texts, site).flat(site).flatten(1)  # pyright: ignore[reportArgumentType]


def test_pairs_and_stacks_hold_the_same_tokens_at_each_place(gpt2: Model, texts: list[str]) -> None:
    reads, writes = flat(gpt2, texts, mlp_in[1]), flat(gpt2, texts, mlp_out[1])
    rows = torch.cat(list(pairs_of(gpt2, texts, mlp_in[1], mlp_out[1], batch_size=2)))
    assert torch.allclose(rows, torch.cat([reads, writes], dim=1), atol=1e-5)
    stacked = torch.cat(list(across([(gpt2, mlp_out[1]), (gpt2, mlp_in[1]), (gpt2, mlp_out[1])], texts, batch_size=2)))
    assert torch.allclose(stacked, torch.stack([writes, reads, writes], dim=1), atol=1e-5)


def test_two_models_are_read_side_by_side_and_directions_know_theirs(gpt2: Model, fresh, texts: list[str]) -> None:
    other = fresh("gpt2", seed=5)
    source = across([(gpt2, resid_post[1]), (other, resid_post[2])], texts, batch_size=2)
    x = torch.cat(list(source))
    assert torch.allclose(x[:, 0], flat(gpt2, texts, resid_post[1]), atol=1e-5)
    assert torch.allclose(x[:, 1], flat(other, texts, resid_post[2]), atol=1e-5)
    sae = Crosscoder(gpt2.d_model, 48, n_layers=2, coefficient=0.01)
    train(sae, source, tokens=2_000, batch_size=64, progress=False)
    latent = int(sae.max_activation.argmax())
    for layer, model, site in ((0, gpt2, resid_post[1]), (1, other, resid_post[2])):
        direction = sae.direction(latent, layer)
        assert (direction.site, direction.fingerprint) == (site, model.fingerprint)
        assert torch.equal(direction.vector, sae.W_dec[latent, layer])
        expected = float(sae.max_activation[latent]) * float(direction.vector.norm())
        assert direction.scale == pytest.approx(expected) and expected > 0
    assert evaluate(sae, source).tokens == len(x)
    with pytest.raises(IndexError, match="layer 2 does not exist; this crosscoder has layers 0 to 1"):
        sae.direction(latent, 2)


def test_places_of_unequal_width_and_models_of_unequal_tokens_are_refused(
    gpt2: Model, fresh, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ValueError, match=r"places of a crosscoder need one width; these have .* resid_post\.1: 32, .*48"
    ):
        next(iter(across([(gpt2, resid_post[1]), (gpt2, mlp_act[1])], texts)))
    with pytest.raises(ValueError, match="across was given no places"):
        across([], texts)
    other, own = fresh("gpt2", seed=5), gpt2.tokens
    monkeypatch.setattr(other, "tokens", lambda text: replace(own(text), ids=own(text).ids.clamp(max=100)))
    with pytest.raises(ValueError, match="need the same tokens, and theirs differ: give token ids"):
        next(iter(across([(gpt2, resid_post[1]), (other, resid_post[1])], texts)))
