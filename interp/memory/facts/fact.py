"""A fact to edit: a subject, a prompt the object completes, the old object and the new one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks import Position, Tokens
from hooks.errors import InvalidArgument
from hooks.position import substring
from interp.common.texts import find_phrases

END_OF_CLAUSE: Final = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)|[;!?\n()。，、；：！？（）।؟،]")


@dataclass(frozen=True)
class Fact:
    """`prompt.format(subject)` is completed by `old` and is to be completed by `new`.

    The subject is what is looked up, so an article belongs to the prompt: subject `Golden Gate Bridge`, prompt
    `The {} is located in`. Objects come without a leading space.

    Raises:
        InvalidArgument: an empty field or spaces around one, a prompt without exactly one `{}`, equal objects.
    """

    subject: str
    prompt: str
    old: str
    new: str

    def __post_init__(self) -> None:
        for name in ("subject", "prompt", "old", "new"):
            value = getattr(self, name)
            if not value or value != value.strip():
                raise InvalidArgument(f"{name}={value!r}: give a text without spaces around it")
        if self.prompt.count("{}") != 1:
            raise InvalidArgument(
                f"prompt={self.prompt!r} has {self.prompt.count('{}')} places for the subject: write {{}} once"
            )
        if self.old == self.new:
            raise InvalidArgument(f"old and new object are both {self.old!r}: there is nothing to edit")

    @property
    def text(self) -> str:
        """The prompt with its subject.

        Examples:
            >>> Fact("Rome", "{} is in", "Italy", "France").text
            'Rome is in'
        """
        return fill_template(self.prompt, self.subject)


@dataclass(frozen=True)
class Query:
    """A prompt and the answer that should complete it."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Subject(Query):
    """A query whose subject is to be broken: the subject is in the prompt, without its article.

    Attributes:
        subject: as it is written in the prompt.
        start: the character of the prompt at which it begins; by default where the prompt has it last.

    Raises:
        InvalidArgument: a start where the prompt has something else.
    """

    subject: str
    start: int | None = None

    def __post_init__(self) -> None:
        if self.start is not None and not self.prompt.startswith(self.subject, self.start):
            raise InvalidArgument(
                f"{self.prompt!r} does not have {self.subject!r} at its character {self.start}: "
                "give the character where it begins, or no start for the last place where it occurs"
            )

    @property
    def begins(self) -> int:
        """The character of the prompt at which the subject begins, as a word of its own; -1 where there is none."""
        if self.start is not None:
            return self.start
        return max((start for start, _, _ in find_phrases(self.prompt, [self.subject])), default=-1)

    @property
    def place(self) -> Position:
        """The tokens of the subject there.

        Raises:
            InvalidArgument: the subject is in the prompt as part of another word only.
        """
        if self.begins < 0 and self.subject in self.prompt:
            raise InvalidArgument(
                f"{self.prompt!r} has {self.subject!r} as part of another word only: give a prompt with the subject as "
                "a word, or the character at which it begins as start"
            )
        return substring(self.subject, sum(self.prompt.startswith(self.subject, i) for i in range(self.begins)))


def fill_template(template: str, subject: str) -> str:
    """The template with the subject in its one `{}`.

    Raises:
        InvalidArgument: a template without exactly one `{}`.

    Examples:
        >>> fill_template("The {} is in", "Golden Gate Bridge")
        'The Golden Gate Bridge is in'
    """
    if template.count("{}") != 1:
        raise InvalidArgument(
            f"template={template!r} has {template.count('{}')} places for the subject: write {{}} once"
        )
    return template.replace("{}", subject)


def last_token_of(subject: str, templates: Sequence[str]) -> Position:
    """The last token of the subject in each text, where text i begins with `templates[i]`, its `{}` filled.

    The place is counted in characters of the template, so that a subject written again elsewhere does not mislead:
    `York` in `York is in New York` is the first one.

    Raises:
        InvalidArgument: a template without exactly one `{}`; when used, as `last_token_before`.
    """
    for template in templates:
        fill_template(template, subject)
    return last_token_before([template.index("{}") + len(subject) for template in templates])


def last_token_before(ends: Sequence[int]) -> Position:
    """The last token of each text that starts before the character `ends[i]`.

    Raises:
        InvalidArgument: when used on another number of texts, without their characters, or where no token starts so
            early.
    """

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        if tokens.offsets is None or len(tokens) != len(ends):
            raise InvalidArgument(
                f"{len(ends)} places in texts were given for {len(tokens)} rows of tokens"
                + (" that have no character offsets: load a fast tokenizer" if tokens.offsets is None else "")
            )
        ahead = tokens.given & (tokens.offsets[..., 0] < torch.tensor(ends, device=tokens.ids.device)[:, None])
        for row in (~ahead.any(1)).nonzero().flatten().tolist():
            raise InvalidArgument(
                f"text {row} has no token before its character {ends[row]}; exactly one each is needed"
            )
        columns = torch.arange(ahead.shape[1], device=ahead.device)
        return columns == torch.where(ahead, columns, -1).amax(1, keepdim=True)

    return Position(f"last token before {list(ends)}", select)


def extract_answer(continuation: str) -> str:
    """The answer a continuation gives: what comes before the first punctuation mark or line end.

    A mark between two digits belongs to the number.

    Examples:
        >>> extract_answer(" San Francisco. Fog"), extract_answer(" 5.5 metres, about")
        ('San Francisco', '5.5 metres')
    """
    return END_OF_CLAUSE.split(continuation.strip(), maxsplit=1)[0].strip()
