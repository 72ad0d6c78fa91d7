"""A concept given by examples: texts that do and do not express it, and where in them it is mentioned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks.border import Natural
from hooks.errors import InvalidArgument, nearest
from hooks.summary import summarise
from interp.common.texts import fold_text


class NamingSentence(Protocol):
    """A sentence, the characters in it that name something, and the form in which they do."""

    @property
    def text(self) -> str:
        """The whole sentence."""
        ...

    @property
    def span(self) -> tuple[int, int]:
        """The first character of the mention, and the one after its last."""
        ...

    @property
    def form(self) -> str:
        """How it is named, such as "name" or "alias"."""
        ...


@dataclass(frozen=True)
class Mention:
    """Characters `start` to `end` of a text name the concept, in a form such as "name", "alias" or "foreign"."""

    start: int
    end: int
    form: str = ""


@dataclass(frozen=True)
class Concept:
    """Texts labelled by whether they express a concept.

    `mentions` holds, for each text, where it names the concept (none for negative texts); token-level search needs
    it, and results are broken down by its forms. `groups` names what must not be split between the half searched
    and the half reported on (a template, a subject); unless given, each text is its own group, with those that differ
    from it only in normalisation or white space. All three run parallel to `texts`. Mentions whose form is in `apart`
    count neither for nor against a detector; only their recall is reported (a description that never names its
    subject, say).

    Raises:
        InvalidArgument: lengths that differ, a string for a list, labels that are no bools or all alike, an empty text,
            a mention outside its text or in a negative one, one text in two groups, or an unknown form set apart.

    Examples:
        >>> Concept("fog", ["Fog rolled in.", "The sun shone."], [True, False]).groups
        ('Fog rolled in.', 'The sun shone.')
    """

    name: str
    texts: Sequence[str]
    labels: Sequence[bool]
    mentions: Sequence[Sequence[Mention]] = field(default=())
    groups: Sequence[str] = field(default=())
    apart: Sequence[str] = field(default=())

    __repr__ = summarise

    @classmethod
    def of_sentences(cls, name: str, about: Iterable[NamingSentence], others: Iterable[NamingSentence]) -> "Concept":
        """Sentences that name the concept, where they do so, and sentences about everything else, each once.

        Examples:
            ```python
            bridge = landmark.entity("Golden Gate Bridge")
            about, others = landmark.sentences_about(bridge, 300), landmark.sentences_about_others(bridge, 600)
            Concept.of_sentences(bridge.text, about, others)
            ```
        """
        texts = {s.text: (True, (Mention(*s.span, s.form),)) for s in about} | {s.text: (False, ()) for s in others}
        labels, mentions = zip(*texts.values(), strict=True)
        return cls(name, tuple(texts), labels, mentions)

    def __post_init__(self) -> None:
        self._check_lists()
        object.__setattr__(self, "groups", self.groups or [*map(fold_text, self.texts)])
        object.__setattr__(self, "mentions", tuple(map(tuple, self.mentions)))
        for name in ("texts", "labels", "mentions", "groups", "apart"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("labels", "mentions", "groups"):
            given = len(getattr(self, name))
            if given != len(self.texts) and not (name == "mentions" and not given):
                raise InvalidArgument(
                    f"concept '{self.name}' has {len(self.texts)} texts and {given} {name}; give one per text"
                )
        if len(set(self.labels)) != 2:
            raise InvalidArgument(f"concept '{self.name}' needs texts that express it and texts that do not")
        for number, text in enumerate(self.texts):
            self._check_text(number, text)
        self._check_groups()
        for form in set(self.apart) - set(self.forms):
            known = nearest(form, self.forms) if self.forms else "none"
            raise InvalidArgument(f"concept '{self.name}' has no mention of form '{form}'; did you mean {known}?")

    def _check_lists(self) -> None:
        for name in ("texts", "labels", "groups", "apart"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise InvalidArgument(f"the {name} of concept '{self.name}' are {given!r}: give a list, not a string")
        for label in self.labels:
            if not isinstance(label, bool):
                raise InvalidArgument(f"concept '{self.name}' has the label {label!r}: give True or False")

    def _check_text(self, number: int, text: str) -> None:
        where = f"text {number} of concept '{self.name}'"
        if not text.strip():
            raise InvalidArgument(f"{where} is empty")
        mentions = self.mentions[number] if self.mentions else ()
        if mentions and not self.labels[number]:
            raise InvalidArgument(f"{where} is labelled as not expressing the concept, yet has a mention: {text!r}")
        for m in mentions:
            if not 0 <= m.start < m.end <= len(text):
                raise InvalidArgument(f"{where} has a mention at {m.start}:{m.end}, outside its {len(text)} characters")

    def _check_groups(self) -> None:
        home: dict[str, str] = {}
        for text, group in zip(self.texts, self.groups, strict=True):
            if home.setdefault(fold_text(text), group) != group:
                raise InvalidArgument(
                    f"concept '{self.name}' has the text {text!r} in groups '{home[fold_text(text)]}' and '{group}': "
                    "it could be searched and reported on at once. Put equal texts into one group"
                )

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms of its mentions, in order of appearance."""
        return tuple(dict.fromkeys(m.form for mentions in self.mentions for m in mentions if m.form))

    def counts(self, number: Natural) -> bool:
        """Whether a text counts for or against a detector: not all its mentions are of forms set apart."""
        mentions = self.mentions[number] if self.mentions else ()
        return not mentions or any(m.form not in self.apart for m in mentions)


def split_by_group(concept: Concept, seed: int) -> Bool[Tensor, "example"]:
    """Split the texts in two by group: True for the half to search, False for the half to report on.

    Groups are shuffled within strata of equal labels and forms and dealt out in turn, so that both halves hold
    about the same mixture.

    Raises:
        InvalidArgument: a half is left without texts that express the concept, or without such as do not.

    Examples:
        >>> int(split_by_group(Concept("fog", ["a", "b", "c", "d"], [True, True, False, False]), seed=0).sum())
        2
    """
    strata: dict[str, set[tuple[bool, str]]] = {group: set() for group in concept.groups}
    for number, group in enumerate(concept.groups):
        forms = sorted({m.form for m in concept.mentions[number]}) if concept.mentions else []
        strata[group].add((concept.labels[number], " ".join(forms)))
    names = list(strata)
    shuffled = [names[i] for i in torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))]
    dealt = sorted(shuffled, key=lambda group: sorted(strata[group]))
    searched = dict.fromkeys(dealt[::2])
    half = torch.tensor([group in searched for group in concept.groups])
    labels = torch.tensor(concept.labels)
    counted = torch.tensor([concept.counts(number) for number in range(len(labels))])
    for side, role in ((half, "search"), (~half, "report on")):
        for label, kind in ((True, "that express it"), (False, "that do not")):
            if not bool((labels[side & counted] == label).any()):
                raise InvalidArgument(
                    f"concept '{concept.name}' has too few groups to leave texts {kind} in the half to {role}: "
                    "give at least two groups of each kind"
                )
    return half
