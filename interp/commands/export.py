"""The `interp export` commands: edits, recipes, features and autoencoders into the files of other tools."""

from pathlib import Path
from typing import Annotated

import typer

from hooks.errors import InvalidArgument, MissingFile, nearest
from interp import export
from interp.commands.arguments import ModelName, Quiet, WrittenOn, load_model, show_step
from interp.commands.verb import Document, verb
from interp.export import ExportReport
from interp.features import FeatureIndex
from interp.memory import Edit
from interp.sae import load as load_sae
from interp.steering import Recipe

app = typer.Typer(
    help="Files that other tools read: adapters, control vectors, dashboards, dictionaries; each is compared.",
    no_args_is_help=True,
)
Out = Annotated[Path, typer.Option(help="What to write.")]
Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", help="What to compare logits on; give it again for more.")
]
VECTORS = {
    ".gguf": export.to_gguf_vector,
    ".svec": export.to_svec,
    ".safetensors": export.to_layer_tensors,
    ".py": export.to_hook_script,
}
LIBRARIES = {"dictionary_learning": export.to_dictionary_learning, "sparsify": export.to_sparsify}


@app.command("edit")
@verb
def export_edit_command(
    model: ModelName,
    edit: Annotated[Path, typer.Argument(metavar="EDIT", help="A file that `interp edit` wrote.")],
    out: Out = Path("adapter"),
    rank: Annotated[int | None, typer.Option(min=1, help="The rank to write; the edit's own if not given.")] = None,
    prompt: Prompts = None,
    device: WrittenOn = None,
    quiet: Quiet = False,
) -> Document:
    """Write an edit as a LoRA adapter, which peft loads; `interp apply` writes a folder of weights."""
    read = Edit.load(_there(edit, "interp edit"))
    loaded = load_model(model, device or "cpu", quiet=quiet)
    with show_step(f"writing {out}", quiet):
        report = export.to_peft(loaded, read, out, prompts=prompt or (), rank=rank)
    return _print_report(report)


@app.command("steering")
@verb
def export_steering_command(
    model: ModelName,
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Files that `Recipe.save` wrote.")],
    out: Out = Path("steering.gguf"),
    prompt: Prompts = None,
    device: WrittenOn = None,
    quiet: Quiet = False,
) -> Document:
    """Write recipes as a control vector (.gguf), vectors by layer (.safetensors, .svec), or a script (.py)."""
    if out.suffix not in VECTORS:
        raise InvalidArgument(
            f"--out is {str(out)!r}, which ends in {out.suffix!r}: end it in {nearest(out.suffix, VECTORS)}"
        )
    read = [Recipe.load(_there(recipe, "Recipe.save")) for recipe in recipes]
    loaded = load_model(model, device or "cpu", quiet=quiet)
    with show_step(f"writing {out}", quiet):
        report = VECTORS[out.suffix](loaded, read, out, prompts=prompt or ["The"])
    return _print_report(report)


@app.command("features")
@verb
def export_features_command(
    index: Annotated[
        Path, typer.Argument(metavar="INDEX", help="An index that `interp discover` wrote, or the folder it is in.")
    ],
    model_id: Annotated[str, typer.Option(help="Neuronpedia's name of the model.")],
    sae_set: Annotated[str, typer.Option(help="Its name of the set of dictionaries.")],
    layer: Annotated[int, typer.Option(min=0, help="The layer of this one.")],
    out: Out = Path("neuronpedia"),
    quiet: Quiet = False,
) -> Document:
    """Write an index as SAEDashboard's JSON, which Neuronpedia takes in."""
    found = FeatureIndex.open(index)
    return _print_report(
        export.to_neuronpedia(found, out, model_id=model_id, sae_set=sae_set, layer=layer, progress=not quiet)
    )


@app.command("autoencoder")
@verb
def export_autoencoder_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="An autoencoder that was saved here or by SAELens.")],
    library: Annotated[str, typer.Option(help="dictionary_learning or sparsify.")] = "dictionary_learning",
    out: Out = Path("exported"),
) -> Document:
    """Write an autoencoder in the files of another library; SAELens's are those it has already."""
    if library not in LIBRARIES:
        raise InvalidArgument(f"--library is {library!r}: give {nearest(library, LIBRARIES)}")
    return _print_report(LIBRARIES[library](load_sae(folder), out))


def _there(file: Path, writer: str) -> Path:
    if not file.is_file():
        raise MissingFile(f"there is no file {str(file)!r}: give one that `{writer}` wrote")
    return file


def _print_report(report: ExportReport) -> Document:
    typer.echo(report)
    return {
        "files": report.files,
        "checked_with": report.checked_with,
        "difference": report.difference,
        "effect": report.effect,
        "lost": report.lost,
    }
