"""The command `interp feature`: what an index knows of one latent."""

from pathlib import Path
from typing import Annotated

import typer

from interp.commands.verb import Document, verb
from interp.features import Describer, FeatureIndex
from interp.show import browse


@verb
def feature_command(
    folder: Annotated[
        Path, typer.Argument(metavar="INDEX", help="An index that `interp discover` wrote, or the folder it is in.")
    ],
    latent: Annotated[int, typer.Argument(min=0, metavar="LATENT", help="The number of the latent.")],
    out: Annotated[
        Path | None, typer.Option(help="Its page; latent-NUMBER.html next to the index if not given.")
    ] = None,
) -> Document:
    """Show what an index knows of one latent, and write a page of it (seconds)."""
    folder = folder / "index" if (folder / "index").is_dir() else folder
    found = FeatureIndex.open(folder)
    record, describe = found.record(latent), Describer(found)
    typer.echo(f"latent {latent} of {len(found):,} at {found.about['site']} of {found.about['model']}")
    typer.echo(describe(record))
    typer.echo(record)
    page = browse(out or folder.parent / f"latent-{latent}.html", found, [latent], describe, f"Latent {latent}")
    typer.echo(f"page: {page.resolve()}")
    evidence = record.evidence
    return {
        "latent": latent,
        "model": found.about["model"],
        "site": found.about["site"],
        "label": describe(record),
        "firing_rate": evidence.firing_rate,
        "largest": evidence.largest,
        "tokens": record.tokens,
        "promoted": evidence.promoted,
        "suppressed": evidence.suppressed,
        "examples": [{"text": "".join(one.tokens), "activation": one.activation} for one in evidence.examples],
        "page": page,
    }
