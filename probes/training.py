"""Full-batch AdamW, for the probes whose problem is not convex."""

from collections.abc import Callable, Iterable, Sequence
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument, WrongState


def train(
    parameters: Sequence[Float[Tensor, "..."]],
    losses: Callable[[], Iterable[Float[Tensor, ""]]],
    *,
    steps: int,
    lr: float | int,
    weight_decay: float | int,
) -> None:
    """Lower a sum of losses in place by AdamW (Loshchilov and Hutter 2019), the learning rate falling along a cosine.

    The graph of one term is held at a time, so that terms may be batches of what does not fit in memory. Leaves the
    parameters without gradients, and works where gradients are switched off.

    Raises:
        InvalidArgument: no steps.
        WrongState: the loss is not finite.

    Examples:
        ```python
        train([w], lambda: [(w - 1).square().mean()], steps=100, lr=0.1, weight_decay=0.0)
        ```
    """
    if steps < 1:
        raise InvalidArgument(f"steps is {steps}; training needs at least 1")
    adamw = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, steps)
    last = torch.tensor(torch.nan)
    with torch.enable_grad():
        for _ in range(steps):
            adamw.zero_grad()
            terms = []
            for term in losses():
                term.backward()
                terms.append(term.detach())
            adamw.step()
            schedule.step()
            last = torch.stack(terms).sum()
    if not isfinite(float(last)):
        raise WrongState(f"the loss became {float(last)} within {steps} steps: lower lr")
    for parameter in parameters:
        parameter.grad = None
        parameter.requires_grad_(False)
