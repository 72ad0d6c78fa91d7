"""The commands `interp discover` and `interp feature`: from texts to an index of latents, and one latent of it."""

import time
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Annotated

import torch
import typer

from hooks import Model, Site
from hooks.errors import InvalidArgument
from interp.commands.arguments import lines, opened, spelt
from interp.common.texts import fitting
from interp.features import Describer, FeatureIndex, index, map_dictionary
from interp.sae import SAE, Checkpoint, TopK, activations_of, save, stored, train
from interp.sae import load as load_sae
from interp.show import browse, map_page

PAGE, MAP, INDEX, AUTOENCODER, RUN = "latents.html", "map.html", "index", "sae", "unfinished"
BATCH = 2048
NEIGHBOURS = 15


def discover_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")],
    site: Annotated[str, typer.Argument(metavar="SITE", help="Such as resid_post.4; `interp sites` lists them.")],
    texts: Annotated[Path, typer.Argument(metavar="TEXTS", help="A file with one text per line.")],
    out: Annotated[Path, typer.Option(help="A folder; give the same one again to go on.")] = Path("discovered"),
    latents: Annotated[int, typer.Option(help="Size of the dictionary.")] = 2048,
    k: Annotated[int, typer.Option(help="Latents active per token.")] = 32,
    tokens: Annotated[int, typer.Option(help="Activations to train on.")] = 1_000_000,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; by the dictionary's size if not given.")] = None,
    shown: Annotated[int, typer.Option(help="Latents on the page at most, those that fire most first.")] = 500,
    seed: int = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train an autoencoder, index its latents, and write pages of them: killed, it goes on when run again."""
    given, place = lines(texts), Site.parse(site)
    if shown < 1:
        raise InvalidArgument(f"--shown is {shown}: give at least 1")
    loaded = opened(model)
    data = fitting(loaded, given)
    typer.echo(f"reading {len(given):,} texts at {place} of {loaded!r}{_split(given, data)}")
    trained = (out / AUTOENCODER).exists()
    typer.echo(
        f"to do: {'' if trained else f'train {latents:,} latents on {tokens:,} tokens, '}index them, write pages; "
        f"{spelt(_seconds(loaded, data, place, 0 if trained else tokens, (latents, k)))} in all"
    )
    if trained:
        sae = _had(out / AUTOENCODER, loaded, place, latents)
    else:
        sae, checkpoint = TopK(loaded.tap(place).shape[-1], latents, k, seed=seed), Checkpoint(out / RUN)
        source = activations_of(loaded, data, place)
        how = {"tokens": tokens, "batch_size": BATCH, "lr": lr, "seed": seed, "checkpoint": checkpoint}
        typer.echo(train(sae, source, **how, progress=not quiet))
        save(sae, out / AUTOENCODER)
        rmtree(out / RUN, ignore_errors=True)
    found = index(sae, loaded, data, out / INDEX, progress=not quiet)
    rows = found.table("latents").select(["latent", "fired"]).to_pylist()
    often = sorted((row for row in rows if row["fired"]), key=lambda row: (-row["fired"], row["latent"]))
    typer.echo(f"{len(often):,} of {len(found):,} latents fire on {found.about['tokens']:,} tokens")
    title = f"{loaded.name} at {place}"
    listed = [row["latent"] for row in often]
    _map(out / MAP, sae, found, listed, title)
    page = browse(out / PAGE, found, listed[:shown], Describer(found), f"Latents of {title}")
    typer.echo(f"page: {page.resolve()}")


def feature_command(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="An index that `interp discover` wrote.")],
    latent: Annotated[int, typer.Argument(help="The number of the latent.")],
    out: Annotated[
        Path | None, typer.Option(help="Its page; latent-NUMBER.html beside the index if not given.")
    ] = None,
) -> None:
    """Show what an index knows of one latent, and write a page of it (seconds)."""
    found = FeatureIndex.open(folder)
    record, describe = found.record(latent), Describer(found)
    typer.echo(f"latent {latent} of {len(found):,} at {found.about['site']} of {found.about['model']}")
    typer.echo(describe(record))
    typer.echo(record)
    page = out or folder.parent / f"latent-{latent}.html"
    typer.echo(f"page: {browse(page, found, [latent], describe, f'Latent {latent}').resolve()}")


def _split(given: list[str], data: list[str]) -> str:
    """What to say of texts that had to be cut; nothing where none was."""
    if len(data) == len(given):
        return ""
    longer = len(given) - len(set(given) & set(data))
    return f"; {longer:,} of them longer than its context, in pieces: {len(data):,} texts in all"


def _had(folder: Path, model: Model, site: Site, latents: int) -> SAE:
    sae = load_sae(folder)
    given, found = (str(site), latents, model.fingerprint), (str(sae.site), sae.d_sae, sae.fingerprint)
    if found != given:
        raise InvalidArgument(
            f"{folder} holds an autoencoder of {found[1]} latents at {found[0]}, and {latents} at {site} of "
            f"{model.name} are asked for: give another --out"
        )
    typer.echo(f"autoencoder: {folder.resolve()} is there already")
    return sae


def _map(path: Path, sae: SAE, found: FeatureIndex, latents: list[int], title: str) -> None:
    if find_spec("umap") is None:
        typer.echo("no map: it needs umap-learn, which pip install 'interp-workbench[map]' brings")
    elif len(latents) <= 2 * NEIGHBOURS:
        typer.echo(f"no map: only {len(latents)} latents fire, and it takes more than {2 * NEIGHBOURS}")
    else:
        drawn, describe = map_dictionary(sae, latents, neighbours=NEIGHBOURS), Describer(found)
        labels = {record.latent: describe(record) for record in found.records(latents)}
        made = map_page(path, drawn, labels, title=f"A map of the latents of {title}", page=PAGE)
        typer.echo(f"{drawn}\nmap: {made.resolve()}")


def _seconds(model: Model, data: list[str], site: Site, tokens: int, size: tuple[int, int]) -> float:
    """How long it may take, from a few texts and steps: training reads what it needs, the index reads all once."""
    some = data[:: max(1, len(data) // 16)]
    began = time.perf_counter()
    rows = torch.cat(list(islice(activations_of(model, some, site), 16)))
    reading = (time.perf_counter() - began) / len(rows)
    per_text = len(rows) / len(some)
    learning = 0.0
    if tokens:
        many = rows[torch.arange(2 * BATCH) % len(rows)]
        began = time.perf_counter()
        train(TopK(rows.shape[1], *size), stored(many), tokens=2 * BATCH, batch_size=BATCH, progress=False)
        learning = (time.perf_counter() - began) / (2 * BATCH)
    return tokens * (reading + learning) + 1.5 * reading * per_text * len(data)
