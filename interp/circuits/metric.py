"""Metrics: one number per text, from the logits of the token where it is read."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument

Metric: TypeAlias = Callable[[Float[Tensor, "example vocab"]], Float[Tensor, "example"]]


def logit_difference(model: Model, right: str | Sequence[str], wrong: str | Sequence[str]) -> Metric:
    """The logit of the right token less that of the wrong one, per text: m = logit[right] - logit[wrong].

    Args:
        model: whose tokenizer spells the answers.
        right: the answer of the clean run, one for all texts or one each.
        wrong: the answer of the corrupt run, likewise.

    Raises:
        ValueError: an answer that is not one token.

    ```python
    logit_difference(model, " Paris", " Rome")
    ```
    """
    one, other = token_ids(model, right), token_ids(model, wrong)

    def metric(logits: Float[Tensor, "example vocab"]) -> Float[Tensor, "example"]:
        return of_token(logits, one) - of_token(logits, other)

    return metric


def token_ids(model: Model, words: str | Sequence[str]) -> Int[Tensor, "n"]:
    """The ids of words that are one token each, special tokens aside.

    Errors: `ValueError` for a word of several tokens, naming them, or of none.
    """
    found = []
    for word in [words] if isinstance(words, str) else words:
        tokens = model.tokens(word)
        ids = tokens.ids[tokens.content].tolist()
        if not ids:
            raise InvalidArgument(f"{word!r} has no tokens: give a word that is one, with its space, such as ' Paris'")
        if len(ids) != 1:
            pieces = [model.tokenizer.decode([i]) for i in ids]
            raise InvalidArgument(f"{word!r} is {len(ids)} tokens, {pieces}: give one token, such as {pieces[:1]}")
        found += ids
    if not found:
        raise InvalidArgument("no word was given: give one for all texts, or one for each")
    return torch.tensor(found, device=model.device)


def of_token(logits: Float[Tensor, "example vocab"], ids: Int[Tensor, "n"]) -> Float[Tensor, "example"]:
    """The logit of a token in each row: the same for all, or one each.

    Errors: `ValueError` when the tokens are neither one nor as many as the rows.
    """
    if len(ids) not in (1, len(logits)):
        raise InvalidArgument(
            f"{len(ids)} answers were given for {len(logits)} texts: give one for all, or one for each"
        )
    return logits.gather(-1, ids.expand(len(logits))[:, None]).squeeze(-1)
