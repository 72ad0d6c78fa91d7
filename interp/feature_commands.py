"""The commands `interp discover` and `interp feature`: from texts to an index of latents, and one latent of it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from hooks import Model, Site, load
from interp.features import Describer, FeatureIndex, index
from interp.sae import SAE, TopK, activations_of, save, train
from interp.sae import load as load_sae
from interp.show import browse

PAGE, INDEX, AUTOENCODER = "latents.html", "index", "sae"


def discover_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")],
    site: Annotated[str, typer.Argument(metavar="SITE", help="Such as resid_post.4; `interp sites` lists them.")],
    texts: Annotated[Path, typer.Argument(metavar="TEXTS", help="A file with one text per line.")],
    out: Annotated[Path, typer.Option(help="A folder; give the same one again to go on.")] = Path("discovered"),
    latents: Annotated[int, typer.Option(help="Size of the dictionary.")] = 2048,
    k: Annotated[int, typer.Option(help="Latents active per token.")] = 32,
    tokens: Annotated[int, typer.Option(help="Activations to train on.")] = 1_000_000,
    shown: Annotated[int, typer.Option(help="Latents on the page at most, those that fire most first.")] = 500,
    seed: int = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train an autoencoder, index its latents and write a page to browse them; what is done already is not repeated."""
    data, place = _lines(texts), Site.parse(site)
    if shown < 1:
        raise ValueError(f"--shown is {shown}: give at least 1")
    loaded = _opened(model)
    typer.echo(f"reading {len(data):,} texts at {place} of {loaded!r}; {_estimate(loaded, data, place, tokens)}")
    sae = _autoencoder(loaded, data, place, out / AUTOENCODER, (latents, k, tokens, seed), quiet)
    found = index(sae, loaded, data, out / INDEX, progress=not quiet)
    rows = found.table("latents").select(["latent", "fired"]).to_pylist()
    often = sorted((row for row in rows if row["fired"]), key=lambda row: (-row["fired"], row["latent"]))
    typer.echo(f"{len(often):,} of {len(found):,} latents fire on {found.about['tokens']:,} tokens")
    listed = [row["latent"] for row in often[:shown]]
    page = browse(out / PAGE, found, listed, Describer(found), f"Latents of {loaded.name} at {place}")
    typer.echo(f"page: {page.resolve()}")


def feature_command(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="An index that `interp discover` wrote.")],
    latent: Annotated[int, typer.Argument(help="The number of the latent.")],
    out: Annotated[Path | None, typer.Option(help="Also write a page of it.")] = None,
) -> None:
    """Show what an index knows of one latent."""
    found = FeatureIndex.open(folder)
    record, describe = found.record(latent), Describer(found)
    typer.echo(describe(record))
    typer.echo(record)
    if out is not None:
        typer.echo(f"page: {browse(out, found, [latent], describe, f'Latent {latent}').resolve()}")


def _autoencoder(
    model: Model, data: list[str], site: Site, folder: Path, how: tuple[int, int, int, int], quiet: bool
) -> SAE:
    latents, k, tokens, seed = how
    if folder.exists():
        sae = load_sae(folder)
        given, found = (str(site), latents, model.fingerprint), (str(sae.site), sae.d_sae, sae.fingerprint)
        if found != given:
            raise ValueError(
                f"{folder} holds an autoencoder of {found[1]} latents at {found[0]}, and {latents} at {site} of "
                f"{model.name} are asked for: give another --out"
            )
        typer.echo(f"autoencoder: {folder.resolve()} is there already")
        return sae
    sae = TopK(model.tap(site).shape[-1], latents, k, seed=seed)
    typer.echo(train(sae, activations_of(model, data, site), tokens=tokens, seed=seed, progress=not quiet))
    save(sae, folder)
    return sae


def _estimate(model: Model, data: list[str], site: Site, tokens: int) -> str:
    """How long reading may take, from a few texts: training reads what it needs, the index reads all once."""
    some = data[: min(8, len(data))]
    began, seen = time.perf_counter(), 0
    for rows in activations_of(model, some, site):
        seen += len(rows)
    rate = seen / max(time.perf_counter() - began, 1e-9)
    total = tokens + seen * len(data) / len(some)
    return f"reading alone takes about {max(1, round(total / rate / 60))} minutes"


def _opened(model: str) -> Model:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return load(model)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}: give a file with one text per line")
    found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        raise ValueError(f"the file {str(path)!r} holds no text: give a file with one text per line")
    return found
