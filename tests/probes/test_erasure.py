"""Erasure: its guarantee, what it must leave alone, and that no smaller change would do."""

from collections.abc import Callable

import pytest
import torch

from probes import LEACE, MLP, Logistic, MeanProjection


def coded(n: int = 1200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows in correlated noise with one label along a line and another as the sign of a product."""
    g = torch.Generator().manual_seed(seed)
    y, z = (torch.rand(n, generator=g) < 0.5 for _ in range(2))
    a = torch.where(torch.rand(n, generator=g) < 0.5, 1.0, -1.0)
    x = torch.randn(n, 8, generator=g) @ torch.randn(8, 8, generator=g) * 0.1
    x[:, 0] += 2 * y
    x[:, 1] += 3 * a
    x[:, 2] += 3 * a * torch.where(z, 1.0, -1.0)
    return x.double(), y, z


def test_after_leace_a_logistic_probe_is_at_chance_with_weights_below_1e_minus_4() -> None:
    x, y, _ = coded()
    assert Logistic().fit(x, y).score(x, y) > 0.9
    erased = LEACE().fit(x, y).transform(x)
    flat = Logistic()
    try:
        flat.fit(erased, y)
        assert float(flat.coef_.abs().max()) < 1e-4
        assert flat.score(erased, y) == pytest.approx(max(float(y.double().mean()), 1 - float(y.double().mean())))
    except ValueError as nothing:
        assert "found no difference" in str(nothing)


def test_after_leace_nothing_is_left_of_the_covariance_with_the_concept() -> None:
    x, y, _ = coded()
    erased = LEACE().fit(x, y).transform(x)
    left = (erased - erased.mean(0)).T @ (y.double() - y.double().mean()) / len(x)
    assert float(left.norm()) < 1e-12


def test_a_label_coded_as_a_product_stays_for_a_hidden_layer_to_read() -> None:
    x, _, z = coded()
    erased = LEACE().fit(x, z).transform(x)
    assert MLP(width=16, steps=200).fit(erased[:800], z[:800]).score(erased[800:], z[800:]) > 0.95


def test_no_erasure_by_an_affine_map_moves_rows_less(planted: Callable) -> None:
    """Every r(x) = x - A (x - mu) with A Sigma_xz = Sigma_xz erases; none moves rows less than LEACE on average."""
    x, y, _ = coded()
    eraser, mean = LEACE().fit(x, y), MeanProjection().fit(x, y)
    moved = float((eraser.transform(x) - x).square().sum())
    assert moved < 0.999 * float((mean.transform(x) - x).square().sum())
    cov = (x - x.mean(0)).T @ (y.double() - y.double().mean())[:, None]
    g = torch.Generator().manual_seed(1)
    for _ in range(20):
        row = eraser.projection_ + 0.05 * torch.randn(8, 8, generator=g, dtype=torch.float64)
        A = row + (cov - row @ cov) @ cov.T / (cov.T @ cov)
        assert torch.allclose(A @ cov, cov)
        assert float(((x - x.mean(0)) @ A.T).square().sum()) >= moved


def test_erasing_twice_is_erasing_once_and_the_mean_stays() -> None:
    x, y, _ = coded()
    for eraser in (LEACE(), MeanProjection()):
        once = eraser.fit(x, y).transform(x)
        assert torch.allclose(eraser.transform(once), once)
        assert torch.allclose(once.mean(0), x.mean(0))


def test_several_columns_are_erased_together() -> None:
    x, y, z = coded()
    target = x[:, 3] - 2 * x[:, 4]
    both = torch.stack([y.double(), target], 1)
    erased = LEACE().fit(x, both).transform(x)
    left = (erased - erased.mean(0)).T @ (both - both.mean(0)) / len(x)
    assert float(left.abs().max()) < 1e-10
    assert int(torch.linalg.matrix_rank(LEACE().fit(x, both).projection_)) == 2


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_columns_of_any_scale_are_all_erased(scale: float) -> None:
    x, y, _ = coded()
    target = x[:, 3] + 0.1 * torch.randn(len(y), generator=torch.Generator().manual_seed(1))
    both = torch.stack([y.double(), scale * target, torch.full_like(target, 0.1)], 1)
    erased = LEACE().fit(x, both).transform(x)
    assert float(torch.corrcoef(torch.cat([erased, both[:, :2]], 1).T)[8:, :8].abs().max()) < 1e-8


def test_a_narrow_direction_next_to_a_wide_one_is_erased() -> None:
    x, y, _ = coded()
    x[:, 0] = 1e-2 * (y + 0.3 * torch.randn(len(y), generator=torch.Generator().manual_seed(1)))
    x[:, 7] *= 6e4
    erased = LEACE().fit(x, y).transform(x)
    assert float(torch.corrcoef(torch.cat([erased, y[:, None].double()], 1).T)[8, :8].abs().max()) < 1e-6


def test_a_column_that_hardly_covaries_is_erased_as_well() -> None:
    g = torch.Generator().manual_seed(3)
    x = torch.linalg.qr(torch.randn(500, 3, generator=g, dtype=torch.float64)).Q
    x = torch.linalg.qr(x - x.mean(0)).Q
    z = torch.stack([x[:, 0], 1e-3 * x[:, 1] + x[:, 2]], 1)
    erased = LEACE().fit(x[:, :2], z).transform(x[:, :2])
    assert float((erased.T @ z).abs().max()) < 1e-12


def test_rows_that_fill_only_a_subspace_are_erased_within_it() -> None:
    x, y, _ = coded()
    flat = x @ torch.randn(8, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    erased = LEACE().fit(flat, y).transform(flat)
    left = (erased - erased.mean(0)).T @ (y.double() - y.double().mean()) / len(x)
    assert float(left.abs().max()) < 1e-10


def test_a_concept_given_as_a_column_is_that_concept() -> None:
    x, y, _ = coded(200)
    for concept in (y, y.double(), x[:, 3] + y):
        column = LEACE().fit(x, concept[:, None]).transform(x)
        assert torch.equal(column, LEACE().fit(x, concept).transform(x)) and not torch.equal(column, x)


def test_rows_that_are_all_the_same_say_nothing_and_stay_as_they_are() -> None:
    x, y = torch.full((12, 4), 0.3, dtype=torch.float64), torch.arange(12) % 2 == 0
    eraser = LEACE().fit(x, y)
    assert torch.equal(eraser.transform(x), x)
    assert not bool(eraser.projection_.any())


def test_after_mean_projection_the_class_means_coincide() -> None:
    x, y, _ = coded()
    erased = MeanProjection().fit(x, y).transform(x)
    assert torch.allclose(erased[y].mean(0), erased[~y].mean(0), atol=1e-12)


def test_the_dtype_of_the_model_is_kept() -> None:
    x, y, _ = coded()
    assert LEACE().fit(x, y).transform(x.bfloat16()).dtype == torch.bfloat16


def test_nothing_to_erase_is_refused() -> None:
    x, _, _ = coded(20)
    with pytest.raises(ValueError, match="the concept is the same in all 20 rows"):
        LEACE().fit(x, torch.ones(20, 2).double())
    with pytest.raises(ValueError, match="the classes have one mean"):
        MeanProjection().fit(torch.ones(2, 3), torch.tensor([True, False]))
    with pytest.raises(RuntimeError, match="this LEACE is not fitted"):
        LEACE().transform(x)


@pytest.mark.parametrize("width", [1.0, 1e3])
def test_in_a_graded_spectrum_the_eraser_is_the_theorem_written_out(width: float) -> None:
    """P_A = S^(1/2) Q Q^T S^(-1/2), Q an orthonormal basis of S^(-1/2) Sigma_xz: a ridge in S would erase as well,
    and move rows further."""
    g = torch.Generator().manual_seed(0)
    y = torch.rand(400, generator=g) < 0.4
    turn = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q
    x = torch.randn(400, 6, generator=g, dtype=torch.float64) * torch.logspace(-3, 0, 6).double() * width
    x = (x + y[:, None] * 0.5 * x.std(0)) @ turn
    centred, z = x - x.mean(0), y.double() - y.double().mean()
    S, values = centred.T @ centred / 400, centred.T @ z[:, None] / 400
    variance, basis = torch.linalg.eigh(S)
    root, inverse = (basis * variance**power @ basis.T for power in (0.5, -0.5))
    Q = torch.linalg.qr(inverse @ values).Q
    expected = centred @ (root @ Q @ Q.T @ inverse).T
    moved = x - LEACE().fit(x, y).transform(x)
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=1e-9 * width)
