"""What jumps while small worlds are trained: the model or the metric. `python benchmarks/emergence.py RUNS`.

RUNS is a folder of trainings called `ladder-64-s0`, `induction-1-s0`, and so on, as `interp worlds train` writes them.
Writes benchmarks/results/emergence.json; what is measured is kept in RUNS/tracks, and a run goes on from there.
"""

import sys
from collections import Counter
from dataclasses import asdict
from math import log
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from benchmarks.timing import write  # noqa: E402
from hooks import Model  # noqa: E402
from interp.common.statistics import Estimate, wilson  # noqa: E402
from interp.emergence import find_break, find_changes, judge, measure_answers, measure_induction_world, track  # noqa: E402
from interp.worlds import checkpoints  # noqa: E402
from interp.worlds.experts import read_tokenizer  # noqa: E402
from interp.worlds.ladder import list_questions  # noqa: E402


def alarms(n: int = 400) -> dict[str, Any]:
    """How often smooth curves are called broken, and a planted break of 0.3 nats is found within one checkpoint."""
    steps = [round(4 * 1.35**i) for i in range(24)]
    x = torch.tensor([log(s) for s in steps], dtype=torch.float64)
    gap, random = float(x[-1] - x[0]) / 23, torch.Generator().manual_seed(0)
    false, found = 0, 0
    for i in range(n):
        m, width, size = (float(torch.rand(1, generator=random)) for _ in range(3))
        noise = 0.03 * torch.randn(24, dtype=torch.float64, generator=random)
        slope = 2 * log(9) / ((4 + 8 * width) * gap)
        smooth = (0.5 + size) * torch.sigmoid(slope * (x - x[0] - (0.2 + 0.6 * m) * 23 * gap))
        false += find_break(steps, smooth + noise, draws=99, seed=i).p <= 0.05
        k = 6 + i % 12
        one = find_break(steps, 0.3 * (torch.arange(24) >= k).double() + noise, draws=99, seed=i)
        found += one.p <= 0.05 and abs(one.index - k) <= 1
    return {"false alarms": asdict(wilson(false / n, n)), "planted breaks found": asdict(wilson(found / n, n))}


def groups() -> dict[str, tuple[list[str], list[str]]]:
    """The ladder's questions by relation and by the number of tokens of the answer."""
    encode, found = read_tokenizer().encode, {}
    for q in list_questions():
        length = min(5, len(encode(f" {q.answer}").ids) - 1)
        for name in (f"{length} tokens", q.triple.relation.name):
            prompts, answers = found.setdefault(name, ([], []))
            prompts.append(q.prompt)
            answers.append(q.answer)
    return found


def ladder(runs: Path, run: Path) -> dict[str, Any]:
    """Exact match and log p of every group of questions over the checkpoints of one run of the ladder."""
    asked_by = groups()

    def metric(model: Model) -> dict[str, Estimate]:
        found = {}
        for name, (prompts, answers) in asked_by.items():
            found |= {f"{name}, {k}": e for k, e in measure_answers(model, prompts, answers).estimates().items()}
        return found

    seen = track(checkpoints(run), {"": metric}, file=runs / "tracks" / f"{run.name}.json")
    verdicts = {name: judge(seen, f"{name}, exact match", f"{name}, log p of a token") for name in asked_by}
    kept = [f"{n} tokens, {k}" for n in range(1, 6) for k in ("exact match", "sampled match", "log p of a token")]
    return {
        "steps": seen.steps,
        "curves": {name: [asdict(e) for e in seen.metrics[name]] for name in kept if name in seen.metrics},
        "verdicts": {name: {"said": v.said, "steepest": v.steepest, "p of a break in log p": v.continuous.p}
                     for name, v in verdicts.items()},
        "count": dict(Counter(v.said for v in verdicts.values())),
    }  # fmt: skip


def induction(runs: Path, run: Path) -> dict[str, Any]:
    """In context and by heart over one run of `induction`, and where each metric breaks."""
    seen = track(checkpoints(run), {"": measure_induction_world}, file=runs / "tracks" / f"{run.name}.json")
    changes = find_changes(seen)
    verdict = judge(seen, "in context: right", "in context: log p")
    print(run.name, verdict, changes, sep="\n")
    return {
        "steps": seen.steps,
        "curves": {name: [asdict(e) for e in of] for name, of in seen.metrics.items()},
        "breaks": {name: asdict(b) for name, b in changes.items()},
        "verdict": verdict.said,
    }


def main() -> None:
    """Measure every run that is there."""
    runs = Path(sys.argv[1])
    (runs / "tracks").mkdir(exist_ok=True)
    found: dict[str, Any] = {"the test for breaks": alarms()}
    print(found)
    for run in sorted(runs.glob("*-s*")):
        if (run / "model").exists() and run.name.startswith(("ladder", "induction")):
            found[run.name] = (ladder if run.name.startswith("ladder") else induction)(runs, run)
            print(run.name, found[run.name].get("count", ""))
            write("emergence", "python benchmarks/emergence.py RUNS", found)


if __name__ == "__main__":
    main()
