"""One concept in pictures and captions: a latent of a dictionary over both towers, scored on what did not choose it."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.summary import summarise
from probes import Detection
from probes.metrics import detection


@final
@dataclass(frozen=True)
class SharedLatent:
    """A latent that is a concept in both towers.

    Attributes:
        latent: its number.
        pictures: how well it finds the concept's pictures, on those it was not chosen on.
        texts: likewise captions.
        shuffled: the F1 of pictures and of captions of the latent that is chosen for shuffled labels.
    """

    latent: int
    pictures: Detection
    texts: Detection
    shuffled: tuple[float, float]

    __repr__ = summarise


def centre_rows(rows: Float[Tensor, "n d_model"], like: Float[Tensor, "_ d_model"]) -> Float[Tensor, "n d_model"]:
    """Return rows of one tower less the mean of others of it, each of length 1: the gap between towers goes.

    Examples:
        >>> centre_rows(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([[1., 0.]])
    """
    return F.normalize(rows - like.mean(0), dim=-1)


def pair_rows(
    pictures: Float[Tensor, "n d_model"] | None, texts: Float[Tensor, "n d_model"] | None
) -> Float[Tensor, "n 2 d_model"]:
    """Return rows as a crosscoder over both towers reads them; of a tower that is None, zeros, its mean.

    Raises:
        InvalidArgument: both are None, or they have other shapes.

    Examples:
        >>> pair_rows(torch.ones(2, 3), None).shape
        torch.Size([2, 2, 3])
    """
    given = [one for one in (pictures, texts) if one is not None]
    if not given or len({one.shape for one in given}) > 1:
        raise InvalidArgument(f"rows of both towers in pairs, or of one; got {[list(one.shape) for one in given]}")
    empty = torch.zeros_like(given[0])
    return torch.stack([empty if pictures is None else pictures, empty if texts is None else texts], 1)


def find_shared_latent(
    pictures: Float[Tensor, "n latent"],
    is_pictured: Bool[Tensor, "n"],
    texts: Float[Tensor, "_ latent"],
    is_said: Bool[Tensor, "_"],
    *,
    seed: int = 0,
) -> SharedLatent:
    """Return the latent whose lesser F1 of the two towers is greatest on the first halves, scored on the second.

    Each tower has its threshold, that of the greatest F1 on the first half.

    Args:
        pictures: latents of pictures.
        is_pictured: which of them show the concept.
        texts: latents of captions.
        is_said: which of them name it.
        seed: of the shuffled labels.

    Raises:
        InvalidArgument: a half without the concept, or with nothing else.

    Examples:
        ```python
        find_shared_latent(sae.encode(rows), shows_bridge, sae.encode(said), names_bridge)
        ```
    """
    latent = _choose(pictures, is_pictured, texts, is_said)
    random = torch.Generator().manual_seed(seed)
    mixed = [y[torch.randperm(len(y), generator=random)] for y in (is_pictured, is_said)]
    other = _choose(pictures, mixed[0], texts, mixed[1])
    chance = (score_rows(pictures[:, other], mixed[0]).f1, score_rows(texts[:, other], mixed[1]).f1)
    return SharedLatent(
        latent, score_rows(pictures[:, latent], is_pictured), score_rows(texts[:, latent], is_said), chance
    )


def score_rows(scores: Float[Tensor, "n"], y: Bool[Tensor, "n"]) -> Detection:
    """Return how well scores find a concept on the second half, with the threshold that is best on the first.

    Raises:
        InvalidArgument: a half without the concept, or with nothing else.

    Examples:
        >>> y = torch.tensor([True, False, True, False])
        >>> score_rows(torch.tensor([2.0, 1.0, 3.0, 0.0]), y).f1
        1.0
    """
    half = len(y) // 2
    threshold = float(_best(scores[:half, None], y[:half])[1])
    return detection(scores[half:], y[half:], threshold)


def _choose(pictures: Tensor, is_pictured: Tensor, texts: Tensor, is_said: Tensor) -> int:
    halves = ((one[: len(one) // 2], y[: len(y) // 2]) for one, y in ((pictures, is_pictured), (texts, is_said)))
    return int(torch.minimum(*(_best(one, y)[0] for one, y in halves)).argmax())


def _best(scores: Float[Tensor, "n latent"], y: Bool[Tensor, "n"]) -> tuple[Tensor, Tensor]:
    """For each column the greatest F1 of any threshold, and that threshold."""
    if not bool(y.any()) or bool(y.all()):
        raise InvalidArgument(f"{int(y.sum())} of {len(y)} rows of a half have the concept: shuffle them, or give more")
    order = scores.sort(0, descending=True)
    hits = y[order.indices].double().cumsum(0)
    found = torch.arange(1, len(y) + 1, dtype=torch.double)[:, None]
    f1 = 2 * hits / (found + int(y.sum()))
    last = torch.cat([order.values[1:] < order.values[:-1], torch.ones_like(order.values[:1], dtype=torch.bool)])
    best = torch.where(last, f1, -1.0).max(0)  # equal scores fall on one side
    below = torch.cat([order.values[1:], order.values[-1:] - 1])
    value, under = (part.gather(0, best.indices[None])[0] for part in (order.values, below))
    return best.values, (value + under) / 2
