"""From words on a command line to what is trained: architectures, settings, what each reads, callbacks."""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Final, get_args, get_origin

import torch

from hooks import Site
from hooks.errors import InvalidArgument, nearest
from interp.sae import (
    SAE,
    Callback,
    Crosscoder,
    CSVWriter,
    JSONLWriter,
    Normalisation,
    Source,
    TensorBoard,
    WeightsAndBiases,
    expected_norm,
    mean_centred,
    side_by_side,
    whitened,
)
from interp.sae.architectures.registry import ARCHITECTURES
from interp.sae.architectures.transcoder import TranscoderBase

DECIDED: Final = {"d_in": "--site", "d_out": "--site", "n_layers": "--site", "d_sae": "--latents", "seed": "--seed"}
"""What constructors take that is no setting, and the argument that says it."""
NORMALISATIONS: Final = {"expected-norm": expected_norm, "mean-centred": mean_centred, "whitened": whitened}


def kind_called(architecture: str) -> type[SAE]:
    """The architecture of this name.

    Raises:
        ValueError: there is none; the nearest are named.

    Example:
        >>> kind_called("topk").__name__
        'TopK'
    """
    if architecture not in ARCHITECTURES:
        close = nearest(architecture, ARCHITECTURES)
        raise InvalidArgument(f"no architecture is called '{architecture}'; did you mean {close}?")
    return ARCHITECTURES[architecture]


def settings_of(kind: type[SAE], given: Iterable[str]) -> dict[str, Any]:
    """Settings given as NAME=VALUE, each checked against what the architecture's constructor takes.

    Raises:
        ValueError: another form, a name that it does not take (the nearest are told) or that another argument decides,
            a value of another type, or no value for a setting that it needs.

    Example:
        >>> settings_of(ARCHITECTURES["standard"], ["coefficient=5"])
        {'coefficient': 5}
    """
    taken = _taken(kind)
    settings: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgument(f"--setting is '{text}': write NAME=VALUE, such as coefficient=5")
        if name in DECIDED:
            raise InvalidArgument(f"--setting is '{text}', and {name} is what {DECIDED[name]} says: give it there")
        if name not in taken:
            raise InvalidArgument(f"{kind.architecture} has no setting '{name}'; did you mean {nearest(name, taken)}?")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
        wanted = taken[name].annotation
        if not _is_of(settings[name], wanted):
            raise InvalidArgument(
                f"--setting is '{text}': the {name} of {kind.architecture} is of type {_written(wanted)}"
            )
    for name, parameter in taken.items():
        if parameter.default is parameter.empty and name not in ("k", *settings):
            wanted = _written(parameter.annotation)
            raise InvalidArgument(
                f"{kind.architecture} needs {name}, of type {wanted}: give it as --setting {name}=VALUE"
            )
    return settings


def build(kind: type[SAE], source: Source, group: Any, latents: int, settings: Mapping[str, Any]) -> SAE:
    """An autoencoder as wide as its sites are in the source."""
    widths = dict(zip(source.sites, source.widths, strict=True))
    if issubclass(kind, TranscoderBase):
        reads, writes = group
        return kind(widths[reads], latents, d_out=widths[writes], **settings)
    if kind is Crosscoder:
        return Crosscoder(source.widths[0], latents, len(source.sites), **settings)
    return kind(widths[group], latents, **settings)


def writer(told: str) -> Callback:
    """The callback that `--log` names.

    Raises:
        ValueError: something else than the four.

    Example:
        ```python
        writer("curve.csv")
        ```
    """
    head, colon, tail = told.partition(":")
    if colon and tail and head in ("tensorboard", "wandb"):
        return TensorBoard(tail) if head == "tensorboard" else WeightsAndBiases(tail)
    if told.endswith((".csv", ".jsonl")):
        return CSVWriter(told) if told.endswith(".csv") else JSONLWriter(told)
    raise InvalidArgument(f"--log is '{told}': write FILE.csv, FILE.jsonl, tensorboard:FOLDER or wandb:PROJECT")


def groups(kind: type[SAE], sites: list[Site]) -> list[Any]:
    """What each autoencoder reads: a site, a transcoder's two, or a crosscoder's all."""
    if kind is Crosscoder:
        return [tuple(sites)]
    if issubclass(kind, TranscoderBase):
        if len(sites) != 2:
            raise InvalidArgument(
                f"a {kind.architecture} reads one site and writes another: give --site twice, in this order"
            )
        return [tuple(sites)]
    return [*sites]


def sparsities(kind: type[SAE], k: list[int] | None, fixed: Mapping[str, Any]) -> list[dict[str, int]]:
    """One setting k for each that was given, 32 where none was; none where the architecture has no k.

    Raises:
        ValueError: a k for such an architecture, or given both ways.
    """
    taken = _taken(kind)
    if "k" not in taken:
        if k:
            raise InvalidArgument(f"{kind.architecture} has no k; its settings are {', '.join(taken)}: see --setting")
        return [{}]
    if k and "k" in fixed:
        raise InvalidArgument(f"k is given by --k as {k} and by --setting as {fixed['k']}: give it by one of them")
    return [{}] if "k" in fixed else [{"k": each} for each in k or [32]]


def normalisation_of(called: str | None, source: Source, group: Any) -> Normalisation | None:
    """The normalisation of this name, measured on what an autoencoder reads of a source.

    Raises:
        ValueError: there is none; the nearest are named.
    """
    if called is None:
        return None
    if called not in NORMALISATIONS:
        close = nearest(called, NORMALISATIONS)
        raise InvalidArgument(f"no normalisation is called '{called}'; did you mean {close}?")
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


def _taken(kind: type[SAE]) -> dict[str, inspect.Parameter]:
    """The constructor's parameters that are settings."""
    return {name: each for name, each in inspect.signature(kind).parameters.items() if name not in DECIDED}


def _is_of(value: object, annotation: Any) -> bool:
    """Whether a value read from JSON is of a constructor's type; True and False are no numbers."""
    if isinstance(annotation, UnionType):
        return any(_is_of(value, each) for each in get_args(annotation))
    if get_origin(annotation) is Sequence:
        return isinstance(value, list) and all(_is_of(each, *get_args(annotation)) for each in value)
    return type(value) is annotation


def _written(annotation: Any) -> str:
    return inspect.formatannotation(annotation).removeprefix("collections.abc.")
