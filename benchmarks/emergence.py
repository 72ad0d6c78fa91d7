"""What jumps while small worlds are trained: the model or the metric. `python benchmarks/emergence.py RUNS`.

RUNS is a folder of trainings called `ladder-64-s0`, `induction-1-s0`, and so on, as `interp worlds train` writes them.
Writes benchmarks/results/emergence.json; what is measured is kept in RUNS/tracks, and a run goes on from there.
`--part NAME` (alarms, lifetimes, sampled, or a run) measures one part and keeps the others' figures.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from math import log
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Model, load  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp.common.statistics import Estimate, share, wilson  # noqa: E402
from interp.emergence import (  # noqa: E402
    Break,
    Track,
    find_break,
    find_changes,
    judge,
    measure_answers,
    measure_clock_world,
    measure_induction_world,
    measure_lifetimes,
    measure_sampled_match,
    measure_segments_world,
    measure_waves,
    track,
)
from interp.sae import Crosscoder, across, fold_normalisation, mean_centring, normalise_source, tensor_source, train  # noqa: E402
from interp.worlds import checkpoints  # noqa: E402
from interp.worlds.clock import FIRST_HOUR, HOURS, seen_sums, sums  # noqa: E402
from interp.worlds.experts import read_tokenizer  # noqa: E402
from interp.worlds.induction import LABELS  # noqa: E402
from interp.worlds.ladder import list_questions  # noqa: E402
from interp.worlds.segments import WORDS  # noqa: E402


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


def shown(seen: Track, changes: Mapping[str, Break]) -> dict[str, Any]:
    """Every metric at every step, and the best break of each."""
    return {
        "steps": seen.steps,
        "curves": {name: [asdict(e) for e in of] for name, of in seen.metrics.items()},
        "breaks": {name: asdict(b) for name, b in changes.items()},
    }


def induction(runs: Path, run: Path) -> dict[str, Any]:
    """In context and by heart over one run of `induction`, and where each metric breaks."""
    seen = track(checkpoints(run), {"": measure_induction_world}, file=runs / "tracks" / f"{run.name}.json")
    changes = find_changes(seen)
    found: dict[str, Any] = {
        **shown(seen, changes),
    }
    for name in ("in context", "by heart"):
        verdict = judge(seen, f"{name}: right", f"{name}: log p", chance=1 / LABELS)
        found[f"verdict, {name}"] = {
            "said": verdict.said,
            "steepest": verdict.steepest,
            "resolution": verdict.resolution,
            "p of a break in log p": verdict.continuous.p,
        }
        print(run.name, name, verdict)
    log_p, head = changes["in context: log p"], changes["attention of the best head"]
    if max(log_p.p, head.p) <= 0.05:
        found["checkpoints between the breaks of log p in context and of the head"] = abs(log_p.index - head.index)
    return found


def copying(runs: Path, run: Path) -> dict[str, Any]:
    """Copied words over one run of `segments`, next to the heads that copy, and where each metric breaks."""
    seen = track(checkpoints(run), {"": measure_segments_world}, file=runs / "tracks" / f"{run.name}.json")
    verdict, changes = judge(seen, "copied: right", "copied: log p", chance=1 / WORDS), find_changes(seen)
    print(run.name, verdict, changes)
    log_p = changes["copied: log p"]
    return {
        **shown(seen, changes),
        "verdict": {"said": verdict.said, "steepest": verdict.steepest, "p of a break in log p": verdict.continuous.p},
        "checkpoints from the break of log p to that of": {
            head: changes[f"attention of the {head}"].index - log_p.index
            for head in ("induction head", "previous-token head")
        },
    }


def clock(runs: Path, run: Path) -> dict[str, Any]:
    """Sums seen and unseen over one run of `clock`, how much of them is waves, and where each metric breaks."""
    seed = int(run.name.rpartition("-s")[2])
    metric = {"": lambda model: measure_clock_world(model, seed=seed)}
    seen = track(checkpoints(run), metric, file=runs / "tracks" / f"{run.name}.json")
    verdict = judge(seen, "unseen both ways: right", "unseen both ways: log p", chance=1 / HOURS)
    print(run.name, verdict)
    waves = {}
    for step in (0, 419, max(seen.steps)):  # untrained, all sums known by heart, the last
        logits = load(checkpoints(run)[step], check=False).run(sums()[:, :-1])[:, -1, FIRST_HOUR : FIRST_HOUR + HOURS]
        cube = logits.detach().double().view(HOURS, HOURS, HOURS)
        waves[str(step)] = asdict(measure_waves(cube, seen_sums(seed).view(HOURS, HOURS)))  # type: ignore[arg-type]
        print(step, waves[str(step)], flush=True)
    return {
        "waves at step": waves,
        **shown(seen, find_changes(seen)),
        "verdict": {"said": verdict.said, "p of a break in log p": verdict.continuous.p},
    }


def sampled(runs: Path, questions: int = 60, draws: int = 4) -> dict[str, Any]:
    """Samples that are exactly the answer at every checkpoint of the ladder, next to the mean of Π p of the same."""
    found: dict[str, Any] = {}
    for run in sorted(runs.glob("ladder-*-s*")):
        rows = []
        for step, folder in checkpoints(run).items():
            model = load(folder, check=False)
            for n in range(1, 6):
                prompts, answers = (of[:: max(1, len(of) // questions)][:questions] for of in groups()[f"{n} tokens"])
                seed = Random(f"{run.name} {step} {n}").randrange(2**31)  # of its own, or luck is shared by checkpoints
                drawn = measure_sampled_match(model, prompts, answers, draws=draws, batch_size=256, seed=seed)
                p = measure_answers(model, prompts, answers).chance
                rows.append({
                    "step": step, "tokens": n, "sampled": asdict(drawn), "product of p": float(p.mean()),
                    "off, standard errors": float(drawn.value - p.mean())
                    / max(float((p * (1 - p)).sum() * draws) ** 0.5 / drawn.n, 1e-9),
                })  # fmt: skip
        inside = [r["sampled"]["low"] <= r["product of p"] <= r["sampled"]["high"] for r in rows]
        found[run.name] = {"within the interval of samples": asdict(share(torch.tensor(inside))), "rows": rows}
        print(run.name, found[run.name]["within the interval of samples"], flush=True)
    return found


def lifetimes(runs: Path) -> dict[str, Any]:
    """Latents born, turned, split and gone over checkpoints of the ladder, next to one read several times."""
    kept, site = checkpoints(runs / "ladder-64-s0"), resid_post[2]
    steps = [*kept][-8:]
    texts = [f"{q.prompt} {q.answer}." for q in list_questions()[::2]]
    models = [load(kept[step], check=False) for step in steps]
    found: dict[str, Any] = {"steps": steps}
    for name, of in (("checkpoints", models), ("the last one eight times", [models[-1]] * len(steps))):
        rows = torch.cat([*across([(model, site) for model in of], texts)])
        raw = Crosscoder(64, 256, n_layers=len(steps), coefficient=1.0)
        plan = {"tokens": 150_000, "batch_size": 512, "lr": 2e-3, "dead_after": 20_000, "progress": False}
        train(raw, normalise_source(tensor_source(rows), mean_centring([rows])), **plan)  # type: ignore[arg-type]
        coder = fold_normalisation(raw)
        one = measure_lifetimes(coder, rows, steps)  # type: ignore[arg-type]
        born, gone = Counter(one.born().values()), Counter(one.gone().values())
        with torch.no_grad():
            left = (rows - coder.decode(coder.encode(rows))).pow(2).sum((0, 2)) / (rows - rows.mean(0)).pow(2).sum(
                (0, 2)
            )
        found[name] = {
            "rows": len(rows),
            "latents that fire": int((one.fired > 0).sum()),
            "born by step": [born[step] for step in steps],
            "gone by step": [gone[step] for step in steps],
            "split": len(one.splits),
            "split by chance": one.splits_by_chance,
            "median cosine with the checkpoint before": one.turned().nanmedian(0).values.tolist(),
            "variance left by step": left.tolist(),
            "strength by chance, 95 % of latents": float(one.by_chance[one.fired > 0].quantile(0.95)),
        }
        print(name, one, found[name], sep="\n", flush=True)
    return found


KINDS = {"ladder": ladder, "induction": induction, "segments": copying, "clock": clock}


def main() -> None:
    """Measure what is asked for, by default every run that is there, and keep the other figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--part", action="append")
    given = parser.parse_args()
    runs: Path = given.runs
    (runs / "tracks").mkdir(exist_ok=True)
    there = [run for run in sorted(runs.glob("*-s*")) if (run / "model").exists() and run.name.split("-")[0] in KINDS]
    parts: dict[str, Callable[[], dict[str, Any]]] = {}
    if not given.part or "alarms" in given.part:
        parts["the test for breaks"] = alarms
    for run in there:
        if not given.part or run.name in given.part:
            parts[run.name] = partial(KINDS[run.name.split("-")[0]], runs, run)
    if (runs / "ladder-64-s0" / "model").exists() and (not given.part or "lifetimes" in given.part):
        parts["lifetimes of latents"] = partial(lifetimes, runs)
    if not given.part or "sampled" in given.part:
        parts["samples next to the product of p"] = partial(sampled, runs)
    for name, measure in parts.items():
        figures, file = measure(), RESULTS / "emergence.json"
        print(name, figures.get("count", ""), flush=True)
        held = json.loads(file.read_text("utf-8"))["figures"] if file.exists() else {}
        write("emergence", "python benchmarks/emergence.py RUNS", {**held, name: figures})


if __name__ == "__main__":
    main()
