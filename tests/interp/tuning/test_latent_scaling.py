"""Latent scaling recovers how much of each latent the base has, where norms of an L1 crosscoder call it none."""

import pytest
import torch

from hooks.errors import InvalidArgument
from interp.sae import Crosscoder
from interp.tuning import measure_latent_scaling

NU = torch.tensor([1.0, 1.0, 0.3, 0.3, 0.0, 0.0])


def world(n: int = 6000, noise: float = 0.05, seed: int = 0) -> torch.Tensor:
    """Rows of a base and a tuned model: latents on orthogonal axes, of which the base has a share ν."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.rand(n, 6, generator=generator) * (torch.rand(n, 6, generator=generator) < 0.2) * 4
    x = torch.stack([f * NU, f], 1) @ torch.eye(6, 8)
    return x + noise * torch.randn(x.shape, generator=generator)


def crosscoder(base_rows: torch.Tensor) -> Crosscoder:
    """One that reads the tuned model's latents exactly, its base rows as given."""
    found = Crosscoder(8, 6, n_layers=2)
    with torch.no_grad():
        found.W_dec.zero_(), found.W_enc.zero_()
        found.W_dec[:, 1] = torch.eye(6, 8)
        found.W_dec[:, 0] = base_rows[:, None] * torch.eye(6, 8)
        found.W_enc[1] = torch.eye(8, 6)
        found.b_enc.fill_(-0.15)
    return found


def test_nu_is_within_three_hundredths_where_norms_call_the_weakly_shared_latent_exclusive() -> None:
    shrunk = torch.tensor([0.95, 0.95, 0.0, 0.0, 0.0, 0.0])
    found = measure_latent_scaling(crosscoder(shrunk), world())
    assert torch.allclose(found.nu["activation"], NU, atol=0.03)
    assert bool((found.low["activation"] - 0.03 <= NU).all() and (found.high["activation"] + 0.03 >= NU).all())
    assert (found.by_norm < 0.1).tolist() == [False, False, True, True, True, True]
    assert found.exclusive(0.2).tolist() == [False, False, False, False, True, True]
    assert found.by_chance < 0.75 and "exclusive" in repr(found)
    assert found.to_pandas()["exclusive"].sum() == 2


def test_the_shrunk_latent_shows_in_the_error_and_not_in_the_reconstruction() -> None:
    found = measure_latent_scaling(crosscoder(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])), world())
    assert torch.allclose(found.nu["error"][2:4], NU[2:4], atol=0.03)
    assert torch.allclose(found.nu["reconstruction"][2:4], torch.zeros(2), atol=0.03)
    assert torch.allclose(found.nu["error"][4:], torch.zeros(2), atol=0.03)


def test_a_latent_without_a_row_is_exclusive_to_no_model_by_norms() -> None:
    one = crosscoder(torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 1.0]))
    with torch.no_grad():
        one.W_dec[0, 1] = 0.0  # of the base alone
        one.W_dec[1] = 0.0  # of neither
    found = measure_latent_scaling(one, world())
    assert float(found.by_norm[0]) == float("inf") and bool(found.by_norm[1].isnan())
    assert bool((found.fired[:2] > 0).all()), "the encoder has them nonetheless"
    assert "1 by norms" in repr(found) and not bool(found.exclusive()[:2].any())


def test_a_latent_that_the_base_writes_by_another_one_shows_in_the_reconstruction() -> None:
    """Decoupling: latent 5 is a copy of latent 0 whose only row is the base's; scaling sees through it."""
    split = crosscoder(torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
    with torch.no_grad():
        split.W_dec[5] = 0
        split.W_dec[5, 0, 0] = 1.0
        split.W_dec[5, 1, 6] = 1e-3
        split.W_enc[:, :, 5] = split.W_enc[:, :, 0]
    found = measure_latent_scaling(split, world())
    assert float(found.by_norm[0]) == 0.0
    assert float(found.nu["reconstruction"][0]) == pytest.approx(1.0, abs=0.05)
    assert not bool(found.exclusive()[0])


def test_beta_is_the_least_squares_solution() -> None:
    rows, sae = world(500), crosscoder(torch.ones(6))
    f, mean = sae.encode(rows).detach(), rows.mean(0)
    betas = []
    for model in (0, 1):
        y = (rows[:, model] - mean[model]).flatten()
        x = torch.einsum("n,d->nd", f[:, 2], sae.W_dec[2, 1].detach()).flatten()
        betas.append(torch.linalg.lstsq(x[:, None], y).solution.item())
    found = measure_latent_scaling(sae, rows, blocks=5)
    assert float(found.nu["activation"][2]) == pytest.approx(betas[0] / betas[1], rel=1e-4)


def test_a_model_next_to_itself_has_no_exclusive_latent() -> None:
    rows = world()[:, [1, 1]]
    found = measure_latent_scaling(crosscoder(torch.ones(6)), rows)
    assert torch.allclose(found.nu["activation"], torch.ones(6), atol=1e-5)
    assert not bool(found.exclusive(0.9).any())


def test_rows_of_one_model_and_blocks_without_rows_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="give one of two models"):
        measure_latent_scaling(Crosscoder(8, 6, n_layers=3), world())
    with pytest.raises(InvalidArgument, match="a row for each"):
        measure_latent_scaling(crosscoder(torch.ones(6)), world(10))
