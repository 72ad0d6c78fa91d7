"""Sparse products against the dense ones they stand for."""

import torch

from interp.sae.sparse import Transposed, largest_per_latent, row_dots, times_rows, total_per_latent

N, D, LATENTS, K = 13, 5, 17, 4


def code() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, indices, and the dense matrix they stand for."""
    g = torch.Generator().manual_seed(0)
    values = torch.rand(N, K, generator=g, dtype=torch.float64)
    indices = torch.stack([torch.randperm(LATENTS, generator=g)[:K] for _ in range(N)])
    return values, indices, torch.zeros(N, LATENTS, dtype=torch.float64).scatter(1, indices, values)


def dense(rows: int) -> torch.Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_decoding_is_the_product_of_codes_and_rows() -> None:
    values, indices, f = code()
    assert torch.allclose(times_rows(values, indices, dense(LATENTS)), f @ dense(LATENTS))


def test_row_dots_are_the_kept_entries_of_the_dense_gradient() -> None:
    _, indices, _ = code()
    whole = dense(N) @ dense(LATENTS).T
    assert torch.allclose(row_dots(dense(N), indices, dense(LATENTS)), whole.gather(1, indices))


def test_the_transposed_index_list_gives_the_transposed_product() -> None:
    values, indices, f = code()
    assert torch.allclose(Transposed(indices, LATENTS).times(values, dense(N)), f.T @ dense(N))


def test_totals_and_maxima_are_those_of_the_dense_columns() -> None:
    values, indices, f = code()
    assert torch.allclose(total_per_latent(values, indices, LATENTS), f.sum(0))
    assert torch.equal(largest_per_latent(values, indices, LATENTS), f.amax(0))
