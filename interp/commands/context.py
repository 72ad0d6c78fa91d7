"""The command `interp context`: what of the demonstrations a model uses, and which heads bring the task."""

from pathlib import Path
from typing import Annotated

import typer

from hooks.errors import InvalidArgument
from interp.commands.arguments import Device, Quiet, check_device, lead_with, load_model, note, read_columns, read_lines
from interp.commands.verb import Document, verb
from interp.context import (
    DemonstrationEffects,
    PairTask,
    find_function_vector,
    measure_demonstrations,
    measure_head_effects,
    measure_transfer,
)
from interp.show import Section, demonstrations_panel, heads_panel, report, transfer_panel
from interp.show.frame import page_at
from interp.worlds.lists import facts
from interp.worlds.load import bundled_worlds, load_world


@verb
def context_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A bundled world, such as 'lists', 'landmark', a folder, or a Hugging Face id."
        ),
    ],
    task: Annotated[
        str, typer.Argument(help="A file with an input, a tab and its label a line; or, of lists, a relation.")
    ],
    shots: Annotated[int, typer.Option(min=1, help="Demonstrations in a prompt.")] = 6,
    n: Annotated[int, typer.Option(min=2, help="Prompts for each change.")] = 60,
    heads: Annotated[int, typer.Option(min=1, help="Heads that the function vector is of.")] = 4,
    words: Annotated[Path | None, typer.Option(help="Words to put in for labels and inputs, one a line.")] = None,
    out: Annotated[Path | None, typer.Option(help="A page to write.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Measure what of the demonstrations matters, and which heads and which vector bring the task without them."""
    if out is not None:
        page_at(out)
    pairs = _pairs(task)
    bundled = model in bundled_worlds()
    loaded = load_world(model, check_device(device)) if bundled else load_model(model, device, quiet=quiet)
    chosen_on, reported_on = pairs.halves()
    effects = measure_demonstrations(
        loaded, pairs, shots=shots, n=n, words=[] if words is None else read_lines(words), progress=not quiet
    )
    scores = measure_head_effects(loaded, chosen_on, shots=shots, n=n, trials=min(n, 25), progress=not quiet)
    best = [(layer, head) for layer, head, _ in scores.top(heads)]
    vector = find_function_vector(loaded, chosen_on, best, shots=shots, n=n)
    transfer = measure_transfer(loaded, reported_on, vector, best, shots=shots, n=n, progress=not quiet)
    warning = _warn_undone(effects)
    note(warning)
    for one in (effects, scores, transfer):
        typer.echo(str(one))
    if out is not None:
        lead = lead_with(
            warning,
            f"What {model} takes from demonstrations in its prompt, and how it brings their task to where it answers.",
        )
        report(
            out,
            f"{pairs.name} in context",
            lead,
            [
                Section("What of the demonstrations matters?", "Each thing is changed alone.",
                        (demonstrations_panel(effects),)),
                Section("Which heads bring the task?", "Each head's usual output is put in where no label is right.",
                        (heads_panel(scores),)),
                Section("Do they bring it alone?", f"The {heads} best heads, found on other pairs.",
                        (transfer_panel(transfer),)),
            ],
        )  # fmt: skip
        typer.echo(f"page: {out.resolve()}")
    return {
        "task": pairs.name,
        "accuracy": effects.accuracy,
        "cost": effects.cost,
        "heads": scores.top(heads),
        "transfer": transfer.by,
        "warning": warning,
        "page": out,
    }


def _warn_undone(effects: DemonstrationEffects) -> str | None:
    """What to say first where the demonstrations bring no task that could be taken apart."""
    done, bare = effects.accuracy["none"], effects.accuracy["no demonstrations"]
    if effects.cost["no demonstrations"].low > 0:
        return None
    return (
        f"the model does not do this task from demonstrations: it says the label in {done:.0%} of prompts with them "
        f"and in {bare:.0%} without, so what is changed below, and its heads, say little"
    )


def _pairs(task: str) -> PairTask:
    if task in facts():
        return PairTask(task, tuple(facts()[task].items()))
    lines = read_columns(Path(task))
    if odd := [line for line in lines if len(line) != 2]:
        raise InvalidArgument(f"{task} has the line {' '.join(odd[0])!r}: write an input, a tab and its label")
    return PairTask(Path(task).stem, tuple((x.strip(), y.strip()) for x, y in lines))
