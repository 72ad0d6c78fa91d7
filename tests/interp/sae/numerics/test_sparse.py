"""Sparse products against the dense ones they are a code of."""

import torch

from interp.sae.numerics.sparse import Code, split_columns, times_rows

N, D, LATENTS, K = 13, 5, 17, 4


def padded() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, indices, and the dense matrix they are a code of."""
    g = torch.Generator().manual_seed(0)
    values = torch.rand(N, K, generator=g, dtype=torch.float64)
    indices = torch.stack([torch.randperm(LATENTS, generator=g)[:K] for _ in range(N)])
    return values, indices, torch.zeros(N, LATENTS, dtype=torch.float64).scatter(1, indices, values)


def ragged() -> tuple[Code, torch.Tensor]:
    """A code whose rows keep from none to all of their latents, and the dense matrix it is a code of."""
    g = torch.Generator().manual_seed(2)
    f = torch.rand(N, LATENTS, generator=g, dtype=torch.float64)
    f = f * (torch.rand(N, LATENTS, generator=g) < torch.linspace(0, 1, N)[:, None])
    places = f.flatten().nonzero().flatten()
    return Code.at(f.flatten()[places], places, N, LATENTS), f


def dense(rows: int) -> torch.Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_decoding_is_the_product_of_codes_and_rows() -> None:
    values, indices, f = padded()
    assert torch.allclose(times_rows(values, indices, dense(LATENTS)), f @ dense(LATENTS))
    assert torch.allclose(Code.padded(values, indices, LATENTS).decode(dense(LATENTS)), f @ dense(LATENTS))
    code, f = ragged()
    assert torch.allclose(code.decode(dense(LATENTS)), f @ dense(LATENTS))


def test_dots_are_the_kept_entries_of_the_dense_gradient() -> None:
    code, f = ragged()
    whole = dense(N) @ dense(LATENTS).T
    assert torch.allclose(code.dots(dense(N), dense(LATENTS)), whole[f > 0])
    half = code.dots(dense(N).half(), dense(LATENTS).half())  # by gathering: no sparse kernel takes half precision
    assert torch.allclose(half.double(), whole[f > 0], atol=0.02)


def test_the_transposed_list_gives_the_transposed_product() -> None:
    code, f = ragged()
    assert torch.allclose(code.transposed_times(code.values, dense(N)), f.T @ dense(N))


def test_totals_and_maxima_are_those_of_the_dense_columns() -> None:
    code, f = ragged()
    assert torch.allclose(code.total(code.values), f.sum(0))
    assert torch.equal(code.most(code.values), f.amax(0))


def test_pieces_of_a_code_are_columns_of_its_matrix() -> None:
    code, f = ragged()
    for piece, (a, b) in zip(split_columns(code, (3, 10, LATENTS)), ((0, 3), (3, 10), (10, LATENTS)), strict=True):
        assert torch.allclose(piece.decode(dense(LATENTS)[a:b]), f[:, a:b] @ dense(LATENTS)[a:b])
