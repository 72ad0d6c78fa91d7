"""What the workbench costs: ratios to the plain calls in the same process, and many clients at once.

python benchmarks/workbench.py            # prints, and writes benchmarks/results/workbench.json

Run it on an idle machine: it times answers over HTTP on this machine's own address.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.soak import memory  # noqa: E402
from benchmarks.timing import in_turn, write  # noqa: E402
from hooks import Direction, Model, capture, load  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp import landmark  # noqa: E402
from interp.features import FeatureIndex, index  # noqa: E402
from interp.lenses import LogitLens, read  # noqa: E402
from interp.sae import TopK  # noqa: E402
from interp.workbench import Workbench  # noqa: E402
from interp.workbench import open as open_workbench  # noqa: E402

LATENTS, REPEATS, CLIENTS, REQUESTS = 8192, 21, 8, 200
PROMPT = "The Golden Gate Bridge is located in"


def main() -> None:
    """Measure, print, and write; on one thread, since the threads of plain calls would wait on the server's cores."""
    torch.set_num_threads(1)
    model = load("landmark")
    model.generate("Fog", max_new_tokens=2)
    with tempfile.TemporaryDirectory() as folder:
        sae, found = dictionary(model, Path(folder))
        held = memory()
        page = open_workbench(model, saes={"main": sae}, indexes={"main": found})
        while page.session is None:
            time.sleep(0.01)
        results = {"idle_mb": (memory() - held) / 1e6} | latencies(model, page) | load_of_clients(model, page)
        page.close()
    results["first steered token, GPT-2's shape"] = first_token_of_larger(model.tokenizer)
    print(json.dumps(results, indent=1))
    write("workbench", "python benchmarks/workbench.py", results)


def dictionary(model: Model, folder: Path) -> tuple[TopK, FeatureIndex]:
    """An untrained dictionary of 8,192 latents and its index: what is timed does not hang on what it learnt."""
    sae = TopK(model.d_model, LATENTS, 16, seed=0)
    sae.site, sae.fingerprint = resid_post[3], model.fingerprint
    texts = [document.text for document, _ in zip(landmark.documents(0), range(200), strict=False)]
    made = index(sae, model, texts, folder / "index", top=3, sampled=2, progress=False)
    sae.max_activation = torch.full((LATENTS,), 5.0)
    return sae, made


def latencies(model: Model, page: Workbench) -> dict[str, Any]:
    """Each answer next to the plain call of the same model in the same process; no job runs when the next is timed."""
    steered = {"prompt": PROMPT, "directions": [{"dose": 1.0, "sae": "main", "latent": 3}], "max_new_tokens": 40}
    other = OtherProcess(page, "steer", steered | {"max_new_tokens": 1})
    plain = in_turn(
        {
            "first steered token, by the page": other.begin,
            "its other columns, by the page": other.end,
            "first token, plain": lambda: model.generate(PROMPT, max_new_tokens=1),
            "three columns of 40, by the page": lambda: first(page, "steer", steered, "result"),
            "40 tokens, plain": lambda: model.generate(PROMPT, max_new_tokens=40),
            "lens, by the page": lambda: first(page, "lens", {"text": PROMPT}, "result"),
            "lens, plain": lambda: read(LogitLens(model), PROMPT),
            "capture of all layers, plain": lambda: capture(model, PROMPT, "resid_post.*"),
            "search of 8,192 latents, by the page": lambda: first(page, "search", SEARCH, "result"),
            "page, script and style": lambda: [
                fetch(page, path).read() for path in ("/", "/app.js", "/graph.js", "/style.css")
            ],
        },
        repeats=REPEATS,
    )
    other.close()
    seconds = {name: timed.median for name, timed in plain.items()}
    pairs = {
        "first steered token": ("first token, plain", "first steered token, by the page", 1),
        "a token of a column": ("40 tokens, plain", "three columns of 40, by the page", 3),
        "lens": ("lens, plain", "lens, by the page", 1),
    }
    ratios = {}
    for name, (base, ours, columns) in pairs.items():
        middle, low, high = plain[base].times(plain[ours])
        ratios[name] = [value / columns for value in (middle, low, high)]
    return {"median_seconds": seconds, "ratio_to_plain": ratios}


