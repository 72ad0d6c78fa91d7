"""The direction of a group of latents: what an autoencoder adds when all of them are at their largest."""

from collections.abc import Sequence

import torch

from hooks import Direction
from hooks.errors import InvalidArgument
from interp.sae import SAE


def latent_group(sae: SAE, latents: Sequence[int], weights: Sequence[float | int] | None = None) -> Direction:
    """v = sum_i w_i m_i W_dec[i], with m_i the largest f_i seen in training and w_i = 1 unless given.

    Its length is its scale: a dose of one adds what the decoder adds with every latent at w_i times its maximum.
    `sae.direction(i)` is the same for one latent.

    Raises:
        OutOfRange: a latent that does not exist.
        InvalidArgument: no latents, one named twice, weights of another number, latents of a cross-layer transcoder
            that write to different layers, or a latent that never fired.

    Examples:
        ```python
        latent_group(sae, found.group.latents)
        ```
    """
    if not latents or len(set(latents)) != len(latents):
        raise InvalidArgument(f"the latents are {list(latents)}: give at least one, each once")
    weights = [1.0] * len(latents) if weights is None else list(weights)
    if len(weights) != len(latents):
        raise InvalidArgument(f"{len(weights)} weights were given for {len(latents)} latents: give one for each")
    parts = [sae.direction(i) for i in latents]
    if len(sites := dict.fromkeys(str(part.site) for part in parts)) > 1:
        raise InvalidArgument(
            f"latents {list(latents)} write at {', '.join(sites)}, and a direction is of one site: group "
            "those of one layer"
        )
    m = sae.max_activation[torch.tensor(list(latents), device=sae.max_activation.device)]
    w = torch.tensor(weights, dtype=m.dtype, device=m.device)
    v = torch.einsum("n,nd->d", w * m, torch.stack([part.vector for part in parts]))
    source = "sae latents " + " + ".join(f"{w:g} * {i}" for w, i in zip(weights, latents, strict=True))
    return Direction(v, parts[0].site, source, float(v.norm()), sae.fingerprint)
