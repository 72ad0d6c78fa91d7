"""Fair timing: alternatives in turn, medians, ratios within one run, and results written with their circumstances."""

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat of one alternative; repeats of all alternatives alternate."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    def times(self, other: "Timing") -> tuple[float, float, float]:
        """How many times faster than the other: the median over repeats run side by side, and their quartiles."""
        ratios = sorted(b / a for a, b in zip(self.seconds, other.seconds, strict=True))
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return middle, low, high


def in_turn(ways: Mapping[str, Callable[[], object]], *, repeats: int = 11, warm_up: int = 2) -> dict[str, Timing]:
    """Time each way once per repeat, one after another, so that what slows the machine slows all of them."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(warm_up + repeats):
        for name, way in ways.items():
            gc.collect()
            synchronise()
            began = time.perf_counter()
            way()
            synchronise()
            if repeat >= warm_up:
                found[name].append(time.perf_counter() - began)
    return {name: Timing(tuple(seconds)) for name, seconds in found.items()}


def synchronise() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mb(way: Callable[[], object]) -> float:
    """The most memory that tensors made by one run hold at once, in MB, by the allocator's own record."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = way()
    del kept
    assert seen.profiler is not None
    results: Any = seen.profiler.kineto_results
    moves = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    held = most = 0
    for _, size in moves:
        held += size
        most = max(most, held)
    return most / 1e6


def machine() -> dict[str, str | int | float]:
    """Where this ran, and how busy it was."""
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write(name: str, command: str, figures: Any) -> Path:
    """Write benchmarks/results/`name`.json: the command, the machine and the figures."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{name}.json"
    written = {"command": command, "machine": machine(), "figures": figures}
    file.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return file
