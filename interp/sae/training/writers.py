"""Callbacks that write the curve: a table, lines of JSON, TensorBoard, Weights & Biases."""

import csv
import json
from dataclasses import asdict, fields
from io import StringIO
from pathlib import Path
from typing import Any, Literal, final

from hooks.disk import append_text, read_foreign, read_log, write_text
from hooks.errors import MissingExtra
from interp.sae.training.history import Point

Mode = Literal["online", "offline", "disabled", "shared"]

COLUMNS = ("name", *(field.name for field in fields(Point)))


@final
class CSVWriter:
    """One row per point in a file of comma-separated values; a run that goes on goes on in the same file.

    Examples:
        ```python
        train(sae, source, callbacks=[CSVWriter("curve.csv")])
        ```
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def begin(self, names: tuple[str, ...], tokens: int) -> None:  # noqa: ARG002
        """Keep the rows up to `tokens`, and the header."""
        kept = self._rows(tokens) if tokens and self.path.exists() else []
        text = StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
        write_text(self.path, text.getvalue())

    def point(self, name: str, point: Point) -> None:
        """Write a row, at once."""
        row = StringIO(newline="")
        csv.DictWriter(row, COLUMNS).writerow({"name": name, **asdict(point)})
        append_text(self.path, row.getvalue())

    def end(self) -> None:
        """Nothing is held open."""

    def _rows(self, tokens: int) -> list[dict[str, str]]:
        with self.path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
        cure = "remove it, or put it back from a copy"
        return read_foreign(self.path, cure, lambda: [row for row in rows if int(row["tokens"]) <= tokens])


@final
class JSONLWriter:
    """One JSON object per point and line; a run that goes on goes on in the same file.

    Examples:
        ```python
        train(sae, source, callbacks=[JSONLWriter("curve.jsonl")])
        ```
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def begin(self, names: tuple[str, ...], tokens: int) -> None:  # noqa: ARG002
        """Keep the lines up to `tokens`."""
        kept = []
        if tokens and self.path.exists():
            kept = [json.dumps(said) + "\n" for said in read_log(self.path) if said.get("tokens", 0) <= tokens]
        write_text(self.path, "".join(kept))

    def point(self, name: str, point: Point) -> None:
        """Write a line, at once."""
        append_text(self.path, json.dumps({"name": name, **asdict(point)}) + "\n")

    def end(self) -> None:
        """Nothing is held open."""


@final
class TensorBoard:
    """Scalars in a folder of event files, by tokens; needs the extra `tracking`.

    Examples:
        ```python
        train(sae, source, callbacks=[TensorBoard("runs/topk")])
        ```
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer: Any = None

    def begin(self, names: tuple[str, ...], tokens: int) -> None:  # noqa: ARG002
        """Open the writer; what was written after `tokens` is withdrawn."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra(_say_missing("TensorBoard", "tensorboard")) from error
        self._writer = SummaryWriter(str(self.folder), purge_step=tokens + 1 if tokens else None)

    def point(self, name: str, point: Point) -> None:
        """Write a scalar for each figure."""
        for figure, value in _figures(name, point).items():
            self._writer.add_scalar(figure, value, point.tokens)

    def end(self) -> None:
        """Close the file."""
        self._writer.close()


@final
class WeightsAndBiases:
    """Figures by tokens in a run of Weights & Biases; offline unless `mode` says otherwise; needs the extra `tracking`.

    With `run` given, a run that goes on goes on under that id.

    Examples:
        ```python
        train(sae, source, callbacks=[WeightsAndBiases("landmark", mode="online")])
        ```
    """

    def __init__(
        self, project: str, *, run: str | None = None, mode: Mode = "offline", folder: str | Path = "."
    ) -> None:
        self.project, self.run, self.folder = project, run, folder
        self.mode: Mode = mode
        self._run: Any = None

    def begin(self, names: tuple[str, ...], tokens: int) -> None:  # noqa: ARG002
        """Open the run."""
        try:
            import wandb
        except ImportError as error:
            raise MissingExtra(_say_missing("Weights & Biases", "wandb")) from error
        again: dict[str, Any] = {"id": self.run, "resume": "allow"} if self.run is not None else {}
        quiet = wandb.Settings(silent=True)
        self._run = wandb.init(project=self.project, mode=self.mode, dir=str(self.folder), settings=quiet, **again)

    def point(self, name: str, point: Point) -> None:
        """Log the figures."""
        self._run.log(_figures(name, point), step=point.tokens)

    def end(self) -> None:
        """Close the run."""
        self._run.finish()


def _figures(name: str, point: Point) -> dict[str, float]:
    figures = asdict(point)
    del figures["tokens"]
    return {f"{name}/{figure}" if name else figure: value for figure, value in figures.items()}


def _say_missing(what: str, package: str) -> str:
    return f"{what} needs the package '{package}', which is not installed: pip install 'interp-workbench[tracking]'"
