"""Edits on the bundled model: `python benchmarks/editing.py` edits facts singly, many at once and many in turn.

Every method, five seeds: efficacy, paraphrase, neighbourhood, the subject's other facts, free generation, drift,
seconds and kilobytes per edit. Writes benchmarks/results/editing.json after each row and goes on from there when run
again, then says which bars hold (benchmarks/bars.py). `--facts 2 --counts 2 --seeds 1 --methods rome` runs a part.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bars import told  # noqa: E402
from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Model, load  # noqa: E402
from interp import landmark  # noqa: E402
from interp.estimate import bootstrap  # noqa: E402
from interp.landmark.grammar import held_out_phrasings, training_phrasings  # noqa: E402
from interp.landmark.writing import capitalised  # noqa: E402
from interp.memory import (  # noqa: E402
    Case,
    Covariance,
    Edit,
    Fact,
    Query,
    alphaedit,
    covariances,
    emmet,
    ft_l,
    grace,
    in_context,
    knn_memory,
    memit,
    pmet,
    prefixes,
    rome,
)  # fmt: skip
from interp.memory.completion import forced, score, spelt  # noqa: E402
from interp.memory.fact import answered  # noqa: E402
from interp.memory.scorecard import control, reading  # noqa: E402

IN_CONTEXT_AT_MOST = 5
REPORTED, TUNING = 0, 10_000  # seeds of the facts that are reported, and of those that settings may be chosen on


@dataclass(frozen=True)
class Ground:
    """What every editor is given: the model, the covariances, contexts, unrelated texts."""

    model: Model
    covariances: tuple[Covariance, ...]
    contexts: tuple[str, ...]
    texts: list[str]


Method = Callable[[Ground, Sequence[Fact], Sequence[Edit]], Edit]
METHODS: dict[str, Method] = {
    "rome": lambda g, facts, _: rome(g.model, facts, covariance=g.covariances[0], contexts=g.contexts),
    "random": lambda g, facts, _: control(rome(g.model, facts, covariance=g.covariances[0], contexts=g.contexts)),
    "ft_l": lambda g, facts, _: ft_l(g.model, facts, layer=g.covariances[0].layer),
    "emmet": lambda g, facts, _: emmet(g.model, facts, covariance=g.covariances[0], contexts=g.contexts),
    "memit": lambda g, facts, _: memit(g.model, facts, covariance=g.covariances, contexts=g.contexts),
    "pmet": lambda g, facts, _: pmet(g.model, facts, covariance=g.covariances, contexts=g.contexts),
    "alphaedit": lambda g, facts, earlier: alphaedit(
        g.model, facts, covariance=g.covariances, contexts=g.contexts, earlier=earlier
    ),
    "grace": lambda g, facts, _: grace(g.model, facts),
    "knn_memory": lambda g, facts, _: knn_memory(g.model, facts),
    "in_context": lambda g, facts, _: in_context(g.model, facts),
}


@cache
def cases(n: int, seed: int) -> tuple[Case, ...]:
    """Facts of the encyclopaedia, each with another object of its relation, and its questions."""
    rng, triples = Random(seed), landmark.triples()
    found: list[Case] = []
    subjects: set[str] = set()
    for triple in rng.sample(triples, len(triples)):
        subject = triple.subject
        objects = sorted({t.object for t in triples if t.relation == triple.relation} - {triple.object})
        if len(found) == n or not objects or subject.name in subjects:
            continue
        subjects.add(subject.name)

        def spelt_out(template: str, of: landmark.Entity = subject) -> str:
            return capitalised(template.replace("{}", of.text.replace(of.name, "{}")))

        asked = [spelt_out(p.template) for p in training_phrasings(triple.relation.name)]
        fact = Fact(subject.name, rng.choice(asked), triple.object, rng.choice(objects))
        again = [spelt_out(p.template).replace("{}", subject.name) for p in held_out_phrasings(triple.relation.name)]
        near = landmark.neighbours(triple)
        near = rng.sample(near, min(5, len(near)))
        others = [t for t in landmark.facts_of(subject) if t.relation != triple.relation]
        found.append(Case(fact, tuple(again), tuple(query(t) for t in near), tuple(query(t) for t in others)))
    return tuple(found)


def query(triple: landmark.Triple) -> Query:
    """The first phrasing of a fact, as a question."""
    template = training_phrasings(triple.relation.name)[0].template
    return Query(capitalised(template.format(triple.subject.text)), triple.object)


@dataclass(frozen=True)
class Before:
    """What the unedited model says of unrelated text, and which of the subjects' other facts it knows."""

    log_probs: torch.Tensor
    loss: float
    knew: Mapping[str, bool]


