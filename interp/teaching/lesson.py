"""One fact put to a model one way: how that is entered and left, what is kept of it, and its control."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from random import Random
from typing import final

import torch
from torch import Tensor

from hooks import Model, Site
from hooks.errors import InvalidArgument
from hooks.position import last
from hooks.site import resid_post
from interp.common.completion import score
from interp.common.texts import begins_with, join_words, list_texts
from interp.directions import Pairs, caa
from interp.memory import Edit, Fact
from interp.memory.editing.prompt_cache import Preamble
from interp.memory.evaluation.control import make_control
from interp.memory.evaluation.measurement import generate_greedily
from interp.memory.outside import index_words
from interp.steering import Steering, add_direction, steer

DOSES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
Block = Callable[[Model], AbstractContextManager[object]]


def _read_nothing(_: str) -> str:
    return ""


@final
@dataclass(frozen=True, eq=False)
class Lesson:
    """A fact that a model has been taught inside a `with` block, and not outside of it.

    Attributes:
        fact: what is taught.
        enter: from the model to the block.
        control: from a seed to the same way of teaching with something random of equal size.
        n_bytes: what is kept.
        n_tokens: how many tokens are read before a text because of it.
        passage: what is read before a question; empty where nothing is.
    """

    fact: Fact
    enter: Block
    control: Callable[[int], "Lesson"]
    n_bytes: int
    n_tokens: int = 0
    passage: Callable[[str], str] = _read_nothing

    def __repr__(self) -> str:
        return f"Lesson({self.fact.text!r} → {self.fact.new!r}, {self.n_bytes:,} bytes, {self.n_tokens} tokens)"


def lesson_of_edit(edit: Edit) -> Lesson:
    """The lesson of any edit: of weights, of a codebook, of a store that votes, of a text read before every other.

    Raises:
        InvalidArgument: an edit of several facts.

    Examples:
        ```python
        lesson_of_edit(rome(model, fact)).n_bytes
        ```
    """
    if len(edit.facts) != 1:
        raise InvalidArgument(f"the edit holds {len(edit.facts)} facts: compare edits of single facts")
    held = [getattr(update, field.name) for update in edit.updates for field in fields(update)]
    read = sum(len(update.ids) for update in edit.updates if isinstance(update, Preamble))
    n_bytes = sum(one.nbytes for one in held if isinstance(one, Tensor))
    return Lesson(edit.facts[0], edit.applied, lambda seed: lesson_of_edit(make_control(edit, seed)), n_bytes, read)


def lesson_of_passages(model: Model, fact: Fact, passages: Sequence[str], *, end: str = ".") -> Lesson:
    """The lesson of a collection in which the new fact is one passage: the one found for a question is read before it.

    Passages are found by their words (BM25). The control has the new passage's words in another order, so that it is
    found as often.

    Args:
        model: the model, which counts tokens.
        fact: what is taught.
        passages: the other passages.
        end: what the new passage ends with, after the object.

    Raises:
        MissingExtra: bm25s is not installed.

    Examples:
        ```python
        lesson_of_passages(model, fact, ["The Eiffel Tower is in Paris."]).passage(fact.text)
        ```
    """
    return _of_passages(model, fact, join_words(fact.text, fact.new), end, list_texts(passages, "passages"))


def _of_passages(model: Model, fact: Fact, said: str, end: str, passages: list[str]) -> Lesson:
    search = index_words([said + end, *passages])

    def passage(question: str) -> str:
        return search.passages[int(search.find([question], 1)[1][0, 0])] + "\n"

    def control(seed: int) -> Lesson:
        words = said.split()
        Random(f"words {seed}").shuffle(words)
        return _of_passages(model, fact, " ".join(words), end, passages)

    read = int(model.tokens(passage(fact.text)).content.sum())
    n_bytes = sum(len(one.encode()) for one in search.passages)
    return Lesson(fact, lambda _: nullcontext(), control, n_bytes, read, passage)


def lesson_of_steering(
    model: Model,
    fact: Fact,
    *,
    sites: Sequence[Site] = (),
    contexts: Sequence[str] = ("",),
    doses: Sequence[float] = DOSES,
) -> Lesson:
    """The lesson of a vector added at every token: the mean state after the new object less that after the old one.

    The states are those at the end of "prompt object" in several contexts. Dose and site are those of the smallest dose
    at which the model says the new object after the prompt, or, where it never does, those at which that is likeliest.

    Args:
        model: the model.
        fact: what is taught.
        sites: where states are read and the vector is added, to choose from; by default after the blocks at a quarter
            and at half of the depth.
        contexts: texts put before the prompt.
        doses: to choose from, the smallest first.

    Raises:
        InvalidArgument: no doses, or states that do not differ.

    Cost: two forward passes a context and site, and a generation and a forward pass a dose and site.

    Examples:
        ```python
        with lesson_of_steering(model, fact).enter(model):
            model.generate(fact.text)
        ```
    """
    if not doses or not contexts:
        raise InvalidArgument(f"{len(doses)} doses and {len(contexts)} contexts: give at least one of each")
    sites = sites or [resid_post[layer] for layer in sorted({model.n_layers // 4, model.n_layers // 2})]
    pairs = Pairs(*([join_words(c + fact.text, said) for c in contexts] for said in (fact.new, fact.old)))
    towards = [add_direction(caa(model, pairs, site, last, progress=False)) for site in sites]
    return _of_steering(fact, *find_saying_dose(model, fact, towards, doses))


def _of_steering(fact: Fact, towards: Steering, dose: float) -> Lesson:
    def enter(model: Model) -> AbstractContextManager[object]:
        return steer(model, towards, dose)

    return Lesson(fact, enter, lambda seed: _of_steering(fact, towards.control(seed), dose), towards.vector.nbytes)


def find_saying_dose(
    model: Model, fact: Fact, towards: Sequence[Steering], doses: Sequence[float]
) -> tuple[Steering, float]:
    """The smallest dose, and where, at which the new object is said after the prompt; or else where it is likeliest."""
    tried = [(one, dose) for dose in doses for one in towards]
    likely = []
    for one, dose in tried:
        with steer(model, one, dose):
            (said,) = generate_greedily(model, [fact.text], len(model.tokens(fact.new).ids[0]) + 1)
            if begins_with(said, fact.new):
                return one, dose
            likely.append(float(score(model, [fact.text], [fact.new])))
    return tried[int(torch.tensor(likely).argmax())]
