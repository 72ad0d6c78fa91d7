"""Latents ranked in half precision first, where hardware multiplies it; only candidates are computed exactly."""

from collections.abc import Iterator
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.border import Count
from interp.sae.numerics.ranking import BLOCK, Encoder, guess_threshold
from interp.sae.numerics.sparse import Code
from interp.sae.numerics.top_k import places_above, top_k_places

CANDIDATES: Final = 2  # for each latent kept
NEAR_THRESHOLD: Final = 1.6  # for each expected above a threshold, which is itself somewhat low


@final
class PreselectedRanking:
    """A bfloat16 product names two candidates for each latent kept; these are computed and ranked in full precision.

    What is kept has its exact value. A latent that is among the k largest is lost only if rounding put it after k
    others, so that the selection is `Exact`'s up to a few latents in ten thousand, and those the smallest; it is not
    the same function. Faster where the processor multiplies bfloat16 in hardware (`precision()` says bfloat16),
    slower elsewhere. One product in bfloat16, and 4 d_model for each latent kept.

    Examples:
        ```python
        sae = TopK(d_in=768, d_sae=12_288, k=32)
        sae.ranking = PreselectedRanking()
        train(sae, source)
        ```
    """

    def of_rows(self, x: Float[Tensor, "n d_model"], by: Encoder, k: Count) -> Code:
        """The k largest of each row."""
        found, count = [], min(CANDIDATES * k, len(by.W))
        for part, rough in _rough_blocks(x, by):
            near = top_k_places(rough, count)
            values = _exactly(Code.padded(rough.new_zeros(near.shape), near, len(by.W)), part, by).view_as(near)
            best = top_k_places(values, k)
            found.append((values.gather(1, best), near.gather(1, best)))
        values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Code.padded(values, indices, len(by.W))

    def above(
        self, x: Float[Tensor, "n d_model"], by: Encoder, per_row: float | int
    ) -> tuple[float, Float[Tensor, "_"], Int[Tensor, "_"]]:
        """A threshold, and what is above it, about `per_row` in a row: values, places in order."""
        threshold, low, start, values, places = None, 0.0, 0, [], []
        for part, rough in _rough_blocks(x, by):
            if threshold is None:
                threshold, low = guess_threshold(rough, per_row), guess_threshold(rough, NEAR_THRESHOLD * per_row)
            near = places_above(rough, low)
            exact = _exactly(Code.at(rough.new_zeros(len(near)), near, len(part), len(by.W)), part, by)
            kept = (exact > threshold).nonzero().flatten()
            values.append(exact[kept])
            places.append(near[kept] + start * len(by.W))
            start += len(part)
        assert threshold is not None, "there are no rows"
        return threshold, torch.cat(values), torch.cat(places)


def _exactly(code: Code, x: Float[Tensor, "n d_model"], by: Encoder) -> Float[Tensor, "_"]:
    return code.dots(x, by.W).add_(code.of(by.b))


def _rough_blocks(
    x: Float[Tensor, "n d_model"], by: Encoder
) -> Iterator[tuple[Float[Tensor, "_ d_model"], Float[Tensor, "_ latent"]]]:
    """Blocks of rows, and x W^T + b for them, computed in bfloat16."""
    W, b = by.W.bfloat16(), by.b.bfloat16()
    for part in x.split(BLOCK):
        yield part, torch.addmm(b, part.bfloat16(), W.T).to(x.dtype)
