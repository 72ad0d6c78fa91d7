"""Edits on the bundled model: `python benchmarks/editing.py` edits facts singly, many at once and many in turn.

Every method: efficacy, paraphrase, neighbourhood, the subject's other facts, free generation, portability, drift,
seconds and kilobytes per edit, bootstrap intervals over facts. Writes benchmarks/results/editing.json after each part
and goes on from there when run again, then says which bars hold (benchmarks/bars.py).
Editors with a search preserve the subject's other relations, asked in phrasings that no measure uses.
`--facts 2 --counts 2 --seeds 1 --methods rome` runs a part; `--tuning` takes facts that are not reported; `--model`
takes a folder, such as that of the gated sibling, made by `interp landmark train FOLDER --architecture llama`.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bars import COMPARED, SCORES, list_bars  # noqa: E402
from benchmarks.edit_measures import before, drift, kilobytes, means, of_cases  # noqa: E402
from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Model, load  # noqa: E402
from hooks.errors import EditRefused  # noqa: E402
from interp import landmark  # noqa: E402
from interp.memory import (  # noqa: E402
    Case,
    Covariance,
    Edit,
    Fact,
    Location,
    alphaedit,
    covariances,
    emmet,
    ft_l,
    grace,
    in_context,
    knn_memory,
    locate,
    memit,
    pmet,
    rome,
    table_cases,
    table_templates,
)  # fmt: skip
from interp.memory.evaluation.control import make_control  # noqa: E402

IN_CONTEXT_AT_MOST, FT_L_AT_MOST = 5, 100  # a preamble fills the context; a full-rank change is heavy to stack
REPORTED, TUNING = 0, 10_000  # seeds of the facts that are reported, and of those that settings may be chosen on
PAIRED = ("unedited", "rome", "memit")  # singly with every seed, as the two differ by less than one seed tells
PART, TRACED = 10, 12
HOW: dict[str, Any] = {"preserve": table_templates}


@dataclass(frozen=True, eq=False)
class EditingSetup:
    """What every editor is given: the model, where the facts are, the covariance there, unrelated texts."""

    model: Model
    location: Location
    covariances: tuple[Covariance, ...]
    texts: list[str]

    @property
    def one(self) -> dict[str, Any]:
        """For an editor of one layer."""
        (c,) = [c for c in self.covariances if c.layer == self.location.layer]
        return {"covariance": c, "token": self.location.role, **HOW}

    @property
    def several(self) -> dict[str, Any]:
        """For an editor of several."""
        return {"covariance": self.covariances, "token": self.location.role, **HOW}


Method = Callable[[EditingSetup, Sequence[Fact], Sequence[Edit]], Edit]
METHODS: dict[str, Method] = {
    "rome": lambda g, facts, _: rome(g.model, facts, **g.one),
    "random": lambda g, facts, _: make_control(rome(g.model, facts, **g.one), crc32(facts[0].text.encode())),
    "ft_l": lambda g, facts, _: ft_l(g.model, facts, layer=g.location.layer),
    "emmet": lambda g, facts, _: emmet(g.model, facts, **g.one),
    "memit": lambda g, facts, _: memit(g.model, facts, **g.several),
    "pmet": lambda g, facts, _: pmet(g.model, facts, **g.several),
    "alphaedit": lambda g, facts, earlier: alphaedit(g.model, facts, earlier=earlier, **g.several),
    "grace": lambda g, facts, _: grace(g.model, facts, **HOW),
    "knn_memory": lambda g, facts, _: knn_memory(g.model, facts),
    "in_context": lambda g, facts, _: in_context(g.model, facts),
}


def singly(g: EditingSetup, name: str, asked: Sequence[Case], done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Edit and undo fact by fact, going on after the facts that are done; a refusal counts as unedited."""
    base = before(g.model, asked, g.texts)
    for case in asked[len(done) :]:
        began, edit, refusal = time.perf_counter(), None, ""
        try:
            edit = None if name == "unedited" else METHODS[name](g, [case.fact], [])
        except EditRefused as error:
            refusal = f"{case.fact.text!r}: {error}"
        seconds = time.perf_counter() - began
        with nullcontext() if edit is None else edit.applied(g.model):
            (row,) = of_cases(g.model, [case], base)
            row |= drift(g.model, base)
        size = 0.0 if edit is None else kilobytes(edit)
        yield {**row, "seconds": seconds, "kilobytes": size, "refusal": refusal}


