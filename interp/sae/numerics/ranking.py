"""Which latents an encoder makes largest, of each row or of a batch, with dense latents of a block of rows only."""

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.sae.numerics.sparse import Code
from interp.sae.numerics.top_k import kth, places_above, top_k_places

BLOCK: Final = 1024  # rows whose latents are dense at once; each block packs the weights again
SAMPLE: Final = 128  # rows of the first block that a threshold is guessed from


class Encoder(NamedTuple):
    """The affine map pre = x W^T + b whose results are ranked."""

    W: Float[Tensor, "latent d_model"]
    b: Float[Tensor, "latent"]


@runtime_checkable
class Ranking(Protocol):
    """How the largest of x W^T + b are found."""

    def of_rows(self, x: Float[Tensor, "n d_model"], by: Encoder, k: int) -> Code:
        """The k largest of each row."""
        ...

    def above(
        self, x: Float[Tensor, "n d_model"], by: Encoder, per_row: float | int
    ) -> tuple[float, Float[Tensor, "_"], Int[Tensor, "_"]]:
        """A threshold, and what is above it and above 0, about `per_row` in a row: values, places in order."""
        ...


@final
class ExactRanking:
    """Every latent is computed in the weights' own precision, a block of rows at a time.

    One dense product. `KSparse.ranking` is this unless set to something else.
    """

    def of_rows(self, x: Float[Tensor, "n d_model"], by: Encoder, k: int) -> Code:
        """The k largest of each row."""
        found = [(pre.gather(1, places), places) for pre in blocks(x, by) for places in [top_k_places(pre, k)]]
        values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Code.padded(values, indices, len(by.W))

    def above(
        self, x: Float[Tensor, "n d_model"], by: Encoder, per_row: float | int
    ) -> tuple[float, Float[Tensor, "_"], Int[Tensor, "_"]]:
        """A threshold, and what is above it and above 0, about `per_row` in a row: values, places in order."""
        threshold, values, places = None, [], []
        for number, pre in enumerate(blocks(x, by)):
            threshold = guess_threshold(pre, per_row) if threshold is None else threshold
            found = places_above(pre, threshold)
            values.append(pre.flatten().index_select(0, found))
            places.append(found + number * BLOCK * len(by.W))
        assert threshold is not None, "there are no rows"
        return threshold, torch.cat(values), torch.cat(places)


def guess_threshold(pre: Float[Tensor, "n latent"], per_row: float | int) -> float:
    """A threshold that about `per_row` entries of a row exceed, judged by the first rows; 0 if it were below.

    Examples:
        >>> guess_threshold(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), 2)
        2.0
    """
    sample = pre[:SAMPLE].flatten()
    beyond = int(per_row * len(pre[:SAMPLE]))
    if beyond >= len(sample):
        return 0.0
    if sample.device.type == "cpu":
        at = len(sample) - beyond - 1
        return max(0.0, float(np.partition(sample.float().numpy(), at)[at]))
    return max(0.0, float(kth(sample, beyond + 1)))


def blocks(x: Float[Tensor, "n d_model"], by: Encoder) -> Iterator[Float[Tensor, "_ latent"]]:
    """The dense results for one block of rows after the other, each in the memory of the last.

    Examples:
        >>> [len(pre) for pre in blocks(torch.zeros(1100, 2), Encoder(torch.eye(2), torch.zeros(2)))]
        [1024, 76]
    """
    place = x.new_empty(min(BLOCK, len(x)), len(by.W))
    for part in x.split(BLOCK):
        yield torch.addmm(by.b, part, by.W.T, out=place[: len(part)])
