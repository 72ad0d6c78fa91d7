"""What the worlds `lists` and `steps` and the bundled model take from their context, each figure with its control.

`python benchmarks/context.py`. Writes benchmarks/results/context.json. `--part NAME` measures one part and keeps the
others' figures; `--world NAME FOLDER` takes a world's model from a folder of a training.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from benchmarks.timing import write  # noqa: E402
from hooks import Model, load  # noqa: E402
from interp import landmark  # noqa: E402
from interp.common.completion import says  # noqa: E402
from interp.common.statistics import share  # noqa: E402
from interp.context import (  # noqa: E402
    Conflict,
    PairTask,
    StepCase,
    attribute_conflict,
    back_patch,
    find_function_vector,
    find_task_vector,
    measure_demonstrations,
    measure_head_effects,
    measure_steps,
    measure_transfer,
    scale_heads,
    swap_bridges,
)
from interp.worlds import load_world, steps  # noqa: E402
from interp.worlds.lists import MADE_UP, facts, unseen_entities  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "context.json"
FOLDERS: dict[str, str] = {}
RELATIONS = ("capital", "currency", "official_language", "continent")


def world_model(name: str) -> Model:
    """The bundled model of a world, or one from the folder given."""
    return load(FOLDERS[name]) if name in FOLDERS else load_world(name)


def demonstrations() -> dict[str, Any]:
    """Ten shots of entities held out of lists, and what each change of the demonstrations costs."""
    model, found = world_model("lists"), {}
    for relation in RELATIONS:
        shown = [(x, y) for x, y in facts()[relation].items() if x not in unseen_entities(relation)]
        asked = [(x, facts()[relation][x]) for x in sorted(unseen_entities(relation))]
        rng, task = Random(relation), PairTask(relation, tuple(facts()[relation].items()))
        prompts = [task.write(rng.sample(shown, 8), x) for x, _ in asked]
        unseen = share(torch.tensor(says(model, prompts, [y for _, y in asked])))
        changed = measure_demonstrations(model, task, shots=8, n=100, words=[*MADE_UP])
        print(relation, "held-out entities", unseen, changed, sep="\n")
        found[relation] = {
            "held-out entities": asdict(unseen),
            "says the true label": {c: asdict(e) for c, e in changed.accuracy.items()},
            "cost": {c: asdict(e) for c, e in changed.cost.items()},
            "follows": {c: asdict(e) for c, e in changed.followed.items()},
        }
    return found


def vectors() -> dict[str, Any]:
    """Function and task vectors, heads chosen on one half of the pairs and reported on the other."""
    model, found, kept = world_model("lists"), {}, {}
    halves = {r: PairTask(r, tuple(facts()[r].items())).halves() for r in RELATIONS}
    for relation, (first, _) in halves.items():
        effects = measure_head_effects(model, first, n=60)
        heads = [(layer, head) for layer, head, _ in effects.top(6)]
        kept[relation] = heads, find_function_vector(model, first, heads, n=60)
        print(effects)
        found[relation] = {"heads": effects.top(6), "largest effect of the control": float(effects.control.max())}
    for relation, (first, second) in halves.items():
        heads, vector = kept[relation]
        others = [v for r, (_, v) in kept.items() if r != relation][:1]
        transfer = measure_transfer(
            model, second, vector, heads, task_vector=find_task_vector(model, first, n=60), others=others
        )
        print(transfer)
        found[relation]["says the label"] = {name: asdict(e) for name, e in transfer.by.items()}
    return found


def conflicts() -> dict[str, Any]:
    """Lists that say of an entity what is true of another, and one head scaled, on other prompts and relations."""
    model, sets = world_model("lists"), {}
    for relation in ("capital", "currency", "national_dish"):
        rng, of = Random(relation), facts()[relation]
        rows = []
        for x in rng.sample(sorted(of), 40):
            other = next(y for y in rng.sample(sorted({*of.values()}), 20) if y != of[x])
            third, fourth = rng.sample([e for e in sorted(of) if e != x], 2)
            rows.append((f"{third} : {of[third]} ; {x} : {other} ; {fourth} : {of[fourth]} ; {x} :", other, of[x]))
        sets[relation] = rows

    def conflict(rows: list[tuple[str, str, str]]) -> Conflict:
        return Conflict(*(tuple(column) for column in zip(*rows, strict=True)))  # type: ignore[arg-type]

    scores = attribute_conflict(model, conflict(sets["capital"][:20]))
    heads = [(layer, head) for layer, head, _ in scores.top(1)]
    print(scores)
    found: dict[str, Any] = {"heads": scores.top(3), "control of the first": float(scores.control[heads[0]])}
    for relation, rows in sets.items():
        scaled = scale_heads(model, conflict(rows[20:]), heads, (-2.0, 0.0, 1.0, 2.0, 4.0))
        found[relation] = {who: {str(f): asdict(s) for f, s in by.items()} for who, by in scaled.items()}
        print(
            relation, {who: {f: (s.context.value, s.memory.value) for f, s in by.items()} for who, by in scaled.items()}
        )
    return found


def _cases(unseen: bool, n: int) -> list[StepCase]:
    rng, cases = Random(f"cases {unseen}"), []
    for second, first, x in rng.sample(steps.combinations()[unseen], n):
        bridge, answer = steps.first_hops()[first][x], steps.answer(second, first, x)
        wrong = next(b for b in rng.sample(sorted(steps.second_hops()[second]), 60)
                     if steps.second_hops()[second][b] != answer and b != bridge)  # fmt: skip
        front = f"{steps.question(second, first, x)} :"
        partial = (f"{front} - - - - - - - - - is", f"{front} {first} of {x} is {bridge} , - - - is",
                   steps.written_prompt(second, first, x))  # fmt: skip
        misled, follows = steps.written_prompt(second, first, x, wrong), steps.second_hops()[second][wrong]
        asked, filled = steps.direct_prompt(second, first, x), steps.filler_prompt(second, first, x)
        cases.append(StepCase(asked, partial, filled, misled, answer, follows, steps.reworded(second, first, x)))
    return cases


def written_steps() -> dict[str, Any]:
    """Direct, written steps, filler and mistakes, on combinations that were trained and that never were."""
    model, found = world_model("steps"), {}
    for name, unseen in (("trained combinations", False), ("held-out combinations", True)):
        effects = measure_steps(model, _cases(unseen, 120))
        print(name, effects, sep="\n")
        found[name] = {
            "right": {k: asdict(e) for k, e in effects.right.items()},
            "a mistake is followed": asdict(effects.follows),
            "same answer by share of the steps": {str(k): asdict(e) for k, e in effects.same.items()},
            "area over the curve": asdict(effects.aoc),
            "same answer after reworded steps": asdict(effects.same_reworded) if effects.same_reworded else None,
        }
    return found


def bridges() -> dict[str, Any]:
    """Bridges of `steps` read and swapped: asked at once, and where the bridge is written."""
    model, found = world_model("steps"), {}
    rng = Random("bridges")
    of = [c for c in steps.combinations()[False] if c[0] == "capital" and c[1] == "country"]
    chosen = rng.sample(of, 30)
    names = [x for _, _, x in chosen]
    between = [steps.first_hops()[first][x] for _, first, x in chosen]
    answers = [steps.answer(*c) for c in chosen]
    for name, form, mention in (
        ("direct, at the entity", steps.direct_prompt, names),
        ("direct, at the last token", steps.direct_prompt, ["is"] * 30),
        ("written steps, at the bridge", steps.written_prompt, between),
    ):
        for component in ("whole", "read"):
            swap = swap_bridges(model, [form(*c) for c in chosen], mention, between, answers, component=component)
            print(name, component, swap, sep="\n")
            found[f"{name}, {component}"] = {
                "verdict": swap.verdict,
                "kept": asdict(swap.kept),
                "read, nats": {str(k): asdict(e) for k, e in swap.read.items()},
                "swapped": {str(k): asdict(e) for k, e in swap.swapped.items()},
                "third": {str(k): asdict(e) for k, e in swap.third.items()},
                "more": {str(k): asdict(e) for k, e in swap.more.items()},
            }
    return found


def hopping_too_late() -> dict[str, Any]:
    """Back-patching on the bundled model, which knows both hops and was never asked both at once."""
    model = load("landmark")
    marks = [e for e in landmark.entities() if e.kind == "landmark"]
    nation = {e.text: e for e in landmark.entities() if e.kind == "country"}
    rows = [(e, nation[e["country"]]["capital"]) for e in marks if e["country"] in nation]
    rows = [(e, capital) for e, capital in rows if capital != e["city"]]
    prompts = [f"The capital of the country of {e.text} is" for e, _ in rows]
    found = back_patch(model, prompts, [e.text for e, _ in rows], [capital for _, capital in rows])
    print(found)
    return asdict(found)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "demonstrations": demonstrations,
    "vectors": vectors,
    "conflicts": conflicts,
    "written steps": written_steps,
    "bridges": bridges,
    "hopping too late": hopping_too_late,
}


def main() -> None:
    """Measure the parts that are asked for and write them among those measured before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--world", nargs=2, action="append", default=[], metavar=("NAME", "FOLDER"))
    given = parser.parse_args()
    FOLDERS.update({name: folder for name, folder in given.world})
    found = json.loads(RESULTS.read_text(encoding="utf-8"))["figures"] if RESULTS.exists() else {}
    for name in given.part or PARTS:
        found[name] = PARTS[name]()
        write("context", "python benchmarks/context.py", found)


if __name__ == "__main__":
    main()
