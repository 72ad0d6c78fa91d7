"""Logits of prompts as another program has them, the plain Hugging Face module for one, next to ours."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument
from interp.export.report import ExportReport, check_difference

Logits: TypeAlias = Sequence[Float[Tensor, "pos vocab"]]


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


def largest_difference(one: Logits, other: Logits) -> float:
    """The largest absolute difference between logits of the same prompts."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def compare_logits(report: ExportReport, reader: str, *, plain: Logits, ours: Logits, theirs: Logits) -> ExportReport:
    """The report with how far the reader's logits are from ours, next to how far ours are from the plain model's.

    Args:
        report: what was written.
        reader: what gave `theirs`.
        plain: of our model without what was exported.
        ours: of our model with it.
        theirs: of the reader, from the files.

    Raises:
        WrongState: they differ by more than a tenth of the whole effect.
    """
    difference, effect = largest_difference(theirs, ours), largest_difference(plain, ours)
    compared = replace(report, checked_with=reader, difference=difference, effect=effect)
    check_difference(compared)
    return compared