def right(model: Model, asked: Sequence[Query]) -> list[bool]:
    """Whether arg max, token by token, is the answer."""
    prompts, answers = [q.prompt for q in asked], [q.answer for q in asked]
    return [a == b for a, b in zip(forced(model, prompts, answers), spelt(model, prompts, answers), strict=True)]


def before(g: Ground, asked: Sequence[Case]) -> Before:
    """Measure the unedited model."""
    log_probs, loss = reading(g.model, g.texts)
    others = [q for case in asked for q in case.others]
    knew = dict(zip((q.prompt for q in others), right(g.model, others), strict=True)) if others else {}
    return Before(log_probs, loss, knew)


def measured(g: Ground, asked: Sequence[Case], base: Before) -> dict[str, float]:
    """What the model in its present state says to all the cases; a measure without prompts is absent."""
    facts = [case.fact for case in asked]
    para = [(p, case.fact) for case in asked for p in case.paraphrases]
    near = [(q, case.fact) for case in asked for q in case.neighbours]
    kept = [q for case in asked for q in case.others if base.knew[q.prompt]]

    def prefers(prompts: list[str], better: list[str], worse: list[str]) -> float:
        return float((score(g.model, prompts, better) > score(g.model, prompts, worse)).double().mean())

    log_probs, loss = reading(g.model, g.texts)
    said = g.model.generate([f.text for f in facts], max_new_tokens=10)
    found = {
        "efficacy": prefers([f.text for f in facts], [f.new for f in facts], [f.old for f in facts]),
        "said": sum(answered(text, f.new) for text, f in zip(said, facts, strict=True)) / len(facts),
        "kl": float((base.log_probs.exp() * (base.log_probs - log_probs)).sum(-1).mean()),
        "perplexity": float(torch.tensor(loss - base.loss).exp()),
    }
    if para:
        found["paraphrase"] = prefers([p for p, _ in para], [f.new for _, f in para], [f.old for _, f in para])
    if kept:
        found["others"] = sum(right(g.model, kept)) / len(kept)
    if near:
        asked_near, true = [q.prompt for q, _ in near], [q.answer for q, _ in near]
        found["neighbours"] = prefers(asked_near, true, [f.new for _, f in near])
    return found


