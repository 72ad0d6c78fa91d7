"""Trainings and a harvest killed at random moments and begun again: how many end with the bits of one never killed.

python benchmarks/conformance_kills.py
"""

import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.conftest import tiny  # noqa: E402
from tests.hooks import test_store_harvest as harvests  # noqa: E402
from tests.interp.sae import test_resume as trainings  # noqa: E402

KILLS = 4  # of each run


@dataclass(frozen=True)
class Run:
    """What is killed: it works in a folder, and its result there is some bytes, or None while it is not done."""

    name: str
    work: Callable[[Path], object]
    result: Callable[[Path], Any]


def runs() -> list[Run]:
    """A training of each kind, with the rows read again and again and held whole; and a harvest."""
    found = []
    for kind, learn in (("autoencoder", trainings.learn), ("cross-layer transcoder", trainings.learn_across)):
        for how, buffer in (("rows read again", 3_000), ("rows held", 50_000)):
            name = f"training, {kind}, {how}"
            found.append(Run(name, lambda folder, learn=learn, n=buffer: learn(folder, n), _weights))
    model = tiny("gpt2")
    return [*found, Run("harvest", lambda folder: harvests.work(model, folder), _store)]


def measure_kills(kills: int = KILLS, seed: int = 0) -> dict[str, dict[str, int]]:
    """For each run how often it was killed, and whether it ended with the bits of one that never was."""
    moments = random.Random(seed)
    return {run.name: _killed(run, kills, moments) for run in runs()}


def _killed(run: Run, kills: int, moments: random.Random) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as place:
        whole, folder = Path(place) / "whole", Path(place) / "killed"
        run.work(Path(place) / "warm")
        began = time.perf_counter()
        run.work(whole)
        seconds, killed = time.perf_counter() - began, 0
        while killed < kills:
            process = multiprocessing.get_context("fork").Process(target=run.work, args=(folder,))
            process.start()
            process.join(moments.uniform(0.1, 0.6) * seconds)
            if process.is_alive():
                process.kill()
                killed += 1
            process.join()
            if run.result(folder) is not None:  # it was done before it could be killed: begin again
                shutil.rmtree(folder)
                killed = 0
        run.work(folder)
        return {"kills": killed, "the same bits": int(run.result(folder) == run.result(whole))}


def _weights(folder: Path) -> dict[str, bytes] | None:
    done = folder / "done.pt"
    return trainings.bits(torch.load(done)) if done.exists() else None


def _store(folder: Path) -> dict[str, bytes] | None:
    done = folder / "manifest.json"
    return {path.name: path.read_bytes() for path in folder.glob("*")} if done.exists() else None


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure_kills(), indent=1))
