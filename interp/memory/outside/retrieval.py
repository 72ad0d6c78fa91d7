"""Passages in the prompt: whether a search finds the right one, and what reading it changes in the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from hooks import Model
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.common.completion import find_answer_ids
from interp.common.statistics import Estimate, mean_share, share
from interp.common.texts import begins_with, find_phrases
from interp.memory.evaluation.measurement import generate_greedily
from interp.memory.outside.search import PassageSearch

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class RetrievalScore:
    """Whether the right passage is found.

    Attributes:
        first: the share of questions whose right passage comes first.
        among: the share where it is among the first `k`.
        k: how many were looked at.
        reciprocal: the mean of 1/rank, 0 where it is not among the first `k`.
        chance: `first` where each question is given another's right passage: the control.
    """

    first: Estimate
    among: Estimate
    k: int
    reciprocal: Estimate
    chance: Estimate

    __repr__ = summarise

    def __str__(self) -> str:
        return (
            f"first {self.first}, among the first {self.k} {self.among}, 1/rank {self.reciprocal}; another question's "
            f"passage first {self.chance}"
        )


def measure_retrieval(
    search: PassageSearch, questions: Sequence[str], right: Sequence[int], *, k: Count = 5, seed: Natural = 0
) -> RetrievalScore:
    """Measure how well a search finds the passage that answers each question.

    Args:
        search: what finds passages.
        questions: to be answered.
        right: the number of the passage that answers each.
        k: how many passages are looked at.
        seed: of the control.

    Raises:
        InvalidArgument: not a passage's number for each question.

    Examples:
        ```python
        measure_retrieval(index_words(passages), questions, range(len(questions))).first
        ```
    """
    _check_right(search, questions, right)
    _, at = search.find(questions, k)
    wanted = torch.tensor([*right])
    hits = at == wanted[:, None]
    ranks = hits.double() / torch.arange(1, at.shape[1] + 1)
    others = _deal(wanted.tolist(), seed)
    return RetrievalScore(
        share(hits[:, 0]),
        share(hits.any(1)),
        at.shape[1],
        mean_share(ranks.sum(1)),
        share(at[:, 0] == torch.tensor(others)),
    )


@dataclass(frozen=True)
class PassageReading:
    """What is answered with a passage before the question.

    Attributes:
        says: the share of questions answered rightly: after "nothing", "the passage found", "the right passage", and
            "another passage" about as long as the right one, which does not hold the answer: the control.
        found: the share of questions for which the passage found is the right one.
    """

    says: dict[str, Estimate]
    found: Estimate

    __repr__ = summarise

    def __str__(self) -> str:
        return "\n".join([f"the right passage is found {self.found}; right after:",
                          *(f"  {name:<20} {e}" for name, e in self.says.items())])  # fmt: skip

    def to_pandas(self) -> "DataFrame":
        """A row for each thing that is read before."""
        from pandas import DataFrame

        return DataFrame(
            {"read before": n, "right": e.value, "low": e.low, "high": e.high} for n, e in self.says.items()
        )


def measure_passage_reading(
    model: Model,
    search: PassageSearch,
    questions: Sequence[str],
    answers: Sequence[str],
    right: Sequence[int],
    *,
    seed: Natural = 0,
    progress: bool = True,
) -> PassageReading:
    """Measure what a model answers after the passage that a search finds, the right one, another one, and none.

    Args:
        model: a causal language model.
        search: what finds passages.
        questions: prompts that end where the answer is due.
        answers: the right ones.
        right: the number of the passage that answers each.
        seed: of the other passages.
        progress: show a bar.

    Raises:
        InvalidArgument: not one answer and one passage for each question, or no other passage without its answer.

    Cost: a search, and four generations of every question.

    Examples:
        ```python
        measure_passage_reading(model, search, questions, answers, right).says
        ```
    """
    _check_right(search, questions, right)
    if len(answers) != len(questions):
        raise InvalidArgument(f"{len(answers)} answers to {len(questions)} questions were given: give one for each")
    passages = search.passages
    first = [int(i) for i in search.find(questions, 1)[1][:, 0]]
    other = [_another(passages, i, answer, seed) for i, answer in zip(right, answers, strict=True)]
    read = {"nothing": None, "the passage found": first, "the right passage": [*right], "another passage": other}
    n = max(map(len, find_answer_ids(model, questions, answers))) + 2
    says = {}
    for name, which in progress_bar(read.items(), desc="passages", progress=progress):
        prompts = [q if which is None else f"{passages[which[i]]}\n{q}" for i, q in enumerate(questions)]
        said = generate_greedily(model, prompts, n)
        says[name] = share(torch.tensor([begins_with(t, a) for t, a in zip(said, answers, strict=True)]))
    return PassageReading(says, share(torch.tensor(first) == torch.tensor([*right])))


def _check_right(search: PassageSearch, questions: Sequence[str], right: Sequence[int]) -> None:
    if len(right) != len(questions) or not all(0 <= i < len(search.passages) for i in right):
        raise InvalidArgument(
            f"{len(right)} passages for {len(questions)} questions: give for each the number of one of the "
            f"{len(search.passages)} passages"
        )


def _deal(right: list[int], seed: int) -> list[int]:
    """For each question the right passage of another question, where there is another."""
    rng, different = Random(f"deal {seed}"), sorted({*right})
    return [rng.choice([j for j in different if j != i] or [-1]) for i in right]


def _another(passages: Sequence[str], right: int, answer: str, seed: int) -> int:
    """Of the passages without the answer one of the ten that are nearest to the right one in length."""
    fits = [i for i, one in enumerate(passages) if i != right and not find_phrases(one, [answer], ignore_case=True)]
    if not fits:
        raise InvalidArgument(f"every other passage has the answer {answer!r}: give passages without it")
    fits.sort(key=lambda i: abs(len(passages[i]) - len(passages[right])))
    return Random(f"another {seed} {right}").choice(fits[:10])
