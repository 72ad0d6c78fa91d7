"""Labelled texts with the groups that must not be split between learning and testing."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooks import Images, Model
from hooks.disk import checksum
from hooks.errors import InvalidArgument, InvalidType
from hooks.network import AnyModel
from hooks.rows import cut_texts, note_cut
from hooks.summary import summarise
from probes.folds import find_missing


@final
@dataclass(frozen=True)
class Examples:
    """Texts or pictures, whether each has the label, and the group of each: its entity, its template, its document.

    What a probe learns from one group is tested on others. `entities` may name, for each text, whatever else it is
    about, one name or several; an entity in two groups would leak from one into the other, so it is refused. All run
    parallel to `texts`. Labels are True and False, or 1 and 0; groups are names or numbers.

    Raises:
        InvalidArgument: lengths that differ, labels all alike, a missing group, one text or entity in two groups.
        InvalidType: labels that are neither bool nor 0 and 1.

    Examples:
        >>> Examples(["Paris is in France.", "Paris is in Spain."], [True, False], ["Paris", "Paris"]).n_groups
        1
    """

    texts: Sequence[str] | Images
    labels: Sequence[bool] | Any  # or an array, a series
    groups: Sequence[Hashable] | Any
    entities: Sequence[str | Collection[str]] = ()

    __repr__ = summarise

    def __post_init__(self) -> None:
        for name in ("texts", "labels", "groups", "entities"):
            if not isinstance(given := getattr(self, name), Images):
                object.__setattr__(self, name, tuple(_items(given)))
        named = tuple((names,) if isinstance(names, str) else names for names in self.entities)
        object.__setattr__(self, "entities", named)
        for name in ("labels", "groups", "entities"):
            n = len(getattr(self, name))
            if n != len(self.texts) and (name != "entities" or n):
                missing = " (groups say which texts share an entity or a template)" if name == "groups" else ""
                raise InvalidArgument(f"there are {len(self.texts)} texts and {n} {name}; give one per text{missing}")
        odd = next((label for label in self.labels if not (isinstance(label, int) and label in (0, 1))), None)
        if odd is not None:
            raise InvalidType(f"labels of two classes are bool, got {odd!r}: give True and False, or 1 and 0")
        object.__setattr__(self, "labels", tuple(bool(label) for label in self.labels))
        if len(set(self.labels)) < 2:
            raise InvalidArgument(
                f"all {len(self.labels)} labels are {bool(self.labels[0])}; texts of both kinds are needed"
                if self.labels
                else "there are no examples: give texts of both labels"
            )
        if (row := find_missing(self.groups)) is not None:
            raise InvalidArgument(
                f"text {row} ({name_items(self.texts)[row]!r}) has no group: name its entity or template"
            )
        self._no_leak("text", [(text,) for text in name_items(self.texts)])
        self._no_leak("entity", self.entities)

    @property
    def y(self) -> Bool[Tensor, "example"]:
        """The labels."""
        return torch.tensor(self.labels)

    @property
    def group(self) -> Int[Tensor, "example"]:
        """The groups, numbered in order of appearance."""
        number = {group: i for i, group in enumerate(dict.fromkeys(self.groups))}
        return torch.tensor([number[group] for group in self.groups])

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(set(self.groups))

    def _no_leak(self, kind: str, named: Sequence[Collection[str]]) -> None:
        home: dict[str, Hashable] = {}
        for names, group in zip(named, self.groups, strict=False):
            for name in names:
                if home.setdefault(name, group) != group:
                    raise InvalidArgument(
                        f"the {kind} {name!r} is in groups '{home[name]}' and '{group}', so it could be learnt from "
                        "and tested on at once: put what shares it into one group, or leave it out"
                    )


def cut_examples(model: AnyModel, examples: Examples) -> Examples:
    """The examples with each text that is longer than the model's context in pieces that fit; pictures as they are.

    Each piece has the label, the group and the entities of its text. A warning says how many were cut.

    Raises:
        InvalidArgument: the tokenizer gives no character offsets.

    Cost:
        Reading the tokens of every text.

    Examples:
        ```python
        sweep(model, cut_examples(model, examples), [resid_post[4]])
        ```
    """
    if isinstance(examples.texts, Images) or not isinstance(model, Model):
        return examples
    pieces = cut_texts(model, examples.texts)
    long = [len(each) for each in pieces if len(each) > 1]
    if not long:
        return examples
    note_cut(model, len(pieces), len(long), sum(long))
    text = [number for number, each in enumerate(pieces) for _ in each]
    given: tuple[Any, ...] = (examples.labels, examples.groups, examples.entities)
    labels, groups, entities = ([column[i] for i in text] if column else () for column in given)
    return Examples([piece for each in pieces for piece in each], labels, groups, entities)


def name_items(texts: Sequence[str] | Images) -> Sequence[str]:
    """What tells examples apart: texts by themselves, pictures by their pixels.

    Examples:
        >>> name_items(["fog"])
        ['fog']
    """
    if not isinstance(texts, Images):
        return texts
    return [f"picture {checksum(one)[:12]}" for one in texts.pixels]


def _items(given: Any) -> Any:
    """What a list, a tensor, an array or a series holds, in Python's own types."""
    return given.tolist() if hasattr(given, "tolist") else given
