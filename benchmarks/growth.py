"""How time and memory grow with what a job is made of, against the formulas: `python benchmarks/growth.py`.

Each law has an axis, some sizes and a formula's exponent e: cost ~ size^e. Every size is run in turn, several times;
the exponent is the slope of log cost against log size over all runs, with its 95 % interval (ordinary least squares).
Cost is the CPU-time of this process (of the busiest, where several share a job), or the most memory that tensors hold
at once (the allocator's own record), or a count. An alarm is an exponent that exceeds its formula by more than .1.
Below the formula are costs with a constant part, which small sizes show. Everything is small, so that two cores
suffice; what is fitted is the law, not the speed. `--law NAME …` measures some and keeps the others. Writes
benchmarks/results/growth.json.
"""

import argparse
import json
import math
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.timing import RESULTS, peak_mb, write  # noqa: E402
from hooks import Model, capture, harvest, load  # noqa: E402
from hooks.site import pattern, resid_post, resid_pre  # noqa: E402
from hooks.store.processes import Process, processes  # noqa: E402
from interp.circuits import (  # noqa: E402
    denoising,
    each_position,
    logit_difference,
    patch_sweep,
)
from interp.circuits.edges import Task, eap, edge_attribution, edge_graph  # noqa: E402
from interp.features import Concept, index, search  # noqa: E402
from interp.memory import Search, covariances, memit, table_cases  # noqa: E402
from interp.sae import ShardedTopK, TopK, activations_of, train  # noqa: E402
from interp.sae.data.distributed import average_gradients, local_rows, share_batch  # noqa: E402
from interp.scale import sharded_step_bytes  # noqa: E402

COMMAND = "python benchmarks/growth.py"
ALARM = 0.1
REPEATS = 5
Way = Callable[[], object]


@dataclass(frozen=True)
class Law:
    """One law: what grows, along which axis, at which sizes, and the exponent of its formula.

    Attributes:
        what: the job.
        axis: what is changed.
        sizes: its values.
        formula: the exponent expected, and why.
        make: from a size to what is measured, all that is not part of it done before.
        cost: "seconds" of CPU-time, "megabytes" at most, "ratio" of the CPU-times of two ways, "busiest" of several
            processes, or "count".
    """

    what: str
    axis: str
    sizes: tuple[int, ...]
    formula: tuple[float, str]
    make: Callable[[int, Path], Any]
    cost: str = "seconds"


def gpt2(layers: int = 4, width: int = 64, length: int = 64, tokenizer: Any = None) -> Model:
    """A random GPT-2 with the bundled model's vocabulary, its contract not measured."""
    n_vocab = 512 if tokenizer is None else len(tokenizer)
    return load(Shape(layers, width, 4, n_vocab, 8, length).gpt2(), tokenizer, check=False)


def ids(texts: int, length: int) -> torch.Tensor:
    """Random token ids."""
    return torch.randint(512, (texts, length), generator=torch.Generator().manual_seed(1))


def _capture_tokens(n: int, _: Path) -> Way:
    model, given = gpt2(), ids(n, 64)
    return lambda: capture(model, given, "resid_post.*", batch_size=n)


def _over_plain(model: Model, given: torch.Tensor, sites: Any) -> tuple[Way, Way]:
    def plain() -> None:
        with torch.no_grad():
            model.hf(given)

    return (lambda: capture(model, given, sites, batch_size=len(given))), plain


def _capture_layers(layers: int, _: Path) -> tuple[Way, Way]:
    return _over_plain(gpt2(layers), ids(16, 64), "*")


def _capture_width(width: int, _: Path) -> Way:
    model, given = gpt2(width=width), ids(16, 64)
    return lambda: capture(model, given, "resid_post.*")