def first_token_of_larger(tokenizer: Any) -> list[float]:
    """The same ratio for twelve layers of 768, random: what the page adds is a time, and no share of the model's."""
    model = load(Shape(layers=12, width=768, heads=12).gpt2(), tokenizer)
    vector = torch.randn(768, generator=torch.Generator().manual_seed(0))
    page = open_workbench(model, directions={"one": Direction(vector, resid_post[6], "at random")})
    while page.session is None:
        time.sleep(0.01)
    steered = {"prompt": PROMPT, "directions": [{"dose": 0.1, "name": "one"}], "max_new_tokens": 1}
    other = OtherProcess(page, "steer", steered)
    timed = in_turn(
        {
            "page": other.begin,
            "its other columns": other.end,
            "plain": lambda: model.generate(PROMPT, max_new_tokens=1),
        },
        repeats=REPEATS,
    )
    other.close()
    page.close()
    return [*timed["plain"].times(timed["page"])]


SEARCH = {"sae": "main", "words": "bridge"}


def load_of_clients(model: Model, page: Workbench) -> dict[str, Any]:
    """Requests of many clients at once, each held against its answer alone."""
    texts = [f"{PROMPT} {number}" for number in range(REQUESTS // CLIENTS)]
    alone = {text: read(LogitLens(model), text, top=1).probability[:, 0].tolist() for text in texts}
    wrong: list[str] = []
    waits: list[float] = []

    def work(number: int) -> None:
        for i in range(len(texts)):
            text, began = texts[(i + number) % len(texts)], time.perf_counter()
            said = again(lambda text=text: first(page, "lens", {"text": text, "top": 1}, "result"))
            waits.append(time.perf_counter() - began)
            if said["probability"] != alone[text]:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = time.perf_counter() - began
    return {
        "clients": CLIENTS,
        "requests": len(waits),
        "answers_that_differ": len(wrong),
        "seconds": whole,
        "median_wait_seconds": statistics.median(waits),
        "longest_wait_seconds": max(waits),
    }


class QueueFull(Exception):
    """The queue is full."""


def again(ask: Callable[[], Any]) -> Any:
    """Ask until the queue has room."""
    while True:
        try:
            return ask()
        except QueueFull:
            time.sleep(0.01)


kept = threading.local()


def fetch(page: Workbench, path: str, body: Any = None) -> HTTPResponse:
    """A request as a browser makes it: on the connection that is open, if what was asked before has been read."""
    connection = getattr(kept, "connection", None)
    if connection is None or (connection.host, connection.port) != ("127.0.0.1", page.port):
        connection = kept.connection = HTTPConnection("127.0.0.1", page.port, timeout=120)
    headers = {
        "Authorization": f"Bearer {page.token}",
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
    }
    data = None if body is None else json.dumps(body).encode()
    connection.request("GET" if data is None else "POST", path, data, headers)
    answer = connection.getresponse()
    if answer.status == 429:
        answer.read()
        raise QueueFull
    if answer.status >= 400:
        raise RuntimeError(answer.read().decode())
    return answer


class OtherProcess:
    """Asks from a process of its own, as a browser does: in this one it would wait for the interpreter's lock."""

    def __init__(self, page: Workbench, kind: str, args: Any) -> None:
        asked = [str(page.port), page.token, json.dumps({"kind": kind, "args": args})]
        self._process = subprocess.Popen(
            [sys.executable, "-c", ASKS, *asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self) -> None:
        """Queue the action, and wait for its first token."""
        self._say("begin", "token")

    def end(self) -> None:
        """Read the rest of its events."""
        self._say("end", "ended")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _say(self, what: str, expected: str) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        if (answer := self._process.stdout.readline().strip()) != expected:
            raise RuntimeError(f"expected {expected!r} of the other process, got {answer!r}")


ASKS = """
import sys
from http.client import HTTPConnection

port, token, body = sys.argv[1:]
connection = HTTPConnection("127.0.0.1", int(port), timeout=120)
headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json", "Accept": "text/event-stream"}
for line in sys.stdin:
    if line.strip() == "begin":
        connection.request("POST", "/api/v1/jobs", body, headers)
        answer = connection.getresponse()
        while (read := answer.readline()) and not read.startswith(b"event: token"):
            pass
        print("token" if read else "no token", flush=True)
    else:
        answer.read()
        print("ended", flush=True)
"""


def events(page: Workbench, kind: str, args: Any) -> HTTPResponse:
    """Queue an action and open the stream of its events."""
    return fetch(page, "/api/v1/jobs", {"kind": kind, "args": args})


def first(page: Workbench, kind: str, args: Any, event: str) -> Any:
    """Queue an action and wait for the first event of a kind."""
    named, stream = "", events(page, kind, args)
    for line in stream:
        if line.startswith(b"event: "):
            named = line[7:].strip().decode()
        elif line.startswith(b"data: ") and named == event:
            stream.read()
            return json.loads(line[6:])
        elif named == "error":
            raise RuntimeError(line.decode())
    raise RuntimeError(f"{kind} ended without {event}")


if __name__ == "__main__":
    main()
