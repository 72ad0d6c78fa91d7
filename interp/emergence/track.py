"""Metrics over the checkpoints of a run, or over models of several sizes, each measured once and kept."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from hooks import Model, load
from hooks.disk import read_bytes
from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.json_file import Kind, json_content, write_json
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.common.statistics import Estimate

if TYPE_CHECKING:
    from pandas import DataFrame

Metric = Callable[[Model], Mapping[str, Estimate]]
Source = str | Path | Model


class TrackHeader(TypedDict):
    """What a file says of a track."""

    metrics: list[str]
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

    A model is read, measured and let go before the next one is read. What a file holds of a step is taken only for the
    same source and the same names of metrics.

    Args:
        models: by step or size, a folder, a loaded model, or a Hugging Face id with `@` and a revision.
        metrics: by name, functions from a model to estimates by name.
        file: where to keep what was measured, after every model; without one nothing is kept.
        device: where models that are read are put; by default the CPU.
        progress: show a progress bar.

    Raises:
        InvalidArgument: fewer than two models, no metrics, or models that give different metrics.

    Cost: one load and the cost of the metrics for each model.

    Examples:
        ```python
        track(checkpoints("runs/induction-1"), {"": measure_induction_world}, file="track.json")
        ```
    """
    if len(models) < 2 or not metrics:
        raise InvalidArgument(f"{len(models)} models and {len(metrics)} metrics: give two models and a metric at least")
    if file is not None:
        for source in models.values():
            if isinstance(source, Model):
                source.running.check_unchanged(
                    "a file keeps figures of the unchanged model: track outside the block, or leave `file` out"
                )
    sources = {str(step): _name(source) for step, source in sorted(models.items())}
    kept = {} if file is None else _read_kept(Path(file), [*metrics], sources)
    for step, source in progress_bar(sorted(models.items()), progress=progress, desc="checkpoints"):
        if str(step) in kept:
            continue
        model = _load(source, device)
        kept[str(step)] = {
            name if not group else f"{group}: {name}": asdict(e)
            for group, metric in metrics.items()
            for name, e in metric(model).items()
        }
        if file is not None:
            write_json(file, KIND, {"metrics": [*metrics], "found": kept, "sources": sources})
    return _track(kept)


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


def _read_kept(file: Path, metrics: list[str], sources: dict[str, str]) -> dict[str, Any]:
    if not file.exists():
        return {}
    held = json_content(KIND, read_bytes(Path(file)), file)
    if held["metrics"] != metrics:
        return {}
    return {step: found for step, found in held["found"].items() if held["sources"].get(step) == sources.get(step)}


def _name(source: Source) -> str:
    return source.fingerprint if isinstance(source, Model) else str(source)


def _load(source: Source, device: str | torch.device | None) -> Model:
    if isinstance(source, Model):
        return source
    name, at, revision = str(source).rpartition("@")
    if at and not Path(source).exists():
        return load(name, revision=revision, device=device, check=False)
    return load(source, device=device, check=False)
