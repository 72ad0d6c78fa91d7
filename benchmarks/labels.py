"""Labels for whole dictionaries by an endpoint whose server process answers at once: `python benchmarks/labels.py`.

The server speaks OpenAI's protocol and answers every question after a millisecond, so that what is measured is this
library's own part: reading the index, choosing texts, asking, pacing, keeping answers, scoring. For each number of
latents one call is ended by its budget, the next goes on to the end, and a third asks nothing again; the answers of
all are compared. CPU-time is of this process; memory is what it holds at most, less what it held before. A pace is
measured on its own. `--latents N …` says how many; an index and answers in `--folder` are gone on with, so that a
broken-off run loses nothing. `--server NAME URL MODEL` labels 40 latents by a server that already runs, such as vLLM's,
to see that it is spoken to rightly. Writes benchmarks/results/labels.json.
"""

import argparse
import json
import multiprocessing
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.growth import fit_slope  # noqa: E402
from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import load  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp.features import Endpoint, FeatureIndex, Limits, index, label_latents  # noqa: E402
from interp.sae import TopK  # noqa: E402

COMMAND = "python benchmarks/labels.py"
WIDTH, AT_ONCE, ANSWER = 32, 16, 0.001


class _Reader(BaseHTTPRequestHandler):
    """Names the first two numbers it is shown, or says what a feature is; keeps its connections open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:  # noqa: N802
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
        time.sleep(ANSWER)
        numbers = re.findall(r"^(\d+)\. ", prompt, re.MULTILINE) if "Numbers:" in prompt else []
        text = ", ".join(numbers[:2]) or f"texts about {len(prompt)}"
        answer = {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": len(prompt) // 4 + 4}}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def _serve(listening: socket.socket) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Reader, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.serve_forever()


@contextmanager
def server() -> Iterator[Endpoint]:
    """The server in a process of its own."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(listening,), daemon=True)
    process.start()
    try:
        yield Endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", "reader", timeout=120.0)
    finally:
        process.kill()
        process.join()
        listening.close()


def make_index(latents: int, folder: Path) -> FeatureIndex:
    """An index of random latents of a random model over made-up texts, on which nearly all of them fire."""
    bundled = load("landmark", check=False)
    model = load(Shape(2, WIDTH, 2, len(bundled.tokenizer), 8, 32).gpt2(), bundled.tokenizer, check=False)
    sae = TopK(WIDTH, latents, k=32)
    sae.site, sae.fingerprint = resid_post[1], model.fingerprint
    sae.max_activation.fill_(1.0)
    texts = [f"Fog number {i} came over bridge {i * i} and bay {i % 97}." for i in range(max(200, latents // 25))]
    return index(sae, model, texts, folder, top=4, sampled=8, context=3)


class _Memory:
    """The most that this process holds while a block lasts, over what it held before, read again and again."""

    def __enter__(self) -> "_Memory":
        self.before = self.most = _resident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.most = max(self.most, _resident())

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def mb(self) -> float:
        """Megabytes."""
        return (self.most - self.before) / 1e6


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure(latents: int, folder: Path) -> dict[str, Any]:
    """One dictionary: a call that its budget ends, one that goes on, and one that has nothing to ask."""
    found = make_index(latents, folder / f"index-{latents}")
    answers, budget = folder / f"answers-{latents}", latents
    rows: dict[str, Any] = {"latents": latents}
    with server() as endpoint, _Memory() as memory:
        began, wall = time.process_time(), time.perf_counter()
        first = label_latents(found, endpoint, answers, limits=Limits(AT_ONCE, requests=budget))
        rest = label_latents(found, endpoint, answers, limits=Limits(AT_ONCE))
        rows |= {"cpu_seconds": time.process_time() - began, "seconds": time.perf_counter() - wall}
        again_began = time.process_time()
        again = label_latents(found, endpoint, answers, limits=Limits(AT_ONCE))
        rows["cpu_seconds_again"] = time.process_time() - again_began
    return rows | {
        "labelled": len(rest.labels),
        "budget": budget,
        "requests": [first.requests, rest.requests, again.requests],
        "left_by_the_budget": len(first.left),
        "same_labels_again": rest.labels == again.labels,
        "megabytes": memory.mb,
        "scored": sum(one.detection is not None for one in rest.labels),
    }


def measure_pace(folder: Path) -> dict[str, Any]:
    """Requests begun in a minute, against what was allowed."""
    found, allowed = make_index(256, folder / "paced"), 1200
    with server() as endpoint:
        began = time.perf_counter()
        limits = Limits(AT_ONCE, per_minute=allowed, requests=200)
        made = label_latents(found, endpoint, folder / "paced-answers", limits=limits)
        minutes = (time.perf_counter() - began) / 60
    return {"allowed_per_minute": allowed, "begun_per_minute": made.requests / minutes, "requests": made.requests}


def measure_server(name: str, url: str, model: str, folder: Path, latents: int = 40) -> dict[str, Any]:
    """A few latents labelled by a server that already runs, and once more, when nothing is asked."""
    found = make_index(latents, folder / f"index-{latents}")
    endpoint, answers = Endpoint(url, model, timeout=600.0), folder / f"answers-{name}"
    made, again = (label_latents(found, endpoint, answers, limits=Limits(4)) for _ in range(2))
    return {
        "latents": latents,
        "labelled": sum(bool(one.text) for one in made.labels),
        "scored": sum(one.detection is not None for one in made.labels),
        "requests": made.requests,
        "tokens": made.tokens,
        "requests_again": again.requests,
        "same_labels_again": made.labels == again.labels,
    }


def main() -> None:
    """Measure, and write after each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, nargs="*", default=[300, 1_000, 3_000, 10_000])
    parser.add_argument("--folder", type=Path, help="where indexes and answers are kept between runs")
    parser.add_argument("--server", nargs=3, metavar=("NAME", "URL", "MODEL"), help="one that already runs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kept = RESULTS / "labels.json"
    figures = json.loads(kept.read_text())["figures"] if kept.exists() else {"sizes": [], "servers": {}}
    rows, servers = {row["latents"]: row for row in figures["sizes"]}, figures.get("servers", {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        if asked.server:
            name, url, model = asked.server
            servers[name] = measure_server(name, url, model, folder)
            print(servers, flush=True)
            write("labels", COMMAND, figures | {"servers": servers})
            return
        pace = measure_pace(Path(temporary))
        print(pace, flush=True)
        for latents in asked.latents:
            rows[latents] = measure(latents, folder)
            print(rows[latents], flush=True)
            sizes = [rows[n] for n in sorted(rows)]
            write("labels", COMMAND, {"pace": pace, "sizes": sizes, "laws": _laws(rows), "servers": servers})


def _laws(rows: dict[int, dict[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """Exponents of CPU-time and memory in the number of latents, with their intervals."""
    if len(rows) < 3:
        return {}
    return {
        name: fit_slope([(n, row[name]) for n, row in rows.items() if row[name]])
        for name in ("cpu_seconds", "megabytes")
    }


if __name__ == "__main__":
    main()
