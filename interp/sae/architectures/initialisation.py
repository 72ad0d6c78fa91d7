"""How weights start: random unit rows, and the options that look at data."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from xxhash import xxh3_64

from hooks.errors import InvalidArgument
from interp.sae.architectures.sae import SAE, convert_rows
from interp.sae.numerics.median import geometric_median

BLOCK: Final = 1 << 14
"""Rows that one seed draws; those of later blocks have seeds of their own, so that a process draws its own alone."""


def random_rows(rows: int, width: int, seed: int, own: range | None = None) -> Float[Tensor, "_ d_model"]:
    """Unit vectors in random directions: `rows` of them, or of those the ones of some numbers.

    A row is the same whichever others are asked for, and only blocks of 16,384 rows that hold some are drawn.

    Examples:
        >>> random_rows(3, 8, seed=0).norm(dim=1).allclose(torch.ones(3))
        True
        >>> random_rows(9, 8, seed=0, own=range(4, 6)).equal(random_rows(9, 8, seed=0)[4:6])
        True
    """
    own = range(rows) if own is None else own
    drawn = []
    for start in range(own.start // BLOCK * BLOCK, own.stop, BLOCK):
        end = min(start + BLOCK, rows)
        mixed = seed if start == 0 else xxh3_64(f"{seed} {start}".encode()).intdigest() >> 33
        block = torch.randn(end - start, width, generator=torch.Generator().manual_seed(mixed))
        drawn.append(block[max(own.start - start, 0) : own.stop - start].clone())
    found = torch.cat(drawn)
    return found / found.norm(dim=1, keepdim=True)


@torch.no_grad()
def tie(sae: SAE) -> None:
    """Set the encoder to the decoder's transpose, W_enc = W_dec^T.

    Raises:
        InvalidArgument: the two read and write other widths, as a transcoder may.

    Examples:
        ```python
        from_data(sae, x)
        tie(sae)
        ```
    """
    transposed = sae.W_dec.movedim(0, -1)
    if transposed.shape != sae.W_enc.shape:
        raise InvalidArgument(
            f"the encoder is {tuple(sae.W_enc.shape)} and the decoder's transpose {tuple(transposed.shape)}: "
            "only where it reads and writes the same width can the one be set to the other"
        )
    sae.W_enc.copy_(transposed)


@torch.no_grad()
def median_bias(sae: SAE, rows: Float[Tensor, "n *d"]) -> None:
    """Set b_dec to the geometric median of what is reconstructed (Bricken et al. 2023).

    Examples:
        ```python
        median_bias(sae, next(iter(source)))
        ```
    """
    y = sae.parts(convert_rows(sae, rows))[1]
    sae.b_dec.copy_(geometric_median(y.flatten(1)).view_as(sae.b_dec))


@torch.no_grad()
def from_data(sae: SAE, rows: Float[Tensor, "n *d"], *, seed: int = 0) -> None:
    """Point each decoder row from b_dec to a random activation, keeping the row's norm.

    Raises:
        InvalidArgument: fewer activations than latents, or too many that equal b_dec.

    Examples:
        ```python
        median_bias(sae, x)
        from_data(sae, x)
        ```
    """
    if len(sae.W_dec) != sae.d_sae:
        raise InvalidArgument(
            f"latents of a {type(sae).__name__} write to several layers: leave its decoders random, as they are made"
        )
    about = (sae.parts(convert_rows(sae, rows))[1] - sae.b_dec).flatten(1)
    about = about[about.norm(dim=1) > 0]
    if len(about) < sae.d_sae:
        raise InvalidArgument(
            f"{len(about)} activations that differ from b_dec were given for {sae.d_sae} latents: each needs its own"
        )
    chosen = about[torch.randperm(len(about), generator=torch.Generator().manual_seed(seed))[: sae.d_sae]]
    norm = sae.W_dec.flatten(1).norm(dim=1, keepdim=True)
    sae.W_dec.copy_((norm * chosen / chosen.norm(dim=1, keepdim=True)).view_as(sae.W_dec))
