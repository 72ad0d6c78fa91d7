"""The command `interp edit`: facts from the command line or a file into an edit file and a page that scores it."""

from collections.abc import Sequence
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
    make_parent_folder,
    read_lines,
    show_step,
)
from interp.commands.background import drift_texts
from interp.commands.checks import check_layer, check_new
from interp.commands.verb import Document, verb
from interp.memory.editing.edit import Edit
from interp.memory.editors.registry import METHODS, make_editors, resolve_names
from interp.memory.evaluation.answers import Answer, ask_case
from interp.memory.evaluation.audit import audit
from interp.memory.facts.case import Case
from interp.memory.facts.facts_file import parse_facts, read_facts
from interp.memory.facts.tables import find_case
from interp.memory.tracing.trace import Location
from interp.show.edits_page import edits_page


@verb
def edit_command(
    model: ModelName,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SUBJECT PROMPT OLD NEW]...",
            help="A fact is four words or phrases: its subject without an article, a prompt with {} for the subject, "
            "the present object, and the new one. Several facts follow one another.",
        ),
    ] = None,
    facts: Annotated[
        Path | None, typer.Option(help="Facts in a .json or .csv file; JSON may say what to ask about them.")
    ] = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "rome",
    texts: DriftTexts = None,
    layer: EditLayer = None,
    scored: Annotated[int, typer.Option(min=1, help="How many of the facts to score on the page.")] = 20,
    out: Annotated[Path, typer.Option(help="The edit; the page is next to it.")] = Path("edit.safetensors"),
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Rewrite facts, show them before and after, save the edit (kilobytes) and a page that scores it."""
    cases = _cases(words or [], facts)
    resolve_names([method])
    if out.suffix != ".safetensors":
        raise InvalidArgument(f"--out {out}: name a .safetensors file; the page is next to it")
    check_new(out)
    make_parent_folder(out)
    given = read_lines(texts) if texts is not None else None
    check_layer(model, layer)
    check_predicts(model, "an edit changes what is predicted", PREDICTS)
    loaded = load_model(model, device, quiet=quiet)
    if loaded.name == "landmark":
        cases = [find_case(case.fact) if case == Case(case.fact) else case for case in cases]
    edited = [case.fact for case in cases]
    made, place = make_editors(loaded, [method], edited, layer=layer, texts=given, progress=not quiet)
    if place is not None:
        typer.echo(where(place))
    with show_step(f"editing {count_of(len(edited), 'fact')} by {method}", quiet):
        edit = made[method](loaded, edited)
        edit.save(out)
    scores = _score(loaded, edit, method, cases[:scored], out, given, quiet)
    return {"edit": out, "method": method, "facts": edited, **scores}


def _score(
    model: Model, edit: Edit, method: str, cases: Sequence[Case], out: Path, texts: list[str] | None, quiet: bool
) -> Document:
    """Print what the model says with and without an edit, and write the page that scores it."""
    with show_step("asking the edited model", quiet):
        said = [(case, ask_case(model, case, {method: edit})) for case in cases]
    for _, replies in said:
        echo_reply(replies[0])
    typer.echo(f"edit of {count_of(len(edit.facts), 'fact')} by {method}: {out.resolve()}")
    if not edit.weights:
        typer.echo(f"it changes no weight, so `interp apply` cannot take it; Edit.load({str(out)!r}).apply(model) does")
    drift = drift_texts(model, texts)
    result = audit(model, cases, {method: lambda *_: edit}, drift, progress=not quiet)
    lead = f"{count_of(len(edit.facts), 'fact')} edited in {model.name} by {method}, all in place at once."
    over = count_of(len(drift), "unrelated text")
    notes = [f"Scored on {len(cases)} of {count_of(len(edit.facts), 'fact')}; drift over {over}."]
    page = edits_page(out.with_suffix(".html"), "An edit of facts", lead, result, said, notes)
    typer.echo(f"page: {page.resolve()}")
    replies = [reply for _, several in said for reply in several]
    return {"replies": replies, "measures": result.table, "page": page}


def where(place: Location) -> str:
    """Where facts are looked up, and how surely, in a line."""
    layers = f"{'layer' if len(place.layers) == 1 else 'layers'} {', '.join(map(str, place.layers))}"
    e = place.effect
    found = f"feed-forward outputs of {layers} at the {place.role} token bring back {e.value:.0%} of probability"
    if e.n == 1:
        return f"{found} (one fact says little: --layer sets another place)"
    doubt = "" if place.sure else "; the other token brings back about as much: --layer sets another place"
    return f"{found} ({e.ends('.0%')}; {e.n} facts){doubt}"


def echo_reply(reply: Answer) -> None:
    """Print what the model says to one prompt, before and with each edit."""
    typer.echo(f"before: {reply.prompt}{reply.before.rstrip()}")
    for name, text in reply.after.items():
        typer.echo(f"{name}: {reply.prompt}{text.rstrip()}")


def _cases(words: list[str], facts: Path | None) -> list[Case]:
    if bool(words) == (facts is not None):
        raise InvalidArgument("say which facts to edit: either SUBJECT PROMPT OLD NEW, once or more, or --facts FILE")
    return [*(parse_facts(words) if facts is None else read_facts(facts))]
