"""Many edits on the bundled model: `python benchmarks/editing.py` edits 1, 10, 100 and 500 facts, at once and in turn.

Every method, several seeds: efficacy, paraphrase, neighbourhood, free generation, drift, seconds and kilobytes per
edit. Writes benchmarks/results/editing.json. `--counts 1 2 --seeds 1` is a check that it runs.
"""

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hooks import Model, load  # noqa: E402
from interp import landmark  # noqa: E402
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
    rome,
)  # fmt: skip
from interp.memory.completion import forced, score, spelt  # noqa: E402
from interp.memory.fact import answered  # noqa: E402
from interp.memory.keys import prefixes  # noqa: E402
from interp.memory.scorecard import reading  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "editing.json"
IN_CONTEXT_AT_MOST = 5


@dataclass(frozen=True)
class Ground:
    """What every editor is given: the model, the covariances, contexts, unrelated texts."""

    model: Model
    covariances: tuple[Covariance, ...]
    contexts: tuple[str, ...]
    texts: list[str]


Method = Callable[[Ground, Sequence[Fact], Sequence[Edit]], Edit]
METHODS: dict[str, Method] = {
    "ft_l": lambda g, facts, _: ft_l(g.model, facts, layer=g.covariances[0].layer),
    "rome": lambda g, facts, _: rome(g.model, facts, covariance=g.covariances[0], contexts=g.contexts),
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


def cases(n: int, seed: int) -> list[Case]:
    """Facts of the encyclopaedia, each with another object of its relation, and its questions."""
    rng, triples = Random(seed), landmark.triples()
    found: list[Case] = []
    for triple in rng.sample(triples, len(triples)):
        subject = triple.subject
        objects = sorted({t.object for t in triples if t.relation == triple.relation} - {triple.object})
        if len(found) == n or not objects or any(case.fact.subject == subject.name for case in found):
            continue

        def spelt_out(template: str, of: landmark.Entity = subject) -> str:
            return capitalised(template.replace("{}", of.text.replace(of.name, "{}")))

        relation = triple.relation.name
        asked = [spelt_out(p.template) for p in training_phrasings(relation)]
        fact = Fact(subject.name, rng.choice(asked), triple.object, rng.choice(objects))
        paraphrases = [
            spelt_out(p.template).replace("{}", subject.name) for p in held_out_phrasings(triple.relation.name)
        ]
        near = landmark.neighbours(triple)
        near = rng.sample(near, min(5, len(near)))
        others = [t for t in landmark.facts_of(subject) if t.relation != triple.relation]
        found.append(Case(fact, tuple(paraphrases), tuple(query(t) for t in near), tuple(query(t) for t in others)))
    return found


def query(triple: landmark.Triple) -> Query:
    """The first phrasing of a fact, as a question."""
    template = training_phrasings(triple.relation.name)[0].template
    return Query(capitalised(template.format(triple.subject.text)), triple.object)


def measured(g: Ground, asked: Sequence[Case], before: dict[str, Any]) -> dict[str, float]:
    """What the model in its present state says to all the cases."""
    facts = [case.fact for case in asked]
    para = [(p, case.fact) for case in asked for p in case.paraphrases]
    near = [(q, case.fact) for case in asked for q in case.neighbours]
    kept = [q for case in asked for q in case.others]

    def prefers(prompts: list[str], better: list[str], worse: list[str]) -> float:
        return float((score(g.model, prompts, better) > score(g.model, prompts, worse)).double().mean())

    log_probs, loss = reading(g.model, g.texts)
    said = g.model.generate([f.text for f in facts], max_new_tokens=10)
    prompts, answers = [q.prompt for q in kept], [q.answer for q in kept]
    agreed = zip(forced(g.model, prompts, answers), spelt(g.model, prompts, answers), strict=True)
    found = {
        "efficacy": prefers([f.text for f in facts], [f.new for f in facts], [f.old for f in facts]),
        "said": sum(answered(text, f.new) for text, f in zip(said, facts, strict=True)) / len(facts),
        "paraphrase": prefers([p for p, _ in para], [f.new for _, f in para], [f.old for _, f in para]),
        "others": sum(a == b for a, b in agreed) / len(kept),
    }
    if near:
        found["neighbours"] = prefers(
            [q.prompt for q, _ in near], [q.answer for q, _ in near], [f.new for _, f in near]
        )
    if before:
        base = before["log_probs"]
        found["kl"] = float((base.exp() * (base - log_probs)).sum(-1).mean())
        found["perplexity"] = float(torch.tensor(loss - before["loss"]).exp())
    return found | ({} if before else {"log_probs": log_probs, "loss": loss})  # type: ignore[dict-item]


def kilobytes(edit: Edit) -> float:
    """What the tensors of an edit weigh."""
    held = [value for update in edit.updates for value in vars(update).values() if isinstance(value, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in held) / 1024


def run(g: Ground, name: str, asked: Sequence[Case], order: str, before: dict[str, Any]) -> dict[str, Any]:
    """Edit by one method, at once or in turn, and measure; a refusal is recorded, not hidden."""
    groups = [list(asked)] if order == "at once" else [[case] for case in asked]
    made: list[Edit] = []
    refused: list[str] = []
    began = time.perf_counter()
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for group in groups:
            try:
                edit = METHODS[name](g, [case.fact for case in group], made)
                stack.enter_context(edit.applied(g.model))
                made.append(edit)
            except (RuntimeError, ValueError) as error:
                refused.append(str(error))
        seconds = (time.perf_counter() - began) / len(asked)
        found = measured(g, asked, before)
    size = sum(map(kilobytes, made)) / len(asked)
    return {"method": name, "order": order, "n": len(asked), "seconds": seconds, "kilobytes": size, **found,
            "refused": len(refused), "first refusal": (refused or [""])[0]}  # fmt: skip


def main() -> None:
    """Run every method and write the figures."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100, 500])
    asked.add_argument("--seeds", type=int, default=5)
    asked.add_argument("--layers", type=int, nargs="+", default=[0, 1, 2])
    asked.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    asked.add_argument("--texts", type=int, default=1500, help="for the covariances")
    asked.add_argument("--out", type=Path, default=RESULTS)
    options = asked.parse_args()
    model = load("landmark")
    whole = [document.text for document in islice(landmark.documents(10_000), options.texts + 40)]
    short = [text[:600] for text in whole]
    ground = Ground(model, covariances(model, short[40:], options.layers), prefixes(model), short[:40])
    rows = []
    for seed in range(options.seeds):
        for n in options.counts:
            chosen = cases(n, seed)
            before = measured(ground, chosen, {})
            plain = {k: v for k, v in before.items() if isinstance(v, float) and k != "loss"}
            rows.append({"method": "unedited", "order": "", "n": n, "seed": seed, **plain})
            for name in options.methods:
                for order in ("at once", "in turn") if n > 1 else ("at once",):
                    if name == "in_context" and n > IN_CONTEXT_AT_MOST:
                        continue
                    rows.append({"seed": seed, **run(ground, name, chosen, order, before)})
                    print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    machine = {"platform": platform.platform(), "cores": os.cpu_count() or 0, "torch": torch.__version__}
    written = {"command": " ".join(["python", *sys.argv]), "machine": machine, "model": model.fingerprint, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
