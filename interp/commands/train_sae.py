"""The command `interp train-sae`: autoencoders of a model or a store, many in one pass, as arguments or a file say."""

import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from hooks import Model, Site, load
from hooks.errors import InvalidArgument
from hooks.store import ActivationStore
from interp.commands.config_file import arguments_file
from interp.commands.sae_settings import (
    NORMALISATIONS,
    build,
    groups,
    kind_called,
    normalisation_of,
    settings_of,
    sparsities,
    writer,
)
from interp.commands.verb import Document, verb
from interp.common.device import device_called
from interp.sae import (
    SAE,
    Checkpoint,
    Crosscoder,
    Member,
    Resampling,
    Schedule,
    Source,
    across,
    activations_at,
    harvested_across,
    harvested_at,
    save,
    train_many,
)
from interp.sae.architectures.registry import ARCHITECTURES


@verb
def train_sae_command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")
    ] = None,
    texts: Annotated[Path | None, typer.Argument(metavar="TEXTS", help="A file with one text per line.")] = None,
    store: Annotated[str | None, typer.Option(help="A store of `interp harvest`, in place of a model.")] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="Such as resid_post.4; again for more: a transcoder's two, in order.")
    ] = None,
    config: Annotated[  # noqa: ARG001
        Path | None,
        typer.Option(help="A .yaml or .json file of these arguments.", callback=arguments_file, is_eager=True),
    ] = None,
    out: Annotated[Path, typer.Option(help="A folder in SAELens's format; of several, one folder each.")] = Path("sae"),
    architecture: Annotated[str, typer.Option(help=f"One of {', '.join(ARCHITECTURES)}.")] = "topk",
    latents: Annotated[list[int], typer.Option(help="Size of the dictionary; again for more.")] = [2048],  # noqa: B006
    k: Annotated[list[int] | None, typer.Option(help="Latents per token, where it has such; again for more.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the architecture, such as coefficient=5.")
    ] = None,
    normalise: Annotated[str | None, typer.Option(help=f"One of {', '.join(NORMALISATIONS)}.")] = None,
    seed: Annotated[list[int], typer.Option(help="Of the first weights, and of the order; again for more.")] = [0],  # noqa: B006
    tokens: Annotated[int, typer.Option(help="Activations to train on.")] = 1_000_000,
    batch_size: Annotated[int, typer.Option(help="Activations in a batch.")] = 2048,
    buffer: Annotated[int, typer.Option(help="Activations that are mixed.")] = 131_072,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate; 2e-4 sqrt(2^14 / latents) if not given.")
    ] = None,
    warm_up: Annotated[float, typer.Option(help="Share of the run in which it rises.")] = 0.05,
    decay: Annotated[float, typer.Option(help="Share of the run in which it falls to 0.")] = 0.2,
    shape: Annotated[str, typer.Option(help="How it falls: linear or cosine.")] = "linear",
    sparsity_warm_up: Annotated[float, typer.Option(help="Share in which the penalty rises.")] = 0.05,
    clip: Annotated[float, typer.Option(help="Largest norm of a gradient; 0 for none.")] = 1.0,
    dead_after: Annotated[int, typer.Option(help="Tokens of silence after which a latent is dead.")] = 100_000,
    resample: Annotated[list[float] | None, typer.Option(help="Share of the run at which the dead begin anew.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A folder; with the same one a killed run goes on.")] = None,
    every: Annotated[int, typer.Option(help="Tokens between checkpoints.")] = 1_000_000,
    log: Annotated[
        list[str] | None, typer.Option(help="FILE.csv, FILE.jsonl, tensorboard:FOLDER or wandb:PROJECT.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Such as cuda or cpu; a GPU if there is one.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> Document | None:
    """Train sparse autoencoders on a model or a store; several in one pass. `torchrun` shares the work."""
    kind, place = kind_called(architecture), device_called(device)
    fixed = settings_of(kind, setting or [])
    sites = [Site.parse(name) for name in site or []]
    callbacks, schedule = [writer(told) for told in log or []], Schedule(warm_up, decay, shape, sparsity_warm_up)
    source = _source(kind, _opened(model, texts, store, place), texts, sites)
    made = list(product(groups(kind, sites), latents, sparsities(kind, k, fixed), seed))
    members = {}
    for group, size, rank, drawn in made:
        sae = build(kind, source, group, size, fixed | rank | {"seed": drawn}).to(place)
        chosen = group if kind is not Crosscoder else None
        members[_name(made, (group, size, rank, drawn))] = Member(
            sae, chosen, lr, normalisation_of(normalise, source, group)
        )
    reports = train_many(
        members,
        source,
        tokens=tokens,
        batch_size=batch_size,
        schedule=schedule,
        clip=clip or None,
        dead_after=dead_after,
        resampling=Resampling(tuple(resample)) if resample else None,
        buffer=buffer,
        seed=seed[0],
        checkpoint=Checkpoint(checkpoint, every) if checkpoint else None,
        callbacks=callbacks,
        progress=not quiet,
    )
    if os.environ.get("RANK", "0") != "0":
        return None
    made = []
    for name, report in reports.items():
        typer.echo(f"{name}: {report}" if name else report)
        folder = save(members[name].sae, out / name if name else out)
        typer.echo(f"autoencoder: {folder.resolve()}")
        made.append({"name": name, "folder": folder, "report": str(report)})
    return {"autoencoders": made}


def _opened(model: str | None, texts: Path | None, store: str | None, device: torch.device) -> Model | ActivationStore:
    from transformers.utils.logging import disable_progress_bar

    if (store is None) == (model is None) or (model is None) != (texts is None):
        raise InvalidArgument("say what to train on: either MODEL and TEXTS, or --store FOLDER")
    if store is not None:
        return ActivationStore(store)
    disable_progress_bar()
    return load(str(model), device=device)


def _source(kind: type[SAE], opened: Model | ActivationStore, texts: Path | None, sites: list[Site]) -> Source:
    if not sites:
        held = f"the store holds {', '.join(map(str, opened.sites))}" if texts is None else "`interp sites` lists them"
        raise InvalidArgument(f"say where to read: --site resid_post.4, say; {held}")
    if isinstance(opened, ActivationStore):
        side, stacked = harvested_at(opened, sites), harvested_across(opened, sites)
    else:
        lines = [line.strip() for line in Path(str(texts)).read_text(encoding="utf-8").splitlines()]
        data = [line for line in lines if line]
        if not data:
            raise InvalidArgument(f"the file '{texts}' holds no text: give a file with one text per line")
        side, stacked = activations_at(opened, data, sites), across([(opened, site) for site in sites], data)
    return side if kind is not Crosscoder else replace(stacked, widths=side.widths)


def _name(made: list[Any], one: Any) -> str:
    """A name of what differs among those that are made; empty where there is one."""
    kinds = ("", "", "k", "seed")
    varying = [len({str(each[i]) for each in made}) > 1 for i in range(4)]
    values = (one[0], one[1], one[2].get("k"), one[3])
    return "-".join(f"{word}{value}" for word, value, varies in zip(kinds, values, varying, strict=True) if varies)
