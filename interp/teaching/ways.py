"""The ways to teach a fact by name: what each changes, how it is undone, and the function that makes its lesson."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from hooks import Model
from hooks.errors import InvalidArgument, nearest
from interp.common.texts import join_words
from interp.memory import Fact, prefixes
from interp.memory.editing.edit import Edit
from interp.memory.editing.keys import Facts
from interp.memory.editors.registry import make_editors
from interp.teaching.lesson import Lesson, lesson_of_edit, lesson_of_passages, lesson_of_steering


@dataclass(frozen=True)
class WayDescription:
    """What a way changes, and how that is undone."""

    changes: str
    undone: str


WAYS = {
    "edit": WayDescription("ROME: one rank of one matrix is added to the weights", "the kept original is written back"),
    "codebook": WayDescription("GRACE: one layer answers where a key is near", "its entry is deleted"),
    "context": WayDescription("the statement is read before every text", "it is not read any more"),
    "store": WayDescription("states before the object vote next to the last layer (kNN)", "its entries are deleted"),
    "passage": WayDescription("a passage found by its words is read before the question", "the passage is deleted"),
    "steering": WayDescription("a vector is added at every token", "it is not added any more"),
}
"""The ways, what each changes, and how that is undone."""
EDITORS = {"edit": "rome", "codebook": "grace", "context": "in_context", "store": "knn_memory"}
N_CONTEXTS = 4
Way = Callable[[Model, Fact], Lesson]


def make_ways(
    model: Model,
    facts: Sequence[Fact],
    names: Sequence[str] = ("edit", "context", "store", "passage", "steering"),
    *,
    layer: int | None = None,
    texts: Sequence[str] | None = None,
    passages: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Way]:
    """Make the ways of these names ready for a model.

    Args:
        model: the model.
        facts: to be taught, one at a time; the place of an edit is traced on their old objects.
        names: of `WAYS`.
        layer: where to edit instead of tracing.
        texts: for the covariance of an edit; by default the model's own.
        passages: the collection that the new fact is put into; by default what is true of the facts now.
        progress: show bars.

    Raises:
        InvalidArgument: no facts or names; a name of no way, with the nearest; a single fact without passages, where
            there is a way by passages.

    Cost: tracing the facts and a covariance, where there is an edit.

    Examples:
        ```python
        ways = make_ways(model, [case.fact for case in cases], ["edit", "store"])
        ways["store"](model, cases[0].fact)
        ```
    """
    _check_names(facts, names)
    made, _ = make_editors(
        model, [EDITORS[n] for n in names if n in EDITORS], facts, layer=layer, texts=texts, progress=progress
    )
    ways: dict[str, Way] = {}
    for name in names:
        if name in EDITORS:
            ways[name] = partial(_by_editor, made[EDITORS[name]])
        elif name == "passage":
            ways[name] = partial(_by_passages, _collect(facts, passages))
        else:
            ways[name] = partial(lesson_of_steering, contexts=("", *prefixes(model, N_CONTEXTS)))
    return ways


def _check_names(facts: Sequence[Fact], names: Sequence[str]) -> None:
    if not facts or not names:
        raise InvalidArgument(f"{len(facts)} facts and {len(names)} ways were given: give at least one of each")
    for name in names:
        if name not in WAYS:
            raise InvalidArgument(f"no way is called {name!r}; did you mean {nearest(name, [*WAYS])}?")


def _collect(facts: Sequence[Fact], passages: Sequence[str]) -> dict[str, str]:
    """What a collection holds, by the prompt it is about: the given passages, and what is true of the facts now."""
    known = {fact.text: f"{join_words(fact.text, fact.old)}." for fact in facts}
    if len(known) + len(passages) < 2:
        raise InvalidArgument("one fact alone is no collection to search: give passages, or several facts")
    return {**known, **{one: one for one in passages}}


def _by_editor(editor: Callable[[Model, Facts], Edit], model: Model, fact: Fact) -> Lesson:
    return lesson_of_edit(editor(model, fact))


def _by_passages(collection: dict[str, str], model: Model, fact: Fact) -> Lesson:
    """The new statement takes the old one's place."""
    return lesson_of_passages(model, fact, [one for text, one in collection.items() if text != fact.text])
