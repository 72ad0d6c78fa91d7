"""Edits as a page: every measure by method next to its controls, then each fact by method, said before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from hooks.plurals import count_of
from interp.common.statistics import Estimate
from interp.common.texts import begins_with, find_phrases
from interp.memory import Audit, Case
from interp.memory.evaluation.answers import Answer
from interp.show.audit import audit_panel
from interp.show.collapsible_list import collapsible_list
from interp.show.html import Html, highlight, part, render, table
from interp.show.page import Panel, Section, Tile, report

CONTROLS = " control"
KEPT = ("neighbour", "other fact")
CaseAnswers = Sequence[tuple[Case, Sequence[Answer]]]


def edits_page(
    path: str | Path, title: str, lead: str, result: Audit, said: CaseAnswers, notes: Sequence[str] = ()
) -> Path:
    """Write a page that opens offline of audited edits and return where it is.

    A fold per fact, opened by mouse or keyboard, and by an address that ends in #fact-3.

    Raises:
        InvalidArgument: a name that does not end in `.html`.

    Examples:
        ```python
        edits_page("audit.html", "Two editors", "On landmark.", audit(...), [(case, replies(model, case, edits))])
        ```
    """
    sections = [
        Section("Measures", "What each method changed, and what it should not have.", (audit_panel(result),)),
        Section(
            "Facts",
            "Each fact under each method: how many of the questions about the new fact are answered with it, and how "
            "many of the others with their own truth. A fold holds what the model says, before and after.",
            (facts_panel(said),) if said else (),
            Html(facts_folds(said)) if said else None,
        ),
    ]
    return report(path, title, lead, sections, _tiles(result), notes)


def facts_panel(said: CaseAnswers) -> Panel:
    """Facts by methods: how many questions about the new fact, and how many others, are answered right."""
    methods = _methods(said)
    rows = [
        [
            part("fact", f"fact-{i}", case.fact.subject, case.fact.old, case.fact.new),
            _count(replies, None),
            *(_count(replies, method) if method in replies[0].after else "refused" for method in methods),
        ]
        for i, (case, replies) in enumerate(said)
    ]
    return Panel(
        title="Facts by methods",
        body=Html(table(["", "before", *methods], rows)),
        caption=(
            "New: of the questions about the new fact, those answered with it, by free generation. Kept: of the "
            "questions about neighbours and about the subject's other facts, those answered with their own truth."
        ),
        control="The column before is the model unedited: what it does not know to begin with cannot be kept.",
    )


def facts_folds(said: CaseAnswers) -> Markup:
    """Each fact, a fold: its questions, and what the model says before and with each edit."""
    folds = ((f"fact-{i}", _head(i, case, heard), _body(case, heard)) for i, (case, heard) in enumerate(said))
    return collapsible_list(folds, "facts")


def _head(number: int, case: Case, replies: Sequence[Answer]) -> Markup:
    fact = case.fact
    marks = " ".join(f"{name} {'✓' if replies[0].right(name) else '✗'}" for name in replies[0].after)
    text = f"{fact.text} … {fact.old} → {fact.new}"
    return render("head.html", number=number + 1, mark="", text=text, figure=marks)


def _body(case: Case, replies: Sequence[Answer]) -> Markup:
    methods, rows = [*replies[0].after], []
    for reply in replies:
        cells = [_answer(reply.before, reply, case), *(_answer(reply.after[name], reply, case) for name in methods)]
        rows.append([part("asked", reply.kind, reply.prompt), *cells])
    return part("block", "words said", table(["", "before", *methods], rows))


def _answer(text: str, reply: Answer, case: Case) -> Markup:
    """A continuation with the wanted answer marked where it is given, and a sign of whether it is."""
    shown = text.strip("\n")
    spans = [(start, end) for start, end, _ in find_phrases(shown, [reply.wanted, case.fact.new])]
    return part("answer", begins_with(text, reply.wanted), highlight(shown, spans))


def _count(replies: Sequence[Answer], method: str | None) -> str:
    new = [reply.right(method) for reply in replies if reply.kind not in KEPT]
    kept = [reply.right(method) for reply in replies if reply.kind in KEPT]
    return f"{sum(new)}/{len(new)} new" + (f", {sum(kept)}/{len(kept)} kept" if kept else "")


def _methods(said: CaseAnswers) -> list[str]:
    return list(dict.fromkeys(name for _, replies in said for name in replies[0].after))


def _tiles(result: Audit) -> list[Tile]:
    unedited: Mapping[str, Estimate] = result.table["unedited"]
    tiles = []
    for name in (name for name in result.table if name != "unedited" and not name.endswith(CONTROLS)):
        said, before = result.table[name]["efficacy said"], unedited["efficacy said"]
        compared = result.table[f"{name}{CONTROLS}"]["efficacy said"]
        tiles.append(
            Tile(
                f"{said.value:.0%}",
                f"of {count_of(said.n, 'fact')} said by free generation: {name}",
                f"{said.ends('.0%')}; unedited {before.value:.0%}, control {compared.value:.0%}",
            )
        )
    return tiles[:4]
