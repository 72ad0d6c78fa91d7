"""Clamping a sparse autoencoder's latent, as published: the reconstruction's error stays as it is.

Templeton et al. 2024, "Scaling Monosemanticity": x is split into SAE(x) + error(x), one latent of SAE(x) is set
to c, and error(x) is added back. With f_i(x) the latent's value and d_i its decoder row this is
x' = x + (c - f_i(x)) d_i, exactly.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Intervention, Position
from hooks.errors import InvalidArgument
from hooks.interventions import apply
from hooks.position import everywhere
from interp.sae import SAE
from interp.steering.steering import Steering

ROWS = 4096  # encoded at once, so that the dense latents of a long batch never exist together


def clamp_latent(sae: SAE, latent: int, at: Position = everywhere) -> Steering:
    """Steer by clamping a latent; a dose of one is the latent's largest activation in training.

    Its control clamps along a random direction of the decoder row's norm: x' = x + (c - f_i(x)) r, |r| = |W_dec[i]|.

    f_i(x) is the value after the selection, so a token where the latent is not among the k largest counts as 0.

    Raises:
        OutOfRange: the SAE does not have the latent.
        InvalidArgument: the latent never fired in training, so that it has no scale; the SAE has no site, or writes at
            another site than it reads, as a transcoder does.

    Cost: one encoding of every selected token.

    Examples:
        ```python
        with steer(model, clamp_latent(sae, 17), 5.0):
            model.generate("I walked")
        ```
    """
    direction = sae.direction(latent)
    if direction.site != sae.site:
        raise InvalidArgument(
            f"latent {latent} is read at {sae.site} and written at {direction.site}, where it has no value to clamp: "
            f"use add_direction(sae.direction({latent}))"
        )
    maximum = float(sae.max_activation[latent])

    def rule(vector: Float[Tensor, "d_model"], dose: float) -> Intervention:
        c = dose * maximum

        def clamp(x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
            f_i = torch.cat([sae.encode(rows)[:, latent] for rows in x.split(ROWS)])
            return x + ((c - f_i)[:, None] * vector.to(f_i)).to(x)

        return apply(clamp, at=at)

    return Steering(
        site=direction.site,
        source=f"clamp of SAE latent {latent}",
        unit="the latent's largest activation in training",
        vector=direction.vector,
        rule=rule,
        fingerprint=direction.fingerprint,
    )
