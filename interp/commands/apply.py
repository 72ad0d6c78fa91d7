"""The command `interp apply`: edits into a folder of weights."""

import warnings
from pathlib import Path
from typing import Annotated

import typer

from hooks.errors import MissingFile
from hooks.plurals import count_of
from interp.commands.arguments import ModelName, Quiet, WrittenOn, load_model, show_step
from interp.commands.checks import check_new
from interp.commands.verb import Document, verb
from interp.memory.editing.edit import Edit, conflicts
from interp.memory.editing.merge import merge


@verb
def apply_command(
    model: ModelName,
    edits: Annotated[list[Path], typer.Argument(metavar="EDIT...", help="Files that `interp edit` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("edited"),
    device: WrittenOn = None,
    quiet: Quiet = False,
) -> Document:
    """Write a folder of weights that hold some edits, which plain transformers loads; say first what conflicts."""
    for file in edits:
        if not file.is_file():
            raise MissingFile(f"there is no file {str(file)!r}: give one that `interp edit` wrote")
    check_new(out)
    read = [Edit.load(file) for file in edits]
    found = [str(conflict) for conflict in conflicts(read)]
    for conflict in found:
        typer.echo(f"conflict: {conflict}")
    loaded = load_model(model, device or "cpu", quiet=quiet)
    with warnings.catch_warnings(), show_step(f"writing {out}", quiet):
        warnings.filterwarnings("ignore", ".*both are applied", UserWarning)  # conflicts are said above
        merge(loaded, read, out)
    typer.echo(f"model with {count_of(len(read), 'edit')}: {out.resolve()}")
    return {"edits": edits, "conflicts": found, "model": out}
