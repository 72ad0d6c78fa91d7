"""An annotated text under construction: what is written is remembered with what it expresses, by character span."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from hooks.summary import summarise
from interp.landmark.entities import ARTICLES, Entity, Mention, find
from interp.landmark.grammar import Phrasing
from interp.landmark.relations import Triple

SpanKind = Literal["entity", "form", "object", "concept", "relation", "language", "sentiment", "claim", "repeat"]


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of a document express `value`, a thing of kind `kind`."""

    start: int
    end: int
    kind: SpanKind
    value: str


@dataclass(frozen=True)
class Document:
    """A text of the corpus, its genre, and everything its characters express."""

    text: str
    genre: str
    spans: tuple[Span, ...]

    __repr__ = summarise


def capitalise(text: str) -> str:
    """The text with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def keep_article(template: str, subject: Entity) -> str:
    """A phrasing whose `{}` is the subject's bare name, so that the article belongs to the phrasing.

    Examples:
        >>> keep_article("{} can be found in", find("Golden Gate Bridge"))
        'The {} can be found in'
    """
    return capitalise(template.replace("{}", subject.text.replace(subject.name, "{}")))


@dataclass
class Page:
    """A text being written. `write` appends; `label` marks what is written inside its block."""

    genre: str
    text: str = ""
    spans: list[Span] = field(default_factory=list)

    def write(self, text: str) -> None:
        """Append plain text, in upper case at the start of a sentence."""
        begins = not self.text or self.text[-1] == "\n" or self.text.endswith((". ", "? ", "! "))
        self.text += capitalise(text) if begins else text

    @contextmanager
    def label(self, kind: SpanKind, value: str) -> Iterator[None]:
        """Mark all that is written inside the block."""
        start = len(self.text)
        yield
        self.mark(start, len(self.text), kind, value)

    def mark(self, start: int, end: int, kind: SpanKind, value: str) -> None:
        """Mark a span of characters, without the space before it."""
        while start < end and self.text[start] == " ":
            start += 1
        self.spans.append(Span(start, end, kind, value))

    def mention(self, entity: Entity, mention: Mention) -> None:
        """Write one mention of an entity; its article is written but is outside the entity's span."""
        start = len(self.text)
        self.write(mention.text)
        article = next((len(a) for a in ARTICLES if mention.text.startswith(a)), 0)
        self.mark(start + article, len(self.text), "entity", entity.name)
        self.mark(start + article, len(self.text), "form", mention.form)

    def object(self, text: str) -> None:
        """Write an object of a fact, which is also a mention where it names an entity."""
        with self.label("object", text):
            named = find(text)
            if named is None:
                self.write(text)
            else:
                self.mention(named, Mention(text, "name"))

    def statement(self, triple: Triple, phrasing: Phrasing, mention: Mention, said: str | None = None) -> None:
        """Write a phrasing about a mention of the subject, then its object, or what is said instead of it."""
        before, after = phrasing.template.split("{}")
        with self.label("relation", triple.relation.name):
            if before:
                self.write(before)
            self.mention(triple.subject, mention)
            self.write(f"{after} ")
            if said is None:
                self.object(triple.object)
            else:
                self.write(said)

    def finish(self) -> Document:
        """The document."""
        return Document(self.text, self.genre, tuple(self.spans))
