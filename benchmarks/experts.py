"""What the experts of the world `experts` do, each figure with its control. `python benchmarks/experts.py`.

Writes benchmarks/results/experts.json. `--run FOLDER` adds how soon routing is settled, over a run's checkpoints.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from hooks import load  # noqa: E402
from interp import landmark  # noqa: E402
from interp.experts import (  # noqa: E402
    capture_routing,
    cluster_routing,
    measure_ablation,
    measure_contributions,
    measure_saturation,
    measure_specialisation,
    measure_usage,
)
from interp.worlds import checkpoints, load_world, world  # noqa: E402

N = 160
COMMAND = "python benchmarks/experts.py --run RUN"


def sample() -> tuple[list[str], list[str], list[str]]:
    """Documents that no training read, their genres, and the language that most of each is in."""
    rows = landmark.corpus(N, seed=1_000_000)
    texts, genres, languages = [], [], []
    for row in rows:
        said: list[str] = row["language"]  # type: ignore[index]
        texts.append(row["text"])  # type: ignore[index]
        genres.append(row["genre"])  # type: ignore[index]
        languages.append(max({*said, ""}, key=said.count) or "english")
    return texts, genres, languages


def main() -> None:
    """Measure every layer of the trained model, an untrained one, and clusters of a dense model's states."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    given = parser.parse_args()
    texts, genres, languages = sample()
    of = world("experts")
    trained, untrained = load_world("experts"), load(of.build(0), of.tokenizer(), check=False)
    found: dict[str, Any] = {}
    dense = cluster_routing(load("landmark"), texts, 8)
    routings = {f"trained, layer {i}": r for i, r in capture_routing(trained, texts).items()}
    routings |= {f"untrained, layer {i}": r for i, r in capture_routing(untrained, texts).items()}
    for name, routing in {**routings, "clusters of landmark's states": dense}.items():
        usage = measure_usage(routing)
        found[name] = {
            "load": usage.load.tolist(),
            "entropy of the load, bits": usage.entropy,
            "balance": usage.balance,
            "repetition": asdict(usage.repetition),
            "repetition by chance": usage.repetition_chance,
            **{f"bits of {what}": asdict(measure_specialisation(routing, labels, permutations=40))
               for what, labels in (("genre", genres), ("language", languages))},
        }  # fmt: skip
        print(name, found[name]["bits of genre"], found[name]["bits of language"], sep="\n", flush=True)
        write("experts", COMMAND, found)
    for layer in range(trained.n_layers):
        added = measure_contributions(trained, texts[:60], layer)
        found[f"contributions, layer {layer}"] = {"share": added.share.tolist(), "sum less block": added.worst}
    last = trained.n_layers - 1
    load_of = measure_usage(routings[f"trained, layer {last}"]).load
    costs = measure_ablation(trained, texts, languages, last, int(load_of.argmax()), load_of)
    print(costs)
    found["without an expert"] = asdict(costs)
    if given.run is not None:
        by_step = {
            s: capture_routing(load(m, check=False), texts[:80])[last] for s, m in checkpoints(given.run).items()
        }
        found["saturation"] = asdict(measure_saturation(by_step))
    write("experts", COMMAND, found)


if __name__ == "__main__":
    main()
