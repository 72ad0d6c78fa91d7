"""Facts changed four ways: `python benchmarks/editing_beside_steering.py` edits, steers, states and stores them.

Facts of the bundled model whose old and new object are entities: by ROME, by a difference of means for the new object
added at every token or only where the subject is read, by stating it in the context, by a kNN memory; each with its
control. Writes benchmarks/results/editing_beside_steering.json and the table of docs/editing_and_steering.md.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Model, load  # noqa: E402
from hooks.errors import EditRefused  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp import landmark  # noqa: E402
from interp.commands.background import UNSEEN  # noqa: E402
from interp.common.completion import predict_forced  # noqa: E402
from interp.common.statistics import Estimate  # noqa: E402
from interp.common.texts import begins_with  # noqa: E402
from interp.directions import probe_direction  # noqa: E402
from interp.landmark.entities import find  # noqa: E402
from interp.memory import Case, Edit, Fact  # noqa: E402
from interp.memory.editors.registry import make_editors  # noqa: E402
from interp.memory.evaluation.audit import estimate_measures  # noqa: E402
from interp.memory.evaluation.control import make_control  # noqa: E402
from interp.memory.evaluation.measurement import measure_case, measure_unedited, split_queries  # noqa: E402
from interp.memory.facts.tables import table_cases  # noqa: E402
from interp.steering import Conditional, Steering, add_direction, choose_threshold, steer  # noqa: E402
from probes import DifferenceOfMeans  # noqa: E402

NAME, DOC = "editing_beside_steering", Path(__file__).resolve().parents[1] / "docs" / "editing_and_steering.md"
REPORTED, TUNING = 0, 10_000  # seeds of the facts that are reported, and of those the dose is chosen on
DOSES, SITE, SENTENCES, DRIFT = (0.5, 1.0, 1.5, 2.0, 3.0), resid_post[3], 60, 12
WAYS = {
    "unedited": "the model as it is",
    "ROME": "one rank of one matrix",
    "steering, everywhere": "a vector at every token",
    "steering, on condition": "the same in texts that read of the subject",
    "in context": "a sentence before the text",
    "kNN memory": "a vote next to the last layer",
}
SHOWN = {
    "efficacy said": "says the new object",
    "paraphrase said": "in phrasings never seen",
    "neighbours unchanged": "neighbours unchanged",
    "others said": "subject's other facts",
    "sums": "sums",
    "drift": "drift, nats",
    "perplexity": "perplexity, ratio",
}
State = Callable[[], AbstractContextManager[Any]]


def cases(n: int, seed: int) -> list[Case]:
    """At most `n` facts whose subject and objects are all entities, so that sentences about them can be written."""
    return [
        case
        for case in table_cases(8 * n, seed)
        if all(find(name) is not None for name in (case.fact.subject, case.fact.old, case.fact.new))
    ][:n]


def meaning(model: Model, name: str) -> Any:
    """The difference of means of an entity: sentences cut off at its name, less those of others."""
    entity = landmark.entity(name)
    yes, no = landmark.sentences_about(entity, SENTENCES), landmark.sentences_about_others(entity, 2 * SENTENCES)
    positive, negative = ([s.text[: s.span[1]] for s in part] for part in (yes, no))
    return probe_direction(model, positive, negative, SITE, DifferenceOfMeans())


def steerings(model: Model, fact: Fact) -> dict[str, Steering | Conditional]:
    """Towards the new object, at every token, and where the text reads of the subject."""
    towards, subject = add_direction(meaning(model, fact.new)), meaning(model, fact.subject)
    entity = landmark.entity(fact.subject)
    naming = [s.text for s in landmark.sentences_about(entity, 40, seed=1)]
    silent = [s.text for s in landmark.sentences_about_others(entity, 40, seed=1)]
    careful = Conditional(towards, subject, choose_threshold(model, subject, naming, silent))
    return {"steering, everywhere": towards, "steering, on condition": careful}


def dose(model: Model, asked: Sequence[Case]) -> float:
    """The smallest dose at which most of some other facts are said."""
    said = dict.fromkeys(DOSES, 0)
    for case in asked:
        towards = add_direction(meaning(model, case.fact.new))
        for one in DOSES:
            with steer(model, towards, one):
                said[one] += begins_with(str(model.generate(case.fact.text, max_new_tokens=12)), case.fact.new)
    print(f"said of {len(asked)} other facts by dose: {said}", flush=True)
    return max(DOSES, key=lambda one: (said[one], -one))


def states(model: Model, fact: Fact, edits: dict[str, Any], at: float, seed: int) -> Iterator[tuple[str, State | None]]:
    """Every way, and its control drawn from the seed; None where the way was refused."""
    yield "unedited", nullcontext
    for name, editor in edits.items():
        edit = tried(editor, model, fact)
        yield name, edit and _applied(model, edit)
        yield f"{name} control", edit and _applied(model, make_control(edit, seed))
    for name, way in steerings(model, fact).items():
        yield name, _steered(model, way, at)
        yield f"{name} control", _steered(model, way.control(seed), at)


def tried(editor: Any, model: Model, fact: Fact) -> Edit | None:
    """The edit, or None where it is refused."""
    try:
        return editor(model, fact)
    except EditRefused as error:
        print(f"refused: {error}", flush=True)
        return None


def _applied(model: Model, edit: Edit) -> State:
    return lambda: edit.applied(model)


def _steered(model: Model, way: Steering | Conditional, at: float) -> State:
    @contextmanager
    def steered() -> Iterator[None]:
        with steer(model, way, at):
            yield

    return steered


def run(model: Model, asked: Sequence[Case], at: float) -> dict[str, dict[str, Estimate]]:
    """Every measure of every way over all facts; a refusal counts as the model unedited."""
    base = measure_unedited(model, [d.text[:300] for d in islice(landmark.documents(UNSEEN), DRIFT)], asked)
    made, _ = make_editors(model, ["rome", "in_context", "knn_memory"], [case.fact for case in asked])
    named = {"ROME": made["rome"], "in context": made["in_context"], "kNN memory": made["knn_memory"]}
    rows: dict[str, list[dict[str, float]]] = {}
    for number, case in enumerate(asked):
        before = predict_forced(model, *split_queries(case.neighbours)) if case.neighbours else []
        row: dict[str, float] = {}
        plain: dict[str, float] = {}
        for name, state in states(model, case.fact, named, at, number):
            if state is not None:
                with state():
                    said = str(model.generate(case.fact.text, max_new_tokens=12))
                    row = measure_case(model, case, said, before, base)
            plain = row if name == "unedited" else plain
            rows.setdefault(name, []).append(plain if state is None else row)
        print(f"{number + 1} of {len(asked)}: {case.fact.text!r} -> {case.fact.new!r}", flush=True)
    return {name: {m: e for m, e in estimate_measures(found).items() if m in SHOWN} for name, found in rows.items()}


def markdown(found: dict[str, dict[str, Estimate]]) -> str:
    """The table: a way a row, with intervals, its control in brackets."""
    lines = [f"| way | what is changed | {' | '.join(SHOWN.values())} |", "| --- | --- |" + " --- |" * len(SHOWN)]
    for name, what in WAYS.items():
        control = found.get(f"{name} control", {})
        cells = [_cell(measure, found[name][measure], control.get(measure)) for measure in SHOWN]
        lines.append(f"| {name} | {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(measure: str, e: Estimate, control: Estimate | None) -> str:
    def show(value: float) -> str:
        return f"{value:.2f}" if measure in ("drift", "perplexity") else f"{value:.0%}".replace("%", " %")

    interval = f"{show(e.low).removesuffix(' %')} to {show(e.high)}"
    return f"{show(e.value)} ({interval})" + ("" if control is None else f" [{show(control.value)}]")


def main() -> None:
    """Choose the dose, measure, write the figures and the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--facts", type=int, default=12, help="at most")
    options.add_argument("--tuned", type=int, default=4, help="other facts, on which the dose is chosen")
    options.add_argument("--model", default="landmark", help="or a folder of other weights of it")
    given = options.parse_args()
    torch.set_grad_enabled(False)
    model = load(given.model)
    at = dose(model, cases(given.tuned, TUNING))
    asked = cases(given.facts, REPORTED)
    found = run(model, asked, at)
    figures = {name: {m: vars(e) for m, e in row.items()} for name, row in found.items()}
    settings = {"facts": len(asked), "dose": at, "site": str(SITE), "model": model.fingerprint}
    write(NAME, " ".join(["python", *sys.argv]), {"settings": settings, "figures": figures})
    print(f"{RESULTS / NAME}.json\n{markdown(found)}")
    if DOC.exists():
        head, rest = DOC.read_text(encoding="utf-8").split("<!-- table -->\n", 1)
        tail = rest.split("<!-- end -->", 1)[1]
        table = f"<!-- table -->\n{markdown(found)}\n\n{len(asked)} facts; the dose is {at:g}.\n<!-- end -->"
        DOC.write_text(head + table + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
