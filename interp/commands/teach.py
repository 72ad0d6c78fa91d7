"""The command `interp teach`: the same facts by edit, context, store, passage and steering, on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hooks import Model
from hooks.errors import InvalidArgument, nearest
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
)
from interp.commands.background import drift_texts
from interp.commands.checks import check_layer
from interp.commands.verb import Document, verb
from interp.memory import Case, table_cases
from interp.memory.facts.facts_file import parse_facts, read_facts
from interp.memory.facts.tables import find_case
from interp.show import Section, costs_panel, report, ways_panel
from interp.show.frame import page_at
from interp.teaching import WAYS, WayComparison, compare_ways, make_ways

DEFAULT = ("edit", "context", "store", "passage", "steering")


@verb
def teach_command(
    model: ModelName,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUBJECT PROMPT OLD NEW]...",
            help="Facts as `interp edit` takes them; without any, 'landmark' teaches some of its own.",
        ),
    ] = None,
    facts: Annotated[
        Path | None, typer.Option(help="Facts in a .json or .csv file; JSON may say what to ask about them.")
    ] = None,
    way: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(WAYS)}; may be repeated.")] = None,
    passages: Annotated[Path | None, typer.Option(help="Passages the new one is put among, one per line.")] = None,
    texts: DriftTexts = None,
    layer: EditLayer = None,
    n: Annotated[int, typer.Option(min=1, help="How many facts at most.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the controls, and of the facts of 'landmark'.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A page to write.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Teach facts by edit, context, store, passage and steering: what each says, breaks and costs, and how it ends."""
    names = tuple(dict.fromkeys(way or DEFAULT))
    if odd := [name for name in names if name not in WAYS]:
        raise InvalidArgument(f"no way is called {odd[0]!r}; did you mean {nearest(odd[0], [*WAYS])}?")
    if out is not None:
        page_at(out)
    cases = _cases(model, words or [], facts, n, seed)
    given, among = (None if file is None else read_lines(file) for file in (texts, passages))
    check_layer(model, layer)
    check_predicts(model, "what is taught is predicted", PREDICTS)
    loaded = load_model(model, device, quiet=quiet)
    if loaded.name == "landmark":
        cases = [find_case(case.fact) if case == Case(case.fact) else case for case in cases]
    taught = [case.fact for case in cases]
    made = make_ways(loaded, taught, names, layer=layer, texts=given, passages=among or (), progress=not quiet)
    found = compare_ways(loaded, cases, made, drift_texts(loaded, given), seed=seed, progress=not quiet)
    typer.echo(str(found))
    if not any(case.neighbours for case in cases):
        typer.echo("the facts name no neighbours, so nothing here says whether other facts stayed as they were")
    if out is not None:
        typer.echo(f"page: {_write(out, loaded, cases, found).resolve()}")
    return {"facts": taught, "measures": found.table, "costs": found.costs, "undone": found.undone,
            "refused": found.refused, "page": out}  # fmt: skip


def _write(out: Path, model: Model, cases: Sequence[Case], found: WayComparison) -> Path:
    first = cases[0].fact
    lead = (
        f"{count_of(len(cases), 'fact')} taught to {model.name} one at a time, such as {first.text!r} → "
        f"{first.new!r} (it was {first.old!r}), each in {len(found.costs)} ways."
    )
    sections = [
        Section("Says and breaks", "Does it say the new object, and does all else stay?", (ways_panel(found),)),
        Section("Costs, and how it ends", "What is kept, read, waited for and left.", (costs_panel(found),)),
    ]
    return report(out, "One fact, several ways", lead, sections)


def _cases(model: str, words: list[str], facts: Path | None, n: int, seed: int) -> list[Case]:
    if words and facts is not None:
        raise InvalidArgument("facts were given as words and as --facts: give one of them")
    if not words and facts is None and model != "landmark":
        raise InvalidArgument(f"facts to teach {model} are needed: give SUBJECT PROMPT OLD NEW, or --facts FILE")
    if words:
        return [*parse_facts(words)][:n]
    return [*(table_cases(n, seed) if facts is None else read_facts(facts, n))]
