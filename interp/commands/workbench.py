"""The command `interp workbench`: a page on which one reads, steers, edits and traces a model."""

import threading
import webbrowser
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from hooks import Direction, Model
from hooks.errors import InvalidArgument, MissingFile
from hooks.rows import cut_texts
from hooks.site import resid_post
from interp import landmark
from interp.commands.arguments import Device, ModelName, Quiet, load_model, show_step
from interp.commands.verb import Document, verb
from interp.features import FeatureIndex, index
from interp.graphs import Transcoders, neurons, read_transcoders
from interp.memory import Edit
from interp.sae import SAE, TopK, activations_of, save, train
from interp.sae import load as load_sae
from interp.steering import Recipe
from interp.workbench.session import Session
from interp.workbench.workbench import Workbench, session_folder

LATENTS, K, TOKENS, DOCUMENTS, INDEXED = 1024, 16, 200_000, 2_000, 600
"""Of the dictionary that is trained for the bundled model where none is given: about half a minute on two cores."""


@verb
def workbench_command(
    model: ModelName,
    sae: Annotated[list[Path] | None, typer.Option(help="A folder of a dictionary; may be repeated.")] = None,
    index: Annotated[
        list[Path] | None, typer.Option(help="An index that `interp discover` wrote, of each dictionary in turn.")
    ] = None,
    direction: Annotated[list[Path] | None, typer.Option(help="A file of a direction or a recipe.")] = None,
    edit: Annotated[list[Path] | None, typer.Option(help="A file that `interp edit` wrote.")] = None,
    transcoders: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="Transcoders for attribution graphs; 'neurons' of a ReLU model."),
    ] = None,
    session: Annotated[
        Path, typer.Option(help="Where the log and edits are kept, and found again; or a shared session's .zip.")
    ] = Path("workbench"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="A free one if 0.")] = 0,
    host: Annotated[
        str, typer.Option(help="Where to listen; this machine's own address alone by default.")
    ] = "127.0.0.1",
    let_others_in: Annotated[
        bool, typer.Option(help="Needed for another --host: whoever has the address can steer and edit the model.")
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Open a live page to read, steer, edit and trace a model; each action is a line of Python in its log."""
    if host not in ("127.0.0.1", "localhost", "::1") and not let_others_in:
        raise InvalidArgument(
            f"--host {host} lets other machines reach this model, without encryption: add --let-others-in to mean it"
        )
    folders = [Path(name) for name in transcoders or () if name != "neurons"]
    for path in (*folders, *(sae or ()), *(index or ()), *(direction or ()), *(edit or ())):
        if not path.exists():
            raise MissingFile(f"there is nothing at {str(path)!r}: check the name")
    if len(index or ()) > len(sae or ()):
        raise InvalidArgument(
            f"{len(index or ())} indexes were given for {len(sae or ())} dictionaries: give --sae too"
        )

    def make() -> Session:
        loaded = load_model(model, device, quiet=quiet)
        kept = session_folder(session)
        saes, indexes, origins = _dictionaries(loaded, sae or [], index or [], kept, quiet)
        directions = {path.stem: _direction(path) for path in direction or ()}
        edits = {path.stem: Edit.load(path) for path in edit or ()}
        origins |= {"model": f"load({model!r})"}
        origins |= {f"directions.{path.stem}": _direction_code(path) for path in direction or ()}
        origins |= {f"edits.{path.stem}": f"Edit.load({str(path.resolve())!r})" for path in edit or ()}
        given = {Path(name).name: _transcoders(loaded, name) for name in transcoders or ()}
        origins |= {f"transcoders.{Path(name).name}": _transcoders_code(name) for name in transcoders or ()}
        return Session(loaded, saes, indexes, directions, edits, kept, origins, transcoders=given)

    page = Workbench(make, host=host, port=port)
    typer.echo(f"workbench: {page.url}")
    typer.echo("Ctrl-C ends it.")
    if not no_browser:
        threading.Thread(target=webbrowser.open, args=(page.url,), daemon=True).start()
    try:
        page.wait()
    except KeyboardInterrupt:
        typer.echo("closing")
    finally:
        page.close()
    return {"url": page.url, "session": session}


def _dictionaries(
    model: Model, folders: list[Path], indexes: list[Path], kept: Path, quiet: bool
) -> tuple[dict[str, SAE], dict[str, FeatureIndex], dict[str, str]]:
    """The dictionaries that were given, or, of the bundled model, one that is trained once and kept."""
    if not folders and model.name == "landmark":
        folders, indexes = _train_small(model, kept, quiet)
    saes = {folder.name: load_sae(folder).to(model.device) for folder in folders}
    found = {folder.name: FeatureIndex.open(made) for folder, made in zip(folders, indexes, strict=False)}
    origins = {f"saes.{folder.name}": f"load_sae({str(folder.resolve())!r})" for folder in folders}
    pairs = zip(folders, indexes, strict=False)
    origins |= {f"indexes.{folder.name}": f"FeatureIndex.open({str(made.resolve())!r})" for folder, made in pairs}
    return saes, found, origins


def _train_small(model: Model, kept: Path, quiet: bool) -> tuple[list[Path], list[Path]]:
    folder, indexed, site = kept / "sae", kept / "index", resid_post[3]
    documents = [document.text for document in islice(landmark.documents(0), DOCUMENTS)]
    texts = [piece for each in cut_texts(model, documents) for piece in each]
    with show_step(f"training a small dictionary at {site}, once", quiet):
        if not folder.is_dir():
            sae = TopK(model.d_model, LATENTS, K).to(model.device)
            train(sae, activations_of(model, texts, site), tokens=TOKENS, progress=False)
            save(sae, folder)
        index(load_sae(folder).to(model.device), model, texts[:INDEXED], indexed, progress=False)
    return [folder], [indexed]


def _transcoders(model: Model, name: str) -> Transcoders:
    return neurons(model) if name == "neurons" else read_transcoders(model, name)


def _transcoders_code(name: str) -> str:
    return "neurons(model)" if name == "neurons" else f"read_transcoders(model, {str(Path(name).resolve())!r})"


def _direction(path: Path) -> Direction:
    """The direction of a file, or of the recipe in it."""
    try:
        return Direction.load(path)
    except InvalidArgument:
        return Recipe.load(path).direction


def _direction_code(path: Path) -> str:
    try:
        Direction.load(path)
    except InvalidArgument:
        return f"Recipe.load({str(path.resolve())!r}).direction"
    return f"Direction.load({str(path.resolve())!r})"
