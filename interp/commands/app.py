"""The `interp` command: the demonstration, and each of its steps on any model."""

from pathlib import Path
from typing import Annotated

import typer

from hooks import capture
from interp.commands.apply_and_audit import apply_command, audit_command
from interp.commands.arguments import lines, opened, placed, silent
from interp.commands.discover import discover_command, feature_command
from interp.commands.edit import edit_command
from interp.commands.errors import told
from interp.commands.harvest import harvest_command
from interp.commands.landmark import app as landmark_app
from interp.commands.lens import lens_command
from interp.commands.memory import memory_command
from interp.commands.patch import patch_command
from interp.commands.probe import probe_command
from interp.commands.search import search_command
from interp.commands.steer import steer_command
from interp.commands.train_sae import train_sae_command
from interp.demo.run import REPORT, run
from interp.demo.settings import Settings

app = typer.Typer(
    help="Find directions in a transformer, steer with them, edit its facts; every result comes with its control.",
    epilog="MODEL is 'landmark' (bundled), a folder, or a Hugging Face id. A mistake ends with exit code 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(landmark_app, name="landmark")

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")]
SiteName = Annotated[str, typer.Argument(metavar="SITE", help="Such as resid_post.4; `interp sites` lists them.")]
Texts = Annotated[Path, typer.Argument(metavar="TEXTS", help="A file with one text per line.")]
Out = Annotated[Path, typer.Option(help="Where to write.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


@app.command()
@told
def demo(
    out: Out = REPORT,
    seed: int = 0,
    landmark: Annotated[str, typer.Option(help="The landmark to find, turn up and move.")] = Settings.landmark,
    city: Annotated[str, typer.Option(help="The city to move it to.")] = Settings.city,
    quiet: Quiet = False,
) -> None:
    """Find the Golden Gate Bridge in the bundled model, turn it up, move it, and write a report (five minutes)."""
    settings = Settings(landmark=landmark, city=city, seed=seed)
    silent()
    done = run(settings, out, tell=typer.echo, progress=not quiet)
    typer.echo(f"report: {done.report.resolve()}")


@app.command()
@told
def sites(model: ModelName) -> None:
    """List every place in a model that can be captured."""
    loaded = opened(model)
    typer.echo(repr(loaded))
    for site in loaded.sites:
        typer.echo(f"{site!s:<18} {' × '.join(map(str, loaded.tap(site).shape))}")


@app.command("capture")
@told
def capture_command(
    model: ModelName,
    texts: Texts,
    at: Annotated[list[str], typer.Option("--site", help="A site to capture, or a glob; may be repeated.")],
    out: Out = Path("activations.safetensors"),
    quiet: Quiet = False,
) -> None:
    """Save the activations of texts at some sites."""
    placed(out)
    acts = capture(opened(model), lines(texts), at, progress=not quiet)
    acts.save(out)
    for site in acts.sites:
        typer.echo(f"{site!s:<18} {tuple(acts[site].shape)}")
    typer.echo(f"activations: {out.resolve()}")


app.command("harvest")(told(harvest_command))
app.command("discover")(told(discover_command))
app.command("feature")(told(feature_command))
app.command("search")(told(search_command))
app.command("steer")(told(steer_command))
app.command("probe")(told(probe_command))
app.command("lens")(told(lens_command))
app.command("patch")(told(patch_command))
app.command("train-sae")(told(train_sae_command))
app.command("edit")(told(edit_command))
app.command("memory")(told(memory_command))
app.command("apply")(told(apply_command))
app.command("audit")(told(audit_command))
