"""The commands `interp apply` and `interp audit`: edits into a folder of weights, and editors compared on cases."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hooks import load
from interp.memory.alphaedit import alphaedit
from interp.memory.audit import MEASURES, Audit, Editor, audit
from interp.memory.case import read_cases
from interp.memory.covariance import covariance
from interp.memory.edit import Edit, conflicts
from interp.memory.emmet import emmet
from interp.memory.ft_l import ft_l
from interp.memory.grace import grace
from interp.memory.in_context import in_context
from interp.memory.knn_memory import knn_memory
from interp.memory.memit import memit
from interp.memory.merge import merge
from interp.memory.pmet import pmet
from interp.memory.rome import rome

WITH_COVARIANCE = {"rome": rome, "emmet": emmet, "memit": memit, "pmet": pmet, "alphaedit": alphaedit}
WITH_LAYER = {"ft_l": ft_l, "grace": grace, "knn_memory": knn_memory}
METHODS = (*WITH_COVARIANCE, *WITH_LAYER, "in_context")

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")]


def apply_command(
    model: ModelName,
    edits: Annotated[list[Path], typer.Argument(metavar="EDIT...", help="Files that `interp edit` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("edited"),
) -> None:
    """Write a folder of weights that hold some edits, which plain transformers loads; say first what conflicts."""
    read = [Edit.load(file) for file in edits]
    for conflict in conflicts(read):
        typer.echo(f"conflict: {conflict}")
    merge(load(model), read, out)
    typer.echo(f"model with {len(read)} edit{'s' * (len(read) > 1)}: {out.resolve()}")


def audit_command(
    model: ModelName,
    cases: Annotated[Path, typer.Argument(metavar="CASES", help="CounterFact or zsRE as JSON.")],
    texts: Annotated[Path, typer.Option(help="Texts for the covariance and the drift, one per line.")],
    layer: Annotated[int, typer.Option(help="Where to edit; `trace_mlp` tells.")],
    method: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(METHODS)}; may be repeated.")] = None,
    n: Annotated[int, typer.Option(help="How many cases.")] = 20,
) -> None:
    """Edit cases one at a time by some methods, and print what each did beside the unedited model and a control."""
    asked = read_cases(cases, n)
    said = [line.strip() for line in texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    loaded = load(model)
    chosen = method or ["rome", "in_context"]
    c = covariance(loaded, said, layer) if set(chosen) & WITH_COVARIANCE.keys() else None
    editors: dict[str, Editor] = {}
    for name in chosen:
        if name not in METHODS:
            raise ValueError(f"no method is called {name!r}: choose among {', '.join(METHODS)}")
        if name in WITH_COVARIANCE:
            editors[name] = partial(WITH_COVARIANCE[name], covariance=c)
        else:
            editors[name] = in_context if name == "in_context" else partial(WITH_LAYER[name], layer=layer)
    typer.echo(printed(audit(loaded, asked, editors, said[:50])))


def printed(result: Audit) -> str:
    """The table of an audit in text: measures down, editors across, each mean with its interval."""
    names = [*result.table]
    lines = [f"{'':<28}" + "".join(f"{name:>24}" for name in names)]
    for measure in (m for m in MEASURES if any(m in row for row in result.table.values())):
        cells = [result.table[name].get(measure) for name in names]
        told = ["" if e is None else f"{e.value:.3f} [{e.low:.2f}, {e.high:.2f}]" for e in cells]
        lines.append(f"{measure:<28}" + "".join(f"{cell:>24}" for cell in told))
    for name, messages in result.refused.items():
        if messages:
            lines.append(f"{name} refused {len(messages)}, the first: {next(iter(messages.values()))}")
    return "\n".join(lines)
