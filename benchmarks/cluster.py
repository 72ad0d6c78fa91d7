"""Harvests and trainings that are killed, shared by two hosts, streamed, and on S3: `python benchmarks/cluster.py`.

1. `elastic`, `elastic_training`: `torchrun --max-restarts`; one of two workers kills itself at a chosen pass of its
   first life: a harvest, and the training of a dictionary on activations as they are computed.
2. `hosts`: two network namespaces joined by a cable, a `torchrun` in each, c10d rendezvous, gloo. Needs root and `ip`.
3. `stream`: an iterable data set of several sources, harvested by one process and by two.
4. `s3`: a store in a bucket of a server process over HTTP (`--s3 PYTHON`; `benchmarks/object_store.py`).

Every store is compared byte by byte with one process's, on the CPU; every dictionary bit by bit with that of two
processes that were never killed. Writes benchmarks/results/cluster.json.
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
sys.path.extend(filter(None, [os.environ.get("OBJECT_STORE_PACKAGES")]))
from benchmarks import object_store  # noqa: E402
from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Model, harvest, load  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp.sae import Checkpoint, TopK, activations_of, train  # noqa: E402

COMMAND = "python benchmarks/cluster.py --s3 PYTHON"
SITE = resid_post[1]
DOCUMENTS, LENGTH, SHARD = 240, 32, 16
MOMENTS = (1, 7)
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
    """What one worker does: it harvests, or trains; the second of two, or the only one, may die in its first life."""
    torch.set_num_threads(1)
    dying = os.environ.get("RANK", "1") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    count = _Count(dies_at if dying else 0)
    one = model()
    one.hf.register_forward_pre_hook(lambda *_: count())
    if what == "train":
        learn(one, Path(where))
    else:
        harvest(one, documents(what == "stream"), SITE, where, documents_per_shard=SHARD, batch_size=4)


def learn(one: Model, where: Path) -> None:
    """Train a dictionary with checkpoints; every process keeps its weights next to the others'."""
    texts = torch.tensor(documents()["input_ids"])
    sae = TopK(one.d_model, 256, k=8)
    source = activations_of(one, texts, SITE, batch_size=8)
    options: dict[str, Any] = {"tokens": 12_000, "batch_size": 256, "buffer": 2048, "progress": False}
    train(sae, source, checkpoint=Checkpoint(where / "run", every=1_000), **options)
    torch.save(sae.state_dict(), where / f"weights-{os.environ.get('RANK', '0')}.pt")


class _Count:
    """Kills its process, as a machine that fails would, when it is called for the n-th time; never for 0."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run(what: str, where: Path | str, dies_at: int = 0, *, prefix: tuple[str, ...] = ()) -> str:
    """Run `work` in a process of its own, or by a launcher, and return what it said."""
    code, said = try_run(what, where, dies_at, prefix=prefix)
    if code:
        raise SystemExit(f"{what} {where} ended with {code}: {said[-3000:]}")
    return said


def try_run(
    what: str, where: Path | str, dies_at: int = 0, *, prefix: tuple[str, ...] = (), **environment: str
) -> tuple[int, str]:
    """The same, with how it ended."""
    own = [str(Path(__file__).resolve()), "--work", what, str(where), str(dies_at)]
    command = [*prefix, *own] if prefix else [sys.executable, *own]
    given = {**_environment(), **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=570, env=given, check=False)
    return done.returncode, done.stderr


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


def elastic(folder: Path) -> list[dict[str, Any]]:
    """Harvests of which a worker is killed, next to one process's."""
    rows = []
    for moment in MOMENTS:
        where = folder / f"killed-{moment}"
        said = run("harvest", where, moment, prefix=torchrun(3))
        different = different_files(folder / "one", where)
        rows.append({"killed at pass": moment, "restarted": _restarted(said), "different files": different})
        print("harvest", json.dumps(rows[-1]), flush=True)
    return rows


def elastic_training(folder: Path) -> list[dict[str, Any]]:
    """Trainings of which a worker is killed, next to one process's and to two that nobody killed."""
    run("train", folder / "alone")
    run("train", folder / "pair", prefix=torchrun())
    rows = []
    for moment in MOMENTS:
        where = folder / f"killed-training-{moment}"
        said = run("train", where, moment, prefix=torchrun(3))
        pair, one = (largest_difference(where, folder / other) for other in ("pair", "alone"))
        row = {"killed at pass": moment, "restarted": _restarted(said)}
        rows.append(row | {"difference from two never killed": pair, "relative difference from one process": one})
        print("training", json.dumps(rows[-1]), flush=True)
    return rows


def largest_difference(one: Path, other: Path) -> float:
    """The largest difference between the weights of the first processes, relative to the largest weight."""
    a, b = (torch.load(folder / "weights-0.pt") for folder in (one, other))
    return max(float((a[name] - b[name]).abs().max() / b[name].abs().max().clamp_min(1e-30)) for name in b)


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


def s3(folder: Path) -> dict[str, Any]:
    """A store in a bucket, whole, run again, killed, cut off, and read."""
    return object_store.measure(folder / "one", try_run)


def main() -> None:
    """Run the parts asked for, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=["elastic", "elastic_training", "hosts", "stream", "s3"])
    parser.add_argument("--s3", type=Path, help="python of an environment with moto[server] and s3fs")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work[0], asked.work[1], int(asked.work[2]))
        return
    parts: dict[str, Callable[[Path], Any]] = {
        "elastic": elastic, "elastic_training": elastic_training, "hosts": hosts, "stream": stream, "s3": s3,
    }  # fmt: skip
    object_store.use(asked.s3)
    kept = RESULTS / "cluster.json"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run("harvest", folder / "one")
        for name in asked.part:
            found = parts[name](folder)
            print(name, json.dumps(found), flush=True)
            others = json.loads(kept.read_text())["figures"] if kept.exists() else {}
            write("cluster", COMMAND, others | {name: found})


if __name__ == "__main__":
    main()
