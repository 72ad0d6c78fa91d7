"""How much of what processes exchange in a sharded step is hidden by computing: `python benchmarks/overlap.py`.

Two processes that share a dictionary's latents take steps over gloo, in turn as they are, and with every exchange
waited for as soon as it has begun. The time that a process waits is added up in both; what is hidden is the share of
the second that the first has not. On one machine the exchange is copying by the same cores that compute, so that little
time is won by hiding it; between machines it is not. Steps alternate, and the interval is over pairs of them. Writes
benchmarks/results/overlap.json.
"""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.timing import write  # noqa: E402
from hooks.store.processes import processes  # noqa: E402
from interp.common.statistics import mean_with_interval  # noqa: E402
from interp.sae import ShardedTopK  # noqa: E402
from interp.sae.architectures import sharded  # noqa: E402

COMMAND = "python benchmarks/overlap.py"
WORLD, ROWS, WIDTH, LATENTS, K, PAIRS = 2, 2048, 512, 16_384, 32, 12


class _Waits:
    """Seconds that this process waited for others; `at_once` makes it wait as soon as an exchange has begun."""

    def __init__(self) -> None:
        self.seconds, self.at_once, self.real = 0.0, False, sharded._later

    def later(self, work: Any, result: Any) -> Callable[[], Any]:
        """In place of the library's: the same, timed."""
        wait = self.real(work, result)

        def timed() -> Any:
            began = time.perf_counter()
            found = wait()
            self.seconds += time.perf_counter() - began
            return found

        if not self.at_once:
            return timed
        found = timed()
        return lambda: found


def steps(rank: int) -> list[tuple[float, float, float, float]]:
    """For each pair of steps: seconds waited and taken as they are, and with every exchange waited for at once."""
    waits = _Waits()
    sharded._later = waits.later
    rows = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    objective = ShardedTopK(WIDTH, LATENTS, K).objective()
    objective.initialise(rows)
    off, found = torch.zeros(LATENTS, dtype=torch.bool), []
    for number in range(PAIRS + 1):
        pair: list[float] = []
        for at_once in (False, True):
            torch.distributed.barrier()
            waits.seconds, waits.at_once = 0.0, at_once
            began = time.perf_counter()
            objective.gradients(rows, off)
            pair += [waits.seconds, time.perf_counter() - began]
        if number:
            found.append((pair[0], pair[1], pair[2], pair[3]))
    return found if rank == 0 else []


def main() -> None:
    """Measure, print, write."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context: Any = multiprocessing.get_context("fork")
    heard, says = context.Pipe(duplex=False)

    def child(rank: int) -> None:
        torch.set_num_threads(1)
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        with processes(torch.device("cpu")):
            if found := steps(rank):
                says.send(found)

    started = [context.Process(target=child, args=(rank,)) for rank in range(WORLD)]
    for one in started:
        one.start()
    found = torch.tensor(heard.recv(), dtype=torch.float64)
    for one in started:
        one.join()
    waited, taken, waited_at_once, taken_at_once = found.unbind(1)
    figures = {
        "shape": {"processes": WORLD, "rows": ROWS, "width": WIDTH, "latents": LATENTS, "k": K},
        "hidden": vars(mean_with_interval(1 - waited / waited_at_once)),
        "hidden_of_all": float(1 - waited.sum() / waited_at_once.sum()),
        "waited_of_step_at_once": float(waited_at_once.sum() / taken_at_once.sum()),
        "step_over_step_at_once": float(taken.sum() / taken_at_once.sum()),
    }
    print(figures, flush=True)
    write("overlap", COMMAND, figures)


if __name__ == "__main__":
    main()
