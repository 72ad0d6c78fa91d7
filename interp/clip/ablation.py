"""Heads taken out of pictures' vectors, and which heads a change of the pictures goes through."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument, OutOfRange
from interp.clip.decomposition import Decomposition


def ablate_heads(
    parts: Decomposition, heads: Sequence[tuple[int, int]], mean: Decomposition | None = None
) -> Float[Tensor, "batch d_model"]:
    """Return pictures' vectors in which what some heads write is that of the mean picture.

    Only what a head writes into the vector itself is taken out, not what later layers make of it.

    Args:
        parts: of the pictures.
        heads: layer and number of each.
        mean: of the pictures whose mean is taken; the same ones by default.

    Raises:
        OutOfRange: a head that is not there.

    Examples:
        ```python
        ablate_heads(decompose_vectors(clip, pictures), [(3, 1)])
        ```
    """
    _, layers, n, _ = parts.heads.shape
    vectors, usual = parts.vectors, (mean or parts).heads.mean(0)
    for layer, head in dict.fromkeys(heads):
        if not (0 <= layer < layers and 0 <= head < n):
            raise OutOfRange(f"head {layer}.{head} was asked for, and there are {layers} layers of {n}: count from 0")
        vectors = vectors - parts.heads[:, layer, head] + usual[layer, head]
    return vectors


def head_effects(
    before: Decomposition, after: Decomposition, direction: Float[Tensor, "d_model"]
) -> Float[Tensor, "layer head"]:
    """Return how far each head moves along a direction from pictures to their twins with one thing changed.

    `mean_i (c_i after − c_i before) · direction`: a head that moves towards a landmark's text because fog came up
    reads fog as that landmark.

    Raises:
        InvalidArgument: not as many pictures after as before.

    Examples:
        ```python
        clear, fog = (decompose_vectors(clip, draw(part).images()) for part in (dry, foggy))
        head_effects(clear, fog, bridge - others)
        ```
    """
    if before.heads.shape != after.heads.shape:
        raise InvalidArgument(f"{len(before.heads)} pictures before and {len(after.heads)} after: give each its twin")
    moved = (after.heads - before.heads).mean(0)
    return torch.einsum("lhd,d->lh", moved, direction.to(moved))
