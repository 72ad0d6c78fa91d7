"""A store in a bucket of a real server over HTTP is byte for byte the one on a disk, killed or not.

It runs where moto and s3fs are installed, and is skipped elsewhere; `benchmarks/cluster.py` does more of the same.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from hooks import ActivationStore, Model, harvest
from hooks.site import resid_post
from hooks.store.packing import packed

pytest.importorskip("moto.server")
fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
TEXTS = [f"fog {number} over the bay {number * number}" for number in range(24)]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        for _ in range(300):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket/store"
    finally:
        server.kill()
        server.wait()


def test_a_harvest_into_a_bucket_that_is_broken_off_and_goes_on_is_that_on_a_disk(
    gpt2: Model, bucket: str, tmp_path: Path
) -> None:
    def work(where: str) -> ActivationStore:
        return harvest(gpt2, TEXTS, resid_post[1], where, packing=packed(24), batch_size=4, documents_per_shard=4)

    passes = iter(range(100))

    def fail(*_: object) -> None:
        if next(passes) == 4:
            raise ArithmeticError("a pass failed")

    handle = gpt2.hf.register_forward_pre_hook(fail)
    with pytest.raises(ArithmeticError):
        work(bucket)
    handle.remove()
    there, here = work(bucket), work(str(tmp_path / "store"))
    fs = fsspec.filesystem("s3")
    fs.invalidate_cache()
    sent = {path.rsplit("/", 1)[-1]: fs.cat_file(path) for path in fs.find("bucket/store")}
    kept = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir() if ".lock" not in path.name}
    assert sent == kept
    order = torch.randperm(len(here), generator=torch.Generator().manual_seed(0))
    assert torch.equal(there[order][resid_post[1]], here[order][resid_post[1]])
