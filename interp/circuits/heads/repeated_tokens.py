"""Random tokens repeated once: text in which nothing but repetition can be known, and where heads look in it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Tokens
from hooks.encoding import is_in, special_ids
from hooks.errors import InvalidArgument
from interp.circuits.heads.scores import attention_between


@dataclass(frozen=True, eq=False)
class RepeatedTokens:
    """Sequences of BOS, `length` different random tokens, and (in `tokens`) the same again.

    In `fresh` the second half is other tokens, so that nothing occurs twice: the control.

    Attributes:
        tokens: with the repetition.
        fresh: without it.
        length: of each half.
        start: the column of the first random token: 1 with a BOS, else 0.
    """

    tokens: Tokens
    fresh: Tokens
    length: int
    start: int


def draw_repeated_tokens(model: Model, *, length: int = 40, n: int = 16, seed: int = 0) -> RepeatedTokens:
    """Draw such sequences from a model's vocabulary, special tokens left out; no token twice within a half.

    Args:
        model: the model, whose BOS they begin with if its tokenizer has one.
        length: tokens of each half.
        n: sequences.
        seed: of the drawing.

    Raises:
        InvalidArgument: a vocabulary or context too small for two halves, no sequences.

    Examples:
        ```python
        draw_repeated_tokens(model, length=20, n=4).tokens.ids
        ```
    """
    tokenizer = model.tokenizer
    bos = getattr(tokenizer, "bos_token_id", None)
    every = torch.arange(model.d_vocab)
    usable = every[~is_in(every[None], special_ids(tokenizer))[0]]
    if length < 2 or n < 1 or 2 * length > len(usable):
        raise InvalidArgument(
            f"{n} sequences of two halves of {length} tokens, all different, need at least one sequence, two tokens "
            f"and a vocabulary of {2 * length}; {model.name} has {len(usable)}: give a smaller length"
        )
    random = torch.Generator().manual_seed(seed)
    drawn = torch.stack([usable[torch.randperm(len(usable), generator=random)[: 2 * length]] for _ in range(n)])
    front = drawn.new_full((n, 0 if bos is None else 1), bos or 0)
    once, other = drawn[:, :length], drawn[:, length:]
    twice, fresh = torch.cat([front, once, once], 1), torch.cat([front, once, other], 1)
    return RepeatedTokens(model.tokens(twice), model.tokens(fresh), length, front.shape[1])


def attention_back(
    model: Model, offset: int, *, length: int, n: int, seed: int
) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
    """E[A(t, t - T + offset)] over the second half of T random tokens repeated once, and where it repeats nothing."""
    said = draw_repeated_tokens(model, length=length, n=n, seed=seed)
    queries = said.start + torch.arange(length, 2 * length)
    keys = queries - length + offset
    return attention_between(model, said.tokens, queries, keys), attention_between(model, said.fresh, queries, keys)
