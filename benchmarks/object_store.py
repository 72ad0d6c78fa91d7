"""A store on S3 over HTTP: moto's server in a process of its own, s3fs, and a connection that can be cut.

Part of `benchmarks/cluster.py`, with the python of an environment that has both (`pip install 'moto[server]' s3fs`).
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from hooks import ActivationStore

BUCKET = "bucket"
MOMENTS = (30,)
"""Passes at which a harvest is killed."""
CUTS = (150_000,)
"""Bytes sent to the server after which the connection is cut."""
Run = Callable[..., tuple[int, str]]
_python: list[Path] = []


def use(python: Path | None) -> None:
    """Say which environment has the server and the client; the client's packages come after this one's."""
    _python[:] = [python] if python else []
    if python:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = str(python.parent.parent / "lib" / version / "site-packages")
        os.environ["OBJECT_STORE_PACKAGES"] = packages
        sys.path.append(packages)


def measure(local: Path, run: Run) -> dict[str, Any]:
    """Harvest into a bucket what is in a local store, and compare every byte; then break it off in several ways."""
    if not _python:
        return {"why": "not run: give --s3, the python of an environment with moto[server] and s3fs"}
    with _serve() as port:
        bucket = _Bucket(port)
        found: dict[str, Any] = {"whole": _whole(bucket, local, run)}
        print("whole", found["whole"], flush=True)
        found["killed"] = [_killed(bucket, local, run, moment) for moment in MOMENTS]
        found["cut off"] = [_cut(bucket, local, run, port, size) for size in CUTS]
        found["read"] = _read(local, f"s3://{BUCKET}/whole")
    return found


def _whole(bucket: "_Bucket", local: Path, run: Run) -> dict[str, Any]:
    code, said = run("harvest", f"s3://{BUCKET}/whole")
    if code:
        raise SystemExit(f"the harvest into a bucket ended with {code}: {said[-3000:]}")
    before = bucket.changed("whole")
    again, _ = run("harvest", f"s3://{BUCKET}/whole")
    different = bucket.different("whole", local)
    return {"different files": different, "run again": again, "files written again": bucket.changed("whole") != before}


def _killed(bucket: "_Bucket", local: Path, run: Run, moment: int) -> dict[str, Any]:
    """Killed at a pass, whatever was on its way, and run again."""
    name = f"killed-{moment}"
    first, _ = run("harvest", f"s3://{BUCKET}/{name}", moment)
    left = len(bucket.files(name))
    second, said = run("harvest", f"s3://{BUCKET}/{name}")
    row: dict[str, Any] = {"at pass": moment, "ended with": first, "files then": left, "run again": second}
    row["different files"] = bucket.different(name, local) if not second else said[-300:]
    print("killed", row, flush=True)
    return row


def _cut(bucket: "_Bucket", local: Path, run: Run, port: int, size: int) -> dict[str, Any]:
    """The connection is cut after some bytes and refused from then on; the same is run again with a good one."""
    name = f"cut-{size}"
    with _cable(port, size) as worse:
        first, said = run("harvest", f"s3://{BUCKET}/{name}", AWS_ENDPOINT_URL=f"http://127.0.0.1:{worse}")
    left = len(bucket.files(name))
    second, _ = run("harvest", f"s3://{BUCKET}/{name}")
    error = said.strip().splitlines()[-1][:160] if first else ""
    row = {"after bytes": size, "ended with": first, "said": error, "files then": left, "run again": second}
    row["different files"] = bucket.different(name, local)
    print("cut off", row, flush=True)
    return row


def _read(local: Path, url: str) -> dict[str, Any]:
    """Rows in a shuffled order, from the bucket and from the disk."""
    there, here = ActivationStore(url), ActivationStore(local)
    there.verify()
    order = torch.randperm(len(here), generator=torch.Generator().manual_seed(0))[:500]
    one, other = there[order], here[order]
    same = all(torch.equal(one[site], other[site]) for site in here.sites)
    return {"rows in a shuffled order": len(order), "equal": same}


class _Bucket:
    """The files in the bucket, by s3fs."""

    def __init__(self, port: int) -> None:
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        import fsspec

        self.fs = fsspec.filesystem("s3")
        self.fs.mkdir(BUCKET)

    def files(self, name: str) -> dict[str, bytes]:
        """What is there, by name."""
        self.fs.invalidate_cache()
        found = self.fs.find(f"{BUCKET}/{name}")
        return {path.rsplit("/", 1)[-1]: self.fs.cat_file(path) for path in found}

    def changed(self, name: str) -> dict[str, str]:
        """When each file was written."""
        self.fs.invalidate_cache()
        found: Any = self.fs.find(f"{BUCKET}/{name}", detail=True)
        return {path: str(about["LastModified"]) for path, about in found.items()}

    def different(self, name: str, local: Path) -> list[str]:
        """Files that are not byte for byte those of a local store."""
        there = self.files(name)
        here = {one.name: one.read_bytes() for one in local.iterdir() if one.is_file() and ".lock" not in one.name}
        return sorted(one for one in there.keys() | here.keys() if there.get(one) != here.get(one))


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _serve() -> Iterator[int]:
    port = free_port()
    command = [str(_python[0]), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        yield port
    finally:
        server.kill()
        server.wait()


@contextmanager
def _cable(port: int, size: int) -> Iterator[int]:
    """A port that passes everything on, until that many bytes have been sent to the server; then nothing ever again."""
    listening = socket.create_server(("127.0.0.1", 0))
    left, guard, ends = [size], threading.Lock(), list[socket.socket]()

    def cut() -> None:
        for one in [listening, *ends]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def pass_on(source: socket.socket, to: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if counted:
                    with guard:
                        left[0] -= len(data)
                    if left[0] <= 0:
                        cut()
                        return
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", port))
                ends.extend((client, server))
                for job in ((client, server, True), (server, client, False)):
                    threading.Thread(target=pass_on, args=job, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        cut()
