"""Induction heads: attend to what came after the last occurrence of the present token."""

from hooks import Model
from hooks.border import Count, Natural
from interp.circuits.heads.repeated_tokens import attention_back
from interp.circuits.heads.scores import HeadScores


def induction(model: Model, *, length: Count = 40, n: Count = 16, seed: Natural = 0) -> HeadScores:
    """Score = E[A(t, t - T + 1)] over the second half of T random tokens repeated once.

    The key is the token after the earlier occurrence, at offset +1: Olsson et al. 2022, arXiv:2209.11895, whose
    wording ("preceded") suggests -1, while the mechanism it describes is +1. Control: the same places where the second
    half repeats nothing.

    Args:
        model: the model.
        length: T.
        n: sequences.
        seed: of the random tokens.

    Raises:
        InvalidArgument: as `draw_repeated_tokens`.

    Cost:
        Two forward passes over n sequences of 2 T tokens.

    Examples:
        ```python
        induction(model).top()
        ```
    """
    values, control = attention_back(model, 1, length=length, n=n, seed=seed)
    return HeadScores("induction", values, control, "where the second half repeats nothing")
