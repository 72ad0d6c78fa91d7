"""Checkpoints: all that a run needs to end with the same bits, whenever it was killed."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from hooks.disk import PARTIAL, Record, check_record, lock, read_pickled, record_file, write_file
from hooks.errors import DamagedFile, InvalidArgument, WrongModel
from hooks.json_file import Kind, read_json, write_json
from hooks.store.processes import Process

LATEST = "latest.json"
CURE = "remove the folder and train from the beginning, or put it back from a copy"


class CheckpointHeader(TypedDict):
    """What the last checkpoint is made of."""

    step: int
    rows: str
    on: str
    settings: dict[str, Any]
    files: dict[str, Record]


KIND: Final = Kind("interp.sae.checkpoint", "checkpoint", "train", CheckpointHeader)


@final
@dataclass(frozen=True)
class Checkpoint:
    """Where a run writes its state, and after how many tokens each time; a run that finds one there goes on from it.

    Every file is written whole, and `latest.json`, with the checksums of the others, last: a process that dies at any
    moment leaves the checkpoint before or the one after. The shuffle buffer is written once for each time it is filled.
    What another run left is refused: other settings, another normalisation, model or other data; and a second run at
    the same time is refused too.

    Examples:
        ```python
        train(sae, source, tokens=100_000_000, checkpoint=Checkpoint("run"))  # the same line again goes on
        ```
    """

    folder: str | Path
    every: int = 1_000_000

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InvalidArgument(f"every is {self.every}; a checkpoint is written after at least 1 token")

    def due(self, before: int, after: int) -> bool:
        """Whether one is to be written when the tokens seen have gone from `before` to `after`."""
        return before // self.every < after // self.every


@final
class CheckpointStore:
    """Writes and reads the checkpoints of one run, described by `settings`: those of another run are refused.

    `mine` says whether this process has a state of its own to keep; each is kept under its rank.

    Examples:
        ```python
        keeper = CheckpointStore(Checkpoint("run"), {"seed": 0}, Process(0, 1), mine=True)
        ```
    """

    def __init__(self, checkpoint: Checkpoint, settings: Mapping[str, Any], here: Process, *, mine: bool) -> None:
        self.folder, self.here, self.mine = Path(checkpoint.folder), here, mine
        self.settings: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        self._rows: tuple[str, Record] | None = None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this run.

        Raises:
            WrongState: another run writes its checkpoints there.

        Examples:
            ```python
            with keeper.lock():
                ...
            ```
        """
        with lock(self.folder, "training") if self.here.rank == 0 else nullcontext():
            yield

    def write(self, step: int, state: Mapping[str, Any], fills: int, held: Float[Tensor, "n *d"]) -> None:
        """Keep a state, the buffer as it is since its last filling, and forget the ones before."""
        rows, mine = f"rows-{fills}.pt", self._state(step)
        if self.here.rank == 0 and (self._rows is None or self._rows[0] != rows):
            self._rows = rows, _save(held, self.folder / rows)
        written = {mine: _save(dict(state), self.folder / mine)} if self.mine else {}
        files = {name: one for each in self.here.all(written) for name, one in each.items()}
        if self.here.rank == 0 and self._rows is not None:
            files |= dict([self._rows])
            kept = {"step": step, "rows": rows, "on": held.device.type, "settings": self.settings, "files": files}
            write_json(self.folder / LATEST, KIND, kept)
            self._remove_others(files)
        self.here.total(0)

    def read(self, device: torch.device) -> tuple[int, dict[str, Any], Float[Tensor, "n *d"]] | None:
        """Return the step, state and buffer kept, or None where there is none yet.

        Raises:
            WrongModel: they are another run's; what differs is named.
            DamagedFile: a file is torn or changed.
        """
        latest = self.folder / LATEST
        if not latest.exists():
            if self.here.rank == 0:  # left by a run that died before its first checkpoint
                self._remove_others({})
            return None
        kept = read_json(latest, KIND)
        for name, ours in self.settings.items():
            if (theirs := kept["settings"].get(name)) != ours:
                name, theirs, ours = _find_difference(name, theirs, ours)
                raise WrongModel(
                    f"the checkpoint in {self.folder} is of another run: its {name} is {theirs}, and here it is "
                    f"{ours}: give what it was begun with, or another folder"
                )
        state, held = (self._read_state(name, kept["files"]) for name in (self._state(kept["step"]), kept["rows"]))
        self._rows = kept["rows"], kept["files"][kept["rows"]]
        if device.type != "cpu":
            state = _move(state, device)
        return kept["step"], state, held if kept["on"] == "cpu" else held.to(device)

    def _read_state(self, name: str, files: Mapping[str, Record]) -> Any:
        path = self.folder / name
        if name not in files:
            raise DamagedFile(f"{self.folder / LATEST} does not know {name}: {CURE}")
        check_record(path, files[name], CURE)
        return read_pickled(path, CURE)

    def _remove_others(self, files: Mapping[str, Record]) -> None:
        for pattern in ("state-*.pt", "rows-*.pt", f".*{PARTIAL}"):
            for old in self.folder.glob(pattern):
                if old.name not in files:
                    old.unlink()

    def _state(self, step: int) -> str:
        return f"state-{step}-{self.here.rank if self.mine else 0}.pt"


def _save(what: Any, path: Path) -> Record:
    with write_file(path) as partial:
        torch.save(what, partial)
        return record_file(partial)


def _move(state: Any, device: torch.device) -> Any:
    """The same state with its tensors on a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {name: _move(value, device) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_move(value, device) for value in state)
    return state


def _find_difference(name: str, theirs: Any, ours: Any) -> tuple[str, Any, Any]:
    """The innermost setting in which two differ, by its name, and both its values.

    Examples:
        >>> _find_difference("members", {"": {"k": 4, "seed": 0}}, {"": {"k": 8, "seed": 0}})
        ('k', 4, 8)
    """
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return name, theirs, ours
    key = next(key for key in theirs | ours if theirs.get(key) != ours.get(key))
    if key not in theirs or key not in ours:
        return name, sorted(theirs), sorted(ours)
    return _find_difference(key or name, theirs[key], ours[key])
