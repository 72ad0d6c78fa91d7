"""Whether the demonstration hangs on luck: its discovery and steering for ten seeds, `python benchmarks/demo_seeds.py`.

For every seed a dictionary is trained on other documents, the bridge is searched for in it, and the latents that make
the model name it are turned up, as `interp demo` does. Its edit is left out: no dictionary takes part in it. Each seed
is written to benchmarks/results/demo_seeds.json when it is done and not repeated: killed, the same command goes on.
About four minutes a seed on two cores.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from benchmarks.timing import write  # noqa: E402
from hooks import Model, load  # noqa: E402
from interp.common.statistics import Estimate, share  # noqa: E402
from interp.demo.discover import concept, learn  # noqa: E402
from interp.demo.settings import Settings  # noqa: E402
from interp.demo.turn_up import turn_up  # noqa: E402
from interp.features import by_token, search  # noqa: E402

RESULT = Path(__file__).parent / "results" / "demo_seeds.json"
F1, NAMED, RATIO, SECONDS, REACH = 0.9, 0.8, 3.0, 300.0, 9  # the bars, and how many of ten seeds have to reach them
Row = dict[str, Any]


def measure(model: Model, settings: Settings) -> Row:
    """One seed: what is found, what it makes the model say, and how long that took."""
    began, processor = time.perf_counter(), time.process_time()
    sae = learn(model, settings, progress=False).sae
    found = search(sae, model, concept(settings), unit=by_token, seed=settings.seed)
    turned = turn_up(model, sae, found, settings, progress=False)
    chosen, finding = turned.chosen, found.finding
    return {
        "found": finding.name,
        "F1": interval(Estimate(finding.held_out.f1, *finding.interval, n=found.reported[1])),
        "F1 of one latent": found.best.held_out.f1,
        "turned up": turned.direction.source,
        "dose": chosen.dose,
        "named": interval(chosen.steered.naming),
        "named, random direction": interval(chosen.control.naming),
        "perplexity ratio": interval(chosen.steered.perplexity_over(chosen.unsteered)),
        "seconds": time.perf_counter() - began,
        "processor seconds": time.process_time() - processor,
    }


def interval(estimate: Estimate) -> list[float]:
    """Value, low and high."""
    return [estimate.value, estimate.low, estimate.high]


def reaches(row: Row) -> bool:
    """Whether a seed finds the bridge and makes the model name it, in fluent text."""
    return row["F1"][0] >= F1 and row["named"][0] >= NAMED and row["perplexity ratio"][0] <= RATIO


def spread(rows: list[Row]) -> Row:
    """The lowest, middle and highest of each figure, and how many seeds reach the bars."""
    columns = {
        "F1": [row["F1"][0] for row in rows],
        "F1 of one latent": [row["F1 of one latent"] for row in rows],
        "named": [row["named"][0] for row in rows],
        "named, random direction": [row["named, random direction"][0] for row in rows],
        "perplexity ratio": [row["perplexity ratio"][0] for row in rows],
        "seconds": [row["seconds"] for row in rows],
        "processor seconds": [row["processor seconds"] for row in rows],
    }
    low_middle_high = torch.tensor([0, 0.5, 1], dtype=torch.float64)
    spreads = {name: torch.tensor(x).double().quantile(low_middle_high).tolist() for name, x in columns.items()}
    return spreads | {"seeds that reach all bars": interval(share(torch.tensor([reaches(row) for row in rows])))}


def processor_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else "unknown"


def main() -> None:
    """Measure the seeds that are missing, and print the spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    wanted, model = parser.parse_args().seeds, load("landmark")
    about = {"settings": json.loads(json.dumps(asdict(Settings()))), "model": model.fingerprint}
    kept = json.loads(RESULT.read_text())["figures"] if RESULT.exists() else {}
    rows: dict[str, Row] = kept.get("seeds", {}) if kept.get("about") == about else {}
    for seed in range(wanted):
        if str(seed) not in rows:
            rows[str(seed)] = measure(model, replace(Settings(), seed=seed))
            figures = {"about": about, "processor": processor_name(), "spread": spread([*rows.values()]), "seeds": rows}
            write("demo_seeds", "python benchmarks/demo_seeds.py", figures)
        row = rows[str(seed)]
        values = ", ".join(f"{name} {row[name][0]:.2f}" for name in ("F1", "named", "perplexity ratio"))
        print(f"seed {seed}: {values}; {row['found']}; {row['turned up']}; {row['seconds']:.0f} s", flush=True)
    reached = sum(map(reaches, rows.values()))
    print(
        f"{reached} of {len(rows)} seeds reach F1 {F1}, named {NAMED}, perplexity ratio {RATIO}; wanted {REACH} of 10"
    )


if __name__ == "__main__":
    main()
