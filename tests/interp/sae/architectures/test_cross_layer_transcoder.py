"""Cross-layer transcoders: the gradients are autograd's, planted ones are found, and the penalty is what it says."""

import pytest
import torch

from hooks import Direction
from hooks.errors import InvalidArgument, OutOfRange
from hooks.site import mlp_in, mlp_out
from interp.directions.pursuit import comparable_rows
from interp.sae import (
    SAE,
    BatchTopK,
    CrossLayerTranscoder,
    MatryoshkaBatchTopK,
    Resampling,
    Schedule,
    evaluate,
    fold_normalisation,
    load,
    match_truth,
    normalise_source,
    rms_scaling,
    save,
    tensor_source,
    train,
)

L, D, F = 3, 6, 8


def made(seed=0, **settings):
    clt = CrossLayerTranscoder(D, L * F, L, seed=seed, **settings).double()
    with torch.no_grad():
        random = torch.Generator().manual_seed(seed + 1)
        for p in (clt.b_enc, clt.b_dec, *(() if clt.W_skip is None else (clt.W_skip,))):
            p.copy_(0.1 * torch.randn(p.shape, generator=random))
    return clt


def rows(n=40, seed=3):
    return torch.randn(n, 2 * L, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("k", [None, 4])
@pytest.mark.parametrize("reach", [None, 1, 2])
@pytest.mark.parametrize("skip", [False, True])
def test_written_gradients_are_those_of_autograd(k, reach, skip):
    clt = made(k=k, reach=reach, skip=skip, coefficient=0.7, bandwidth=0.5, initial_threshold=0.2)
    clt.pre_act_coefficient = 0.3
    objective = clt.objective()
    objective.sparsity_share = 0.6
    dead = torch.zeros(L * F, dtype=torch.bool)
    dead[[1, 5, 9, 23]] = True
    if k is not None:
        objective.select(clt.parts(rows())[0])
        objective.follow = lambda values: None  # theta as it is, for both
    expected = objective.loss(rows(), dead)
    clt.zero_grad()
    expected.loss.backward()
    autograd = {name: p.grad.clone() for name, p in clt.named_parameters() if p.grad is not None}
    found = objective.gradients(rows(), dead)
    for name, gradient in autograd.items():
        assert torch.allclose(gradient, clt.get_parameter(name).grad, atol=1e-12, rtol=1e-10), name
    assert float(autograd["W_enc"].abs().sum()) > 0
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
    assert found.squared_error.item() == pytest.approx(expected.squared_error.item(), rel=1e-12)
    assert float(found.l0) == pytest.approx(float(expected.l0))
    assert torch.allclose(found.largest, expected.largest)


def test_sparse_codes_and_dense_blocks_give_the_same_gradients():
    clt = CrossLayerTranscoder(D, L * 512, L, initial_threshold=2.0, bandwidth=0.2).double()
    dead = torch.zeros(clt.d_sae, dtype=torch.bool)
    step = clt.objective().gradients(rows(200), dead)
    found = [p.grad.clone() for p in clt.parameters()]
    clt.zero_grad()
    expected = clt.objective().loss(rows(200), dead)
    expected.loss.backward()
    assert 0 < float(step.l0) < clt.d_sae / 20
    for p, gradient in zip(clt.parameters(), found, strict=True):
        assert torch.allclose(p.grad, gradient, atol=1e-10)


def test_the_loss_is_a_mean_over_tokens_so_that_twice_the_batch_has_the_same():
    objective, dead = made(coefficient=3.0).objective(), torch.zeros(L * F, dtype=torch.bool)
    once, twice = (objective.gradients(rows().repeat(n, 1, 1), dead).loss for n in (1, 2))
    assert float(once) == pytest.approx(float(twice), rel=1e-12)


def test_the_penalty_is_weighed_by_the_norm_of_all_of_a_latents_decoders():
    clt = made(coefficient=1.0, tanh_scale=0.01)
    objective, dead, n = clt.objective(), torch.zeros(L * F, dtype=torch.bool), 40
    x, _ = clt.parts(rows())
    a = clt.encode(x).view(n, L, F).detach()
    total = sum(
        float(torch.tanh(0.01 * torch.cat([clt.decoder(i, to)[f] for to in range(i, L)]).detach().norm() * a[t, i, f]))
        for t in range(n)
        for i in range(L)
        for f in range(F)
    )
    step = objective.gradients(rows(), dead)
    assert float(step.loss - step.squared_error) == pytest.approx(total / n, rel=1e-10)
    with torch.no_grad():  # a latent of layer 0 that writes to the last layer alone is weighed by that
        clt.decoder(0, 2)[:] *= 10
    again = objective.gradients(rows(), dead)
    assert float(again.loss - again.squared_error) > 2 * float(step.loss - step.squared_error)


def test_a_latent_writes_to_its_own_layer_and_later_ones_and_to_no_earlier():
    clt = made()
    f = torch.zeros(1, L * F, dtype=torch.float64)
    f[0, F + 2] = 3.0
    written = clt.decode(f) - clt.b_dec
    assert not bool(written[0, 0].any())
    for layer in (1, 2):
        assert torch.allclose(written[0, layer], 3.0 * clt.decoder(1, layer)[2])
    with pytest.raises(OutOfRange, match="layer 1 do not write to layer 0: they write to layers 1 to 2"):
        clt.decoder(1, 0)
    with pytest.raises(OutOfRange, match="layer 3 does not exist; this transcoder has layers 0 to 2"):
        clt.decoder(3, 3)
    with pytest.raises(OutOfRange, match="they write to layers 0 to 0"):
        made(reach=1).decoder(0, 1)


@pytest.mark.parametrize("reach", [None, 1, 2])
def test_rows_compared_with_a_direction_are_what_latents_write_where_it_is(reach):
    clt = made(reach=reach)
    clt.sites = (*(mlp_in[i] for i in range(L)), *(mlp_out[i] for i in range(L)))
    for target in range(L):
        found = comparable_rows(clt, Direction(torch.ones(D), mlp_out[target], "ones"))
        assert found.shape == (L * F, D)
        for latent in range(L * F):
            only = torch.zeros(1, L * F, dtype=torch.float64)
            only[0, latent] = 1.0
            assert torch.allclose(found[latent], (clt.decode(only) - clt.b_dec)[0, target])


def test_sparse_latents_give_the_reconstruction_of_dense_ones():
    clt = made(skip=True)
    x, _ = clt.parts(rows())
    assert torch.allclose(clt.reconstruct_sparse(x, *clt.encode_sparse(x)), clt(x))


def test_a_normalisation_is_folded_into_every_weight():
    clt, raw = made(skip=True), 3.0 * rows(400) + torch.arange(2 * L, dtype=torch.float64)[:, None]
    clt.normalisation = rms_scaling([raw])
    z = clt.normalisation(raw)
    assert torch.allclose(z.pow(2).mean((0, 2)), torch.ones(2 * L, dtype=torch.float64))
    twin = fold_normalisation(clt)
    x, zx = clt.parts(raw)[0], clt.parts(z)[0]
    assert torch.allclose(twin.encode(x), clt.encode(zx))
    expected = clt.normalisation.back(torch.cat([zx, clt(zx)], dim=1))[:, L:]
    assert torch.allclose(twin(x), expected)


def planted(n, seed, *, width=24, per_layer=10):
    """Rows of a random cross-layer transcoder whose latents are Bernoulli, and its decoders end to end."""
    random = torch.Generator().manual_seed(seed)
    truth = CrossLayerTranscoder(width, L * per_layer, L, k=1, seed=91)
    on = torch.rand(n, L, per_layer, generator=random) < 0.08
    a = on * (0.5 + torch.rand(n, L, per_layer, generator=random))
    x = torch.einsum("nlf,lfd->nld", a, truth.W_enc.detach())
    return torch.cat([x, truth.decode(a.flatten(1)).detach()], dim=1), truth


def whole(clt):
    """Each latent's decoders to all layers, 0 for those before its own."""
    parts = [
        torch.nn.functional.pad(D.flatten(1), (clt.n_layers * clt.d_in - D.flatten(1).shape[1], 0))
        for D in clt.decoders()
    ]
    return torch.cat(parts).detach()


@pytest.mark.parametrize(
    "settings", [{"k": 2.4}, {"coefficient": 0.03, "bandwidth": 0.3, "initial_threshold": 0.05, "tanh_scale": 2.0}]
)
def test_a_planted_cross_layer_transcoder_is_found(settings):
    x, truth = planted(20_000, seed=5)
    clt = CrossLayerTranscoder(truth.d_in, 2 * truth.d_sae, L, seed=2, **settings)  # room, so that none is merged
    train(
        clt,
        tensor_source(x),
        tokens=300_000,
        batch_size=1024,
        lr=4e-3,
        schedule=Schedule(sparsity_warm_up=0.7),
        progress=False,
    )
    found = match_truth(whole(clt), whole(truth))
    assert found.mcc >= 0.9, found
    assert found.floor < 0.5


def test_thresholds_that_a_batch_taught_keep_as_many_latents_of_single_tokens():
    x, truth = planted(8_000, seed=6)
    clt = CrossLayerTranscoder(truth.d_in, truth.d_sae, L, k=2.4)
    report = train(clt, tensor_source(x), tokens=100_000, batch_size=512, lr=4e-3, progress=False)
    assert report.l0 == pytest.approx(2.4, rel=0.15)
    one = torch.cat([clt.encode(row[None, :L]) for row in x[:50]])
    assert torch.allclose(one, clt.encode(x[:50, :L]), atol=1e-5)


@pytest.mark.parametrize("kind", ["autoencoder", "matryoshka", "across layers"])
def test_the_threshold_after_training_is_that_of_the_final_weights(kind):
    x, truth = planted(8_000, seed=6)
    made_of: dict[str, SAE] = {
        "autoencoder": BatchTopK(truth.d_in, 24, k=2.4),
        "matryoshka": MatryoshkaBatchTopK(truth.d_in, 24, k=2.4, widths=(8,)),
        "across layers": CrossLayerTranscoder(truth.d_in, truth.d_sae, L, k=2.4),
    }
    sae = made_of[kind]
    x = x if kind == "across layers" else x[:, 0]
    report = train(
        sae, tensor_source(x), tokens=30_000, batch_size=512, lr=2e-2, progress=False
    )  # 58 steps, far from 1/RATE
    assert report.l0 == pytest.approx(2.4, rel=0.06)


def test_a_saved_one_is_read_as_it_was(tmp_path):
    x, truth = planted(2_000, seed=7)
    for settings in ({"k": 2.4}, {"skip": True}, {"reach": 2}):
        clt = CrossLayerTranscoder(truth.d_in, truth.d_sae, L, **settings)
        source = tensor_source(x)
        train(clt, normalise_source(source, rms_scaling(source)), tokens=4_000, batch_size=512, progress=False)
        again = load(save(clt, tmp_path / "clt"))
        assert torch.allclose(again(x[:, :L]), fold_normalisation(clt)(x[:, :L]), atol=1e-5)
        assert again.settings() == clt.settings()
        assert evaluate(again, source).l0 == pytest.approx(evaluate(fold_normalisation(clt), source).l0)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(
        InvalidArgument, match="d_sae is 10 and n_layers 3.* give a d_sae of 9 or another multiple of 3"
    ):
        CrossLayerTranscoder(4, 10, 3)
    with pytest.raises(InvalidArgument, match="resampling restarts latents"):
        train(made(), tensor_source(rows().float()), resampling=Resampling(), progress=False)
    with pytest.raises(InvalidArgument, match="reads 3 x 6 dimensions"):
        made().encode(rows())
