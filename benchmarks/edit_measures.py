"""What a model says to cases of edited facts, case by case, and to unrelated text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from hooks import Model
from interp.common.completion import find_answer_ids, says, score
from interp.common.statistics import bootstrap
from interp.common.texts import begins_with
from interp.memory import Case, Edit, Query
from interp.memory.evaluation.measurement import Reading, measure_reading


@dataclass(frozen=True, eq=False)
class Baseline:
    """What the unedited model says of unrelated text, and which of the subjects' other facts it knows."""

    texts: Sequence[str]
    reading: Reading
    knew: Mapping[str, bool]


def right(model: Model, asked: Sequence[Query]) -> list[bool]:
    """Whether arg max, token by token, is the answer."""
    return says(model, [q.prompt for q in asked], [q.answer for q in asked])


def before(model: Model, asked: Sequence[Case], texts: Sequence[str]) -> Baseline:
    """Measure the unedited model."""
    others = [q for case in asked for q in case.others]
    knew = dict(zip((q.prompt for q in others), right(model, others), strict=True))
    return Baseline(texts, measure_reading(model, texts), knew)


def of_cases(model: Model, asked: Sequence[Case], base: Baseline) -> list[dict[str, float]]:
    """What the model in its present state says to each case; a measure without prompts is absent."""
    plan = {
        "efficacy": [[(c.fact.text, c.fact.new, c.fact.old)] for c in asked],
        "paraphrase": [[(p, c.fact.new, c.fact.old) for p in c.paraphrases] for c in asked],
        "neighbours": [[(q.prompt, q.answer, c.fact.new) for q in c.neighbours] for c in asked],
    }
    found: list[dict[str, float]] = [{} for _ in asked]
    for name, rows in plan.items():
        flat = [row for row_of in rows for row in row_of]
        if flat:
            prompts, better, worse = map(list, zip(*flat, strict=True))
            both = score(model, prompts * 2, better + worse)
            _spread(found, name, rows, (both[: len(flat)] > both[len(flat) :]).tolist())
    for name in ("others", "hops", "reverse", "aliases"):
        asked_of = [[q for q in getattr(c, name) if name != "others" or base.knew[q.prompt]] for c in asked]
        flat_queries = [q for queries in asked_of for q in queries]
        if flat_queries:
            _spread(found, name, asked_of, right(model, flat_queries))
    said = [t for i in range(0, len(asked), 64) for t in _generated(model, asked[i : i + 64])]
    for row, text, case in zip(found, said, asked, strict=True):
        row["said"] = float(begins_with(text, case.fact.new))
    return found


def _generated(model: Model, asked: Sequence[Case]) -> list[str]:
    prompts, objects = [c.fact.text for c in asked], [c.fact.new for c in asked]
    longest = max(len(row) for row in find_answer_ids(model, prompts, objects))
    return list(model.generate(prompts, max_new_tokens=longest + 1))


def _spread(found: list[dict[str, float]], name: str, rows: Sequence[Sequence[Any]], values: Sequence[bool]) -> None:
    """Give each case the mean of its own values."""
    rest: Iterator[bool] = iter(values)
    for row, own in zip(found, rows, strict=True):
        if own:
            row[name] = sum(islice(rest, len(own))) / len(own)


def drift(model: Model, base: Baseline) -> dict[str, float]:
    """KL per token and the ratio of perplexities on unrelated text."""
    kl, perplexity = measure_reading(model, base.texts).measure_drift(base.reading)
    return {"kl": kl, "perplexity": perplexity}


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The mean of each measure over facts, with its bootstrap interval where there are several facts."""
    found: dict[str, Any] = {}
    for measure in sorted({measure for row in rows for measure in row}):
        values = torch.tensor([row[measure] for row in rows if measure in row], dtype=torch.float64)
        e = bootstrap(lambda sample: float(sample[0].mean()), [values])
        found[measure] = e.value
        if e.n > 1:
            found[f"{measure} interval"] = [e.low, e.high]
    return found


def kilobytes(edit: Edit) -> float:
    """What the tensors of an edit weigh."""
    held = [value for update in edit.updates for value in vars(update).values() if isinstance(value, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in held) / 1024
