"""Features of a cross-layer transcoder are read at every layer, and are those of one transcoder for each layer."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Direction, Model, capture
from hooks.errors import InvalidArgument
from hooks.site import mlp_in, mlp_out
from interp.directions import latent_group, pursuit
from interp.features import Concept, collect_evidence, explain_text, find_similar, index, search
from interp.features.logits import find_promoted_tokens
from interp.sae import CrossLayerTranscoder, Standard, decoder_rows, normalise_source, rms_scaling, tensor_source

pytestmark = pytest.mark.usefixtures("unchecked")
D, LAYERS, F = 32, 2, 12
TEXTS = [f"fog {number} over the bay {number * number}" for number in range(24)]
EVEN = [number % 2 == 0 for number in range(24)]


def made(model: Model, **settings: Any) -> CrossLayerTranscoder:
    """With thresholds of 0, biases that are not, and a largest value for each latent."""
    clt = CrossLayerTranscoder(D, LAYERS * F, LAYERS, initial_threshold=0.0, seed=2, **settings)
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        clt.b_enc.copy_(0.1 * torch.randn(LAYERS, F, generator=g))
        clt.max_activation.copy_(0.5 + torch.rand(LAYERS * F, generator=g))
    clt.sites = (*(mlp_in[i] for i in range(LAYERS)), *(mlp_out[i] for i in range(LAYERS)))
    clt.fingerprint, clt.model_name = model.fingerprint, model.name
    return clt


def layer_of(clt: CrossLayerTranscoder, layer: int) -> Standard:
    """One layer's latents, as an autoencoder of rectified latents that reads and writes where they do."""
    one = Standard(D, F)
    with torch.no_grad():
        one.W_enc.copy_(clt.W_enc[layer].T)
        one.b_enc.copy_(clt.b_enc[layer])
        one.W_dec.copy_(clt.decoder(layer, layer))
        one.b_dec.zero_()
        one.max_activation.copy_(clt.max_activation[layer * F : (layer + 1) * F])
    one.sites, one.fingerprint, one.model_name = (mlp_in[layer], mlp_out[layer]), clt.fingerprint, clt.model_name
    return one


def test_the_index_of_latents_that_write_to_their_own_layer_is_that_of_each_layer_alone(
    gpt2: Model, tmp_path: Path
) -> None:
    clt = made(gpt2, reach=1)
    found = index(clt, gpt2, TEXTS, tmp_path / "all", top=3, sampled=3, context=2)
    assert found.about["site"] == "mlp_in.0 to mlp_in.1"
    for layer in range(LAYERS):
        alone = index(layer_of(clt, layer), gpt2, TEXTS, tmp_path / str(layer), top=3, sampled=3, context=2)
        for i in range(F):
            mine, theirs = found.record(layer * F + i), alone.record(i)
            assert mine.evidence.examples[:1] and mine.tokens == theirs.tokens
            assert mine.evidence.firing_rate == theirs.evidence.firing_rate
            assert mine.evidence.promoted == theirs.evidence.promoted
            pairs = zip(mine.evidence.examples, theirs.evidence.examples, strict=True)
            assert all(a.tokens == b.tokens and a.activations == pytest.approx(b.activations) for a, b in pairs)


def test_a_search_finds_the_best_of_all_layers_and_each_control_is_the_best_of_all_layers(gpt2: Model) -> None:
    clt, concept = made(gpt2, reach=1), Concept("even", TEXTS, EVEN)
    found = search(clt, gpt2, concept, permutations=20)
    alone = [search(layer_of(clt, layer), gpt2, concept, permutations=20) for layer in range(LAYERS)]
    assert found.sites == (mlp_in[0], mlp_in[1]) and found.site == mlp_in[0]
    assert "at mlp_in.0 to mlp_in.1, by text" in str(found)
    assert found.best.searched_f1 == max(one.best.searched_f1 for one in alone)
    assert found.best.latent is not None and found.best.direction is not None
    assert found.best.direction.site == mlp_out[found.best.latent // F]
    for number, control in enumerate(found.baselines):
        best = max((one.baselines[number] for one in alone), key=lambda one: one.searched_f1)
        assert (control.searched_f1, control.held_out) == (best.searched_f1, best.held_out)
        if control.name == "always yes":
            continue
        assert control.direction is not None and best.direction is not None
        assert control.direction.site == best.direction.site
        torch.testing.assert_close(control.direction.vector, best.direction.vector)


def test_what_a_latent_promotes_is_by_all_that_it_writes(gpt2: Model) -> None:
    clt = made(gpt2)
    for latent in (3, F + 5):
        own, number = divmod(latent, F)
        total = clt.decoders()[own][number].detach().sum(0)
        rows = decoder_rows(clt, [latent])[0]
        assert not rows[:own].any() and torch.equal(rows[own:], clt.decoders()[own][number])
        evidence = collect_evidence(clt, gpt2, TEXTS, latent)
        assert evidence.promoted == find_promoted_tokens(gpt2, total, 10)
        read = explain_text(clt, gpt2, TEXTS[5], top=LAYERS * F)
        firings = {(place, one.latent): one.activation for place, token in enumerate(read) for one in token.firings}
        x = capture(gpt2, TEXTS[5], [mlp_in[own]]).flat(mlp_in[own])
        z = x @ clt.W_enc[own, number] + clt.b_enc[own, number]
        for place, value in enumerate(z.tolist()):
            assert firings.get((place, latent), 0.0) == pytest.approx(max(value, 0.0), abs=1e-5)


def test_similar_latents_are_compared_by_what_they_write_at_the_directions_layer(gpt2: Model) -> None:
    clt = made(gpt2)
    for layer, latent in ((0, 4), (1, 4), (1, F + 7)):
        direction = clt.direction(latent, layer)
        near = find_similar(clt, direction, top=2)
        assert near.latents[0] == (latent, pytest.approx(1.0, abs=1e-5)) and near.latents[1][1] < 0.9
        by_pursuit = pursuit(clt, direction, most=1)
        torch.testing.assert_close(by_pursuit.vector, direction.vector, rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidArgument, match=r"writes at mlp_out.0 and mlp_out.1"):
        find_similar(clt, Direction(torch.ones(D), mlp_in[0], "what is read", 1.0))
    with pytest.raises(InvalidArgument, match="write at mlp_out.0, mlp_out.1, and a direction is of one site"):
        latent_group(clt, [1, F + 1])
    parts = [clt.max_activation[i] * clt.direction(i).vector for i in (1, 2)]
    torch.testing.assert_close(latent_group(clt, [1, 2]).vector, parts[0] + parts[1])


def test_weights_that_read_normalised_activations_are_refused(gpt2: Model) -> None:
    source = tensor_source(torch.randn(20, 2 * LAYERS, D, generator=torch.Generator().manual_seed(0)))
    clt = made(gpt2)
    clt.normalisation = normalise_source(source, rms_scaling(source)).normalisation
    with pytest.raises(InvalidArgument, match="read normalised activations: use fold_normalisation"):
        collect_evidence(clt, gpt2, TEXTS, 3)
