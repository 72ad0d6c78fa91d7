"""Resampling: dead latents begin again at the activations that are explained worst."""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.border import Count
from hooks.errors import InvalidArgument
from interp.sae.architectures.objective import Objective
from interp.sae.architectures.sae import CHUNK
from interp.sae.training.adam import Adam


@final
@dataclass(frozen=True)
class Resampling:
    """When dead latents are resampled: after these shares of the run (Bricken et al. 2023, Neuron resampling).

    Their 25,000th to 100,000th step, of 200,000, are the eighths here. Latents are dead when they have
    been silent for the `dead_after` of `train`; `rows` activations are looked at.

    Examples:
        ```python
        train(Gated(256, 2048), source, resampling=Resampling(), dead_after=1_000_000)
        ```
    """

    at: tuple[float | int, ...] = (0.125, 0.25, 0.375, 0.5)
    rows: Count = 16_384

    def __post_init__(self) -> None:
        if not self.at or not all(0 < share < 1 for share in self.at) or not 1 <= self.rows < math.inf:
            raise InvalidArgument(
                f"at is {self.at} and rows {self.rows}: give shares of the run between 0 and 1, and at least 1 row"
            )

    def due(self, step: int, steps: Count) -> bool:
        """Whether one of the moments is between this step and the one before."""
        return any(step == max(1, round(share * steps)) for share in self.at)


@torch.no_grad()
def resample(
    objective: Objective[Any],
    optimiser: Adam,
    rows: Float[Tensor, "n *d"],
    dead: Bool[Tensor, "latent"],
    generator: torch.Generator,
) -> int:
    """Point dead latents at badly explained activations, and return how many there were.

        j ~ p(j) ~ (||y_j - y_hat_j||^2)^2,        W_dec,i <- c (y_j - E y) / ||y_j - E y||
        W_enc,i <- 0.2 E_alive||W_enc|| (x_j - E x) / ||x_j - E x||,        b_enc,i <- 0

    with c = 1 where decoder rows have unit norm, else the mean norm of the living ones. Their moments in Adam become
    0, as do other parameters per latent; a threshold becomes the mean of the living. The centring keeps a large
    constant in all activations from being every new latent's direction. Costs one forward pass of the autoencoder
    over `rows`.

    Examples:
        ```python
        resample(objective, optimiser, rows, dead, torch.Generator().manual_seed(0))
        ```
    """
    sae = objective.sae
    latents = dead.nonzero().flatten()
    if not len(latents):
        return 0
    x, y = sae.parts(rows)
    chunks = zip(x.split(CHUNK), y.split(CHUNK), strict=True)
    losses = torch.cat([(y_ - sae(x_)).flatten(1).pow(2).sum(1) for x_, y_ in chunks])
    p = (losses / losses.max()).pow(2).double().cpu()
    drawn = p.multinomial(len(latents), replacement=int((p > 0).sum()) < len(latents), generator=generator)
    drawn = drawn.to(x.device)
    read, written = (_unit((part - part.mean(0))[drawn].flatten(1)) for part in (x, y))
    alive = ~dead
    some = bool(alive.any())
    encoders, decoders = sae.W_enc.flatten(0, -2).norm(dim=0), sae.W_dec.flatten(1).norm(dim=1)
    scale = 0.2 * encoders[alive].mean() if some else encoders.mean()
    length = 1.0 if objective.unit_norm_decoder else decoders[alive].mean() if some else decoders.mean()
    for name, parameter in sae.named_parameters():
        if parameter is sae.W_enc:
            parameter[..., latents] = (scale * read).T.reshape(*parameter.shape[:-1], -1)
        elif parameter is sae.W_dec:
            parameter[latents] = (length * written).view(-1, *parameter.shape[1:])
        elif parameter is not sae.b_dec and parameter.shape == (sae.d_sae,):
            parameter[latents] = parameter[alive].mean() if name == "threshold" and some else 0.0
        else:
            continue
        for moments in optimiser.moments(parameter):
            moments.index_fill_(parameter.ndim - 1 if parameter is sae.W_enc else 0, latents, 0.0)
    return len(latents)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
