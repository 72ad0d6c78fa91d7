"""Products with sparse codes, forward and backward, that never build the dense matrix of codes."""

import warnings
from functools import cached_property
from itertools import pairwise
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

import interp.sae.numerics.kernels as kernels


@final
class Code:
    """Latents kept of each row: their values, which they are, their rows, and where each row begins.

    The matrix F of shape n x d_sae with F[rows[j], latents[j]] = values[j] and 0 elsewhere; rows rise, and row i begins
    at offsets[i]. A latent may be kept and off: its value is 0. What is said of each kept latent, like `values`, is one
    list in the same order. Memory for what is kept; products cost 2 d_model for each latent kept.

    Examples:
        >>> code = Code.padded(torch.tensor([[2.0], [3.0]]), torch.tensor([[1], [0]]), d_sae=4)
        >>> code.decode(torch.eye(4)).tolist()
        [[0.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        values: Float[Tensor, "_"],
        latents: Int[Tensor, "_"],
        rows: Int[Tensor, "_"],
        offsets: Int[Tensor, "_"],
        d_sae: int,
    ) -> None:
        self.values, self.latents, self.rows, self.offsets, self.d_sae = values, latents, rows, offsets, d_sae

    @classmethod
    def padded(cls, values: Float[Tensor, "n _"], indices: Int[Tensor, "n _"], d_sae: int) -> "Code":
        """As many latents in each row."""
        n, k = values.shape
        numbers = torch.arange(n + 1, device=values.device)
        rows = numbers[:-1, None].expand(n, k).flatten()
        return cls(values.flatten(), indices.flatten(), rows, k * numbers, d_sae)

    @classmethod
    def at(cls, values: Float[Tensor, "_"], places: Int[Tensor, "_"], n: int, d_sae: int) -> "Code":
        """At places of the flattened n x d_sae matrix, which rise."""
        rows = places // d_sae
        begins = torch.searchsorted(rows, torch.arange(n + 1, device=places.device))
        return cls(values, places - rows * d_sae, rows, begins, d_sae)

    @cached_property
    def _by_latent(self) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"], Int[Tensor, "_"]]:
        """The list in the order of latents, the rows in that order, and where each latent of it begins."""
        ordered, order = self.latents.int().sort(stable=True)
        latents = torch.arange(self.d_sae + 1, device=ordered.device, dtype=ordered.dtype)
        return order, self.rows[order], torch.searchsorted(ordered, latents)

    def of(self, per_latent: Float[Tensor, "latent"]) -> Float[Tensor, "_"]:
        """A figure of each latent, said of each that is kept."""
        return per_latent[self.latents]

    def by_row(self, per_row: Float[Tensor, "n"]) -> Float[Tensor, "_"]:
        """A figure of each row, said of each latent kept in it."""
        return per_row[self.rows]

    def decode(self, rows: Float[Tensor, "latent d_model"]) -> Float[Tensor, "n d_model"]:
        """F W: for each row, the sum of the rows of W that it keeps, weighted by its values."""
        return self.times(self.values, rows)

    def times(self, values: Float[Tensor, "_"], rows: Float[Tensor, "latent d_model"]) -> Float[Tensor, "n d_model"]:
        """F W with other values in F's places."""
        return _bags(self.latents, rows, self.offsets, values)

    def dots(self, dense: Float[Tensor, "n d_model"], rows: Float[Tensor, "latent d_model"]) -> Float[Tensor, "_"]:
        """The entries of Y W^T that are kept: the gradient of `decode` by its values, Y being that by its result."""
        if kernels.usable(rows):
            return kernels.dots(dense, self.rows, rows, self.latents)
        if dense.device.type != "cpu" or dense.dtype not in (torch.float32, torch.float64):
            return (dense[self.rows] * rows[self.latents]).sum(1)
        shape = (len(dense), len(rows))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            zeros = torch.zeros_like(self.latents, dtype=dense.dtype)
            pattern = torch.sparse_csr_tensor(self.offsets, self.latents, zeros, shape, check_invariants=False)
        return torch.sparse.sampled_addmm(pattern, dense, rows.T, beta=0.0).values()

    def transposed_times(
        self, values: Float[Tensor, "_"], dense: Float[Tensor, "n d_model"]
    ) -> Float[Tensor, "latent d_model"]:
        """F^T Y with other values in F's places: for each latent, the weighted sum of the dense rows that keep it."""
        order, rows, offsets = self._by_latent
        return _bags(rows, dense, offsets, values[order])

    def add_transposed(
        self, whole: Float[Tensor, "latent d_model"], values: Float[Tensor, "_"], dense: Float[Tensor, "n d_model"]
    ) -> None:
        """Add `transposed_times` to a matrix."""
        whole += self.transposed_times(values, dense)

    def per_row(self, values: Float[Tensor, "_"]) -> Float[Tensor, "n"]:
        """For each row, the sum of the values said of what is kept in it."""
        return torch.bincount(self.rows, weights=values, minlength=len(self.offsets) - 1).to(values.dtype)

    def total(self, values: Float[Tensor, "_"]) -> Float[Tensor, "latent"]:
        """For each latent, the sum of the values said of it."""
        return torch.bincount(self.latents, weights=values, minlength=self.d_sae).to(values.dtype)

    def most(self, values: Float[Tensor, "_"]) -> Float[Tensor, "latent"]:
        """For each latent, the largest of the values said of it; 0 where there is none above."""
        return largest_per_latent(values, self.latents, self.d_sae)


def split_columns(code: Code, widths: tuple[int, ...]) -> list[Code]:
    """Split the columns of a code into pieces that end at these widths.

    Examples:
        >>> code = Code.padded(torch.tensor([[2.0, 3.0]]), torch.tensor([[1, 2]]), d_sae=4)
        >>> [piece.latents.tolist() for piece in split_columns(code, (2, 4))]
        [[1], [0]]
    """
    return [code] if widths == (code.d_sae,) else [_columns(code, a, b) for a, b in pairwise((0, *widths))]


def _columns(code: Code, start: int, stop: int) -> Code:
    """What is kept between two columns, as a code of those columns."""
    which = (code.latents >= start) & (code.latents < stop)
    counts = torch.nn.functional.pad(which.cumsum(0), (1, 0))
    latents = code.latents[which] - start
    return Code(code.values[which], latents, code.rows[which], counts[code.offsets], stop - start)


def _bags(indices: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    if kernels.usable(rows):
        return kernels.sums_of_rows(weights, indices, offsets, rows)
    return embedding_bag(indices, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def times_rows(
    values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."], rows: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "n d_model"]:
    """Decode as many latents in each row: y_i = sum_j values_ij rows[indices_ij]."""
    if kernels.usable(rows):
        return kernels.kernel_times_rows(values, indices, rows)
    return embedding_bag(indices, rows, mode="sum", per_sample_weights=values)


def largest_per_latent(
    values: Float[Tensor, "..."], indices: Int[Tensor, "..."], d_sae: int
) -> Float[Tensor, "latent"]:
    """The column maxima of a code: for each latent, its largest value over all rows, 0 where it is off in all."""
    return values.new_zeros(d_sae).scatter_reduce_(0, indices.flatten(), values.flatten(), "amax")
