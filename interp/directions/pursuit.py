"""A direction as a few latents of a dictionary: orthogonal matching pursuit in its decoder rows."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction
from hooks.errors import InvalidArgument
from interp.sae import SAE
from interp.sae.architectures.sae import check_whole

NOTHING = 1e-6  # of the direction's length: what is left along a row is rounding


def comparable_rows(sae: SAE, direction: Direction) -> Float[Tensor, "latent d_model"]:
    """The decoder rows that this process holds, having checked that a direction is in the same space.

    Raises:
        InvalidArgument: the direction was read from another model, at another site, or has another width.

    Examples:
        ```python
        comparable_rows(sae, direction) @ direction.unit
        ```
    """
    if sae.site is not None and direction.site not in sae.written_sites:
        written = " and ".join(map(str, sae.written_sites))
        raise InvalidArgument(f"the direction is at {direction.site}, the autoencoder writes at {written}")
    if sae.fingerprint and direction.fingerprint and sae.fingerprint != direction.fingerprint:
        raise InvalidArgument("the direction and the autoencoder come from different models, so they share no axes")
    rows = sae._rows_at(direction.site)
    if rows.shape[1:] != direction.vector.shape:
        raise InvalidArgument(f"{direction} does not have the width of the autoencoder, {tuple(rows.shape[1:])}")
    return rows


@torch.no_grad()
def pursuit(sae: SAE, direction: Direction, *, most: int = 3) -> Direction:
    """The best few latents can do for a direction v: v' = sum_i w_i W_dec[i], w_i > 0, near v in least squares.

    Latents are taken one by one, each the one whose row has the highest cosine with what is left of v, and all weights
    are fitted again after each (orthogonal matching pursuit, Pati et al. 1993); it ends early where a further latent
    would need a weight of 0 or less. Latents that never fired are left out. The result has the scale of v, so doses of
    the two compare. A steering vector's own encoding is no such thing: it is no activation, and its parts along a
    latent may be negative (Mayne et al. 2024, arXiv:2411.08790).

    Raises:
        InvalidArgument: fewer than one latent asked for, no latent with a positive cosine, or as `comparable_rows`.

    Examples:
        ```python
        pursuit(sae, found.baselines[0].direction)     # a difference of means, as three latents
        ```
    """
    if most < 1:
        raise InvalidArgument(f"{most} latents were asked for: give at least one")
    check_whole(sae, "a pursuit")
    rows = comparable_rows(sae, direction).double()
    v = direction.vector.to(rows)
    unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    alive = (sae.max_activation > 0) | ~sae.max_activation.any()
    chosen: list[int] = []
    weights = v.new_zeros(0)
    for _ in range(min(most, sae.d_sae)):
        along = (unit @ (v - weights @ rows[chosen])).where(alive, -torch.inf)
        along[chosen] = -torch.inf
        grown = [*chosen, int(along.argmax())]
        fitted = torch.linalg.lstsq(rows[grown].T, v[:, None]).solution[:, 0]
        if not bool((along[grown[-1]] > NOTHING * v.norm()) & (fitted > 0).all()):
            break
        chosen, weights = grown, fitted
    if not chosen:
        raise InvalidArgument(f"no latent's row has a positive cosine with {direction}")
    source = " + ".join(f"{w:.3g} * {i}" for w, i in zip(weights.tolist(), chosen, strict=True))
    vector = (weights @ rows[chosen]).to(direction.vector)
    return Direction(vector, direction.site, f"sae latents {source}", direction.scale, direction.fingerprint)
