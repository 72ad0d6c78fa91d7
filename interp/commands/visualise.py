"""The command `interp visualise`: pictures made for a channel of a net, next to real ones and to a random direction."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from hooks import Site, Towers
from hooks.errors import InvalidArgument, UnknownSite
from interp.commands.arguments import Device, Quiet, check_device, show_step
from interp.commands.verb import Document, verb
from interp.postcard import draw, load_net, scenes
from interp.postcard.sheet import write_sheet
from interp.visualisation import channel, compare_with_natural, measure_colours, visualise, visualise_random


@verb
def visualise_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A bundled net of pictures, such as 'convnet', or a folder of one.")
    ],
    site: Annotated[str, typer.Option(help="Where the channel is.")] = "conv_pre.2",
    number: Annotated[int, typer.Option("--channel", min=0, help="Which channel, from 0.")] = 0,
    n: Annotated[int, typer.Option(min=2, help="How many pictures to make.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the ascent.")] = 256,
    natural: Annotated[int, typer.Option(min=1, help="Real pictures to compare with.")] = 1000,
    out: Annotated[
        Path, typer.Option(help="A PNG file: made pictures, the best real ones, the random direction's.")
    ] = Path("visualised.png"),
    seed: Annotated[int, typer.Option(min=0, help="Of the noise it begins from.")] = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Make pictures that a channel is large for, and say what they are next to real pictures and a random direction."""
    if natural < n:
        raise InvalidArgument(f"--natural {natural}: compare the {n} pictures of --n with at least as many real ones")
    where = Site.parse(site)
    net = load_net(model, check_device(device))
    seen = net.image if isinstance(net, Towers) else net
    if where not in seen.grids:
        raise UnknownSite(f"{where} has no places in a picture: take a site of maps or patches, such as conv_pre.2")
    with show_step(f"drawing {natural} pictures", quiet):
        real = draw(scenes("test", natural)).images()
    colours = measure_colours(real)
    made = visualise(seen, channel(where, number), n=n, steps=steps, colours=colours, seed=seed, progress=not quiet)
    control = visualise_random(seen, made, colours=colours, seed=seed, progress=not quiet)
    path = [one for one in seen.sites if one.name == where.name and (one.layer or 0) <= (where.layer or 0)]
    with show_step(f"comparing with {natural} pictures", quiet):
        found = compare_with_natural(seen, made, real, path, top=n)
        random = compare_with_natural(seen, control, real, path, top=n)
    pictures = torch.cat([made.pictures.pixels, real.pixels[found.best], control.pictures.pixels])
    write_sheet((pictures * 255).round().to(torch.uint8).numpy(), out, columns=n)
    typer.echo(f"{made.objective}: {float(made.values.max()):.3g}, greatest of {len(real)} real {found.greatest:.3g}")
    if found.silent:
        typer.echo("the channel is silent: no real picture brings it above 0")
    typer.echo(
        f"path similarity with the best real pictures, over that among these: {found.path_similarity:.2f}; of a random "
        f"direction {random.path_similarity:.2f}"
    )
    typer.echo(f"rows: made, the best real pictures, made for a random direction: {out.resolve()}")
    return {
        "objective": str(made.objective),
        "value": float(made.values.max()),
        "greatest_natural": found.greatest,
        "quantile": found.quantile,
        "path_similarity": found.path_similarity,
        "random_path_similarity": random.path_similarity,
        "sheet": out,
    }
