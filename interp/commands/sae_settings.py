"""The settings of `interp train-sae`, and from them what is trained: architectures, what each reads, callbacks."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin

import torch
import typer
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from hooks import Site
from hooks.errors import InvalidArgument, nearest
from interp.sae import (
    SAE,
    Callback,
    Crosscoder,
    CrossLayerTranscoder,
    CSVWriter,
    JSONLWriter,
    Normalisation,
    Source,
    TensorBoard,
    WeightsAndBiases,
    expected_norm,
    mean_centring,
    rms_scaling,
    side_by_side,
    whitening,
)
from interp.sae.architectures.registry import ARCHITECTURES
from interp.sae.architectures.transcoder import TranscoderBase

DECIDED: Final = {"d_in": "--site", "d_out": "--site", "n_layers": "--site", "d_sae": "--latents", "seed": "--seed"}
"""What constructors take that is no setting, and the argument that says it."""
NORMALISATIONS: Final = {
    "expected-norm": expected_norm,
    "mean-centred": mean_centring,
    "rms": rms_scaling,
    "whitened": whitening,
}
STACKED: Final = (Crosscoder, CrossLayerTranscoder)
"""Architectures whose rows have a layer axis."""


def _several(value: Any) -> Any:
    """One value as a list of one."""
    return value if isinstance(value, list) else [value]


def _read_named(given: Any) -> Any:
    """NAME=VALUE words as a mapping; values are read as JSON, what is no JSON as a string."""
    if not isinstance(given, list):
        return given
    settings: dict[str, Any] = {}
    for text in given:
        name, equals, value = str(text).partition("=")
        if not equals:
            raise InvalidArgument(f"--setting is '{text}': write NAME=VALUE, such as coefficient=5")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


Several = BeforeValidator(_several)
Count = Annotated[int, Field(gt=0)]
CONFIG: Final = ConfigDict(extra="forbid", frozen=True)


class Rows(BaseModel):
    """What a dictionary is trained on."""

    model_config = CONFIG

    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")
    ] = None
    texts: Annotated[Path | None, typer.Argument(metavar="TEXTS", help="A file with one text per line.")] = None
    store: Annotated[str | None, typer.Option(help="A store of `interp harvest`, in place of a model.")] = None
    site: Annotated[
        list[str],
        Several,
        typer.Option(
            help="Such as resid_post.4; may be repeated: a transcoder's two, in order. A store of one site needs none."
        ),
    ] = []
    tokens: Annotated[int, Field(gt=0), typer.Option(help="Activations to train on.")] = 1_000_000
    batch_size: Annotated[int, Field(gt=0), typer.Option(help="Activations in a batch.")] = 2048
    buffer: Annotated[int, Field(gt=0), typer.Option(help="Activations that are mixed.")] = 131_072
    normalise: Annotated[str | None, typer.Option(help=f"One of {', '.join(NORMALISATIONS)}.")] = None


class Dictionary(BaseModel):
    """What is trained."""

    model_config = CONFIG

    architecture: Annotated[str, typer.Option(help=f"One of {', '.join(ARCHITECTURES)}.")] = "topk"
    latents: Annotated[list[int], Several, typer.Option(help="Size of the dictionary; may be repeated.")] = [2048]
    k: Annotated[
        list[int], Several, typer.Option(help="Latents per token, where it has a k; may be repeated; 32 if not given.")
    ] = []
    setting: Annotated[
        dict[str, Any],
        BeforeValidator(_read_named),
        typer.Option(help="NAME=VALUE of the architecture, such as coefficient=5."),
    ] = {}
    seed: Annotated[
        list[int], Several, typer.Option(help="Of the first weights, and of the order; may be repeated.")
    ] = [0]


class Schedule(BaseModel):
    """How it is trained."""

    model_config = CONFIG

    lr: Annotated[float | None, typer.Option(help="Peak learning rate; 2e-4 sqrt(2^14 / latents) if not given.")] = None
    warm_up: Annotated[float, Field(ge=0, le=1), typer.Option(help="Share of the run in which it rises.")] = 0.05
    decay: Annotated[float, Field(ge=0, le=1), typer.Option(help="Share of the run in which it falls to 0.")] = 0.2
    shape: Annotated[str, typer.Option(help="How it falls: linear or cosine.")] = "linear"
    sparsity_warm_up: Annotated[float, Field(ge=0, le=1), typer.Option(help="Share in which the penalty rises.")] = 0.05
    clip: Annotated[float, Field(ge=0), typer.Option(help="Largest norm of a gradient; 0 for none.")] = 1.0
    dead_after: Annotated[int, Field(gt=0), typer.Option(help="Tokens of silence after which a latent is dead.")] = (
        100_000
    )
    resample: Annotated[
        list[float], Several, typer.Option(help="Share of the run at which dead latents start again; may be repeated.")
    ] = []


class Outcome(BaseModel):
    """Where what comes of it goes."""

    model_config = CONFIG

    out: Annotated[Path, typer.Option(help="A folder in SAELens's format; of several, one folder each.")] = Path("sae")
    checkpoint: Annotated[Path | None, typer.Option(help="A folder; with the same one a killed run goes on.")] = None
    every: Annotated[int, Field(gt=0), typer.Option(help="Tokens between checkpoints.")] = 1_000_000
    log: Annotated[
        list[str], Several, typer.Option(help="FILE.csv, FILE.jsonl, tensorboard:FOLDER or wandb:PROJECT.")
    ] = []
    device: Annotated[str | None, typer.Option(help="Such as cuda or cpu; a GPU if there is one.")] = None
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False


class TrainSettings(Outcome, Schedule, Dictionary, Rows):
    """Everything that `interp train-sae` can be asked for; more than one size, k or seed trains each with each."""


def kind_called(architecture: str) -> type[SAE]:
    """The architecture of this name.

    Raises:
        InvalidArgument: there is none; the nearest are named.

    Examples:
        >>> kind_called("topk").__name__
        'TopK'
    """
    if architecture not in ARCHITECTURES:
        close = nearest(architecture, ARCHITECTURES)
        raise InvalidArgument(f"no architecture is called '{architecture}'; did you mean {close}?")
    return ARCHITECTURES[architecture]


def settings_of(kind: type[SAE], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an architecture, each checked against what its constructor takes.

    Raises:
        InvalidArgument: a name that it does not take (the nearest are named) or that another argument decides, a value
            of another type, or no value for a setting that it needs.

    Examples:
        >>> settings_of(ARCHITECTURES["standard"], {"coefficient": 5})
        {'coefficient': 5}
    """
    taken = _find_parameters(kind)
    for name, value in given.items():
        text = f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        if name in DECIDED:
            raise InvalidArgument(f"--setting is '{text}', and {name} is what {DECIDED[name]} says: give it there")
        if name not in taken:
            raise InvalidArgument(f"{kind.architecture} has no setting '{name}'; did you mean {nearest(name, taken)}?")
        wanted = taken[name].annotation
        try:
            TypeAdapter(wanted, config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(value)
        except ValidationError as error:
            raise InvalidArgument(
                f"--setting is '{text}': the {name} of {kind.architecture} is of type {_write_annotation(wanted)}"
            ) from error
    for name, parameter in taken.items():
        if parameter.default is parameter.empty and name not in ("k", *given):
            wanted = _write_annotation(parameter.annotation)
            raise InvalidArgument(
                f"{kind.architecture} needs {name}, of type {wanted}: give it as --setting {name}=VALUE"
            )
    return {**given}


def build(kind: type[SAE], source: Source, group: Any, latents: int, settings: Mapping[str, Any]) -> SAE:
    """An autoencoder as wide as its sites are in the source."""
    widths = dict(zip(source.sites, source.widths, strict=True))
    if issubclass(kind, TranscoderBase):
        reads, writes = group
        return kind(widths[reads], latents, d_out=widths[writes], **settings)
    if kind is Crosscoder:
        return Crosscoder(source.widths[0], latents, len(source.sites), **settings)
    if kind is CrossLayerTranscoder:
        return CrossLayerTranscoder(source.widths[0], latents, len(source.sites) // 2, **settings)
    return kind(widths[group], latents, **settings)


def writer(name: str) -> Callback:
    """The callback that `--log` names.

    Raises:
        InvalidArgument: something else than the four.

    Examples:
        ```python
        writer("curve.csv")
        ```
    """
    head, colon, tail = name.partition(":")
    if colon and tail and head in ("tensorboard", "wandb"):
        return TensorBoard(tail) if head == "tensorboard" else WeightsAndBiases(tail)
    if name.endswith((".csv", ".jsonl")):
        return CSVWriter(name) if name.endswith(".csv") else JSONLWriter(name)
    raise InvalidArgument(f"--log is '{name}': write FILE.csv, FILE.jsonl, tensorboard:FOLDER or wandb:PROJECT")


def groups(kind: type[SAE], sites: list[Site]) -> list[Any]:
    """What each autoencoder reads: a site, a transcoder's two, or all where they are stacked."""
    if kind is CrossLayerTranscoder and len(sites) % 2:
        raise InvalidArgument(
            f"a {kind.architecture} reads as many sites as it writes, and {len(sites)} were given: give --site for all "
            "that is read and then for all that is written"
        )
    if kind in STACKED:
        return [tuple(sites)]
    if issubclass(kind, TranscoderBase):
        if len(sites) != 2:
            raise InvalidArgument(
                f"a {kind.architecture} reads one site and writes another: give --site twice, in this order"
            )
        return [tuple(sites)]
    return [*sites]


def sparsities(kind: type[SAE], k: list[int], fixed: Mapping[str, Any]) -> list[dict[str, int]]:
    """One setting k for each that was given, 32 where none was; none where the architecture has no k.

    Raises:
        InvalidArgument: a k for such an architecture, or given both ways.
    """
    taken = _find_parameters(kind)
    if "k" not in taken:
        if k:
            raise InvalidArgument(f"{kind.architecture} has no k; its settings are {', '.join(taken)}: see --setting")
        return [{}]
    if k and "k" in fixed:
        raise InvalidArgument(f"k is given by --k as {k} and by --setting as {fixed['k']}: give it by one of them")
    return [{}] if "k" in fixed else [{"k": each} for each in k or [32]]


def check_normalisation(called: str | None) -> None:
    """Refuse a normalisation that there is not; the nearest are named.

    Raises:
        InvalidArgument: there is none of that name.
    """
    if called is not None and called not in NORMALISATIONS:
        close = nearest(called, NORMALISATIONS)
        raise InvalidArgument(f"no normalisation is called '{called}'; did you mean {close}?")


def normalisation_of(called: str | None, source: Source, group: Any) -> Normalisation | None:
    """The normalisation of this name, measured on what an autoencoder reads of a source.

    Raises:
        InvalidArgument: there is none; the nearest are named.
    """
    check_normalisation(called)
    if called is None:
        return None
    measure = NORMALISATIONS[called]
    if isinstance(group, tuple) and next(iter(source)).ndim == 3:
        return measure(source)
    ends = torch.tensor(source.widths).cumsum(0).tolist()
    columns = {
        site: slice(end - width, end) for site, end, width in zip(source.sites, ends, source.widths, strict=True)
    }
    parts = [
        measure(rows[:, columns[site]] for rows in source) for site in (group if isinstance(group, tuple) else [group])
    ]
    return parts[0] if len(parts) == 1 else side_by_side(*parts)


def _find_parameters(kind: type[SAE]) -> dict[str, inspect.Parameter]:
    """The constructor's parameters that are settings."""
    return {name: each for name, each in inspect.signature(kind).parameters.items() if name not in DECIDED}


def _write_annotation(annotation: Any) -> str:
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return inspect.formatannotation(bare).removeprefix("collections.abc.")
