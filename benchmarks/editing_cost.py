"""What editing costs on the bundled model: `python benchmarks/editing_cost.py` times edits, covariance and batches.

Seconds of a single edit once its covariance is there; the covariance of one layer next to the plain forward pass over
the same texts; MEMIT's seconds per edit as batches grow. Writes benchmarks/results/editing_cost.json.
"""

import argparse
import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import in_turn, write  # noqa: E402
from hooks import Model, load  # noqa: E402
from interp import landmark  # noqa: E402
from interp.memory import covariances, locate, memit, rome, table_cases  # noqa: E402

TUNING = 10_000
BATCH = 32


@torch.no_grad()
def plain(model: Model, texts: list[str]) -> None:
    """The forward pass whose keys a covariance reads."""
    for i in range(0, len(texts), BATCH):
        model.run(texts[i : i + BATCH])


def edits(model: Model, how: dict[str, Any], n: int) -> dict[str, float]:
    """The median and the longest of some single edits, in seconds."""
    spent: list[float] = []
    for case in table_cases(n, TUNING):
        began = time.perf_counter()
        rome(model, case.fact, **how)
        spent.append(time.perf_counter() - began)
    spent.sort()
    return {"median": spent[len(spent) // 2], "most": spent[-1], "n": len(spent)}


def batches(model: Model, how: dict[str, Any], counts: list[int]) -> dict[int, float]:
    """MEMIT's seconds per edit, batch by batch; a batch too many of whose facts stay unsaid costs what others do."""
    found = {}
    for n in counts:
        facts = [case.fact for case in table_cases(n, TUNING)]
        began = time.perf_counter()
        with suppress(RuntimeError):
            memit(model, facts, **how)
        found[n] = (time.perf_counter() - began) / n
    return found


def main() -> None:
    """Time all of it, write the figures and say which bars hold."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--model", default="landmark")
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--edits", type=int, default=10)
    asked.add_argument("--counts", type=int, nargs="*", default=[10, 40, 160])
    asked.add_argument("--texts", type=int, default=800)
    asked.add_argument("--repeats", type=int, default=3)
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    model = load(options.model)
    texts = [document.text[:400] for document in islice(landmark.documents(10_000), options.texts)]
    location = locate(model, [case.fact for case in table_cases(10, TUNING)])
    layer = location.layer
    ways = {"plain": lambda: plain(model, texts), "covariance": lambda: covariances(model, texts, [layer])}
    timed = in_turn(ways, repeats=options.repeats, warm_up=1)
    ratio = 1 / timed["covariance"].times(timed["plain"])[0]
    how = {"covariance": covariances(model, texts, [layer])[0], "token": location.role}
    single = edits(model, how, options.edits)
    several = batches(model, how, options.counts)
    growth = several[max(several)] / several[min(several)] if several else float("nan")
    figures = {
        "layer": layer, "covariance over plain forward": ratio, "seconds per edit": single,
        "memit, seconds per edit by batch": several, "memit, largest over smallest": growth,
    }  # fmt: skip
    write("editing_cost", " ".join(["python", *sys.argv]), figures)
    print(figures)
    print(f"{'holds' if single['median'] <= 3 else 'FAILS'}: an edit takes {single['median']:.2f} s (at most 3)")
    print(f"{'holds' if ratio <= 1.2 else 'FAILS'}: a covariance takes {ratio:.2f} of the plain forward (at most 1.2)")


if __name__ == "__main__":
    main()
