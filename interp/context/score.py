"""The in-context score: how much better a token is predicted late in a text than early in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Tokens
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.common.statistics import Estimate, bootstrap


@dataclass(frozen=True, eq=False)
class ContextScore:
    """Loss late in a text less loss early in it, in nats: below 0 where context is used.

    Attributes:
        score: loss(late) − loss(early), with an interval over texts.
        shuffled: the same after the tokens of each text are put into another order: what positions alone do.
        losses: mean loss of each position that is predicted.
    """

    score: Estimate
    shuffled: Estimate
    losses: Float[Tensor, "pos"]

    __repr__ = summarise


@torch.no_grad()
def measure_context_score(
    model: Model,
    data: Sequence[str] | Tokens | Int[Tensor, "batch pos"],
    *,
    early: int = 50,
    late: int = 500,
    seed: int = 0,
) -> ContextScore:
    """Measure the in-context score of Olsson et al. 2022, arXiv:2209.11895: loss(500th) − loss(50th) token.

    Args:
        model: a causal language model.
        data: texts or token ids of one length that reaches `late`.
        early: which token, counted from 0 after what begins the text.
        late: likewise.
        seed: of the shuffled control.

    Raises:
        InvalidArgument: texts that end before `late`, or places out of order.

    Cost: two forward passes.

    Examples:
        ```python
        measure_context_score(model, ids, early=5, late=60)
        ```
    """
    tokens = model.tokens(data) if not isinstance(data, Tokens) else data
    if not 0 <= early < late < tokens.ids.shape[1] or not bool(tokens.mask[:, : late + 1].all()):
        raise InvalidArgument(
            f"early={early}, late={late}: give places in order that every text reaches; they have "
            f"{int(tokens.mask.sum(1).min())} tokens at least"
        )
    loss = _losses(model, tokens.ids)
    mixed = tokens.ids.clone()
    random = torch.Generator().manual_seed(seed)
    for row in mixed:
        row[1:] = row[1:][torch.randperm(len(row) - 1, generator=random)]
    both = [bootstrap(_difference, [of[:, [early - 1, late - 1]]]) for of in (loss, _losses(model, mixed))]
    return ContextScore(both[0], both[1], loss.mean(0))


def _difference(rows: list[Float[Tensor, "n _"]]) -> float:
    return float((rows[0][:, 1] - rows[0][:, 0]).mean())


def _losses(model: Model, ids: Tensor) -> Float[Tensor, "n _"]:
    logits = model.run(ids)[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").double()
