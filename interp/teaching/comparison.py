"""The same facts taught by every way: what is said, what else changes, what it costs, and what is left after."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import torch

from hooks import Model
from hooks.border import Natural
from hooks.errors import EditRefused, InvalidArgument
from hooks.fingerprint import fingerprint
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.common.completion import find_answer_ids, predict_forced
from interp.common.statistics import Estimate, bootstrap, mean_share
from interp.memory import Case
from interp.memory.evaluation.audit import estimate_measures
from interp.memory.evaluation.measurement import (
    UneditedBaseline,
    generate_greedily,
    measure_case,
    measure_unedited,
    split_queries,
)
from interp.memory.facts.case import Query
from interp.teaching.lesson import Lesson
from interp.teaching.ways import Way

if TYPE_CHECKING:
    from pandas import DataFrame

COSTS = {
    "bytes": "kept of one fact",
    "tokens": "read before a text because of it",
    "passes": "processor time of teaching, in forward passes over the prompt",
    "time": "processor time of answering, over that of the model untaught",
}
"""What is measured of a way's cost."""
UNREAD = ("drift", "perplexity", "induction", "sums")
MORE, TIMED, REPEATS = 4, 6, 3


@dataclass(frozen=True)
class WayComparison:
    """What each way did.

    Attributes:
        table: by way, "untaught" and "… control", each measure of an audit (`MEASURES`) as a mean over facts. A way
            that puts a passage before questions has no drift: texts that ask nothing are read as they are.
        costs: by way, each of `COSTS` as a mean over facts.
        undone: by way, the share of facts after which the model's logits and its weights are bit for bit the old ones.
        refused: by way, the facts that it refused, with the message; they count as the model untaught.
    """

    table: Mapping[str, Mapping[str, Estimate]]
    costs: Mapping[str, Mapping[str, Estimate]]
    undone: Mapping[str, Estimate]
    refused: Mapping[str, Mapping[str, str]]

    __repr__ = summarise

    @property
    def n(self) -> int:
        """How many facts were taught."""
        return max(e.n for e in self.table["untaught"].values())

    def __str__(self) -> str:
        shown = ("efficacy said", "paraphrase said", "neighbours unchanged", "others said")
        head = f"{'way':<20}" + "".join(f"{name:>22}" for name in shown) + f"{'bytes':>12}{'undone':>8}"
        lines = [f"{self.n} facts, one at a time", head]
        for way, row in self.table.items():
            cells = "".join(f"{_short(row.get(name)):>22}" for name in shown)
            held = (
                f"{self.costs[way]['bytes'].value:>12,.0f}{self.undone[way].value:>8.0%}" if way in self.costs else ""
            )
            lines.append(f"{way:<20}{cells}{held}")
        return "\n".join(lines)

    def to_pandas(self) -> "DataFrame":
        """A row for each way and measure, costs among them."""
        from pandas import DataFrame

        rows = [(way, name, e) for way, row in self.table.items() for name, e in row.items()]
        rows += [(way, name, e) for way, row in self.costs.items() for name, e in row.items()]
        rows += [(way, "undone", e) for way, e in self.undone.items()]
        return DataFrame({"way": w, "measure": m, "value": e.value, "low": e.low, "high": e.high, "n": e.n}
                         for w, m, e in rows)  # fmt: skip


def _short(e: Estimate | None) -> str:
    return "–" if e is None else f"{e:.0%}"


