"""The sparse products of `sparse.py` as Triton kernels, for float32 tensors on a CUDA device.

Compiled and run on one NVIDIA H200 (PyTorch 2.11, Triton 3.6), and in Triton 3.9's interpreter on a CPU: the same as
the plain products, and so are the gradients of TopK, BatchTopK and Matryoshka. `benchmarks/sae_cuda.py` checks and
times them.
"""

# ruff: noqa: ANN001, ANN202
import os
from typing import Any, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor

triton: Any = None
tl: Any = None
if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1":
    try:
        import triton  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
        import triton.language as tl  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    except ImportError:
        pass

COLUMNS = 256  # of a row, at most, held by one program


def usable(x: Float[Tensor, "..."]) -> bool:
    """Whether the kernels take the place of the plain products: float32 on a CUDA device, and Triton is installed.

    Examples:
        >>> usable(torch.zeros(3))
        False
    """
    return triton is not None and x.is_cuda and x.dtype == torch.float32


def kernel_times_rows(
    values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."], rows: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "n d_model"]:
    """y_i = sum_j values_ij rows[indices_ij], differentiable in values and rows."""
    return _TimesRows.apply(values, indices, rows)  # pyright: ignore[reportReturnType]


def dots(
    dense: Float[Tensor, "n d_model"],
    places: Int[Tensor, "_"],
    rows: Float[Tensor, "latent d_model"],
    indices: Int[Tensor, "_"],
) -> Float[Tensor, "_"]:
    """g_e = dense[places_e] . rows[indices_e]."""
    dense, places, rows, indices = (t.contiguous() for t in (dense, places, rows, indices))
    out = dense.new_empty(len(places))
    if out.numel():
        _dots[(len(places),)](dense, places, rows, indices, out, rows.shape[1], _width(rows.shape[1]))
    return out


def sums_of_rows(
    weights: Float[Tensor, "_"], places: Int[Tensor, "_"], offsets: Int[Tensor, "_"], dense: Float[Tensor, "n d_model"]
) -> Float[Tensor, "latent d_model"]:
    """y_i = sum_e weights_e dense[places_e], e running from offsets_i up to offsets_{i + 1}."""
    weights, places, offsets, dense = (t.contiguous() for t in (weights, places, offsets, dense))
    d, width = dense.shape[1], _width(dense.shape[1])
    out = dense.new_empty(len(offsets) - 1, d)
    if out.numel():
        _sums_of_rows[(len(out), -(-d // width))](weights, places, offsets, dense, out, d, width)
    return out


def _width(d: int) -> int:
    return min(COLUMNS, 1 << (d - 1).bit_length())


class _TimesRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices, rows)
        values, indices, rows = values.contiguous(), indices.contiguous(), rows.contiguous()
        (n, k), d = indices.shape, rows.shape[1]
        out, width = rows.new_empty(n, d), _width(d)
        if out.numel():
            _times_rows[(n, -(-d // width))](values, indices, rows, out, k, d, width)
        return out

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        values, indices, rows = ctx.saved_tensors
        places = torch.arange(len(indices), device=rows.device)[:, None].expand_as(indices).flatten()
        for_values = None
        if ctx.needs_input_grad[0]:
            for_values = dots(outer[0], places, rows, indices.flatten()).view_as(indices)
        if not ctx.needs_input_grad[2]:
            return for_values, None, None
        ordered, order = indices.flatten().sort(stable=True)
        offsets = torch.searchsorted(ordered, torch.arange(len(rows) + 1, device=rows.device, dtype=ordered.dtype))
        for_rows = sums_of_rows(values.flatten()[order], order // indices.shape[1], offsets, outer[0])
        return for_values, None, for_rows


if triton is not None:

    @triton.jit
    @no_type_check
    def _times_rows(values, indices, rows, out, k, d, width: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
        n = tl.program_id(0).to(tl.int64)
        columns = tl.program_id(1) * width + tl.arange(0, width)
        total = tl.zeros((width,), tl.float32)
        for j in range(k):
            latent = tl.load(indices + n * k + j).to(tl.int64)
            row = tl.load(rows + latent * d + columns, mask=columns < d, other=0.0)
            total += tl.load(values + n * k + j) * row
        tl.store(out + n * d + columns, total, mask=columns < d)

    @triton.jit
    @no_type_check
    def _dots(dense, places, rows, indices, out, d, width: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
        e = tl.program_id(0).to(tl.int64)
        place, latent = tl.load(places + e).to(tl.int64), tl.load(indices + e).to(tl.int64)
        total = tl.zeros((width,), tl.float32)
        for start in range(0, d, width):
            columns = start + tl.arange(0, width)
            left = tl.load(dense + place * d + columns, mask=columns < d, other=0.0)
            total += left * tl.load(rows + latent * d + columns, mask=columns < d, other=0.0)
        tl.store(out + e, tl.sum(total, 0))

    @triton.jit
    @no_type_check
    def _sums_of_rows(weights, places, offsets, dense, out, d, width: tl.constexpr):  # pyright: ignore[reportInvalidTypeForm]
        latent = tl.program_id(0).to(tl.int64)
        columns = tl.program_id(1) * width + tl.arange(0, width)
        total = tl.zeros((width,), tl.float32)
        for e in range(tl.load(offsets + latent), tl.load(offsets + latent + 1)):
            row = tl.load(places + e).to(tl.int64)
            total += tl.load(weights + e) * tl.load(dense + row * d + columns, mask=columns < d, other=0.0)
        tl.store(out + latent * d + columns, total, mask=columns < d)
