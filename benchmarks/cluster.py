"""Harvests that are killed, shared by two hosts, and of a streamed data set: `python benchmarks/cluster.py`.

1. `elastic`: `torchrun --max-restarts`; one of two workers kills itself at a chosen pass of its first life.
2. `hosts`: two network namespaces joined by a cable, a `torchrun` in each, c10d rendezvous, gloo. Needs root and `ip`.
3. `stream`: an iterable data set of several sources, harvested by one process and by two.

Every store is compared byte by byte with one process's, on the CPU. Writes benchmarks/results/cluster.json.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Model, harvest, load  # noqa: E402
from hooks.site import resid_post  # noqa: E402

COMMAND = "python benchmarks/cluster.py"
SITE = resid_post[1]
DOCUMENTS, LENGTH, SHARD = 240, 32, 16
MOMENTS = (1, 7, 14)
"""Passes of the second worker's first life before it kills itself."""


def model() -> Model:
    """The same small model in every process."""
    return load(Shape(2, 32, 2, 128, 8, 64).gpt2(), check=False)


def documents(stream: bool = False) -> Any:
    """Random documents, as a data set in memory or as one that is streamed from six sources."""
    from datasets import Dataset

    ids = torch.randint(128, (DOCUMENTS, LENGTH), generator=torch.Generator().manual_seed(1))
    held = Dataset.from_dict({"input_ids": ids.tolist()})
    return held.to_iterable_dataset(num_shards=6) if stream else held


def work(what: str, where: str, dies_at: int) -> None:
    """What one worker does."""
    torch.set_num_threads(1)
    dying = os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    count = _Count(dies_at if dying else 0)
    one = model()
    one.hf.register_forward_pre_hook(lambda *_: count())
    harvest(one, documents(what == "stream"), SITE, where, documents_per_shard=SHARD, batch_size=4)


class _Count:
    """Kills its process, as a machine that fails would, when it is called for the n-th time; never for 0."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run(what: str, where: Path | str, dies_at: int = 0, *, prefix: tuple[str, ...] = ()) -> str:  # noqa: B006
    """Run `work` in a process of its own, or by a launcher, and return what it said."""
    own = [str(Path(__file__).resolve()), "--work", what, str(where), str(dies_at)]
    command = [*prefix, *own] if prefix else [sys.executable, *own]
    done = subprocess.run(command, capture_output=True, text=True, timeout=570, env=_environment(), check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-3000:]}")
    return done.stderr


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def torchrun(restarts: int = 0) -> tuple[str, ...]:
    """Two workers of this machine, started again after a failure so many times."""
    port = _free_port()
    return (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--max-restarts={restarts}",
            "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--monitor-interval=0.2")  # fmt: skip


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def different_files(one: Path, other: Path) -> list[str]:
    """The files of two stores that are not byte for byte the same; locks apart."""
    a, b = _read_files(one), _read_files(other)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _read_files(store: Path) -> dict[str, bytes]:
    files = [path for path in store.rglob("*") if path.is_file() and ".lock" not in path.name]
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def elastic(folder: Path) -> dict[str, Any]:
    """Harvests of which a worker is killed, next to one process's."""
    rows = []
    for moment in MOMENTS:
        where = folder / f"killed-{moment}"
        said = run("harvest", where, moment, prefix=torchrun(3))
        different = different_files(folder / "one", where)
        rows.append({"killed at pass": moment, "restarted": _restarted(said), "different files": different})
    return {"store": rows}


def _restarted(said: str) -> bool:
    return "-9" in said or "SIGKILL" in said


def hosts(folder: Path) -> dict[str, Any]:
    """Two namespaces with a cable between them, each with a torchrun of one worker."""
    with _two_hosts() as (first, second):
        others = []
        for number, host in enumerate((first, second)):
            command = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", "--nnodes=2",
                       "--nproc-per-node=1", f"--node-rank={number}", "--rdzv-backend=c10d", "--rdzv-id=two",
                       "--rdzv-endpoint=10.77.0.1:29555", f"--rdzv-conf=is_host={int(number == 0)}",
                       f"--local-addr=10.77.0.{number + 1}", str(Path(__file__).resolve()), "--work", "harvest",
                       str(folder / "two-hosts"), "0"]  # fmt: skip
            own = {**_environment(), "GLOO_SOCKET_IFNAME": f"{host}-eth", "TP_SOCKET_IFNAME": f"{host}-eth"}
            others.append(subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True))
        said = [one.communicate(timeout=500)[1] for one in others]
    failed = [text[-1500:] for one, text in zip(others, said, strict=True) if one.returncode]
    return {"failed": failed, "different files": different_files(folder / "one", folder / "two-hosts")}


@contextmanager
def _two_hosts() -> Iterator[tuple[str, str]]:
    names = ("ihosta", "ihostb")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            f"{names[0]}-eth",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            f"{names[1]}-eth",
            "netns",
            names[1],
        )
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", f"{name}-eth")
            ip("-n", name, "link", "set", f"{name}-eth", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def stream(folder: Path) -> dict[str, Any]:
    """A streamed data set by one process, and by two."""
    run("stream", folder / "stream-one")
    run("stream", folder / "stream-two", prefix=torchrun())
    return {"different files": different_files(folder / "stream-one", folder / "stream-two")}


def main() -> None:
    """Run the parts asked for, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=["elastic", "hosts", "stream"])
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work[0], asked.work[1], int(asked.work[2]))
        return
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "elastic": elastic, "hosts": hosts, "stream": stream,
    }  # fmt: skip
    kept = RESULTS / "cluster.json"
    results: dict[str, Any] = json.loads(kept.read_text())["figures"] if kept.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run("harvest", folder / "one")
        for name in asked.part:
            results[name] = parts[name](folder)
            print(name, json.dumps(results[name]), flush=True)
            write("cluster", COMMAND, results)


if __name__ == "__main__":
    main()
