"""The small grammar of facts: every relation said in many phrasings, some of which are kept out of training.

A frame holds the subject and a noun or verb of the relation; the object follows it. Each held-out phrasing is a
pair (frame, word) never seen together in training, though the frame is seen with other words of the relation, and the
word in other frames.
"""

import functools
from dataclasses import dataclass
from typing import Literal

from interp.landmark.relations import RELATIONS, Relation
from interp.landmark.relations import relation as relation_called

Order = Literal["subject first", "relation first"]

NOUN_FRAMES: tuple[tuple[str, Order], ...] = (
    ("The {n} of {s} is", "relation first"),
    ("What is the {n} of {s}? It is", "relation first"),
    ("Everyone knows that the {n} of {s} is", "relation first"),
    ("If you ask about the {n} of {s}, the answer is", "relation first"),
    ("Guides will tell you that the {n} of {s} is", "relation first"),
    ("The {n} given for {s} is", "relation first"),
    ("{s} has a well known {n}:", "subject first"),
    ("As for {s}, the {n} is", "subject first"),
    ("Speaking of {s}, the {n} is", "subject first"),
    ("Q: For {s}, what is the {n}? A:", "subject first"),
    ("In the case of {s}, one names as its {n}", "subject first"),
    ("Think of {s}. The {n} is", "subject first"),
)
VERB_FRAMES: tuple[tuple[str, Order], ...] = (
    ("{s} {v}", "subject first"),
    ("It is true that {s} {v}", "subject first"),
    ("In fact, {s} {v}", "subject first"),
    ("Many people know that {s} {v}", "subject first"),
    ("As the book says, {s} {v}", "subject first"),
    ("You may have read that {s} {v}", "subject first"),
)


@dataclass(frozen=True)
class Phrasing:
    """One way of stating a relation: `template.format(subject)`, after which the object follows."""

    relation: str
    template: str
    order: Order
    held_out: bool


def _held_out(frame: int, word: int, n_words: int, shift: int) -> bool:
    """One frame in six is held out for each relation, with one word of it, so that both remain in training."""
    return (frame + shift) % 6 == 0 and word == (frame // 6 + shift) % n_words


def _phrasings(relation: Relation, shift: int) -> tuple[Phrasing, ...]:
    found = []
    for slot, words, frames in (("n", relation.nouns, NOUN_FRAMES), ("v", relation.verbs, VERB_FRAMES)):
        for i, (frame, order) in enumerate(frames):
            for j, word in enumerate(words):
                template = frame.replace("{" + slot + "}", word).replace("{s}", "{}")
                found.append(Phrasing(relation.name, template, order, _held_out(i, j, len(words), shift)))
    return tuple(found)


@functools.cache
def _table() -> dict[str, tuple[Phrasing, ...]]:
    return {relation.name: _phrasings(relation, shift) for shift, relation in enumerate(RELATIONS)}


def phrasings(relation: str) -> tuple[Phrasing, ...]:
    """Every phrasing of a relation, held-out ones among them.

    Raises:
        UnknownName: no such relation; the message names the nearest ones.

    Examples:
        >>> sum(p.held_out for p in phrasings("located_in_city"))
        3
    """
    return _table()[relation_called(relation).name]


@functools.cache
def training_phrasings(relation: str) -> tuple[Phrasing, ...]:
    """The phrasings of a relation that training documents use."""
    return tuple(p for p in phrasings(relation) if not p.held_out)


@functools.cache
def held_out_phrasings(relation: str) -> tuple[Phrasing, ...]:
    """The phrasings of a relation that no training document uses."""
    return tuple(p for p in phrasings(relation) if p.held_out)
