"""Checkpoints: all that a run needs to end with the same bits, whenever it was killed."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.store.processes import Process

LATEST = "latest.json"


@final
@dataclass(frozen=True)
class Checkpoint:
    """Where a run writes its state, and after how many tokens each time; a run that finds one there goes on from it.

    Every file is written next to its place and renamed, and `latest.json` last, so a process that dies at any moment
    leaves the checkpoint before or the one after. The mixing buffer is written once for each time it is filled. What
    another run left is refused: other settings, another normalisation, model or other data, as far as `Source.digest`
    tells data apart.

    Example:
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
class Keeper:
    """Writes and reads the checkpoints of one run, described by `settings`: those of another run are refused.

    `mine` says whether this process has a state of its own to keep; each is kept under its rank.

    Example:
        ```python
        keeper = Keeper(Checkpoint("run"), {"seed": 0}, Process(0, 1), mine=True)
        ```
    """

    def __init__(self, checkpoint: Checkpoint, settings: Mapping[str, Any], here: Process, *, mine: bool) -> None:
        self.folder, self.here, self.mine = Path(checkpoint.folder), here, mine
        self.settings: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, state: Mapping[str, Any], fills: int, held: Float[Tensor, "n *d"]) -> None:
        """Keep a state, the buffer as it is since its last filling, and forget the ones before."""
        rows = self.folder / f"rows-{fills}.pt"
        if self.here.rank == 0 and not rows.exists():
            _save(held, rows)
        if self.mine:
            _save(dict(state), self._state(step))
        self.here.total(0)
        if self.here.rank == 0:
            kept = {"step": step, "rows": rows.name, "on": held.device.type, "settings": self.settings}
            _renamed(self.folder / LATEST, lambda path: path.write_text(json.dumps(kept, indent=1), encoding="utf-8"))
        self.here.total(0)
        if self.here.rank == 0:
            for old in (*self.folder.glob("state-*.pt"), *self.folder.glob("rows-*.pt")):
                if old.name != rows.name and not old.name.startswith(f"state-{step}-"):
                    old.unlink()

    def read(self, device: torch.device) -> tuple[int, dict[str, Any], Float[Tensor, "n *d"]] | None:
        """The step, state and buffer kept, or None where there is none yet.

        Raises:
            InvalidArgument: they are another run's; what differs is named.
        """
        latest = self.folder / LATEST
        if not latest.exists():
            if self.here.rank == 0:  # left by a run that died before its first checkpoint
                for old in (*self.folder.glob("state-*.pt"), *self.folder.glob("rows-*.pt")):
                    old.unlink()
            return None
        kept = json.loads(latest.read_text(encoding="utf-8"))
        for name, ours in self.settings.items():
            if (theirs := kept["settings"].get(name)) != ours:
                raise InvalidArgument(
                    f"the checkpoint in {self.folder} is of another run: its {name} is {theirs}, and here it is "
                    f"{ours}. Give what it was begun with, or another folder"
                )
        state = torch.load(self._state(kept["step"]), map_location=device, weights_only=True)
        held = torch.load(self.folder / kept["rows"], map_location="cpu", weights_only=True)
        return kept["step"], state, held if kept["on"] == "cpu" else held.to(device)

    def _state(self, step: int) -> Path:
        return self.folder / f"state-{step}-{self.here.rank if self.mine else 0}.pt"


def _save(what: Any, path: Path) -> None:
    _renamed(path, lambda partial: torch.save(what, partial))


def _renamed(path: Path, write: Any) -> None:
    """Write a file next to its place, see it to the disk, and put it there."""
    partial = path.with_suffix(".partial")
    write(partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
