"""An audit of editors: the same cases under each, one edit at a time, next to no edit and a random one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import harmonic_mean
from typing import TYPE_CHECKING

import torch

from hooks import Model
from hooks.border import Count, Natural
from hooks.errors import EditRefused, InvalidArgument
from hooks.progress import progress_bar
from interp.common.completion import predict_forced
from interp.common.statistics import Estimate, bootstrap, mean_share, mean_with_interval
from interp.memory.editing.edit import Edit
from interp.memory.editors.in_context import in_context
from interp.memory.evaluation.control import make_control
from interp.memory.evaluation.measurement import (
    HARMONIC,
    MEASURES,
    generate_greedily,
    is_share,
    measure_case,
    measure_norm,
    measure_unedited,
    split_queries,
)
from interp.memory.facts.case import Case
from interp.memory.facts.fact import Fact

if TYPE_CHECKING:
    from pandas import DataFrame

Editor = Callable[[Model, Fact], Edit]
SCORES = ("efficacy", "paraphrase", "neighbours true over new")


@dataclass(frozen=True)
class Audit:
    """What each editor did: `table[editor][measure]` is a mean over cases with its interval.

    That of a share of answers is Wilson's, that of a magnitude is bootstrapped over cases. The harmonic score S is the
    harmonic mean of three means, not a mean over cases (Meng et al. 2022); for its interval the cases of each are
    drawn independently, and its `n` is the least of theirs.

    A measure that no case has prompts for is absent. `refused[editor]` are the cases it refused (`EditRefused`), with
    the message: they count as the model unedited, and any other error surfaces. `said[editor]` is what was generated
    after the prompt of each case.
    """

    table: Mapping[str, Mapping[str, Estimate]]
    refused: Mapping[str, Mapping[str, str]]
    said: Mapping[str, Mapping[str, str]]

    def __repr__(self) -> str:
        shown = {name: row["efficacy"].value for name, row in self.table.items() if not name.endswith(" control")}
        return f"Audit({self.n} cases; efficacy {', '.join(f'{name} {value:.2f}' for name, value in shown.items())})"

    @property
    def n(self) -> int:
        """How many cases there are."""
        return max(e.n for e in self.table["unedited"].values())

    def to_pandas(self) -> "DataFrame":
        """A row for each editor and measure: its value, the ends of the interval, and the cases it rests on."""
        from pandas import DataFrame

        return DataFrame(
            {"editor": name, "measure": measure, "value": e.value, "low": e.low, "high": e.high, "n": e.n}
            for name, row in self.table.items()
            for measure, e in row.items()
        )


def audit(
    model: Model,
    cases: Sequence[Case],
    editors: Mapping[str, Editor],
    texts: Sequence[str],
    *,
    n_generated: Count = 30,
    seed: Natural = 0,
    progress: bool = True,
) -> Audit:
    """Edit each case by each editor, measure, undo; with "unedited", "in context" and, for each editor, "… control".

    The control writes a random value of equal norm at the same place; in context the fact comes before the text.

    Args:
        model: the model.
        cases: what to edit and ask.
        editors: by name, functions from the model and a fact to its edit.
        texts: unrelated texts, for the drift.
        n_generated: tokens generated for the fluency.
        seed: of the controls, which are drawn for each case, and of the bootstrap.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no cases, editors or texts; an editor called "unedited".

    Cost: per case and editor the edit, and twice a forward pass and a generation of every prompt, and a pass over the
    texts.

    Examples:
        ```python
        audit(model, cases, {"rome": rome, "memit": memit}, texts).table["rome"]["paraphrase said"]
        ```
    """
    texts = [texts] if isinstance(texts, str) else texts
    if not cases or not editors or not texts or "unedited" in editors:
        raise InvalidArgument(
            f"{len(cases)} cases, the editors {[*editors]} and {len(texts)} texts: give at least one of each, and call "
            "no editor 'unedited'"
        )
    editors = {**editors} if in_context in editors.values() else {**editors, "in context": in_context}
    base = measure_unedited(model, texts, cases)
    rows: dict[str, list[dict[str, float]]] = {}
    said: dict[str, dict[str, str]] = {}
    refused: dict[str, dict[str, str]] = {name: {} for name in editors}
    for number, case in enumerate(progress_bar(cases, desc="auditing edits", progress=progress)):
        before = predict_forced(model, *split_queries(case.neighbours)) if case.neighbours else []
        for name, edit in _states(model, case.fact, editors, refused, seed + number):
            with nullcontext() if edit is None else edit.applied(model):
                if edit is None and name != "unedited":
                    row, text = rows["unedited"][-1], said["unedited"][case.fact.text]
                else:
                    (text,) = generate_greedily(model, [case.fact.text], n_generated)
                    row = measure_case(model, case, text, before, base)
            rows.setdefault(name, []).append({**row, "norm": 0.0 if edit is None else measure_norm(model, edit)})
            said.setdefault(name, {})[case.fact.text] = text
    return Audit({name: estimate_measures(found, seed) for name, found in rows.items()}, refused, said)


def _states(
    model: Model, fact: Fact, editors: Mapping[str, Editor], refused: Mapping[str, dict[str, str]], seed: int
) -> Iterator[tuple[str, Edit | None]]:
    """The model unedited, then with each edit and its control; None where an editor refused."""
    yield "unedited", None
    for name, editor in editors.items():
        edit = _try(editor, model, fact, refused[name])
        yield name, edit
        yield f"{name} control", None if edit is None else make_control(edit, seed)


def _try(editor: Editor, model: Model, fact: Fact, refused: dict[str, str]) -> Edit | None:
    try:
        return editor(model, fact)
    except EditRefused as error:
        refused[fact.text] = str(error)
        return None


def estimate_measures(rows: Sequence[Mapping[str, float]], seed: int = 0) -> dict[str, Estimate]:
    """The mean of each measure over the cases that have it, a row a case, and the harmonic score.

    Examples:
        >>> estimate_measures([{"efficacy": 1.0}, {"efficacy": 0.0, "drift": 0.5}])["efficacy"].value
        0.5
    """
    found = {}
    for name in MEASURES:
        values = [row[name] for row in rows if name in row]
        if values:
            sample = torch.tensor(values, dtype=torch.float64)
            if is_share(name):
                found[name] = mean_share(sample)
            else:
                found[name] = mean_with_interval(sample, seed)
    parts = [[row[name] for row in rows if name in row] for name in SCORES]
    if all(parts):
        samples = [torch.tensor(part, dtype=torch.float64) for part in parts]
        e = bootstrap(lambda drawn: float(harmonic_mean([float(part.mean()) for part in drawn])), samples, seed=seed)
        found[HARMONIC] = replace(e, n=min(map(len, parts)))
    return found
