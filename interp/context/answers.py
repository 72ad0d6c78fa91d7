"""Whether a model says whole answers while something is changed at one token of each prompt."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks import Intervention, Model, Position, Site, Tokens, intervene
from interp.common.completion import tokenise_completions

Make = Callable[[Position], Intervention]


@torch.no_grad()
def says_with(
    model: Model, prompts: Sequence[str], answers: Sequence[str], changes: Mapping[Site, Make]
) -> Bool[Tensor, "n"]:
    """Whether arg max, teacher-forced, is each whole answer, with changes made at the last token of each prompt.

    Args:
        model: a causal language model.
        prompts: of them.
        answers: one for each.
        changes: by site, what makes the intervention of a position; nothing is changed where there are none.

    Cost: one forward pass over all prompts.
    """
    asked = tokenise_completions(model, prompts, answers)
    target = asked.target

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        """The token before the answer's first."""
        del tokens
        first = target & (target.cumsum(1) == 1)
        return torch.roll(first, -1, 1)

    at = Position("the end of the prompt", select)
    with intervene(model, {site: make(at) for site, make in changes.items()}) if changes else nullcontext():
        best = model.run(asked.tokens)[:, :-1].argmax(-1)
    same = (best == asked.tokens.ids[:, 1:]) | ~target[:, 1:]
    return same.all(1).cpu()
