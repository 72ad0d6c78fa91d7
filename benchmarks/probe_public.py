"""Probes on public data sets, next to every control: `python benchmarks/probe_public.py DATA MODEL...`.

DATA is a folder that holds `geometry-of-truth` (Marks and Tegmark 2023), `relations` (Hernandez et al. 2023) and
`function-vectors` (Todd et al. 2023) as their authors published them; each MODEL is a folder or a Hugging Face id.
Every label is swept over all layers at the last token, on groups not learnt from, and tested on other texts. Writes
benchmarks/results/probe_public.json.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.landmark_labels import Row, Task, labelled  # noqa: E402
from benchmarks.probe_report import figures, line  # noqa: E402
from benchmarks.timing import write  # noqa: E402
from hooks import load  # noqa: E402
from hooks.position import last  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from probes import Logistic, sweep  # noqa: E402

MOST = 300  # groups on either side


def truth(data: Path, rng: Random) -> list[Task]:
    """Is the statement true? A city is a group; elsewhere: other cities denied, in pairs, and other kinds of fact."""

    def rows(name: str, key: str, unseen: bool) -> list[Row]:
        with (data / "geometry-of-truth" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            kept = [row for row in csv.DictReader(file) if _away(row[key]) == unseen]
        some = set(rng.sample(sorted({row[key] for row in kept}), MOST))
        return [(row["statement"], row["label"] == "1", row[key]) for row in kept if row[key] in some]

    names = {"denials": "neg_cities", "either of two": "cities_cities_disj", "both of two": "cities_cities_conj"}
    others = {said: rows(name, "city1" if "two" in said else "city", True) for said, name in names.items()}
    facts = [rows("counterfact_true_false", "subject", unseen) for unseen in (False, True)]
    cities = [rows("cities", "city", unseen) for unseen in (False, True)]
    away = {name: labelled(other) for name, other in {**others, "other facts": facts[1]}.items()}
    return [
        Task("truth: cities", labelled(cities[0]), {"other cities": labelled(cities[1]), **away}),
        Task("truth: CounterFact", labelled(facts[0]), {"cities": labelled(cities[1])}),
    ]


RELATIONS = {
    "commonsense/word_sentiment": ("positive", {"positive", "negative"}),
    "commonsense/substance_phase": ("solid", {"solid", "liquid", "gas"}),
    "factual/person_plays_pro_sport": ("baseball", {"baseball", "soccer"}),
    "factual/landmark_on_continent": ("Europe", {"Europe", "Asia", "Africa", "Americas"}),
}


def relations(data: Path, _: Random) -> list[Task]:
    """Is this the object of the prompt's subject? A subject is a group; elsewhere: other subjects, another prompt."""
    found = []
    for name, (object_, among) in RELATIONS.items():
        held = json.loads((data / "relations" / f"{name}.json").read_text(encoding="utf-8"))
        sides: tuple[list[Row], list[Row]] = ([], [])
        for one in held["samples"]:
            away = _away(one["subject"])
            prompt = held["prompt_templates_zs" if away else "prompt_templates"][0]
            if one["object"] in among:
                sides[away].append((prompt.format(one["subject"]), one["object"] == object_, one["subject"]))
        said = f"{name.split('/')[1]}: {object_}"
        found.append(Task(said, labelled(sides[0]), {"other subjects and prompt": labelled(sides[1])}))
    return found


PAIRS = (("antonym", "synonym"), ("english-french", "english-spanish"), ("singular-plural", "present-past"))


def tasks_in_context(data: Path, rng: Random) -> list[Task]:
    """Which task does a pair belong to? No word is in two pairs, so that none can be learnt and tested on."""
    folder = data / "function-vectors" / "abstractive"

    def pairs(name: str) -> list[tuple[str, str]]:
        held = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return [(str(one["input"]), str(one["output"])) for one in rng.sample(held, len(held))]

    reviews = [(text, label == "positive", text) for text, label in pairs("sentiment")[: 2 * MOST]]
    half = len(reviews) // 2
    found = [Task("review: positive", labelled(reviews[:half]), {"other reviews": labelled(reviews[half:])})]
    for one, other in PAIRS:
        words: set[str] = set()
        rows: list[Row] = []
        for ours, theirs in zip(pairs(one), pairs(other), strict=False):
            if not {*ours, *theirs} & words and len({*ours, *theirs}) == 4 and len(rows) < 4 * MOST:
                words |= {*ours, *theirs}
                rows += [(f"{a}: {b}", pair is ours, a) for pair in (ours, theirs) for a, b in [pair]]
        half = len(rows) // 4 * 2
        away = labelled([(text.replace(": ", " - "), y, group) for text, y, group in rows[half:]])
        found.append(Task(f"pair: {one}, not {other}", labelled(rows[:half]), {"other pairs, a dash": away}))
    return found


def _away(name: str) -> bool:
    """Whether a subject is kept for the texts elsewhere."""
    return sum(name.encode()) % 2 == 1


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    every = [task for make in (truth, relations, tasks_in_context) for task in make(options.data, Random(0))]
    found: dict[str, Any] = {}
    for given in options.models:
        model = load(given)
        name = "/".join(Path(given).parts[-2:])
        sites = [resid_post[layer] for layer in range(model.n_layers)]
        print(name)
        for task in tqdm(every, desc=name):
            grid = sweep(model, task.examples, sites, [last], probe=Logistic(C=0.1), elsewhere=task.elsewhere)
            found.setdefault(name, {})[task.name] = {"texts": len(task.examples.texts), **figures(grid)}
            tqdm.write(line(task.name, grid))
    print(write("probe_public", "python benchmarks/probe_public.py DATA MODEL...", found))


if __name__ == "__main__":
    main()
