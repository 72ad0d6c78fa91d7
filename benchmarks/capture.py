"""Capture next to plain Hugging Face, TransformerLens and nnsight: `python benchmarks/capture.py`.

A random GPT-2 reads one batch in every way in turn; a figure is the median over repeats of a way's time
over that of the plain forward pass next to it. Every way is first checked to give the same activations.
Memory is what tensors hold at their peak; next to it is what the tensors asked for take. nnsight
needs an environment of its own: name its Python with `--nnsight`, and it is timed there next to the plain
forward pass of that environment. Writes benchmarks/results/capture.json.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.timing import Timing, in_turn, peak_mb, write  # noqa: E402
from hooks import Model, Site, capture, load  # noqa: E402
from hooks.site import logits, mlp_act, resid_post  # noqa: E402

Ways = Mapping[str, Callable[[], object]]
FORWARD = "Hugging Face, plain forward"
EVERYTHING = "capture, all residual streams, feed-forward activations and logits"
HALFWAY = "capture, one site at half depth"
TARGETS = {EVERYTHING: 1.05, HALFWAY: 0.58}


@dataclass(frozen=True)
class Row:
    """One way: its median time, as a ratio to the plain forward pass, its peak memory, and what was asked of it."""

    name: str
    milliseconds: float
    ratio: float
    quartiles: tuple[float, float]
    peak_mb: float | None = None
    asked_mb: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        low, high = self.quartiles
        bar = "" if self.at_most is None else f"  {'pass' if self.ratio <= self.at_most else 'miss'}: <= {self.at_most}"
        peak, asked = (f"{mb:.1f}" if mb is not None else "" for mb in (self.peak_mb, self.asked_mb))
        time = f"{self.ratio:5.2f} ({low:.2f} to {high:.2f}) {self.milliseconds:8.1f} ms"
        return f"{time} {peak:>7} {asked:>7}  {self.name}{bar}"


def ours(model: Model, ids: torch.Tensor) -> Ways:
    """The plain forward pass, and this library."""
    streams = [resid_post[i] for i in range(model.n_layers)] + [mlp_act[i] for i in range(model.n_layers)]
    half = resid_post[model.n_layers // 2 - 1]
    return {
        FORWARD: torch.no_grad()(lambda: model.hf(ids, use_cache=False).logits),
        EVERYTHING: lambda: capture(model, ids, [*streams, logits]),
        "capture, the same without logits": lambda: capture(model, ids, streams),
        HALFWAY: lambda: capture(model, ids, half),
    }


def transformer_lens(model: Model, ids: torch.Tensor) -> Ways:
    """TransformerLens's bridge on a copy of the model: all, what was filtered, and stopped early."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    hf = deepcopy(model.hf)
    bridge = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config, tokenizer=model.tokenizer)
    half = model.n_layers // 2
    streams = [site.transformer_lens_name for i in range(model.n_layers) for site in (resid_post[i], mlp_act[i])]
    one = resid_post[half - 1].transformer_lens_name
    _check_same(model, ids, bridge, streams)
    run: Any = torch.no_grad()(lambda **options: bridge.run_with_cache(ids, **options))
    return {
        "TransformerLens bridge, forward": torch.no_grad()(lambda: bridge(ids)),
        "TransformerLens bridge, run_with_cache, everything it has": run,
        "TransformerLens bridge, run_with_cache, filter": lambda: run(names_filter=streams),
        "TransformerLens bridge, run_with_cache, filter, half depth": lambda: run(names_filter=one),
        "TransformerLens bridge, run_with_cache, filter and stop": lambda: run(names_filter=one, stop_at_layer=half),
    }


def _check_same(model: Model, ids: torch.Tensor, bridge: Any, names: list[str]) -> None:
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids, names_filter=names)
    mine = capture(model, ids, names)
    for name in names:
        torch.testing.assert_close(cache[name], mine[Site.parse(name)], rtol=1e-3, atol=1e-3)


def rows(timed: Mapping[str, Timing], base: str, ways: Ways) -> list[Row]:
    """Every way next to the plain forward pass of the same run."""
    found = []
    for name, way in timed.items():
        ratio, low, high = timed[base].times(way)
        peak, asked = (peak_mb(ways[name]), weight_mb(ways[name]())) if name in ways else (None, None)
        found.append(Row(name, 1e3 * way.median, ratio, (low, high), peak, asked, TARGETS.get(name)))
    return found


def weight_mb(given: Any) -> float | None:
    """What the tensors that a way was asked for weigh; None where it gives more than was asked for."""
    values = [given] if isinstance(given, torch.Tensor) else list(getattr(given, "values", {}).values())
    return sum(value.untyped_storage().nbytes() for value in values) / 1e6 if values else None


def message(found: list[Row]) -> str:
    """Whether peak memory is what was asked for and what any forward pass needs next to its output."""
    plain, ours = (next(row for row in found if row.name == name) for name in (FORWARD, EVERYTHING))
    sizes = [mb for row in (plain, ours) for mb in (row.peak_mb, row.asked_mb) if mb is not None]
    compared, mine = sizes[0] - sizes[1], sizes[2] - sizes[3]
    verdict = "pass" if mine <= compared + 0.02 * sizes[3] else "miss"
    return f"{verdict}: memory besides what was asked for {mine:.2f} MB; of the plain forward pass {compared:.2f} MB"


def nnsight(python: str | None, arguments: list[str], model: Model, ids: torch.Tensor) -> list[Row]:
    """The rows of nnsight, measured in its own environment; none where it is not named."""
    if python is None:
        print("nnsight is not timed: name the Python of an environment that has it with --nnsight")
        return []
    script = str(Path(__file__).with_name("capture_nnsight.py"))
    said = subprocess.run([python, script, *arguments], capture_output=True, text=True, check=False)
    if said.returncode:
        raise RuntimeError(f"{python} {script} failed:\n{said.stderr}")
    found = json.loads(said.stdout.splitlines()[-1])
    sites = [kind[layer] for layer in range(model.n_layers) for kind in (mlp_act, resid_post)]
    mine = capture(model, ids, sites)
    sizes = torch.tensor([float(mine[site].norm()) for site in sites])
    torch.testing.assert_close(torch.tensor(found["norms"]), sizes, rtol=1e-4, atol=0)
    timed = {name: Timing(tuple(seconds)) for name, seconds in found["seconds"].items()}
    return rows(timed, next(iter(timed)), {})


def main() -> None:
    """Time every way and write the figures down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Shape.options(options)
    options.add_argument("--repeats", type=int, default=15)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--nnsight", help="the Python of an environment that has nnsight")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    shape = Shape.given(given)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, ids = load(shape.gpt2(), device=device), shape.batch().to(device)
    ways = {**ours(model, ids), **transformer_lens(model, ids)}
    found = rows(in_turn(ways, repeats=given.repeats), FORWARD, ways)
    extra = [*shape.arguments(), f"--repeats={given.repeats}", f"--threads={given.threads}"]
    found += nnsight(given.nnsight, extra, model, ids)
    print(f"times of a plain forward (quartiles)   median  peak MB, asked  way\n{chr(10).join(map(str, found))}")
    print(memory := message(found))
    figures = {"shape": asdict(shape), "memory": memory, "ways": [asdict(row) for row in found]}
    write("capture", " ".join(["python benchmarks/capture.py", *sys.argv[1:]]), figures)


if __name__ == "__main__":
    main()
