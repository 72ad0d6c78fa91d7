"""The TopK autoencoder: its gradients against autograd of the dense formula and SAELens, and what it refuses."""

import pytest
import torch

from hooks.site import resid_post
from interp.sae import BatchTopK, TopK
from interp.sae.numerics.median import geometric_median
from tests.shapes import unchecked

N, D, LATENTS, K, K_AUX = 96, 16, 64, 6, 5
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


def case(seed: int = 0) -> tuple[TopK, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    sae = TopK(D, LATENTS, K, k_aux=K_AUX)
    with torch.no_grad():
        for name in NAMES:
            parameter = getattr(sae, name)
            parameter += 0.1 * torch.randn(parameter.shape, generator=g)
    x = torch.randn(N, D, generator=g) + 0.5
    sae.objective().initialise(x)
    return sae, x


def dense_loss(sae: TopK, x: torch.Tensor, dead: torch.Tensor) -> torch.Tensor:
    """The docstring's equation, line by line, with every matrix dense."""

    def keep(pre: torch.Tensor, k: int) -> torch.Tensor:
        top = pre.topk(k, dim=1)
        return torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())

    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    e = x - (keep(pre, K) @ sae.W_dec + sae.b_dec)
    V = (x - x.mean(0)).pow(2).sum(1).mean()
    loss = e.pow(2).sum(1).mean() / V
    if dead.any():
        e = e.detach()
        e_hat = keep(torch.where(dead, pre, -torch.inf), min(K_AUX, int(dead.sum()))) @ sae.W_dec
        V_e = (e - e.mean(0)).pow(2).sum(1).mean()
        loss = loss + (e - e_hat).pow(2).sum(1).mean() / V_e / 32
    return loss


@pytest.mark.parametrize("n_dead", [0, 3, 40], ids=["no latent dead", "fewer dead than k_aux", "more dead than k_aux"])
def test_hand_written_gradients_are_autograds_of_the_dense_formula(n_dead: int) -> None:
    sae, x = case()
    dead = torch.zeros(LATENTS, dtype=torch.bool)
    dead[torch.randperm(LATENTS, generator=torch.Generator().manual_seed(5))[:n_dead]] = True
    loss = dense_loss(sae, x, dead)
    expected = torch.autograd.grad(loss, [getattr(sae, name) for name in NAMES])
    step = sae.objective().gradients(x, dead)
    assert float(step.loss) == pytest.approx(float(loss.detach()), rel=2e-6)
    for name, truth in zip(NAMES, expected, strict=True):
        error = (getattr(sae, name).grad - truth).norm() / truth.norm()
        assert float(error) < 2e-6, name


def test_the_loss_without_dead_latents_is_the_share_of_variance_unexplained() -> None:
    sae, x = case()
    step = sae.objective().gradients(x, torch.zeros(LATENTS, dtype=torch.bool))
    unexplained = (x - sae(x)).pow(2).sum(1).mean() / (x - x.mean(0)).pow(2).sum(1).mean()
    assert float(step.loss) == pytest.approx(float(unexplained.detach()), rel=1e-5)


def test_at_most_k_latents_are_on_and_they_are_the_largest() -> None:
    sae, x = case()
    f = sae.encode(x)
    pre = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
    assert int((f > 0).sum(1).max()) <= K
    assert torch.allclose(f.sort(1, descending=True).values[:, :K], pre.sort(1, descending=True).values[:, :K])
    assert torch.equal(f[f > 0], pre[f > 0])


def test_sparse_and_dense_codes_are_the_same() -> None:
    sae, x = case()
    values, indices = sae.encode_sparse(x)
    assert torch.equal(torch.zeros(N, LATENTS).scatter(1, indices, values), sae.encode(x))


def test_leading_axes_change_no_latent() -> None:
    sae, x = case()
    assert torch.allclose(sae.encode(x.view(4, 24, D)).view(N, LATENTS), sae.encode(x), atol=1e-6)


