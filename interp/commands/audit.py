"""The command `interp audit`: editors compared on cases, next to the unedited model and a control."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.plurals import count_of
from interp.commands.arguments import (
    PREDICTS,
    Device,
    DriftTexts,
    EditLayer,
    ModelName,
    Quiet,
    check_predicts,
    load_model,
    read_lines,
    show_step,
)
from interp.commands.background import drift_texts
from interp.commands.checks import check_layer
from interp.commands.edit import where
from interp.commands.verb import Document, verb
from interp.common.statistics import Estimate
from interp.memory.editing.edit import Edit
from interp.memory.editors.registry import METHODS, make_editors, resolve_names
from interp.memory.evaluation.answers import ask_case
from interp.memory.evaluation.audit import Audit, Editor, audit
from interp.memory.evaluation.measurement import MEASURES
from interp.memory.facts.fact import Fact
from interp.memory.facts.facts_file import read_facts
from interp.memory.facts.tables import table_cases
from interp.show.edits_page import edits_page
from interp.show.frame import page_at


@verb
def audit_command(
    model: ModelName,
    cases: Annotated[
        Path | None,
        typer.Argument(metavar="[CASES]", help="CounterFact, zsRE or facts as JSON or CSV; 'landmark' has its own."),
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(METHODS)}; may be repeated.")] = None,
    texts: DriftTexts = None,
    layer: EditLayer = None,
    n: Annotated[int, typer.Option(min=1, help="How many cases.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the controls, and of the cases of 'landmark'.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A page to write: measures, and facts by methods.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Edit cases one at a time by some methods, and print what each did next to the unedited model and a control."""
    names = resolve_names(method or ["rome"])
    if cases is None and model != "landmark":
        raise InvalidArgument(
            f"cases to audit edits of {model} on are needed: give a file of CounterFact, zsRE or facts"
        )
    if out is not None:
        page_at(out)
    asked = table_cases(n, seed) if cases is None else read_facts(cases, n)
    given = read_lines(texts) if texts is not None else None
    check_layer(model, layer)
    check_predicts(model, "an edit changes what is predicted", PREDICTS)
    loaded = load_model(model, device, quiet=quiet)
    facts = [case.fact for case in asked]
    made, place = make_editors(loaded, names, facts, layer=layer, texts=given, progress=not quiet)
    if place is not None:
        typer.echo(where(place))
    kept: dict[str, dict[Fact, Edit]] = {name: {} for name in made}
    remembering: dict[str, Editor] = {name: _remember_edits(editor, kept[name]) for name, editor in made.items()}
    if "in_context" in made:
        remembering["in_context"] = made["in_context"]
    result = audit(loaded, asked, remembering, drift_texts(loaded, given), seed=seed, progress=not quiet)
    typer.echo(print_audit(result))
    if not any(case.neighbours for case in asked):
        typer.echo("the cases name no neighbours, so nothing here says whether other facts stayed as they were")
    if out is not None:
        held = [{name: found[case.fact] for name, found in kept.items() if case.fact in found} for case in asked]
        with show_step("asking the edited models", quiet):
            said = [(case, ask_case(loaded, case, edits)) for case, edits in zip(asked, held, strict=True)]
        lead = f"{len(asked)} facts of {loaded.name} edited one at a time by {', '.join(names)}."
        typer.echo(f"page: {edits_page(out, 'Edits audited', lead, result, said).resolve()}")
    return {"cases": len(asked), "measures": result.table, "refused": result.refused, "page": out}


def _remember_edits(editor: Callable[[Model, Fact], Edit], kept: dict[Fact, Edit]) -> Editor:
    """The editor, whose edits are kept to be shown."""

    def edited(model: Model, fact: Fact) -> Edit:
        kept[fact] = editor(model, fact)
        return kept[fact]

    return edited


def print_audit(result: Audit) -> str:
    """An audit in text: for each editor its measures next to those of its control and of the unedited model."""
    table, n = result.table, result.n
    lines = [f"means over {count_of(n, 'fact')} (95% interval); (over so many where not all have prompts)"]
    for name in (name for name in table if f"{name} control" in table):
        columns = [table[state] for state in (name, f"{name} control", "unedited")]
        lines += ["", f"{name:<30}{'edited':<32}{'control':<32}unedited"]
        for measure in (m for m in MEASURES if m in columns[0]):
            few = columns[0][measure].n
            called = measure if few == n else f"{measure} ({few})"
            lines.append(f"{called:<30}" + "".join(f"{_as_text(row[measure]):<32}" for row in columns).rstrip())
        messages = result.refused[name]
        if messages:
            lines.append(f"{name} refused {len(messages)}, the first: {next(iter(messages.values()))}")
    return "\n".join(lines)


def _as_text(e: Estimate) -> str:
    return f"{e:.4g}"