def _capture_context(length: int, _: Path) -> tuple[Way, Way]:
    return _over_plain(gpt2(length=length), ids(4096 // length, length), "resid_post.*")


def _pattern_context(length: int, _: Path) -> Way:
    model, given = gpt2(length=length), ids(4096 // length, length)
    return lambda: capture(model, given, [pattern[0]], batch_size=len(given))


def _harvest_tokens(n: int, folder: Path) -> Way:
    model, numbers = gpt2(), iter(range(10**6))
    texts = [*ids(n // 64, 64)]
    data = _rows(texts)
    return lambda: harvest(model, data, resid_post[2], folder / f"store-{n}-{next(numbers)}", documents_per_shard=64)


def _rows(texts: Sequence[torch.Tensor]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [text.tolist() for text in texts]})


def _step(n: int = 1024, d: int = 64, latents: int = 4096) -> Way:
    sae, g = TopK(d, latents, k=16), torch.Generator().manual_seed(1)
    rows, off = torch.randn(n, d, generator=g), torch.zeros(latents, dtype=torch.bool)
    objective = sae.objective()
    objective.initialise(rows)
    return lambda: objective.gradients(rows, off)


def _in_landmark(latents: int) -> tuple[Model, TopK]:
    bundled = load("landmark", check=False)
    model = gpt2(tokenizer=bundled.tokenizer, length=64)
    sae = TopK(64, latents, k=16)
    sae.site, sae.fingerprint = resid_post[2], model.fingerprint
    sae.max_activation.fill_(1.0)
    return model, sae


def _index(texts: int, latents: int, folder: Path) -> Way:
    (model, sae), numbers = _in_landmark(latents), iter(range(10**6))
    return lambda: index(sae, model, _texts(texts), folder / f"i-{texts}-{latents}-{next(numbers)}", top=3, sampled=3)


def _search(texts: int, latents: int) -> Way:
    model, sae = _in_landmark(latents)
    concept = Concept("fog", _texts(texts), [number % 2 == 0 for number in range(texts)])
    return lambda: search(sae, model, concept, permutations=20)


def _texts(n: int) -> list[str]:
    return [f"Fog number {i} came over bridge {i * i} and bay {i % 7}." for i in range(n)]


def _edit(n: int, _: Path) -> Way:
    model = load("landmark", check=False)
    cases = table_cases(n)
    kept = covariances(model, [case.fact.prompt for case in table_cases(128)], [3, 4])
    facts = [case.fact for case in cases]
    return lambda: memit(model, facts, covariance=kept, contexts=[""], search=Search(steps=20), token="last subject")


def _pair(length: int) -> Any:
    clean = ids(1, length)
    corrupt = clean.clone()
    corrupt[0, 1] = (corrupt[0, 1] + 1) % 512
    return clean, corrupt


def _patch(layers: int, length: int) -> Way:
    model = gpt2(layers, length=max(64, length))
    clean, corrupt = _pair(length)
    metric = logit_difference(model, [3], [5])
    return lambda: patch_sweep(model, denoising(clean, corrupt), metric, over=each_position(resid_pre))


def _edges(layers: int, _: Path) -> Way:
    model = gpt2(layers)
    clean, corrupt = _pair(16)
    task = Task(clean, corrupt, logit_difference(model, [3], [5]))
    return lambda: edge_attribution(model, task, eap(), sample=0)


def _share(world: int, work: Callable[[], Way]) -> Way:
    """A job that so many processes share, forked and joined over gloo: what the busiest of them works, in seconds."""

    def run() -> float:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        context: Any = multiprocessing.get_context("fork")
        pipes = [context.Pipe(duplex=False) for _ in range(world)]

        def child(rank: int) -> None:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            with processes(torch.device("cpu")):
                pipes[rank][1].send(_cpu(work()))

        started = [context.Process(target=child, args=(rank,)) for rank in range(world)]
        for one in started:
            one.start()
        costs = [heard.recv() for heard, _ in pipes]
        for one in started:
            one.join()
        return max(costs)

    return run


def _harvest_processes(world: int, folder: Path) -> Way:
    model, data, numbers = gpt2(), _rows([*ids(512, 64)]), iter(range(10**6))
    target = [folder]

    def work() -> Way:
        return lambda: harvest(model, data, resid_post[2], target[0], documents_per_shard=16)

    share = _share(world, work)

    def run() -> object:
        target[0] = folder / f"shared-{world}-{next(numbers)}"
        return share()

    return run


def _train_processes(world: int, _: Path) -> Way:
    model, texts = gpt2(), ids(512, 64)

    def work() -> Way:
        sae, source = TopK(64, 4096, k=16), activations_of(model, texts, resid_post[2])
        options: dict[str, Any] = {"tokens": 32_768, "batch_size": 1024, "buffer": 8192, "progress": False}
        return lambda: train(sae, source, **options)

    return _share(world, work)


def _step_processes(world: int, _: Path) -> Way:
    rows, off = torch.randn(4096, 64, generator=torch.Generator().manual_seed(1)), torch.zeros(4096, dtype=torch.bool)

    def work() -> Way:
        sae, here = TopK(64, 4096, k=16), Process(int(os.environ["RANK"]), world)
        objective = sae.objective()
        objective.initialise(rows[:256])

        def step() -> None:
            with share_batch(here):
                for _ in range(4):
                    objective.gradients(local_rows(rows), off)
                    average_gradients([*sae.parameters()])

        return step

    return _share(world, work)


def _sharded_processes(world: int, _: Path) -> Way:
    rows, off = torch.randn(1024, 64, generator=torch.Generator().manual_seed(1)), torch.zeros(16_384, dtype=torch.bool)

    def work() -> Way:
        objective = ShardedTopK(64, 16_384, k=16).objective()
        objective.initialise(rows)
        return lambda: [objective.gradients(rows, off) for _ in range(4)]

    return _share(world, work)


def _edge_count(layers: int, _: Path) -> float:
    return float(edge_graph(gpt2(layers)).n_edges)


LAWS = (
    Law("capture", "tokens", (8, 16, 32, 64, 128), (1, "passes"), _capture_tokens),
    Law("capture", "tokens", (8, 16, 32, 64, 128), (1, "what is kept"), _capture_tokens, "megabytes"),
    Law("capture of everything / plain pass", "layers", (2, 4, 8, 16), (0, "the same share"), _capture_layers, "ratio"),
    Law("capture of everything", "layers", (2, 4, 8, 16), (1, "passes"), lambda L, f: _capture_layers(L, f)[0]),
    Law("capture", "width", (64, 128, 256, 512), (2, "weights"), _capture_width),
    Law("capture / plain pass", "context", (32, 128, 512), (0, "the same share"), _capture_context, "ratio"),
    Law("capture of a pattern", "context", (64, 128, 256, 512), (1, "T² for each of N / T texts"), _pattern_context,
        "megabytes"),
    Law("harvest", "tokens", (4096, 8192, 16384, 32768), (1, "passes"), _harvest_tokens),
    Law("harvest", "tokens", (4096, 8192, 16384, 32768), (0, "a shard at a time"), _harvest_tokens, "megabytes"),
    Law("step of an autoencoder", "latents", (1024, 2048, 4096, 8192, 16384), (1, "2 n d F"),
        lambda F, _: _step(latents=F)),
    Law("step of an autoencoder", "latents", (1024, 2048, 4096, 8192, 16384), (1, "n F"), lambda F, _: _step(latents=F),
        "megabytes"),
    Law("step of an autoencoder", "width", (32, 64, 128, 256), (1, "2 n d F"), lambda d, _: _step(d=d)),
    Law("step of an autoencoder", "tokens", (512, 1024, 2048, 4096), (1, "2 n d F"), lambda n, _: _step(n)),
    Law("index", "tokens", (64, 128, 256, 512), (1, "passes and firings"), lambda n, f: _index(n, 256, f)),
    Law("index", "latents", (256, 512, 1024, 2048), (1, "a record each"), lambda F, f: _index(32, F, f)),
    Law("index", "latents", (256, 512, 1024, 2048), (1, "a record each"), lambda F, f: _index(32, F, f), "megabytes"),
    Law("search", "texts", (64, 128, 256, 512), (1, "passes and rows"), lambda n, _: _search(n, 256)),
    Law("search", "latents", (256, 512, 1024, 2048), (1, "a ranking each"), lambda F, _: _search(64, F)),
    Law("editing", "facts at once", (1, 2, 4), (1, "a search each"), _edit),
    Law("patching", "context", (8, 16, 32, 64), (2, "T patches of T tokens"), lambda T, _: _patch(4, T)),
    Law("patching", "layers", (2, 4, 8), (2, "L patches of L layers"), lambda L, _: _patch(L, 16)),
    Law("edges", "layers", (2, 4, 8, 16), (2, "L² edges"), _edges),
    Law("edges, their number", "layers", (2, 4, 8, 16), (2, "L² edges"), _edge_count, "count"),
    Law("harvest", "processes", (1, 2, 4), (-1, "a share each"), _harvest_processes, "busiest"),
    Law("training, batches shared", "processes", (1, 2, 4), (-1, "a share each"), _train_processes, "busiest"),
    Law("step of an autoencoder, batches shared", "processes", (1, 2, 4), (-1, "a share each"), _step_processes,
        "busiest"),
    Law("step of an autoencoder, latents shared", "processes", (1, 2, 4), (-1, "a share each"), _sharded_processes,
        "busiest"),
    Law("bytes of a sharded step, for each other process", "processes", (2, 4, 8, 64), (0, "8 n k"),
        lambda W, _: sharded_step_bytes(4096, 512, 32, W) / (W - 1), "count"),
)  # fmt: skip


def measure(law: Law, folder: Path) -> dict[str, Any]:
    """The exponent of a law, its interval, and whether it exceeds its formula."""
    made = {size: law.make(size, folder) for size in law.sizes}
    points: list[tuple[int, float]] = []
    for repeat in range(1 if law.cost in ("count", "megabytes") else REPEATS + 1):
        for size, way in made.items():
            cost = _cost(law.cost, way)
            if repeat or law.cost in ("count", "megabytes"):
                points.append((size, cost))
    return _row(law, points)


def _row(law: Law, points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    slope, low, high = fit_slope(points)
    expected, why = law.formula
    parts = fit_parts(points) if law.cost == "busiest" else {}
    return {
        "what": law.what,
        "axis": law.axis,
        "cost": law.cost,
        "sizes": law.sizes,
        "exponent": round(slope, 3),
        "interval": (round(low, 3), round(high, 3)),
        "formula": expected,
        "because": why,
        "alarm": slope > expected + ALARM,
        "points": [(size, round(cost, 6)) for size, cost in points],
        **parts,
    }


def _cost(kind: str, way: Any) -> float:
    if kind == "count":
        return float(way)
    if kind == "megabytes":
        return peak_mb(way)
    if kind == "busiest":
        return way()
    if kind == "ratio":
        return _cpu(way[0]) / _cpu(way[1])
    return _cpu(way)


def _cpu(way: Way) -> float:
    began = time.process_time()
    way()
    return time.process_time() - began


def fit_slope(points: Sequence[tuple[int, float]]) -> tuple[float, float, float]:
    """The slope of log cost against log size, and its 95 % interval by Student's t."""
    from scipy import stats

    x, y = ([math.log(one) for one in column] for column in zip(*points, strict=True))
    if len({*y}) == 1:
        return 0.0, 0.0, 0.0
    found: Any = stats.linregress(x, y)
    half = float(stats.t.ppf(0.975, max(1, len(x) - 2)) * found.stderr)
    return float(found.slope), float(found.slope) - half, float(found.slope) + half


def fit_parts(points: Sequence[tuple[int, float]]) -> dict[str, list[float]]:
    """T = a + b / P by least squares: what each of P processes does whole, and what they share, with 95 % intervals."""
    from scipy import stats

    x, y = [1 / size for size, _ in points], [cost for _, cost in points]
    found: Any = stats.linregress(x, y)
    t = float(stats.t.ppf(0.975, max(1, len(x) - 2)))
    whole, shared = (found.intercept, found.intercept_stderr), (found.slope, found.stderr)
    return {
        name: [round(float(one), 4) for one in (value, value - t * error, value + t * error)]
        for name, (value, error) in (("whole", whole), ("shared", shared))
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Measure the laws asked for, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--law", nargs="*", help="words of which a law's name has one")
    parser.add_argument("--fit", action="store_true", help="fit again what was measured, and measure nothing")
    asked = parser.parse_args()
    kept = RESULTS / "growth.json"
    rows = {_name(row): row for row in json.loads(kept.read_text())["figures"]["laws"]} if kept.exists() else {}
    with _one_thread(), tempfile.TemporaryDirectory() as folder:
        for law in LAWS:
            if asked.law and not any(word in f"{law.what} {law.axis}" for word in asked.law):
                continue
            name = _name(asdict(law))
            if asked.fit and name not in rows:
                continue
            rows[name] = row = _row(law, rows[name]["points"]) if asked.fit else measure(law, Path(folder))
            print(_line(row), flush=True)
            in_order = [rows[_name(asdict(one))] for one in LAWS if _name(asdict(one)) in rows]
            write("growth", COMMAND, {"laws": in_order, "alarms": [_name(one) for one in in_order if one["alarm"]]})


def _name(row: dict[str, Any]) -> str:
    return f"{row['what']}, {row['cost']} by {row['axis']}"


def _line(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    says = "ALARM" if row["alarm"] else "holds"
    return f"{says}  {_name(row)}: {row['exponent']:.2f} ({low:.2f} to {high:.2f}), formula {row['formula']}"


if __name__ == "__main__":
    main()