def test_forward_is_decode_of_encode() -> None:
    sae, x = case()
    assert torch.equal(sae(x), sae.encode(x) @ sae.W_dec + sae.b_dec)


def test_an_autoencoder_starts_with_a_tied_unit_norm_decoder() -> None:
    sae = TopK(D, LATENTS, K, seed=3)
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(LATENTS))
    assert torch.equal(sae.W_dec, TopK(D, LATENTS, K, seed=3).W_dec)
    assert not torch.equal(sae.W_dec, TopK(D, LATENTS, K, seed=4).W_dec)


def test_the_geometric_median_of_a_symmetric_cloud_is_its_centre_and_outliers_hardly_move_it() -> None:
    half = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    cloud = torch.cat([half, -half]) + torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(geometric_median(cloud), torch.tensor([1.0, 2.0, 3.0]), atol=1e-3)
    spoilt = torch.cat([cloud, torch.full((5, 3), 1e5)])
    assert float((geometric_median(spoilt) - geometric_median(cloud)).norm()) < 0.05
    assert float((spoilt.mean(0) - cloud.mean(0)).norm()) > 100


def test_the_geometric_median_minimises_the_mean_distance() -> None:
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)).exp()
    m = geometric_median(x)
    gradient = ((m - x) / (m - x).norm(dim=1, keepdim=True)).mean(0)
    assert float(gradient.norm()) < 1e-3


def test_a_latents_direction_is_its_decoder_row_with_its_training_maximum_as_scale() -> None:
    sae, _ = case()
    sae.site, sae.fingerprint = resid_post[3], "abc"
    sae.max_activation[7] = 2.5
    direction = sae.direction(7)
    assert torch.equal(direction.vector, sae.W_dec[7])
    assert direction.scale == pytest.approx(2.5 * float(sae.W_dec[7].detach().norm()))
    assert (direction.site, direction.source, direction.fingerprint) == (resid_post[3], "sae latent 7", "abc")


def test_a_direction_needs_a_latent_a_site_and_a_scale() -> None:
    sae, _ = case()
    with pytest.raises(IndexError, match="latent 64 does not exist; this autoencoder has latents 0 to 63"):
        sae.direction(64)
    with pytest.raises(ValueError, match="has no site yet"):
        sae.direction(0)
    sae.site = resid_post[3]
    with pytest.raises(ValueError, match="does not know its largest activations, the scale of its directions"):
        sae.direction(0)
    sae.max_activation[1] = 1.0
    with pytest.raises(ValueError, match="latent 0 never fired on the training data"):
        sae.direction(0)


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="reads 16 dimensions; it was given 5"):
        case()[0].encode(torch.zeros(2, 5))


def test_nan_is_refused_with_its_row() -> None:
    sae, x = case()
    x[9, 2] = torch.nan
    with pytest.raises(ValueError, match="hold NaN or infinity, first in row 9"):
        sae.encode(x)


def test_a_k_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 65; it must be between 1 and d_sae = 64"):
        TopK(D, LATENTS, 65)


def test_activations_that_never_vary_are_refused() -> None:
    with pytest.raises(ValueError, match="all 8 activations are the same vector"):
        TopK(D, LATENTS, K).objective().initialise(torch.ones(8, D))


def test_a_fraction_of_latents_per_row_and_no_auxiliary_ones_are_refused() -> None:
    with (
        unchecked(),
        pytest.raises(ValueError, match=r"k is 4\.5; TopK keeps a whole number of each row: take BatchTopK for 4\.5"),
    ):
        TopK(8, 16, k=4.5)  # pyright: ignore[reportArgumentType]
    for kind in (TopK, BatchTopK):
        with pytest.raises(ValueError, match="k_aux is -3; give at least 1, or aux_coefficient=0"):
            kind(8, 16, 4, k_aux=-3)
