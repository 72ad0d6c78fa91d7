"""Triton kernels against the plain products; where Triton is missing, what is said of that.

Without a GPU: `TRITON_INTERPRET=1 python -m pytest tests/interp/sae/numerics/test_kernels.py`, with Triton installed.
"""

import pytest
import torch

from interp.sae import SAE, BatchTopK, MatryoshkaBatchTopK, TopK
from interp.sae.numerics import kernels
from interp.sae.numerics.sparse import Code, times_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(kernels.triton is None, reason="no Triton: needs a GPU, or TRITON_INTERPRET=1")
SHAPES = [(13, 4, 17, 5), (6, 1, 9, 256), (9, 7, 40, 300)]  # rows, kept, latents, width


def code(n: int, k: int, latents: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    values = torch.rand(n, k, generator=g) * (torch.rand(n, k, generator=g) > 0.2)
    indices = torch.stack([torch.randperm(latents, generator=g)[:k] for _ in range(n)])
    return values.to(DEVICE), indices.to(DEVICE)


def dense(rows: int, d: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def test_the_plain_products_serve_where_there_is_no_gpu_and_for_other_precisions() -> None:
    assert not kernels.usable(torch.zeros(3))
    assert not kernels.usable(torch.zeros(3, dtype=torch.float64, device=DEVICE))


@needs_triton
@pytest.mark.parametrize(("n", "k", "latents", "d"), SHAPES)
def test_kernels_decode_and_differentiate_as_dense_products_do(n: int, k: int, latents: int, d: int) -> None:
    (values, indices), rows, g = code(n, k, latents), dense(latents, d), dense(n, d, 2)
    values.requires_grad_()
    rows.requires_grad_()
    truth = torch.zeros(n, latents, device=DEVICE).scatter(1, indices, values) @ rows
    found = kernels.kernel_times_rows(values, indices, rows)
    assert torch.allclose(found, truth, atol=1e-5)
    for ours, theirs in zip(*(torch.autograd.grad(y, (values, rows), g) for y in (found, truth)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@needs_triton
@pytest.mark.parametrize(("n", "k", "latents", "d"), SHAPES)
def test_kernels_are_the_plain_products(n: int, k: int, latents: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (values, indices), rows, g = code(n, k, latents), dense(latents, d), dense(n, d, 2)
    both = []
    for use in (False, True):
        monkeypatch.setattr(kernels, "usable", lambda _, use=use: use)
        kept = Code.padded(values, indices, latents)
        products = (kept.decode(rows), kept.dots(g, rows), kept.transposed_times(kept.values, g))
        both.append((times_rows(values, indices, rows), *products))
    for plain, kernel in zip(*both, strict=True):
        assert torch.allclose(kernel, plain, atol=1e-5)


@needs_triton
@pytest.mark.parametrize(
    "sae", [TopK(12, 40, 4), BatchTopK(12, 40, 3.5), MatryoshkaBatchTopK(12, 40, 4, widths=(9,))], ids=lambda s: type(s)
)
def test_gradients_by_kernels_are_autograds_of_the_dense_loss(sae: SAE, monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x, dead = sae.to(DEVICE), dense(30, 12), torch.arange(40, device=DEVICE) % 3 == 0
    sae.objective().initialise(x)
    used = []
    monkeypatch.setattr(kernels, "usable", lambda _: used.append(1) is None)
    sae.objective().gradients(x, dead)
    assert used
    truth = torch.autograd.grad(sae.objective().loss(x, dead).loss, [*sae.parameters()])
    for parameter, expected in zip(sae.parameters(), truth, strict=True):
        assert parameter.grad is not None
        assert float((parameter.grad - expected).norm() / expected.norm()) < 1e-5