def compare_ways(
    model: Model,
    cases: Sequence[Case],
    ways: Mapping[str, Way],
    texts: Sequence[str],
    *,
    seed: Natural = 0,
    progress: bool = True,
) -> WayComparison:
    """Teach each case's fact by each way, measure, leave; next to the model untaught and to each way's control.

    Processor times are of this process, taken in turn with and without the lesson, so that other work on the machine
    counts little; they are ratios and not speeds.

    Args:
        model: the model.
        cases: facts, and what else to ask.
        ways: by name, as `make_ways` gives them; or functions from the model and a fact to a `Lesson`.
        texts: unrelated ones, for the drift.
        seed: of the controls.
        progress: show a bar.

    Raises:
        InvalidArgument: no cases, ways or texts; a way called "untaught".

    Cost: per case and way the lesson, twice what an audit asks, and two readings of the weights.

    Examples:
        ```python
        compare_ways(model, cases, make_ways(model, [case.fact for case in cases]), texts)
        ```
    """
    if not cases or not ways or not texts or "untaught" in ways:
        raise InvalidArgument(
            f"{len(cases)} cases, the ways {[*ways]} and {len(texts)} texts: give at least one of each, and "
            "call no way 'untaught'"
        )
    base = measure_unedited(model, texts, cases)
    rows: dict[str, list[dict[str, float]]] = {}
    costs: dict[str, list[dict[str, float]]] = {}
    refused: dict[str, dict[str, str]] = {name: {} for name in ways}
    for number, case in enumerate(progress_bar(cases, desc="teaching", progress=progress)):
        before = predict_forced(model, *split_queries(case.neighbours)) if case.neighbours else []
        plain = _measure(model, case, None, before, base)
        rows.setdefault("untaught", []).append(plain)
        for name, lesson, cost in _lessons(model, case, ways, refused):
            for called, one in ((name, lesson), (f"{name} control", lesson and lesson.control(seed + number))):
                row = plain if one is None else _measure(model, case, one, before, base)
                rows.setdefault(called, []).append(row)
            if lesson is not None:
                costs.setdefault(name, []).append({**cost, **_leave(model, lesson)})
    table = {name: estimate_measures(found, seed) for name, found in rows.items()}
    means = {name: {k: _mean([row[k] for row in found], seed) for k in COSTS} for name, found in costs.items()}
    undone = {n: mean_share(torch.tensor([row["undone"] for row in of])) for n, of in costs.items()}
    return WayComparison(table, means, undone, refused)


def _lessons(
    model: Model, case: Case, ways: Mapping[str, Way], refused: Mapping[str, dict[str, str]]
) -> Iterator[tuple[str, Lesson | None, dict[str, float]]]:
    """Every way's lesson, with what it cost; None where it was refused."""
    one_pass = median(_processor_time(lambda: model.run(case.fact.text)) for _ in range(REPEATS))
    for name, way in ways.items():
        begun = time.process_time()
        try:
            lesson = way(model, case.fact)
        except EditRefused as error:
            refused[name][case.fact.text] = str(error)
            yield name, None, {}
            continue
        spent = time.process_time() - begun
        yield (
            name,
            lesson,
            {"bytes": float(lesson.n_bytes), "tokens": float(lesson.n_tokens), "passes": spent / one_pass},
        )


def _measure(
    model: Model, case: Case, lesson: Lesson | None, before: Sequence[Sequence[int]], base: UneditedBaseline
) -> dict[str, float]:
    """Every measure of an audit, with the lesson in place."""
    with nullcontext() if lesson is None else lesson.enter(model):
        asked = case if lesson is None else _read_first(case, lesson.passage)
        longest = len(find_answer_ids(model, [case.fact.text], [case.fact.new])[0])
        (said,) = generate_greedily(model, [asked.fact.text], longest + MORE)
        row = measure_case(model, asked, said, before, base)
    reads = lesson is not None and bool(lesson.passage(case.fact.text))
    return {name: value for name, value in row.items() if not (reads and name in UNREAD)}


def _read_first(case: Case, passage: Callable[[str], str]) -> Case:
    """The case with a passage before each of its prompts."""

    def read(queries: tuple[Query, ...]) -> tuple[Query, ...]:
        return tuple(Query(passage(q.prompt) + q.prompt, q.answer) for q in queries)

    kinds = ("neighbours", "others", "hops", "reverse", "aliases")
    return replace(
        case,
        fact=replace(case.fact, prompt=passage(case.fact.text) + case.fact.prompt),
        paraphrases=tuple(passage(one) + one for one in case.paraphrases),
        **{kind: read(getattr(case, kind)) for kind in kinds},
    )


@torch.no_grad()
def _leave(model: Model, lesson: Lesson) -> dict[str, float]:
    """Whether nothing is left once the block ends, and how much longer an answer takes inside it."""
    prompt, weights = lesson.fact.text, fingerprint(model.hf)
    logits, times = model.run(prompt), []
    for _ in range(REPEATS):
        alone = _processor_time(lambda: model.generate(prompt, max_new_tokens=TIMED))
        asked = lesson.passage(prompt) + prompt
        with lesson.enter(model):
            times.append(_processor_time(lambda: model.generate(asked, max_new_tokens=TIMED)) / alone)  # noqa: B023
    undone = torch.equal(model.run(prompt), logits) and fingerprint(model.hf) == weights
    return {"undone": float(undone), "time": median(times)}


def _processor_time(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return max(time.process_time() - begun, 1e-9)


def _mean(values: Sequence[float], seed: int) -> Estimate:
    return bootstrap(lambda drawn: float(drawn[0].mean()), [torch.tensor(values, dtype=torch.float64)], seed=seed)
