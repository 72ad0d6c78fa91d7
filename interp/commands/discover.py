"""The command `interp discover`: from texts to an autoencoder, an index of its latents, and pages of them."""

import time
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Annotated, Any, Final

import torch
import typer
from typing_extensions import TypedDict

from hooks import Model, Site
from hooks.errors import InvalidArgument
from hooks.json_file import Kind, read_json, write_json
from hooks.plurals import count_of
from interp.commands.arguments import (
    Device,
    ModelName,
    Quiet,
    SiteName,
    TextsFile,
    format_duration,
    load_model,
    read_lines,
    show_step,
)
from interp.commands.train_sae import as_document
from interp.commands.verb import Document, verb
from interp.common.digests import digest_of_data
from interp.common.texts import split_long_texts
from interp.features import Describer, FeatureIndex, index, map_dictionary
from interp.sae import SAE, Checkpoint, Source, TopK, TrainReport, activations_of, save, tensor_source, train
from interp.sae import load as load_sae
from interp.show import browse, map_page

PAGE, MAP, INDEX, AUTOENCODER, RUN = "latents.html", "map.html", "index", "sae", "unfinished"
SETTINGS = "settings.json"
BATCH = 2048
NEIGHBOURS = 15


class DiscoverySettings(TypedDict):
    """What made the autoencoder of a folder."""

    model: str
    site: str
    texts: str
    latents: int
    k: int
    tokens: int
    lr: float | None
    seed: int


KIND: Final = Kind("interp.discover", "settings of a discovery", "interp discover", DiscoverySettings)


@verb
def discover_command(
    model: ModelName,
    site: SiteName,
    texts: TextsFile,
    out: Annotated[Path, typer.Option(help="A folder; give the same one again to go on.")] = Path("discovered"),
    latents: Annotated[int, typer.Option(min=1, help="Size of the dictionary.")] = 2048,
    k: Annotated[int, typer.Option(min=1, help="Latents active per token.")] = 32,
    tokens: Annotated[int, typer.Option(min=1, help="Activations to train on.")] = 1_000_000,
    lr: Annotated[
        float | None, typer.Option(min=0, help="Peak learning rate; by the dictionary's size if not given.")
    ] = None,
    shown: Annotated[int, typer.Option(min=1, help="Latents on the page at most, those that fire most first.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the first weights and of the order.")] = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Train an autoencoder, index its latents, and write pages of them; if killed, run again to go on."""
    given, place = read_lines(texts), Site.parse(site)
    loaded = load_model(model, device, quiet=quiet)
    asked = {"model": loaded.fingerprint, "site": str(place), "texts": digest_of_data(given), "latents": latents}
    asked |= {"k": k, "tokens": tokens, "lr": lr, "seed": seed}
    data, trained = split_long_texts(loaded, given), _is_made(out, asked)
    source = activations_of(loaded, data, place)
    typer.echo(f"reading {count_of(len(given), 'text')} at {place} of {loaded!r}")
    with show_step("measuring how long it will take", quiet):
        seconds = _seconds(loaded, data, place, 0 if trained else tokens, (latents, k))
    typer.echo(
        f"to do: {'' if trained else f'train {latents:,} latents on {tokens:,} tokens, '}index them, write pages; "
        f"{format_duration(seconds)} in all"
    )
    sae, report = (load_sae(out / AUTOENCODER), None) if trained else _train(out, loaded, source, asked, quiet)
    found = index(sae.to(loaded.device), loaded, data, out / INDEX, progress=not quiet)
    rows = found.table("latents").select(["latent", "fired"]).to_pylist()
    often = sorted((row for row in rows if row["fired"]), key=lambda row: (-row["fired"], row["latent"]))
    typer.echo(f"{len(often):,} of {len(found):,} latents fire on {found.about['tokens']:,} tokens")
    pages = _write_pages(out, sae, found, [row["latent"] for row in often], (f"{loaded.name} at {place}", shown, quiet))
    return {
        "model": loaded.name,
        "site": str(place),
        "autoencoder": out / AUTOENCODER,
        "index": out / INDEX,
        "training": None if report is None else as_document(report),
        "tokens": found.about["tokens"],
        "latents": len(found),
        "firing": len(often),
        **pages,
    }


def _write_pages(out: Path, sae: SAE, found: FeatureIndex, listed: list[int], how: tuple[str, int, bool]) -> Document:
    """The map and the page of latents, those that fire most first."""
    title, shown, quiet = how
    with show_step("writing pages", quiet):
        drawn = _map(out / MAP, sae, found, listed, title)
        page = browse(out / PAGE, found, listed[:shown], Describer(found), f"Latents of {title}")
    typer.echo(f"page: {page.resolve()}")
    return {"page": page, "map": drawn}


def _is_made(out: Path, asked: dict[str, Any]) -> bool:
    """Whether the folder holds the autoencoder that is asked for; one of other settings is refused."""
    folder = out / AUTOENCODER
    if not folder.exists():
        return False
    if not (out / SETTINGS).exists():
        raise InvalidArgument(f"nothing says what {folder} was made with: give another --out, or remove that folder")
    made = read_json(out / SETTINGS, KIND)
    other = [name for name in asked if made[name] != asked[name]]
    if other:
        of_it, here = (", ".join(f"{name} {str(said[name])[:24]}" for name in other) for said in (made, asked))
        raise InvalidArgument(
            f"{folder} was made with {of_it}, and asked for is {here}: give what it was made with, or another --out"
        )
    typer.echo(f"autoencoder: {folder.resolve()} is there already")
    return True


def _train(out: Path, model: Model, source: Source, asked: dict[str, Any], quiet: bool) -> tuple[SAE, TrainReport]:
    """A new autoencoder, kept in the folder with the settings that made it, and how it was trained."""
    sae = TopK(source.widths[0], asked["latents"], asked["k"], seed=asked["seed"]).to(model.device)
    how: dict[str, Any] = {name: asked[name] for name in ("tokens", "lr", "seed")} | {"batch_size": BATCH}
    report = train(sae, source, **how, checkpoint=Checkpoint(out / RUN), progress=not quiet)
    typer.echo(report)
    write_json(out / SETTINGS, KIND, asked)
    save(sae, out / AUTOENCODER)
    rmtree(out / RUN, ignore_errors=True)
    return sae, report


def _map(path: Path, sae: SAE, found: FeatureIndex, latents: list[int], title: str) -> Path | None:
    if find_spec("umap") is None:
        typer.echo("no map: it needs umap-learn, which `pip install umap-learn` brings")
        return None
    if len(latents) <= 2 * NEIGHBOURS:
        typer.echo(f"no map: only {count_of(len(latents), 'latent')} fired, and it takes more than {2 * NEIGHBOURS}")
        return None
    drawn, describe = map_dictionary(sae, latents, neighbours=NEIGHBOURS), Describer(found)
    labels = {record.latent: describe(record) for record in found.records(latents)}
    made = map_page(path, drawn, labels, title=f"A map of the latents of {title}", page=PAGE)
    typer.echo(f"{drawn}\nmap: {made.resolve()}")
    return made


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
        train(TopK(rows.shape[1], *size), tensor_source(many), tokens=2 * BATCH, batch_size=BATCH, progress=False)
        learning = (time.perf_counter() - began) / (2 * BATCH)
    return tokens * (reading + learning) + 1.5 * reading * per_text * len(data)
