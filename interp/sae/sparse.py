"""Products with k-sparse codes, forward and backward, that never build the dense matrix of codes.

A code is held as `values` and `indices`, both with a row per activation and a column per latent kept in it;
a latent that is kept but off has value 0.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

import interp.sae.kernels as kernels


def times_rows(
    values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."], rows: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "n d_model"]:
    """Decode: y_i = sum_j values_ij rows[indices_ij], the product F W of a sparse F with a dense W."""
    if kernels.usable(rows):
        return kernels.times_rows(values, indices, rows)
    return embedding_bag(indices, rows, mode="sum", per_sample_weights=values)


def row_dots(
    dense: Float[Tensor, "n d_model"], indices: Int[Tensor, "n ..."], rows: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "n ..."]:
    """The gradient of `times_rows` with respect to its values: g_ij = dense_i . rows[indices_ij]."""
    if kernels.usable(rows):
        return kernels.row_dots(dense, indices, rows)
    with torch.enable_grad():
        weights = dense.new_zeros(indices.shape, requires_grad=True)
        decoded = times_rows(weights, indices, rows.detach())
        return torch.autograd.grad(decoded, weights, dense)[0]


class Transposed:
    """The index list of a code read the other way: for every latent, the rows that keep it.

    Built once by a stable sort of the indices, used for each of the weight gradients.
    """

    def __init__(self, indices: Int[Tensor, "n ..."], d_sae: int) -> None:
        """Sort the index list by latent: O(n k) memory, no dense codes."""
        flat = indices.flatten().int()
        ordered, self._order = flat.sort(stable=True)
        self._rows = self._order // indices.shape[1]
        latents = torch.arange(d_sae + 1, device=flat.device, dtype=flat.dtype)
        self._offsets = torch.searchsorted(ordered, latents)

    def times(
        self, values: Float[Tensor, "n ..."], dense: Float[Tensor, "n d_model"]
    ) -> Float[Tensor, "latent d_model"]:
        """F^T Y: for each latent, the sum of the dense rows that keep it, weighted by its value there."""
        weights = values.flatten()[self._order]
        if kernels.usable(dense):
            return kernels.sums_of_rows(weights, self._rows, self._offsets, dense)
        return embedding_bag(
            self._rows, dense, self._offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )


def total_per_latent(
    values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."], d_sae: int
) -> Float[Tensor, "latent"]:
    """The column sums of a code: for each latent, its value added over all rows."""
    return torch.bincount(indices.flatten(), weights=values.flatten(), minlength=d_sae).to(values.dtype)


def largest_per_latent(
    values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."], d_sae: int
) -> Float[Tensor, "latent"]:
    """The column maxima of a code: for each latent, its largest value over all rows, 0 where it is off in all."""
    return values.new_zeros(d_sae).scatter_reduce_(0, indices.flatten(), values.flatten(), "amax")