def kilobytes(edit: Edit) -> float:
    """What the tensors of an edit weigh."""
    held = [value for update in edit.updates for value in vars(update).values() if isinstance(value, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in held) / 1024


def singly(g: Ground, name: str, asked: Sequence[Case]) -> dict[str, Any]:
    """Edit and undo fact by fact: means over facts with their bootstrap intervals; a refusal counts as unedited."""
    rows: list[dict[str, float]] = []
    refused: list[str] = []
    for case in asked:
        base, began, edit = before(g, [case]), time.perf_counter(), None
        try:
            edit = None if name == "unedited" else METHODS[name](g, [case.fact], [])
        except (RuntimeError, ValueError) as error:
            refused.append(f"{case.fact.text!r}: {error}")
        seconds = time.perf_counter() - began
        with nullcontext() if edit is None else edit.applied(g.model):
            row = measured(g, [case], base)
        rows.append({**row, "seconds": seconds, "kilobytes": 0.0 if edit is None else kilobytes(edit)})
    found: dict[str, Any] = {}
    for measure in sorted({measure for row in rows for measure in row}):
        values = torch.tensor([row[measure] for row in rows if measure in row], dtype=torch.float64)
        e = bootstrap(lambda sample: float(sample[0].mean()), [values])
        found[measure], found[f"{measure} interval"] = e.value, [e.low, e.high]
    return {**found, "refused": len(refused), "refusals": refused[:3]}


def together(g: Ground, name: str, asked: Sequence[Case], order: str) -> dict[str, Any]:
    """Edit all facts at once or one after another, and measure with all in place; refusals are counted, not hidden."""
    groups = [list(asked)] if order == "at once" else [[case] for case in asked]
    made: list[Edit] = []
    refused: list[str] = []
    base = before(g, asked)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # edits that conflict are what sequences are about
        began = time.perf_counter()
        for group in groups if name != "unedited" else ():
            try:
                edit = METHODS[name](g, [case.fact for case in group], made)
                stack.enter_context(edit.applied(g.model))
                made.append(edit)
            except (RuntimeError, ValueError) as error:
                refused.append(f"{group[0].fact.text!r}: {error}")
        seconds = (time.perf_counter() - began) / len(asked)
        found = measured(g, asked, base)
    size = sum(map(kilobytes, made)) / len(asked)
    return {**found, "seconds": seconds, "kilobytes": size, "refused": len(refused), "refusals": refused[:3]}


def run(g: Ground, asked: Sequence[Case], name: str, order: str) -> dict[str, Any]:
    """One row of the results."""
    return singly(g, name, asked) if order == "singly" else together(g, name, asked, order)


def ground(name: str, layers: Sequence[int], n_texts: int) -> Ground:
    """The model with what all editors share: the first 40 texts are kept for the drift."""
    model = load(name)
    texts = [document.text[:400] for document in islice(landmark.documents(10_000), n_texts + 40)]
    return Ground(model, covariances(model, texts[40:], layers), prefixes(model), texts[:40])


def plan(options: argparse.Namespace) -> list[tuple[int, str, str, int]]:
    """Every row to measure: seed, method, order, number of facts; the cheap and telling ones first."""
    names = ["unedited", *options.methods]
    first = [(0, name, "singly", options.facts) for name in names] if options.facts else []
    orders = {n: ("at once", "in turn") if n > 1 else ("at once",) for n in options.counts}
    rest = [
        (seed, name, order, n)
        for n in sorted(options.counts)
        for seed in range(options.seeds)
        for name in names
        for order in orders[n]
        if not (name == "in_context" and n > IN_CONTEXT_AT_MOST) and not (name == "unedited" and order == "in turn")
    ]
    return first + rest


def main() -> None:
    """Run what is missing, write the figures and say which bars hold."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--facts", type=int, default=200, help="edited singly; 0 for none")
    asked.add_argument("--counts", type=int, nargs="*", default=[1, 10, 100, 500], help="edited together")
    asked.add_argument("--seeds", type=int, default=5)
    asked.add_argument("--layers", type=int, nargs="+", default=[0, 1, 2])
    asked.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    asked.add_argument("--texts", type=int, default=1500, help="for the covariances")
    asked.add_argument("--model", default="landmark")
    asked.add_argument("--name", default="editing", help="of the results")
    asked.add_argument("--tuning", action="store_true", help="facts that are not reported, to choose settings on")
    options = asked.parse_args()
    g = ground(options.model, options.layers, options.texts)
    same = {"model": g.model.fingerprint, "layers": options.layers, "texts": options.texts, "tuning": options.tuning}
    file = RESULTS / f"{options.name}.json"
    rows: list[dict[str, Any]] = []
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))["figures"]
        rows = kept["rows"] if kept["settings"] == same else []
    done = {(row["seed"], row["method"], row["order"], row["n"]) for row in rows}
    command = " ".join(["python", *sys.argv])
    for seed, name, order, n in plan(options):
        if (seed, name, order, n) in done:
            continue
        facts = cases(n, seed + (TUNING if options.tuning else REPORTED))
        found = {"seed": seed, "method": name, "order": order, "n": n, **run(g, facts, name, order)}
        rows.append(found)
        write(options.name, command, {"settings": same, "rows": rows})
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}, flush=True)
    print("\n".join(told(rows)))


if __name__ == "__main__":
    main()
