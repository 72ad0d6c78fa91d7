"""The command `interp harvest`: the activations of a data set into a store, alone or under `torchrun`."""

import os
from typing import Annotated

import typer

from hooks import Model
from hooks.errors import InvalidArgument, nearest
from hooks.network import AnyModel
from hooks.store import Packing, count, harvest, open_dataset, packed, separate
from hooks.store.folder import Folder
from hooks.store.manifest import DTYPES
from interp.commands.arguments import Device, ModelName, check_sites, load_any_model
from interp.commands.verb import Document, verb


@verb
def harvest_command(
    model: ModelName,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A .txt (one per line), .json, .jsonl, .csv, .parquet or .arrow file, a folder of pictures, or a hub "
            "name.",
        ),
    ],
    at: Annotated[list[str], typer.Option("--site", help="A site to store, or a glob; may be repeated.")],
    out: Annotated[str, typer.Option(help="A folder or an fsspec URL; give it again to go on.")] = "store",
    split: Annotated[str, typer.Option(help="Of a data set of the hub.")] = "train",
    documents: Annotated[
        int | None, typer.Option(min=1, help="How many documents to read; all of them if not given.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens the model reads at once.")] = None,
    one_per_row: Annotated[bool, typer.Option("--separate", help="One document per row instead of packed.")] = False,
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of tokens per forward pass.")] = 32,
    device: Device = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> Document | None:
    """Store the activations of a data set; if killed, run again to go on. `torchrun` shares the work."""
    if dtype not in DTYPES:
        raise InvalidArgument(f"no dtype is called '{dtype}'; did you mean {nearest(dtype, DTYPES)}?")
    check_sites(at)
    Folder(out)  # a URL that nothing reaches is refused before the model is loaded
    texts, held = open_dataset(data, split), count(data)
    if documents is not None:
        texts, held = texts.take(documents), documents if held is None else min(documents, held)
    loaded = load_any_model(model, device, quiet=quiet)
    store = harvest(
        loaded,
        texts,
        at,
        out,
        packing=_packing(loaded, context, one_per_row),
        dtype=DTYPES[dtype],
        batch_size=batch_size,
        documents=held,
        tell=typer.echo,
        progress=not quiet,
    )
    if os.environ.get("RANK", "0") != "0":
        return None
    manifest = store.manifest
    typer.echo(f"{store!r}\nshards: {len(manifest.shards)}; data fingerprint: {manifest.data_fingerprint[:16]}")
    return {
        "store": out,
        "sites": [*map(str, store.sites)],
        "rows": len(store),
        "shards": len(manifest.shards),
        "data_fingerprint": manifest.data_fingerprint,
    }


def _packing(model: AnyModel, context: int | None, one_per_row: bool) -> Packing | None:
    """How texts are laid out; pictures are one to a row."""
    if not isinstance(model, Model):
        if context is not None or one_per_row:
            raise InvalidArgument(f"--context and --separate lay out texts, and {model.name} reads pictures: omit them")
        return None
    return separate(context) if one_per_row else packed(context)
