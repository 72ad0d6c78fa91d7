"""Duplicate-token heads: attend to the last occurrence of the present token."""

from hooks import Model
from hooks.border import Count, Natural
from interp.circuits.heads.repeated_tokens import attention_back
from interp.circuits.heads.scores import HeadScores


def duplicate_token(model: Model, *, length: Count = 40, n: Count = 16, seed: Natural = 0) -> HeadScores:
    """Score = E[A(t, t - T)] over the second half of T repeated random tokens (Wang et al. 2022, arXiv:2211.00593).

    Control: the same places where the second half repeats nothing.

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
        duplicate_token(model).top()
        ```
    """
    values, control = attention_back(model, 0, length=length, n=n, seed=seed)
    return HeadScores("duplicate token", values, control, "where the second half repeats nothing")
