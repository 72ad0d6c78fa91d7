"""Previous-token heads: attend to the token before."""

import torch

from hooks import Model
from hooks.border import Count, Natural
from interp.circuits.heads.repeated_tokens import draw_repeated_tokens
from interp.circuits.heads.scores import HeadScores, attention_between


def previous_token(model: Model, *, length: Count = 40, n: Count = 16, seed: Natural = 0) -> HeadScores:
    """Score = E[A(t, t - 1)] over random tokens, none of which occurs twice.

    Control: attention to the token before that, E[A(t, t - 2)], which a head that merely looks nearby shares.

    Args:
        model: the model.
        length: of each half of a sequence.
        n: sequences.
        seed: of the random tokens.

    Raises:
        InvalidArgument: as `draw_repeated_tokens`.

    Cost:
        Two forward passes over n sequences of 2 `length` tokens.

    Examples:
        ```python
        previous_token(model).top()
        ```
    """
    said = draw_repeated_tokens(model, length=length, n=n, seed=seed)
    queries = said.start + torch.arange(2, 2 * length)
    values, control = (attention_between(model, said.fresh, queries, queries - back) for back in (1, 2))
    return HeadScores("previous token", values, control, "at the token before that")
