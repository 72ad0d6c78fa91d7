"""Logits of prompts as another program would have them: the plain Hugging Face module, one prompt at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument


@torch.no_grad()
def plain_logits(hf: Any, model: Model, prompts: Sequence[str]) -> list[Float[Tensor, "pos vocab"]]:
    """The logits of each prompt from a plain module, on the ids that our model reads.

    Raises:
        InvalidArgument: no prompts.
    """
    if not prompts:
        raise InvalidArgument("no prompts were given to compare on: give at least one")
    given = []
    for prompt in prompts:
        tokens = model.tokens(prompt)
        given.append(hf(input_ids=tokens.ids.to(model.device)).logits[0].float().cpu())
    return given


@torch.no_grad()
def own_logits(model: Model, prompts: Sequence[str]) -> list[Float[Tensor, "pos vocab"]]:
    """The logits of each prompt from our model, with whatever is applied to it at the moment."""
    return [model.run(prompt)[0].float().cpu() for prompt in prompts]


def largest_difference(one: Sequence[Float[Tensor, "pos vocab"]], other: Sequence[Float[Tensor, "pos vocab"]]) -> float:
    """The largest absolute difference between logits of the same prompts."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
