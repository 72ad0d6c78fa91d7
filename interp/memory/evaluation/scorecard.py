"""The scorecard of one edit: an audit's outcomes counted over prompts, before, after, and for a control edit."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hooks import Model
from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from interp.common.statistics import Estimate, share
from interp.common.texts import begins_with, list_texts
from interp.memory.editing.edit import Edit
from interp.memory.evaluation.control import make_control
from interp.memory.evaluation.measurement import Outcomes, generate_greedily, measure_outcomes
from interp.memory.facts.case import Case
from interp.memory.facts.fact import Query, extract_answer, fill_template

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Column:
    """One state of the model, measured: each share is over prompts.

    Attributes:
        efficacy_exact: the edited prompts completed with the new object, by greedy generation.
        efficacy_preferred: NLL(new) < NLL(old), per token (the ES of CounterFact).
        paraphrase_exact: the paraphrases completed with the new object, by greedy generation.
        paraphrase_preferred: NLL(new) < NLL(old) on the paraphrases (PS).
        neighbours_unchanged: other subjects' answers the same as before the edit, by greedy generation.
        neighbours_true: other subjects' answers that are true, by greedy generation.
        neighbours_forced_unchanged: unchanged as well, arg max token by token, teacher-forced.
        neighbours_preferred: NLL(true) < NLL(new) on the neighbours (the NS of CounterFact).
        others_unchanged: the subject's other facts answered as before the edit, by greedy generation.
        kl: mean KL(before‖now) of the next-token distribution over unrelated texts, nats per token.
        perplexity_ratio: perplexity of unrelated texts, relative to before the edit.
    """

    efficacy_exact: Estimate
    efficacy_preferred: Estimate
    paraphrase_exact: Estimate
    paraphrase_preferred: Estimate
    neighbours_unchanged: Estimate
    neighbours_true: Estimate
    neighbours_forced_unchanged: Estimate
    neighbours_preferred: Estimate
    others_unchanged: Estimate
    kl: float
    perplexity_ratio: float


@dataclass(frozen=True)
class Scorecard:
    """An edit measured: the model before, with the edit, and with a control edit.

    The control writes a random value of the same norm with the same key: what it moves, any change of that size moves.
    """

    before: Column
    after: Column
    control: Column

    def __repr__(self) -> str:
        names = ("efficacy_exact", "paraphrase_exact", "neighbours_unchanged")
        shown = ", ".join(
            f"{name} {getattr(self.after, name).value:.2f} (control {getattr(self.control, name).value:.2f})"
            for name in names
        )
        return f"Scorecard({shown})"

    def to_pandas(self) -> "DataFrame":
        """A row for each state and measure: its value, the ends of the interval, and the prompts it rests on.

        The drift has no interval: its ends and number are missing.
        """
        from pandas import DataFrame

        return DataFrame(
            {"state": state, "measure": measure, **(vars(e) if isinstance(e, Estimate) else {"value": e})}
            for state, column in vars(self).items()
            for measure, e in vars(column).items()
        )


@dataclass(frozen=True, eq=False)
class _State:
    """What the model says in one state; of neighbours and other facts also the objects it generates."""

    outcomes: Outcomes
    neighbours: list[str]
    others: list[str]


def scorecard(
    model: Model,
    edit: Edit,
    *,
    paraphrases: Sequence[str],
    neighbours: Sequence[Query],
    others: Sequence[Query],
    texts: Sequence[str],
    seed: Natural = 0,
    progress: bool = True,
) -> Scorecard:
    """Score an edit of one fact, which is applied and undone on the way.

    The outcomes are those of an audit of one case, `measure_outcomes`, counted over prompts instead of over cases.
    What an audit does not ask is whether the objects generated for neighbours and other facts are those of before.

    Args:
        model: the model, without the edit.
        edit: an edit of one fact.
        paraphrases: templates with `{}` for the subject that ask for the same object.
        neighbours: questions of other subjects with the same relation and the old object.
        others: questions of the subject's other facts.
        texts: unrelated texts, for the drift.
        seed: of the control.
        progress: show a bar.

    Raises:
        InvalidArgument: an empty list, a string in place of a list of texts, or an edit of several facts.

    Cost: three generations of every prompt, and six forward passes over it; three over the texts.
    """
    given = {"paraphrases": paraphrases, "neighbours": neighbours, "others": others, "texts": texts}
    for name, items in given.items():
        if not items:
            raise InvalidArgument(f"{name} is empty: a scorecard needs at least one of them")
    if len(edit.facts) != 1:
        raise InvalidArgument(f"the edit holds {len(edit.facts)} facts; score the edits of single facts one by one")
    (fact,), texts = edit.facts, list_texts(texts)
    case = Case(
        fact,
        tuple(fill_template(template, fact.subject) for template in list_texts(paraphrases, "paraphrases")),
        tuple(neighbours),
    )
    answers = [fact.new, *(query.answer for query in (*neighbours, *others))]
    n = int(model.tokens([f"a {answer}" for answer in answers]).content.sum(1).max()) + 4

    def measure(state: AbstractContextManager[None]) -> _State:
        with state:
            (said,) = generate_greedily(model, [fact.text], n)
            outcomes = measure_outcomes(model, case, said, texts)
            return _State(outcomes, _generate_objects(model, neighbours, n), _generate_objects(model, others, n))

    true = [query.answer for query in neighbours]
    states = [nullcontext(), edit.applied(model), make_control(edit, seed).applied(model)]
    found = [measure(state) for state in progress_bar(states, desc="scorecard", progress=progress)]
    return Scorecard(*(_column(state, found[0], true) for state in found))


def _column(now: _State, before: _State, true: Sequence[str]) -> Column:
    outcomes = now.outcomes
    kl, perplexity_ratio = outcomes.reading.measure_drift(before.outcomes.reading)
    return Column(
        efficacy_exact=_share(outcomes.said["efficacy"]),
        efficacy_preferred=share(outcomes.efficacy.outcomes),
        paraphrase_exact=_share(outcomes.said["paraphrase"]),
        paraphrase_preferred=share(outcomes.paraphrase.outcomes),
        neighbours_unchanged=_same(now.neighbours, before.neighbours),
        neighbours_true=_same(now.neighbours, true),
        neighbours_forced_unchanged=_same(outcomes.forced, before.outcomes.forced),
        neighbours_preferred=share(outcomes.neighbours.outcomes),
        others_unchanged=_same(now.others, before.others),
        kl=kl,
        perplexity_ratio=perplexity_ratio,
    )


def _generate_objects(model: Model, queries: Sequence[Query], n: int) -> list[str]:
    """What each continuation gives as the object: the true one, whatever follows it, or else its first clause."""
    said = generate_greedily(model, [query.prompt for query in queries], n)
    return [
        query.answer if begins_with(text, query.answer) else extract_answer(text)
        for query, text in zip(queries, said, strict=True)
    ]


def _share(outcomes: Sequence[bool]) -> Estimate:
    return share(torch.tensor(outcomes, dtype=torch.bool))


def _same(now: Sequence[object], before: Sequence[object]) -> Estimate:
    return _share([one == other for one, other in zip(now, before, strict=True)])
