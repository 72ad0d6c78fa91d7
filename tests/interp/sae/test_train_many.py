"""Several autoencoders in one pass: each is what it would be alone."""

import pytest
import torch

from hooks import Model, harvest
from hooks.site import mlp_act, mlp_in, mlp_out, resid_post
from interp.sae import (
    Gated,
    Member,
    Standard,
    TopK,
    Transcoder,
    activations_at,
    activations_of,
    expected_norm,
    fold_normalisation,
    mean_centring,
    normalise_source,
    pairs_of,
    read_activations,
    read_activations_at,
    tensor_source,
    train,
    train_many,
)
from interp.sae.architectures.sae import SAE

pytestmark = pytest.mark.usefixtures("unchecked")

TEXTS = [f"fog {number} over the bay" for number in range(30)]
OPTIONS = {"tokens": 1_000, "batch_size": 64, "buffer": 300, "dead_after": 500, "progress": False}


def same(one: SAE, other: SAE) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for name in ("sites", "fingerprint", "model_name", "dataset"):
        assert getattr(one, name) == getattr(other, name), name


def test_sites_sizes_sparsities_and_seeds_trained_together_are_those_trained_alone(gpt2: Model) -> None:
    places = [resid_post[1], mlp_act[0]]
    source = activations_at(gpt2, TEXTS, places, batch_size=4)
    makes = {
        "small": (lambda: TopK(32, 48, k=4), resid_post[1], 1e-3),
        "large": (lambda: TopK(32, 96, k=8), resid_post[1], None),
        "another seed": (lambda: TopK(32, 48, k=4, seed=1), resid_post[1], 1e-3),
        "another site": (lambda: Gated(48, 64, coefficient=0.1), mlp_act[0], None),
    }
    members = {name: Member(make(), site, lr=lr) for name, (make, site, lr) in makes.items()}
    reports = train_many(members, source, **OPTIONS)
    for name, (make, site, lr) in makes.items():
        report = train(alone := make(), activations_of(gpt2, TEXTS, site, batch_size=4), lr=lr, **OPTIONS)
        same(members[name].sae, alone)
        assert str(report) == str(reports[name]) and report.curve == reports[name].curve
    assert not torch.equal(members["small"].sae.W_dec, members["another seed"].sae.W_dec)


def test_the_model_is_read_once_for_all(gpt2: Model) -> None:
    def passes(n: int) -> int:
        calls = []
        handle = gpt2.hf.transformer.wte.register_forward_hook(lambda *_: calls.append(1))
        members = {str(seed): Member(TopK(32, 48, k=4, seed=seed)) for seed in range(n)}
        try:
            train_many(members, activations_of(gpt2, TEXTS, resid_post[1]), **OPTIONS)
        finally:
            handle.remove()
        return len(calls)

    assert passes(3) == passes(1) > 1


def test_a_transcoder_takes_two_sites_and_a_normalisation_is_a_members_own(gpt2: Model) -> None:
    source = activations_at(gpt2, TEXTS, [mlp_in[1], resid_post[1], mlp_out[1]], batch_size=4)
    plain = activations_of(gpt2, TEXTS, resid_post[1], batch_size=4)
    norm = expected_norm(plain)
    members = {
        "transcoder": Member(Transcoder(32, 64), (mlp_in[1], mlp_out[1])),
        "standard": Member(Standard(32, 64), resid_post[1], normalisation=norm),
    }
    train_many(members, source, **OPTIONS)
    train(transcoder := Transcoder(32, 64), pairs_of(gpt2, TEXTS, mlp_in[1], mlp_out[1], batch_size=4), **OPTIONS)
    train(standard := Standard(32, 64), normalise_source(plain, norm), **OPTIONS)
    same(members["transcoder"].sae, transcoder)
    same(fold_normalisation(members["standard"].sae), fold_normalisation(standard))


def test_several_sites_of_a_store_are_read_in_one_pass(gpt2: Model, tmp_path) -> None:
    store = harvest(gpt2, TEXTS, [resid_post[1], mlp_act[0]], tmp_path)
    members = {"a": Member(TopK(32, 48, k=4), resid_post[1]), "b": Member(TopK(48, 64, k=4), mlp_act[0])}
    train_many(members, read_activations_at(store, [mlp_act[0], resid_post[1]]), **OPTIONS)
    for member in members.values():
        alone = TopK(member.sae.d_in, member.sae.d_sae, k=4)
        train(alone, read_activations(store, member.sites[0]), **OPTIONS)
        same(member.sae, alone)


def test_a_site_that_the_source_lacks_and_a_second_normalisation_are_refused(gpt2: Model) -> None:
    source = activations_at(gpt2, TEXTS, [resid_post[1], mlp_act[0]])
    sae = TopK(32, 48, k=4)
    with pytest.raises(KeyError, match=r"does not hold resid_post\.2; the nearest it holds: 'resid_post\.1'"):
        train_many({"a": Member(sae, resid_post[2])}, source, **OPTIONS)
    with pytest.raises(ValueError, match="are not side by side, so resid_post.1 cannot be taken out"):
        train_many({"a": Member(sae, resid_post[1])}, tensor_source(torch.zeros(9, 32)), **OPTIONS)
    alone = activations_of(gpt2, TEXTS, resid_post[1])
    norm = expected_norm(alone)
    with pytest.raises(ValueError, match="normalised as a whole cannot be split or normalised again"):
        train_many({"a": Member(sae, normalisation=norm)}, normalise_source(alone, norm), **OPTIONS)
    with pytest.raises(ValueError, match="members is empty"):
        train_many({}, source)


def test_an_autoencoder_is_trained_further_on_activations_normalised_as_they_were_and_on_no_others(
    gpt2: Model,
) -> None:
    plain = activations_of(gpt2, TEXTS, resid_post[1])
    n, other = expected_norm(plain), mean_centring(plain)
    train(sae := TopK(32, 48, k=4), normalise_source(plain, n), **OPTIONS)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    for source, said in ((plain, "as they are"), (normalise_source(plain, other), "normalised by [0-9a-f]{32}")):
        with pytest.raises(ValueError, match=f"trained on activations normalised by .* further on them {said}: give"):
            train(sae, source, **OPTIONS)
        assert sae.normalisation is n
        assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items())
    train(sae, normalise_source(plain, expected_norm(plain)), **OPTIONS)
    train(raw := fold_normalisation(sae), plain, **OPTIONS)
    with pytest.raises(ValueError, match="trained on activations as they are and is to be trained further on them nor"):
        train(raw, normalise_source(plain, n), **OPTIONS)


def test_a_training_that_is_refused_leaves_an_autoencoder_belonging_where_it_did(gpt2: Model) -> None:
    plain = activations_of(gpt2, TEXTS, resid_post[1])
    narrow, wide = TopK(5, 48, k=4), TopK(32, 48, k=4)
    for given in (plain, normalise_source(plain, expected_norm(plain))):
        with pytest.raises(ValueError, match=r"reads 5 dimensions at resid_post\.1"):
            train_many({"wide": Member(wide), "narrow": Member(narrow)}, given, **OPTIONS)
        for sae in (wide, narrow):
            assert sae.sites == () and (sae.model_name, sae.fingerprint, sae.dataset, sae.normalisation) == (None,) * 4
