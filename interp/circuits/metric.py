"""Metrics: one number per text, from the logits of the token where it is read."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Network
from hooks.encoding import pad
from hooks.errors import InvalidArgument
from hooks.model import Text
from hooks.network import AnyModel
from hooks.pieces import is_blank, piece
from hooks.site import logits

Metric: TypeAlias = Callable[[Float[Tensor, "example vocab"]], Float[Tensor, "example"]]
Word: TypeAlias = str | int


def logit_difference(model: AnyModel, right: Word | Sequence[Word], wrong: Word | Sequence[Word]) -> Metric:
    """The logit of the right token less that of the wrong one, per text: m = logit[right] - logit[wrong].

    Args:
        model: the model, whose tokenizer reads words; of a net of pictures answers are the numbers of its classes.
        right: the answer of the clean run, a word of one token or a token id; one for all texts or one each.
        wrong: the answer of the corrupt run, likewise.

    Raises:
        InvalidArgument: a word that is not one token (`first_token` takes the first of several), or an id that is none.

    Examples:
        ```python
        logit_difference(model, " Paris", first_token(model, " San Francisco"))
        ```
    """
    one, other = token_ids(model, right), token_ids(model, wrong)

    def metric(logits: Float[Tensor, "example vocab"]) -> Float[Tensor, "example"]:
        return of_token(logits, one) - of_token(logits, other)

    return metric


def token_ids(model: AnyModel, words: Word | Sequence[Word]) -> Int[Tensor, "n"]:
    """The ids of words that are one token each, special tokens aside; an id stays what it is.

    Raises:
        InvalidArgument: a word of several tokens, naming them, or of none; an id outside the vocabulary.
    """
    found = []
    for word in [words] if isinstance(words, str | int) else words:
        ids = word_ids(model, word)
        if len(ids) != 1:
            raise InvalidArgument(
                f"{word!r} is {len(ids)} tokens, {[piece(model.tokenizer, i) for i in ids]}: give one token, "
                "first_token(model, word) for the first, or measure word_log_probability for the whole word"
            )
        found += ids
    if not found:
        raise InvalidArgument("no word was given: give one for all texts, or one for each")
    return torch.tensor(found, device=model.device)


def first_token(model: Model, word: str) -> int:
    """The id of the first token of a word, to take in place of a word of several tokens.

    Raises:
        InvalidArgument: a word without tokens, or whose first is white space alone, as that of every other word.

    Examples:
        ```python
        attribute(model, "The bridge is in", first_token(model, " San Francisco"))
        ```
    """
    ids = word_ids(model, word)
    if is_blank(model.tokenizer, ids[0]):
        raise InvalidArgument(
            f"the first of the tokens {[piece(model.tokenizer, i) for i in ids]} of {word!r} is white space alone, "
            "which says nothing of the word: end the text with that white space, and give the id of the token after it"
        )
    return ids[0]


@torch.no_grad()
def word_log_probability(model: Model, text: Text, word: str | Sequence[int]) -> Float[Tensor, "example"]:
    """log p(word | text) = sum_i log p(w_i | text, w_1 … w_{i-1}), in nats, for a word of any number of tokens.

    Args:
        model: a causal model.
        text: a text, texts, token ids or `Tokens`, each ending where the word begins.
        word: the word with its space, or the ids of its tokens.

    Raises:
        InvalidArgument: a word without tokens, ids outside the vocabulary, a text that is too long with it.

    Cost:
        One forward pass.

    Examples:
        ```python
        word_log_probability(model, ["The bridge is in", "The tower is in"], " San Francisco")
        ```
    """
    before = model.tokens(text)
    ids = word_ids(model, word) if isinstance(word, str) else [i for one in word for i in word_ids(model, one)]
    if not ids:
        raise InvalidArgument("a word of no tokens was given: give at least one token id")
    rows = [row[mask].tolist() for row, mask in zip(before.ids, before.mask, strict=True)]
    tokens = pad(model.tokenizer, [row + ids for row in rows], "right")
    log_p = model.run(tokens).float().log_softmax(-1)
    start = torch.tensor([len(row) - 1 for row in rows], device=log_p.device)
    each = [log_p[torch.arange(len(rows)), start + i, token] for i, token in enumerate(ids)]
    return torch.stack(each).sum(0)


def word_ids(model: AnyModel, word: Word) -> list[int]:
    """The ids of the tokens of a word, special tokens aside; an id by itself.

    Raises:
        InvalidArgument: a word without tokens, an id outside the vocabulary, a bool.
    """
    if isinstance(model, Network):
        classes = model.tap(logits).shape[-1]
        if not isinstance(word, int) or isinstance(word, bool) or not 0 <= word < classes:
            raise InvalidArgument(f"{word!r} is no class of {model.name}: give a number from 0 to {classes - 1}")
        return [word]
    if isinstance(word, int):
        if isinstance(word, bool) or not 0 <= word < model.d_vocab:
            raise InvalidArgument(f"{word!r} is no token of {model.name}: ids are 0 to {model.d_vocab - 1}")
        return [word]
    tokens = model.tokens(word)
    ids = tokens.ids[tokens.content].tolist()
    if not ids:
        raise InvalidArgument(f"{word!r} has no tokens: give a word that is one, with its space, such as ' Paris'")
    return ids


def name_token(model: Model, word: Word) -> str:
    """A word as it was given, and a token id as its text."""
    return word if isinstance(word, str) else piece(model.tokenizer, word)


def of_token(logits: Float[Tensor, "example vocab"], ids: Int[Tensor, "n"]) -> Float[Tensor, "example"]:
    """The logit of a token in each row: the same for all, or one each.

    Raises:
        InvalidArgument: the tokens are neither one nor as many as the rows.
    """
    if len(ids) not in (1, len(logits)):
        raise InvalidArgument(
            f"{len(ids)} answers were given for {len(logits)} texts: give one for all, or one for each"
        )
    return logits.gather(-1, ids.expand(len(logits))[:, None]).squeeze(-1)
