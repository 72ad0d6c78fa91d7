"""A batch's latents as gradients are taken: one sparse code where few are on, dense blocks of rows where many are."""

from collections.abc import Iterator
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae.architectures.objective import Step
from interp.sae.numerics.ranking import SAMPLE, Encoder, blocks
from interp.sae.numerics.sparse import Code
from interp.sae.numerics.top_k import places_above

SPARSE_SHARE: Final = 1 / 8  # of all latents: below it sparse products are the faster


@final
class DenseChunk:
    """Some rows of latents held whole; it has for every latent what `Code` has for those that are kept.

    Examples:
        >>> DenseChunk(torch.tensor([[2.0, 0.0]])).times(torch.tensor([[2.0, 0.0]]), torch.eye(2)).tolist()
        [[2.0, 0.0]]
    """

    def __init__(self, values: Float[Tensor, "n latent"]) -> None:
        self.values = values

    def of(self, per_latent: Float[Tensor, "latent"]) -> Float[Tensor, "latent"]:
        """A figure of each latent, as it is added to all rows."""
        return per_latent

    def by_row(self, per_row: Float[Tensor, "n"]) -> Float[Tensor, "n 1"]:
        """A figure of each row, as it is added to all latents."""
        return per_row[:, None]

    def times(
        self, values: Float[Tensor, "n latent"], rows: Float[Tensor, "latent d_model"]
    ) -> Float[Tensor, "n d_model"]:
        """F W."""
        return values @ rows

    def dots(
        self, dense: Float[Tensor, "n d_model"], rows: Float[Tensor, "latent d_model"]
    ) -> Float[Tensor, "n latent"]:
        """Y W^T."""
        return dense @ rows.T

    def add_transposed(
        self,
        whole: Float[Tensor, "latent d_model"],
        values: Float[Tensor, "n latent"],
        dense: Float[Tensor, "n d_model"],
    ) -> None:
        """Add F^T Y to a matrix."""
        whole.addmm_(values.T, dense)

    def per_row(self, values: Float[Tensor, "n latent"]) -> Float[Tensor, "n"]:
        """For each row, the sum over latents."""
        return values.sum(1)

    def total(self, values: Float[Tensor, "n latent"]) -> Float[Tensor, "latent"]:
        """For each latent, the sum over rows."""
        return values.sum(0)

    def most(self, values: Float[Tensor, "n latent"]) -> Float[Tensor, "latent"]:
        """For each latent, the largest value over rows."""
        return values.amax(0)


Chunk = Code | DenseChunk


def encode_chunks(
    x: Float[Tensor, "n d_model"], by: Encoder, floor: Float[Tensor, "latent"]
) -> Iterator[tuple[slice, Chunk]]:
    """Rows of x and what x W^T + b is there: all of it above `floor`, and of the rest as much as comes with it.

    What is below may be held or not, so nothing may depend on it. One dense product; memory for a block of
    dense latents, or for what is above.

    Examples:
        ```python
        for rows, z in encode_chunks(x, Encoder(W_enc.T, b_enc), torch.zeros(d_sae)):
            decoded = z.times(z.values.relu(), W_dec)
        ```
    """
    start, few, values, places = 0, None, [], []
    for pre in blocks(x, by):
        few = is_sparse(pre, floor) if few is None else few
        if few:
            places.append(found := places_above(pre, floor))
            values.append(pre.flatten().index_select(0, found))
            places[-1] += start * len(by.W)
        else:
            yield slice(start, start + len(pre)), DenseChunk(pre)
        start += len(pre)
    if few:
        yield slice(0, start), Code.at(torch.cat(values), torch.cat(places), start, len(by.W))


def is_sparse(pre: Float[Tensor, "n latent"], floor: Float[Tensor, "latent"]) -> bool:
    """Whether so few are above, judged by some rows, that sparse products are faster; on the CPU only.

    Examples:
        >>> is_sparse(torch.tensor([[1.0, -1.0, -1.0]]), torch.zeros(3))
        False
    """
    return pre.device.type == "cpu" and float((pre[:SAMPLE] > floor).double().mean()) < SPARSE_SHARE


def encode_dense_chunks(x: Float[Tensor, "n d_model"], by: Encoder) -> Iterator[tuple[slice, Chunk]]:
    """The same with all of it held.

    Examples:
        ```python
        for rows, z in encode_dense_chunks(x, Encoder(W_enc.T, b_enc)):
            z.values                          # rows, latent
        ```
    """
    start = 0
    for pre in blocks(x, by):
        yield slice(start, start + len(pre)), DenseChunk(pre)
        start += len(pre)


class BatchSums:
    """The sums over a batch that a step reports, added up piece by piece."""

    def __init__(self, rows: Float[Tensor, "n *d"], d_sae: int) -> None:
        self.n = len(rows)
        self.loss, self.squared_error, self.on = rows.new_zeros(3)
        self.largest = rows.new_zeros(d_sae)

    def add(self, piece: Chunk, f: Float[Tensor, "..."], error: Float[Tensor, "n d_model"]) -> None:
        """Take in the latents and the error of a piece's rows."""
        self.squared_error = self.squared_error + sum_of_squares(error)
        self.on = self.on + f.count_nonzero()
        self.largest = torch.maximum(self.largest, piece.most(f))

    def step(self) -> Step:
        """The batch's step; `loss` was added to by the architecture, but for the squared error."""
        squared_error = self.squared_error / self.n
        return Step(squared_error + self.loss, squared_error, self.on / self.n, self.largest)


def sum_of_squares(x: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """The sum of squares.

    Examples:
        >>> sum_of_squares(torch.tensor([3.0, 4.0])).item()
        25.0
    """
    return x.flatten().dot(x.flatten())


def zero_where_off(values: Float[Tensor, "*n"], f: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The values, set to 0 in their own memory where f is 0.

    Examples:
        >>> zero_where_off(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0])).tolist()
        [0.0, 2.0]
    """
    return torch.ops.aten.threshold_backward.grad_input(values, f, 0.0, grad_input=values)
