"""The command `interp train-sae`: autoencoders of a model or a store, many in one pass, as arguments or a file say."""

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import typer

from hooks import Model, Site
from hooks.errors import InvalidArgument
from hooks.store import ActivationStore
from interp.commands.arguments import check_device, load_model, read_lines
from interp.commands.checks import check_new
from interp.commands.config_file import take_settings
from interp.commands.sae_settings import (
    STACKED,
    TrainSettings,
    build,
    check_normalisation,
    groups,
    kind_called,
    normalisation_of,
    settings_of,
    sparsities,
    writer,
)
from interp.commands.verb import Document, verb
from interp.sae import (
    SAE,
    Checkpoint,
    Member,
    Resampling,
    Schedule,
    Source,
    TrainReport,
    across,
    activations_at,
    read_across,
    read_activations_at,
    save,
    train_many,
)


def train(settings: TrainSettings) -> Document | None:
    """Train sparse autoencoders on a model or a store; several in one pass. `torchrun` shares the work."""
    kind, place = kind_called(settings.architecture), check_device(settings.device)
    _check_data(settings)
    check_new(settings.out)
    fixed = settings_of(kind, settings.setting)
    ranks = sparsities(kind, settings.k, fixed)
    schedule = Schedule(settings.warm_up, settings.decay, settings.shape, settings.sparsity_warm_up)
    callbacks = [writer(name) for name in settings.log]
    check_normalisation(settings.normalise)
    opened, sites = _open(settings)
    made = list(product(groups(kind, sites), settings.latents, ranks, settings.seed))
    source = _source(kind, opened, settings.texts, sites)
    members = {}
    for group, size, rank, seed in made:
        sae = build(kind, source, group, size, fixed | rank | {"seed": seed}).to(place)
        normalisation = normalisation_of(settings.normalise, source, group)
        name = _name(made, (group, size, rank, seed))
        members[name] = Member(sae, group if kind not in STACKED else None, settings.lr, normalisation)
    reports = train_many(
        members,
        source,
        tokens=settings.tokens,
        batch_size=settings.batch_size,
        schedule=schedule,
        clip=settings.clip or None,
        dead_after=settings.dead_after,
        resampling=Resampling(tuple(settings.resample)) if settings.resample else None,
        buffer=settings.buffer,
        seed=settings.seed[0],
        checkpoint=Checkpoint(settings.checkpoint, settings.every) if settings.checkpoint else None,
        callbacks=callbacks,
        progress=not settings.quiet,
    )
    return None if os.environ.get("RANK", "0") != "0" else _save(members, reports, settings.out)


train_sae_command = verb(take_settings(TrainSettings, train))


def _save(members: Mapping[str, Member], reports: Mapping[str, TrainReport], out: Path) -> Document:
    made = []
    for name, report in reports.items():
        typer.echo(f"{name}: {report}" if name else report)
        folder = save(members[name].sae, out / name if name else out)
        typer.echo(f"autoencoder: {folder.resolve()}")
        made.append({"name": name or None, "folder": folder, **as_document(report)})
    return {"autoencoders": made}


def as_document(report: TrainReport) -> Document:
    """The numbers of a training, which it prints as a sentence.

    Examples:
        ```python
        as_document(train(sae, source))["explained_variance"]
        ```
    """
    return {
        "tokens": report.tokens,
        "explained_variance": report.explained_variance,
        "l0": report.l0,
        "measured_on": report.quality.tokens,
        "silent_share": report.dead_share,
        "silent_over": report.silent_over,
    }


def _check_data(settings: TrainSettings) -> None:
    """Refuse no data, both kinds of it, and a model without a site, before anything is read."""
    if (settings.store is None) == (settings.model is None) or (settings.model is None) != (settings.texts is None):
        raise InvalidArgument("say what to train on: either MODEL and TEXTS, or --store FOLDER")
    if settings.texts is not None:
        if not settings.site:
            raise InvalidArgument("say where to read: --site resid_post.4, say; `interp sites` lists them")
        read_lines(settings.texts)


def _open(settings: TrainSettings) -> tuple[Model | ActivationStore, list[Site]]:
    """What is read, and where: the sites named, or the one of a store that has one."""
    if settings.store is None:
        model = load_model(str(settings.model), settings.device, quiet=settings.quiet)
        return model, [model.tap(Site.parse(name, model)).site for name in settings.site]
    store = ActivationStore(settings.store)
    if not settings.site and len(store.sites) > 1:
        held = ", ".join(map(str, store.sites))
        raise InvalidArgument(f"say where to read: --site {store.sites[0]}, say; the store holds {held}")
    return store, [Site.parse(name) for name in settings.site] or [*store.sites]


def _source(kind: type[SAE], opened: Model | ActivationStore, texts: Path | None, sites: list[Site]) -> Source:
    if isinstance(opened, ActivationStore):
        side, stacked = read_activations_at(opened, sites), read_across(opened, sites)
    else:
        data = read_lines(texts or Path())
        side, stacked = activations_at(opened, data, sites), across([(opened, site) for site in sites], data)
    return side if kind not in STACKED else replace(stacked, widths=side.widths)


def _name(made: list[Any], one: Any) -> str:
    """A name of what differs among those that are made; empty where there is one."""
    kinds = ("", "", "k", "seed")
    varying = [len({str(each[i]) for each in made}) > 1 for i in range(4)]
    values = (one[0], one[1], one[2].get("k"), one[3])
    return "-".join(f"{word}{value}" for word, value, varies in zip(kinds, values, varying, strict=True) if varies)
