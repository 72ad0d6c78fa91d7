"""The command `interp demo`: the whole demonstration on the bundled model, and its report."""

from pathlib import Path
from typing import Annotated

import typer

from interp.commands.arguments import Quiet, WrittenOn, check_device, hide_bars
from interp.commands.verb import Document, verb
from interp.demo.run import REPORT, run
from interp.demo.settings import Settings


@verb
def demo_command(
    out: Annotated[Path, typer.Option(help="Where to write the report.")] = REPORT,
    seed: Annotated[int, typer.Option(min=0, help="Of the dictionary and of every draw.")] = 0,
    landmark: Annotated[str, typer.Option(help="The landmark to find, turn up and move.")] = Settings.landmark,
    city: Annotated[str, typer.Option(help="The city to move it to.")] = Settings.city,
    device: WrittenOn = None,
    quiet: Quiet = False,
) -> Document:
    """Find the Golden Gate Bridge in the bundled model, turn it up, move it, and write a report (five minutes)."""
    settings = Settings(landmark=landmark, city=city, seed=seed)
    place = check_device(device or "cpu")
    hide_bars()
    done = run(settings, out, tell=typer.echo, device=place, progress=not quiet)
    typer.echo(f"report: {done.report.resolve()}")
    turned, best = done.turned.chosen, done.found.search.finding
    return {
        "report": done.report,
        "found": best.name,
        "turned_up": done.turned.direction.source,
        "f1": best.held_out.f1,
        "f1_interval": best.interval,
        "p_value": done.found.search.p_value,
        "dose": turned.dose,
        "naming": turned.steered.naming,
        "naming_unsteered": turned.unsteered.naming,
        "naming_control": turned.control.naming,
        "perplexity_ratio": turned.steered.perplexity_over(turned.unsteered),
        "edited": done.moved.edit.facts[0].text + done.moved.after,
    }
