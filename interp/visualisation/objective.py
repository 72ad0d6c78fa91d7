"""Objectives: what a picture is made to be large in, at one site of a model."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Images, Network, Site
from hooks.border import Natural, NotNegative
from hooks.errors import InvalidArgument, OutOfRange
from hooks.forward import forward
from hooks.grid import Grid
from hooks.network import AnyModel
from hooks.temporary import Temporary

Score = Callable[[Float[Tensor, "batch pos _"], Grid | None], Float[Tensor, "batch"]]


@final
@dataclass(frozen=True, eq=False)
class Objective:
    """What is to become large: a number for each picture, of its activations at a site.

    Attributes:
        name: how it prints.
        site: where.
        score: from activations and the site's grid to a number for each picture.
        diversity: how much pictures of one batch are to differ from each other, 0 for not at all.
        vector: the direction, where it is one.
    """

    name: str
    site: Site
    score: Score
    diversity: float = 0.0
    vector: Tensor | None = None

    def __repr__(self) -> str:
        return self.name


def unit(site: Site, channel: Natural, place: tuple[int, int] | None = None) -> Objective:
    """One channel at one place of a map, its centre by default.

    Take `conv_pre`, where it has a slope even if the unit is silent; at `conv_act` it then has none.

    Examples:
        >>> from hooks.site import conv_pre
        >>> unit(conv_pre[0], 3)
        unit 3 of conv_pre.0
    """

    def score(acts: Tensor, grid: Grid | None) -> Tensor:
        _check(channel, acts)
        shape = (1, acts.shape[1]) if grid is None else grid.shape
        row, column = (shape[0] // 2, shape[1] // 2) if place is None else place
        at = row * shape[1] + column if grid is None else grid.place(row, column)
        return acts[:, at, channel]

    return Objective(f"unit {channel} of {site}" + ("" if place is None else f" at {place}"), site, score)


def channel(site: Site, number: Natural, diversity: NotNegative = 0.0) -> Objective:
    """The mean of one channel over all places of a map.

    Examples:
        >>> from hooks.site import conv_pre
        >>> channel(conv_pre[0], 3)
        channel 3 of conv_pre.0
    """

    def score(acts: Tensor, grid: Grid | None) -> Tensor:
        _check(number, acts)
        return acts[:, 0 if grid is None else grid.front :, number].mean(1)

    return Objective(f"channel {number} of {site}", site, score, diversity)


def along(direction: Direction, power: NotNegative = 0.0, diversity: NotNegative = 0.0) -> Objective:
    """How far places are along a direction, on average: `mean_p a_p·v̂ · max(0.1, cos(a_p, v))^power`.

    The cosine is divided by both lengths; with a power the picture is to be of the direction and of little else.

    Examples:
        >>> from hooks.site import embedding
        >>> along(Direction(torch.ones(3), embedding, "by hand"))
        along 'by hand' at embedding
    """
    v = F.normalize(direction.vector.detach().float(), dim=0)

    def score(acts: Tensor, grid: Grid | None) -> Tensor:
        rows = acts[:, 0 if grid is None else grid.front :]
        dot = rows @ v.to(rows)
        cosine = dot / rows.norm(dim=-1).clamp_min(1e-8)
        return (dot * cosine.clamp_min(0.1) ** power).mean(1)

    return Objective(f"along {direction.source!r} at {direction.site}", direction.site, score, diversity, v)


def latent(
    encode: Callable[[Float[Tensor, "*n d_model"]], Float[Tensor, "*n latent"]],
    site: Site,
    number: Natural,
    diversity: float = 0.0,
) -> Objective:
    """One latent of a dictionary, the mean over all places: `mean_p f_i(a_p)`.

    Args:
        encode: from activations to latents, such as `sae.encode`; one with a slope where the latent is silent, such as
            the `pre` of a `TopK`, is climbed from anywhere.
        site: that the dictionary reads.
        number: of the latent.
        diversity: how much pictures of one batch are to differ.

    Examples:
        >>> from hooks.site import conv_act
        >>> latent(lambda a: a, conv_act[2], 7)
        latent 7 of conv_act.2
    """

    def score(acts: Tensor, grid: Grid | None) -> Tensor:
        found = encode(acts[:, 0 if grid is None else grid.front :])
        _check(number, found)
        return found[..., number].mean(1)

    return Objective(f"latent {number} of {site}", site, score, diversity)


def random_direction(model: AnyModel, site: Site, seed: int) -> Direction:
    """A direction at random at a site: the control of every other."""
    vector = torch.randn(prod(model.tap(site).shape), generator=torch.Generator().manual_seed(seed))
    return Direction(vector, site, f"a random direction, seed {seed}")


def _check(number: int, acts: Tensor) -> None:
    if number >= acts.shape[-1]:
        raise OutOfRange(f"channel {number} was asked for, and there are {acts.shape[-1]}")


class _Enough(Exception):
    """What the objective is of has been computed."""


def values_of(
    model: Network, objective: Objective, pixels: Float[Tensor, "batch channel height width"]
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch pos _"]]:
    """The objective's value for each picture, and the activations it is of; gradients flow to the pixels.

    The pass ends at the objective's site.

    Raises:
        InvalidArgument: a model that reads no pictures through a processor.
    """
    if model.processor is None:
        raise InvalidArgument(
            f"{model.name} was loaded without a processor, so how pixels from 0 to 1 become its input is not known: "
            "load(module, inputs=…, processor=Processor(…))"
        )
    held: list[Tensor] = []

    def keep(acts: Tensor) -> None:
        held.append(acts)
        raise _Enough

    tokens = model.tokens(Images(pixels))
    with model.running.reading(tokens), Temporary() as changes, suppress(_Enough):
        model.tap(objective.site).attach_during(changes, keep)
        forward(model.hf, tokens)
    acts = held[-1].flatten(2)
    grid = model.grids.get(objective.site)
    return objective.score(acts, grid if grid is not None and len(grid) == acts.shape[1] else None), acts


def alikeness(acts: Float[Tensor, "batch pos _"]) -> Float[Tensor, ""]:
    """How alike the pictures of a batch are: `Σ_{i<j} cos(G_i, G_j)` of the Gram matrices of their channels.

    Examples:
        >>> float(alikeness(torch.ones(2, 3, 4)))
        1.0
    """
    gram = F.normalize(torch.einsum("bpc,bpk->bck", acts, acts).flatten(1), dim=1)
    return (gram @ gram.T).triu(1).sum()
