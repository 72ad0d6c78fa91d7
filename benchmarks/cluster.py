"""Jobs that are killed, shared by two hosts, streamed and kept on a server: `python benchmarks/cluster.py`.

1. `elastic`: `torchrun --max-restarts`; one of two workers kills itself at a chosen pass or step of its first life. The
   store is compared byte by byte with one process's, the autoencoder bit by bit with two processes' that were not
   killed, and to rounding with one process's.
2. `hosts`: two network namespaces joined by a cable, a `torchrun` in each, c10d rendezvous, gloo. Needs root and `ip`.
3. `stream`: an iterable data set of several sources, harvested by one process and by two.
4. `s3`: a store on a real S3 server over HTTP (moto's), its writer killed on the way, written again, and read shuffled.
   `--peers FOLDER` is where `pip install --target FOLDER "moto[server]" s3fs` put them.

Everything is on the CPU. Writes benchmarks/results/cluster.json.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import ActivationStore, Model, harvest, load  # noqa: E402
from hooks.site import resid_post  # noqa: E402

COMMAND = "python benchmarks/cluster.py"
SITE = resid_post[1]
DOCUMENTS, LENGTH, SHARD = 240, 32, 16
TOKENS, BATCH = 6_000, 100
MOMENTS = (1, 7, 14)
"""Passes and steps of the second worker's first life before it kills itself."""


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
    """What one worker does: harvest, or train on a store that is there."""
    torch.set_num_threads(1)
    dying = os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    count = _Count(dies_at if dying else 0)
    if what in ("harvest", "stream"):
        one = model()
        one.hf.register_forward_pre_hook(lambda *_: count())
        harvest(one, documents(what == "stream"), SITE, where, documents_per_shard=SHARD, batch_size=4)
        return
    from interp.sae import Checkpoint, TopK, read_activations, train
    from interp.sae.training import learner

    real: Any = learner.update
    learner.update = lambda *given: (count(), real(*given))[1]
    sae, folder = TopK(32, 64, k=4), Path(where)
    source = read_activations(ActivationStore(str(folder.parent / "one")), SITE)
    options = {"tokens": TOKENS, "batch_size": BATCH, "buffer": 1_000, "progress": False}
    train(sae, source, checkpoint=Checkpoint(folder, every=1_000), **options)
    if os.environ.get("RANK", "0") == "0":
        torch.save(sae.state_dict(), folder / "weights.pt")


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
    """Workers killed, and what came of it."""
    run("harvest", folder / "one")
    rows: dict[str, Any] = {"store": [], "autoencoder": []}
    for moment in MOMENTS:
        where = folder / f"killed-{moment}"
        said = run("harvest", where, moment, prefix=torchrun(3))
        different = different_files(folder / "one", where)
        restarted = "-9" in said or "SIGKILL" in said
        rows["store"].append({"killed at pass": moment, "restarted": restarted, "different files": different})
    run("train", folder / "sae-one")
    run("train", folder / "sae-two", prefix=torchrun())
    one, two = (torch.load(folder / name / "weights.pt") for name in ("sae-one", "sae-two"))
    for moment in (3, 31, 58):
        where = folder / f"sae-killed-{moment}"
        run("train", where, moment, prefix=torchrun(3))
        again = torch.load(where / "weights.pt")
        rows["autoencoder"].append({"killed at step": moment, "bit-equal to two not killed": _equal(again, two)})
    rows["largest difference of two processes from one"] = max(float((one[n] - two[n]).abs().max()) for n in one)
    return rows


def _equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


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


def s3(folder: Path, peers: str) -> dict[str, Any]:
    """A store on a server, next to one on disk."""
    port = _free_port()
    own = {"PYTHONPATH": os.pathsep.join([str(ROOT), peers]), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
           "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        env={**_environment(), **own}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while True:
            with socket.socket() as knock:
                if not knock.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        command = [sys.executable, str(Path(__file__).resolve()), "--s3", str(folder / "one")]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=500, env={**_environment(), **own}, check=False
        )
        return json.loads(done.stdout.splitlines()[-1]) if not done.returncode else {"failed": done.stderr[-2000:]}
    finally:
        server.kill()


def of_s3(local: Path) -> dict[str, Any]:
    """Harvest to the server in a process that is killed, then here, then again; compare with the local store."""
    import fsspec

    files: Any = fsspec.filesystem("s3")
    files.mkdir("kept")
    own = [sys.executable, str(Path(__file__).resolve()), "--work", "harvest", "s3://kept/store", "20"]
    killed = subprocess.run(own, env={**os.environ, "RANK": "1"}, capture_output=True, check=False).returncode
    there = len(files.find("kept/store"))
    work("harvest", "s3://kept/store", 0)
    made = {name.removeprefix("kept/store/"): files.info(name)["ETag"] for name in files.find("kept/store")}
    content = {name: files.cat(f"kept/store/{name}") for name in made}
    work("harvest", "s3://kept/store", 0)
    files.invalidate_cache()
    again = {name.removeprefix("kept/store/"): files.info(name)["ETag"] for name in files.find("kept/store")}
    disk = _read_files(local)
    far, near = (ActivationStore(url) for url in ("s3://kept/store", str(local)))
    return {
        "writer killed by signal": -killed,
        "files there when it was": there,
        "different files": sorted(n for n in disk.keys() | content.keys() if disk.get(n) != content.get(n)),
        "a second harvest changes nothing": again == made,
        "shuffled rows equal": _same_rows(far, near),
    }


def _same_rows(far: ActivationStore, near: ActivationStore) -> bool:
    from interp.sae import read_activations

    both = [torch.cat([*read_activations(store, SITE)]) for store in (far, near)]
    return torch.equal(*both)


def main() -> None:
    """Run the parts asked for, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", default=["elastic", "hosts", "stream", "s3"])
    parser.add_argument("--peers", default="")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--s3", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work[0], asked.work[1], int(asked.work[2]))
        return
    if asked.s3:
        print(json.dumps(of_s3(Path(asked.s3))))
        return
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {
        "elastic": elastic, "hosts": hosts, "stream": stream, "s3": lambda folder: s3(folder, asked.peers),
    }  # fmt: skip
    kept = RESULTS / "cluster.json"
    results: dict[str, Any] = json.loads(kept.read_text())["figures"] if kept.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "elastic" not in asked.part:
            run("harvest", folder / "one")
        for name in asked.part:
            results[name] = parts[name](folder)
            print(name, json.dumps(results[name]), flush=True)
            write("cluster", COMMAND, results)


if __name__ == "__main__":
    main()
