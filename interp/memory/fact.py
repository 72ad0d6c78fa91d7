"""A fact to edit: a subject, a prompt the object completes, the old object and the new one."""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooks import Position, Tokens
from hooks.position import substring


@dataclass(frozen=True)
class Fact:
    """`prompt.format(subject)` is completed by `old` and is to be completed by `new`.

    The subject is what is looked up, so an article belongs to the prompt: subject `Golden Gate Bridge`, prompt
    `The {} is located in`. Objects come without a leading space.

    Raises:
        ValueError: an empty field or spaces around one, a prompt without exactly one `{}`, equal objects.
    """

    subject: str
    prompt: str
    old: str
    new: str

    def __post_init__(self) -> None:
        for name in ("subject", "prompt", "old", "new"):
            value = getattr(self, name)
            if not value or value != value.strip():
                raise ValueError(f"{name}={value!r}: give a text without spaces around it")
        if self.prompt.count("{}") != 1:
            raise ValueError(
                f"prompt={self.prompt!r} has {self.prompt.count('{}')} places for the subject: write {{}} once"
            )
        if self.old == self.new:
            raise ValueError(f"old and new object are both {self.old!r}: there is nothing to edit")

    @property
    def text(self) -> str:
        """The prompt with its subject.

        >>> Fact("Rome", "{} is in", "Italy", "France").text
        'Rome is in'
        """
        return self.prompt.format(self.subject)


@dataclass(frozen=True)
class Query:
    """A prompt and the answer that should complete it."""

    prompt: str
    answer: str


def last_token_of(subject: str) -> Position:
    """The last token of the last place where the subject is spelt, in each text.

    Raises:
        ValueError: when used on a text without the subject.
    """
    spelt = substring(subject, occurrence=-1)

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        mask = spelt.mask(tokens)
        columns = torch.arange(mask.shape[1], device=mask.device)
        return mask & (columns == torch.where(mask, columns, -1).amax(1, keepdim=True))

    return Position(f"last token of {subject!r}", select)


def columns_of(position: Position, tokens: Tokens) -> Int[Tensor, "batch"]:
    """The column of the one token that a position selects in each row.

    Raises:
        ValueError: a row in which it selects no token, or several.
    """
    mask = position.mask(tokens)
    if not bool((mask.sum(1) == 1).all()):
        raise ValueError(f"{position} selects {mask.sum(1).tolist()} tokens per text; exactly one each is needed")
    return mask.int().argmax(1)


def answered(continuation: str, answer: str) -> bool:
    """Whether a continuation begins with the answer, as a whole word.

    >>> answered(" Paris, France", "Paris"), answered(" Parish", "Paris")
    (True, False)
    """
    return re.match(rf"\s*{re.escape(answer)}(?!\w)", continuation) is not None


def answer_in(continuation: str) -> str:
    """The answer a continuation gives: what comes before the first punctuation mark or line end.

    >>> answer_in(" San Francisco. Fog")
    'San Francisco'
    """
    return re.split(r"[.,;:!?\n()]", continuation.strip(), maxsplit=1)[0].strip()
