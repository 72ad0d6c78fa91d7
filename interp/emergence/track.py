"""Metrics over the checkpoints of a run, or over models of several sizes, each measured once and kept."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from hooks import Model, load
from hooks.disk import read_bytes
from hooks.errors import InvalidArgument, UnknownName, WrongModel, nearest
from hooks.json_file import Kind, json_content, write_json
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.common.statistics import Estimate
from interp.emergence.identity import digest_of_metric, digest_of_source

if TYPE_CHECKING:
    from pandas import DataFrame

Metric = Callable[[Model], Mapping[str, Estimate]]
Source = str | Path | Model


class TrackHeader(TypedDict):
    """What a file says of a track: of each metric what tells it from others, and of each step the digest of its source.

    `definitions` is missing in files of older versions.
    """

    metrics: list[str]
    definitions: NotRequired[dict[str, str]]
    found: dict[str, dict[str, dict[str, float | int]]]
    sources: dict[str, str]


KIND = Kind("interp.emergence.track", "track", "track", TrackHeader)


@dataclass(frozen=True)
class Track:
    """Metrics over steps or sizes.

    Attributes:
        steps: at which.
        metrics: by name, the estimate at every step.
    """

    steps: tuple[int, ...]
    metrics: dict[str, tuple[Estimate, ...]]

    __repr__ = summarise

    def __str__(self) -> str:
        rows = [f"  {name:<34} {of[0].value:8.3f} → {of[-1].value:8.3f}" for name, of in self.metrics.items()]
        return "\n".join([f"{len(self.steps)} checkpoints, steps {self.steps[0]} to {self.steps[-1]}", *rows])

    def values(self, metric: str) -> Float[Tensor, "n"]:
        """The values of one metric.

        Raises:
            UnknownName: it was not measured.

        Examples:
            ```python
            track.values("exact match")
            ```
        """
        if metric not in self.metrics:
            raise UnknownName(f"{metric!r} was not measured; nearest: {nearest(metric, self.metrics)}")
        return torch.tensor([e.value for e in self.metrics[metric]], dtype=torch.float64)

    def to_pandas(self) -> "DataFrame":
        """A row for each step and metric."""
        from pandas import DataFrame

        return DataFrame(
            [
                {"step": step, "metric": name, "value": e.value, "low": e.low, "high": e.high, "n": e.n}
                for name, of in self.metrics.items()
                for step, e in zip(self.steps, of, strict=True)
            ]
        )


def track(
    models: Mapping[int, Source],
    metrics: Mapping[str, Metric],
    *,
    file: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Track:
    """Measure every model by every metric; what a file holds already is not measured again.

    A model is read, measured and let go before the next one is read. What a file holds of a step is taken for the same
    weights only, so a folder that was trained again is measured again; steps that are not asked for stay in the file,
    unless one that is asked for has other weights now. A file is of one set of metrics: each is known by its name, its
    code, and the arguments, defaults and outer variables it holds (numbers, text, tensors, models, and lists and
    dataclasses of them; of anything else its type). What a metric calls is known by its name alone: where that has
    changed, give another file.

    Args:
        models: by step or size, a folder, a loaded model, or a Hugging Face id with `@` and a revision.
        metrics: by name, functions from a model to estimates by name.
        file: where to keep what was measured, after every model; without one nothing is kept.
        device: where models that are read are put; by default the CPU.
        progress: show a progress bar.

    Raises:
        InvalidArgument: fewer than two models, no metrics, or models that give different metrics.
        WrongModel: a file of other metrics.
        WrongState: a file, and a block of interventions is open on one of the models.

    Cost: one load and the cost of the metrics for each model; with a file, one more reading of every folder.

    Examples:
        ```python
        track(checkpoints("runs/induction-1"), {"": measure_induction_world}, file="track.json")
        ```
    """
    if len(models) < 2 or not metrics:
        raise InvalidArgument(f"{len(models)} models and {len(metrics)} metrics: give two models and a metric at least")
    kept = None if file is None else _File.open(Path(file), metrics, models)
    found = {} if kept is None else {step: kept.found[step] for step in map(str, models) if step in kept.found}
    for step, source in progress_bar(sorted(models.items()), progress=progress, desc="checkpoints"):
        if str(step) in found:
            continue
        model = _load(source, device)
        found[str(step)] = {
            name if not group else f"{group}: {name}": asdict(e)
            for group, metric in metrics.items()
            for name, e in metric(model).items()
        }
        if kept is not None:
            kept.add(str(step), found[str(step)])
    return _track(found)


def read_track(file: str | Path) -> Track:
    """Read what `track` kept.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is torn, changed, or holds something else.

    Examples:
        ```python
        read_track("track.json")
        ```
    """
    return _track(json_content(KIND, read_bytes(Path(file)), file)["found"])


def _track(kept: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Track:
    steps = sorted(map(int, kept))
    names = [*kept[str(steps[0])]]
    if odd := [step for step in steps if [*kept[str(step)]] != names]:
        raise InvalidArgument(f"step {odd[0]} gave other metrics than step {steps[0]}: measure all models alike")
    return Track(tuple(steps), {name: tuple(Estimate(**kept[str(s)][name]) for s in steps) for name in names})  # type: ignore[arg-type]


@dataclass
class _File:
    """What was measured, kept after every model: by which metrics, and of which weights."""

    path: Path
    definitions: dict[str, str]
    sources: dict[str, str]
    found: dict[str, Any]

    @staticmethod
    def open(path: Path, metrics: Mapping[str, Metric], models: Mapping[int, Source]) -> "_File":
        """What the file holds of the same weights, and of steps that are not asked for; refuse one of other metrics."""
        for source in models.values():
            if isinstance(source, Model):
                source.running.check_unchanged(
                    "a file keeps figures of the unchanged model: track outside the block, or leave `file` out"
                )
        definitions = {name: digest_of_metric(metric) for name, metric in metrics.items()}
        asked = {str(step): digest_of_source(source) for step, source in models.items()}
        if not path.exists():
            return _File(path, definitions, asked, {})
        held = json_content(KIND, read_bytes(path), path)
        _check_metrics(path, held.get("definitions") or dict.fromkeys(held["metrics"], ""), definitions)
        same = {step for step in asked if held["sources"].get(step) == asked[step]}
        if all(step in same for step in asked if step in held["found"]):
            same |= held["found"].keys() - asked.keys()
        sources = {step: digest for step, digest in held["sources"].items() if step in same}
        return _File(path, definitions, sources | asked, {s: e for s, e in held["found"].items() if s in same})

    def add(self, step: str, estimates: Mapping[str, Any]) -> None:
        """Keep what was measured of one more model."""
        self.found[step] = estimates
        sources = {step: self.sources[step] for step in self.found}
        about = {"metrics": [*self.definitions], "definitions": self.definitions, "sources": sources}
        write_json(self.path, KIND, about | {"found": self.found})


def _check_metrics(path: Path, held: Mapping[str, str], asked: Mapping[str, str]) -> None:
    if held.keys() != asked.keys():
        raise WrongModel(
            f"{path} holds the metrics {[*held]}, and {[*asked]} are asked for: give those, or another file"
        )
    if other := [name for name in asked if held[name] != asked[name]]:
        raise WrongModel(
            f"the metric {other[0]!r} in {path} has other code or other arguments than the one that was given: give "
            "another file, or remove that one"
        )


def _load(source: Source, device: str | torch.device | None) -> Model:
    if isinstance(source, Model):
        return source
    name, at, revision = str(source).rpartition("@")
    if at and not Path(source).exists():
        return load(name, revision=revision, device=device, check=False)
    return load(source, device=device, check=False)