def at_once(g: EditingSetup, name: str, asked: Sequence[Case]) -> dict[str, Any]:
    """Edit all facts in one batch and measure with it in place."""
    base, began, edit, refusals = before(g.model, asked, g.texts), time.perf_counter(), None, list[str]()
    try:
        edit = None if name == "unedited" else METHODS[name](g, [case.fact for case in asked], [])
    except EditRefused as error:
        refusals.append(str(error))
    seconds = (time.perf_counter() - began) / len(asked)
    with nullcontext() if edit is None else edit.applied(g.model):
        found = {**means(of_cases(g.model, asked, base)), **drift(g.model, base)}
    size = 0.0 if edit is None else kilobytes(edit) / len(asked)
    return {**found, "seconds": seconds, "kilobytes": size, "refused": len(refusals), "refusals": refusals}


def in_turn(g: EditingSetup, name: str, asked: Sequence[Case], counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Edit one fact after another, and measure whenever as many are in place as is asked for."""
    made: list[Edit] = []
    refusals: list[str] = []
    base, seconds = before(g.model, asked, g.texts), 0.0
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # edits that conflict are what sequences are about
        for number, case in enumerate(asked, start=1):
            began = time.perf_counter()
            try:
                edit = METHODS[name](g, [case.fact], made)
                stack.enter_context(edit.applied(g.model))
                made.append(edit)
            except EditRefused as error:
                refusals.append(f"{case.fact.text!r}: {error}")
            seconds += time.perf_counter() - began
            if number in counts:
                found = {**means(of_cases(g.model, asked[:number], base)), **drift(g.model, base)}
                size = sum(map(kilobytes, made)) / number
                about = {"refused": len(refusals), "refusals": refusals[:3]}
                yield {**found, "n": number, "seconds": seconds / number, "kilobytes": size, **about}


@dataclass
class Record:
    """The rows so far, and the facts of an unfinished one, on disk after each step."""

    name: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    parts: dict[str, list[dict[str, Any]]]

    @staticmethod
    def opened(name: str, settings: dict[str, Any]) -> "Record":
        """What an earlier run of the same settings left."""
        file = RESULTS / f"{name}.json"
        kept = json.loads(file.read_text(encoding="utf-8"))["figures"] if file.exists() else {}
        same = kept.get("settings") == settings
        return Record(name, settings, kept["rows"] if same else [], kept.get("parts", {}) if same else {})

    def write(self) -> None:
        """Write what there is."""
        figures = {"settings": self.settings, "rows": self.rows, "parts": self.parts}
        write(self.name, " ".join(["python", *sys.argv]), figures)

    def has(self, seed: int, method: str, order: str, n: int) -> bool:
        """Whether a row is there."""
        return any((r["seed"], r["method"], r["order"], r["n"]) == (seed, method, order, n) for r in self.rows)

    def add(self, seed: int, method: str, order: str, n: int, found: Mapping[str, Any]) -> None:
        """Add a row, write it, say it."""
        row = {"seed": seed, "method": method, "order": order, **found, "n": n}
        self.rows.append(row)
        self.write()
        kept_of = {k: v for k, v in row.items() if "interval" not in k and k != "each"}
        said = {k: round(v, 3) if isinstance(v, float) else v for k, v in kept_of.items()}
        print(said, flush=True)


def run(
    g: EditingSetup, record: Record, facts: Sequence[Case], seed: int, name: str, order: str, counts: Sequence[int]
) -> None:
    """Measure what is missing of one method in one order."""
    missing = [n for n in counts if not record.has(seed, name, order, n)]
    if order == "in turn" and missing:
        for found in in_turn(g, name, facts[: max(missing)], missing):
            record.add(seed, name, order, found["n"], found)
    for n in missing if order == "at once" else ():
        record.add(seed, name, order, n, at_once(g, name, facts[:n]))
    for n in missing if order == "singly" else ():
        done = record.parts.setdefault(f"{seed} {name} {n}", [])
        for row in singly(g, name, facts[:n], done):
            done.append(row)
            if len(done) % PART == 0:
                record.write()
        refusals = [row["refusal"] for row in done if row["refusal"]]
        of = means([{k: v for k, v in row.items() if k != "refusal"} for row in done])
        each = {score: [row.get(score) for row in done] for score in SCORES}
        del record.parts[f"{seed} {name} {n}"]
        record.add(seed, name, order, n, {**of, "each": each, "refused": len(refusals), "refusals": refusals[:3]})


def plan(options: argparse.Namespace) -> Iterator[tuple[int, str, str, list[int]]]:
    """Seed, method, order and counts to measure, the telling ones first."""
    names = ["unedited", *options.methods]
    most = [max(options.counts)] if options.counts else []
    for name in (name for name in names if name in COMPARED and options.facts):
        yield 0, name, "singly", [options.facts]
    tellings = (("unedited", "at once"), ("memit", "at once"), ("alphaedit", "in turn"), ("rome", "in turn"))
    for name, order in tellings:
        if name in names and most:
            yield 0, name, order, most if order == "at once" else sorted(options.counts)
    for name in (name for name in names if options.facts):
        for seed in range(options.seeds if name in PAIRED else 1):
            yield seed, name, "singly", [options.facts]
    for seed in range(options.seeds):
        for name in names:
            least = {"in_context": IN_CONTEXT_AT_MOST, "ft_l": FT_L_AT_MOST}.get(name, 10**9)
            counts = sorted(n for n in options.counts if n <= least)
            yield seed, name, "at once", counts
            if name not in ("unedited", "in_context", "random"):
                yield seed, name, "in turn", [n for n in counts if n > 1]


def ground(options: argparse.Namespace) -> EditingSetup:
    """The model with what all editors share; the covariance's texts and those for the drift are others."""
    model = load(options.model)
    said = [document.text[:400] for document in islice(landmark.documents(10_000), options.texts)]
    location = locate(model, [case.fact for case in table_cases(TRACED, TUNING)], window=options.window)
    found = covariances(model, said, location.layers, cache=options.cache)
    print(f"{location}\n{[(c.layer, c.shrinkage, c.error) for c in found]}", flush=True)
    return EditingSetup(model, location, found, unrelated(options.drift))


def unrelated(n: int) -> list[str]:
    """Texts for the drift: of what they say no edit of a table's fact is to change anything."""
    documents = landmark.documents(20_000)
    return [d.text[:400] for d in islice((d for d in documents if all(s.kind != "entity" for s in d.spans)), n)]


def main() -> None:
    """Run what is missing, write the figures and say which bars hold."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--facts", type=int, default=200, help="edited singly; 0 for none")
    asked.add_argument("--counts", type=int, nargs="*", default=[1, 10, 100, 500], help="edited together")
    asked.add_argument("--seeds", type=int, default=5)
    asked.add_argument("--window", type=int, help="layers of the editors of several")
    asked.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    asked.add_argument("--texts", type=int, default=1500, help="for the covariances")
    asked.add_argument("--drift", type=int, default=24, help="texts for the drift, which name nothing of the tables")
    asked.add_argument("--model", default="landmark")
    asked.add_argument("--name", default="editing", help="of the results")
    asked.add_argument("--cache", type=Path, help="a folder for the covariances")
    asked.add_argument("--tuning", action="store_true", help="facts that are not reported, to choose settings on")
    options = asked.parse_args()
    g = ground(options)
    same = {"texts": options.texts, "unrelated": options.drift, "tuning": options.tuning}
    record = Record.opened(options.name, {"model": g.model.fingerprint, "layers": [*g.location.layers], **same})
    largest = max([options.facts, *options.counts])
    for seed, name, order, counts in plan(options):
        facts = table_cases(largest, seed + (TUNING if options.tuning else REPORTED))
        run(g, record, facts, seed, name, order, counts)
    print("\n".join(list_bars(record.rows)))


if __name__ == "__main__":
    main()
