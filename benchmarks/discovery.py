"""From concepts to latents to behaviour on the landmark model, against its per-token truth: `benchmarks/discovery.py`.

For each seed a dictionary is trained as the demonstration trains it. Then: how many entities and topics have a latent,
or a group of at most three, with held-out F1 of at least 0.90; how often a search with labels shuffled between texts
reports p < 0.05; for how many landmarks some dose of the found latent names it at bearable fluency, beside a
difference of means, a probe, PCA, random directions and the prompt; and whether conditional steering acts where it
should. Prints each figure with the bar it has to reach and writes benchmarks/results/discovery.json.

Every finished stage of a seed is kept under --work and not repeated. Hours on two cores; to see that it runs:

    python benchmarks/discovery.py --seeds 1 --entities 3 --topics 2 --landmarks 1 --nulls 3 --documents 200 \
        --tokens 20000 --sentences 40 --prompts 4 --name discovery_tiny
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import torch  # noqa: E402
from timing import machine, write  # noqa: E402

from hooks import Model, load  # noqa: E402
from hooks.position import everywhere  # noqa: E402
from interp import landmark  # noqa: E402
from interp.demo.discover import concept, learn  # noqa: E402
from interp.demo.settings import HELD_OUT, Settings  # noqa: E402
from interp.demo.turn_up import names  # noqa: E402
from interp.directions.rows import mean_rows  # noqa: E402
from interp.estimate import bootstrap, share  # noqa: E402
from interp.features import Concept, Mention, SearchResult, by_text, by_token, search  # noqa: E402
from interp.landmark.genres import phrases  # noqa: E402
from interp.sae import SAE, save  # noqa: E402
from interp.sae import load as load_sae  # noqa: E402
from interp.steering import Conditional, adding, beside, clamping, steer, threshold_of  # noqa: E402
from probes import Logistic  # noqa: E402

F1, WANTED, FALSE, NAMED, FLUENT, CHANCE, LANDMARKS, ACTS = 0.90, 0.90, 0.05, 0.8, 3.0, 0.05, 0.8, 0.95
BRIDGE = "Golden Gate Bridge"
FOUND = ("SAE, clamp", "SAE, add")


def entity_concepts(settings: Settings, count: int) -> dict[str, Concept]:
    """The bridge and other entities, each by its names, aliases and languages."""
    others = [e.name for e in landmark.entities() if e.name != BRIDGE]
    random.Random(0).shuffle(others)
    return {name: concept(replace(settings, landmark=name)) for name in [BRIDGE, *others][:count]}


def topic_concepts(model: Model, seed: int, count: int, n: int = 3000) -> dict[str, Concept]:
    """The topics that most held-out documents express, by the spans that express them."""
    read = list(islice(landmark.documents(HELD_OUT + 500 + seed), n))
    room = model.hf.config.get_text_config().max_position_embeddings
    lengths = model.tokens([d.text for d in read]).mask.sum(1).tolist()
    read = list({d.text: d for d, length in zip(read, lengths, strict=True) if length <= room}.values())
    spans = {  # the blank at the end of a document is cut off, and a span may reach into it
        d.text: [(s.value, Mention(s.start, min(s.end, len(d.text)))) for s in d.spans if s.kind == "concept"]
        for d in read
    }
    held = [value for some in spans.values() for value in {value for value, _ in some}]
    made = {}
    for topic in sorted(set(held), key=lambda value: (-held.count(value), value))[:count]:
        mentions = {text: [m for v, m in some if v == topic] for text, some in spans.items()}
        yes, no = ([t for t, m in mentions.items() if bool(m) == on][:400] for on in (True, False))
        if min(len(yes), len(no)) >= 10:
            labels = [True] * len(yes) + [False] * len(no)
            made[topic] = Concept(topic, [*yes, *no], labels, [mentions[t] for t in (*yes, *no)])
    return made


class Seed:
    """One dictionary, and the stages measured on it; each is kept on disk and done once."""

    def __init__(self, model: Model, given: argparse.Namespace, seed: int) -> None:
        self.model, self.given, self.seed = model, given, seed
        sizes = {"documents": given.documents, "tokens": given.tokens, "sentences": given.sentences}
        self.settings = replace(Settings(), seed=seed, **sizes)
        counts = {name: getattr(given, name) for name in ("entities", "topics", "landmarks", "nulls", "prompts")}
        about = json.dumps([asdict(self.settings), counts, model.fingerprint], sort_keys=True)
        self.folder = Path(given.work) / f"{abs(hash_of(about)):x}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def stage(self, name: str, measure: Callable[[], Any]) -> Any:
        """What a stage measured, from disk where it is there."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            measured = measure()
            file.with_suffix(".part").write_text(json.dumps(measured), encoding="utf-8")
            file.with_suffix(".part").replace(file)
        return json.loads(file.read_text(encoding="utf-8"))

    @cached_property
    def sae(self) -> SAE:
        """The dictionary, trained or read."""
        if not (self.folder / "sae").exists():
            save(learn(self.model, self.settings, progress=False).sae, self.folder / "sae")
        return load_sae(self.folder / "sae")

    @cached_property
    def entities(self) -> dict[str, Concept]:
        """The entities looked for."""
        return entity_concepts(self.settings, self.given.entities)

    def search(self, given: Concept) -> SearchResult:
        """One search by token."""
        return search(self.sae, self.model, given, unit=by_token, seed=self.seed)

    def figures(self) -> dict[str, Any]:
        """All stages of this seed."""
        concepts = self.entities | topic_concepts(self.model, self.seed, self.given.topics)
        found = {name: self.stage(f"f1-{slug(name)}", lambda c=c: self.reached(c)) for name, c in concepts.items()}
        marks = [name for name in self.entities if landmark.entity(name).kind == "landmark"][: self.given.landmarks]
        return {
            "F1": found,
            "false discoveries": self.stage("false", self.false_discoveries),
            "steering": {name: self.stage(f"steer-{slug(name)}", lambda n=name: self.steered(n)) for name in marks},
            "conditional": self.stage("conditional", self.conditional),
            "machine": self.stage("machine", machine),
        }

    def reached(self, given: Concept) -> dict[str, Any]:
        """Held-out F1 of the latent or group that was better on the searched half, beside the probes."""
        result = self.search(given)
        group = result.group
        better = group is not None and group.score.searched_f1 > result.best.searched_f1
        score = group.score if group is not None and better else result.best
        said = {"F1": score.held_out.f1, "interval": score.interval, "by": score.name, "p": result.p_value}
        said |= {"recall": score.recall_by_form, "note": group.note if group else ""}
        said |= {"probes": {probe.name: probe.held_out.f1 for probe in result.baselines}}
        print(f"seed {self.seed}  F1 {score.held_out.f1:.3f}  {given.name}: {score.name}", flush=True)
        return said

    def false_discoveries(self) -> int:
        """How many searches with labels shuffled between texts report p < 0.05."""
        given, small = self.entities[BRIDGE], 0
        for seed in range(self.given.nulls):
            labels = list(given.labels)
            random.Random(seed).shuffle(labels)
            shuffled = Concept("shuffled", given.texts, labels)
            found = search(self.sae, self.model, shuffled, unit=by_text, permutations=99, seed=seed)
            small += found.p_value < 0.05
        return small

    def steered(self, name: str) -> dict[str, Any]:
        """Every way of turning one landmark up, at its own dose, on prompts the dose was not chosen on."""
        settings, result = replace(self.settings, landmark=name), self.search(self.entities[name])
        latent = next(score.latent for score in result.latents if score.latent is not None and score.direction)
        ways = {"SAE, clamp": clamping(self.sae, latent), "SAE, add": adding(self.sae.direction(latent))}
        ways |= {score.name.split(",")[0]: adding(score.direction) for score in result.baselines if score.direction}
        table = beside(
            self.model,
            ways,
            phrases()["neutral_openers"][: self.given.prompts],
            names(settings),
            f"Let us talk about {landmark.entity(name).text}. ",
            doses=settings.doses,
            sampling=settings.sampling,
            progress=False,
        )
        print(f"seed {self.seed}  {name}\n{table}", flush=True)
        return {way: {"dose": dose, "naming": asdict(n), "ratio": asdict(r)} for way, dose, n, r in table.rows()}

    def conditional(self) -> dict[str, Any]:
        """Steer only prompts that speak of the bridge: on which of some unseen ones it acts, and what it leaves."""
        learnt = self.entities[BRIDGE]
        unseen = concept(replace(self.settings, seed=self.seed + 1000))
        fresh = [(t, on) for t, on in zip(unseen.texts, unseen.labels, strict=True) if t not in set(learnt.texts)]
        condition = told_apart(self.model, learnt, self.sae)
        yes, no = ([t for t, on in zip(learnt.texts, learnt.labels, strict=True) if on == w] for w in (True, False))
        cut = threshold_of(self.model, condition, yes, no)
        way = Conditional(adding(self.search(learnt).best.direction or condition), condition, cut)
        changed, on = [], torch.tensor([label for _, label in fresh])
        for start in range(0, len(fresh), 32):
            batch = [text for text, _ in fresh[start : start + 32]]
            with torch.no_grad():
                plain = self.model.run(batch)
                with steer(self.model, way, 4.0):
                    acted = self.model.run(batch)
            changed += [not torch.equal(a, b) for a, b in zip(plain, acted, strict=True)]
        acts = torch.tensor(changed)
        return {"acts where it should": asdict(share(acts[on])), "others bit-identical": asdict(share(~acts[~on]))}


def told_apart(model: Model, given: Concept, sae: SAE) -> Any:
    """A logistic probe on the mean activation of whole prompts, as a direction."""
    assert sae.site is not None
    x, y = mean_rows(model, given.texts, sae.site, everywhere), torch.tensor(given.labels)
    return Logistic().fit(x, y).direction(sae.site, model.fingerprint)


def hash_of(text: str) -> int:
    """The same number for the same text, on any day."""
    import hashlib

    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def slug(name: str) -> str:
    """A name that a file can have."""
    return "".join(c if c.isalnum() else "-" for c in name)


def verdicts(seeds: dict[int, dict[str, Any]], nulls: int) -> list[dict[str, Any]]:
    """Each figure of "What must hold" with its bar."""
    rows = []
    for seed, figures in seeds.items():
        f1 = torch.tensor([one["F1"] for one in figures["F1"].values()])
        rows.append(bar(f"seed {seed}: concepts with F1 >= {F1}", asdict(share(f1 >= F1)), ">=", WANTED))
        bridge = figures["F1"][BRIDGE]
        rows.append(bar(f"seed {seed}: F1 of the bridge", {"value": bridge["F1"]}, ">=", F1))
    small = sum(figures["false discoveries"] for figures in seeds.values())
    tried = torch.arange(nulls * len(seeds)) < small
    rows.append(bar("searches of shuffled labels with p < 0.05", asdict(share(tried)), "<=", FALSE))
    moved = [marks for figures in seeds.values() for marks in figures["steering"].values()]
    good = torch.tensor([any(reaches(one, way) for way in FOUND) for one in moved])
    rows.append(bar("landmarks named at bearable fluency by the latent", asdict(share(good)), ">=", LANDMARKS))
    random_most = [one[f"{way}: random direction"]["naming"]["value"] for one in moved for way in FOUND if way in one]
    mean = sum(random_most) / max(1, len(random_most))
    rows.append(bar("random directions: mean mention rate", {"value": mean}, "<", CHANCE))
    for seed, figures in seeds.items():
        for name, wanted in (("acts where it should", ACTS), ("others bit-identical", ACTS)):
            rows.append(bar(f"seed {seed}: conditional steering {name}", figures["conditional"][name], ">=", wanted))
    return rows


def reaches(ways: dict[str, Any], way: str) -> bool:
    """Whether a way names its landmark often enough, fluently enough."""
    one = ways.get(way)
    return one is not None and one["naming"]["value"] >= NAMED and one["ratio"]["value"] <= FLUENT


def bar(name: str, figure: dict[str, Any], sign: str, wanted: float) -> dict[str, Any]:
    """One figure beside its bar."""
    value = figure["value"]
    reached = {">=": value >= wanted, "<=": value <= wanted, "<": value < wanted}[sign]
    return {"name": name, **figure, "bar": f"{sign} {wanted:g}", "verdict": "pass" if reached else "miss"}


def side_by_side(seeds: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Per way the mean over landmarks of mention rate and perplexity ratio, with intervals over landmarks."""
    table: dict[str, list[tuple[float, float]]] = {}
    for figures in seeds.values():
        for ways in figures["steering"].values():
            for way, one in ways.items():
                table.setdefault(way, []).append((one["naming"]["value"], one["ratio"]["value"]))
    mean = lambda drawn: drawn[0].mean().item()  # noqa: E731
    columns = {way: torch.tensor(rows, dtype=torch.float64).T for way, rows in table.items()}
    return {
        way: {"naming": asdict(bootstrap(mean, [both[0]])), "ratio": asdict(bootstrap(mean, [both[1]])),
              "landmarks": len(both[0])}
        for way, both in columns.items()
    }  # fmt: skip


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"seeds": 5, "entities": 60, "topics": 20, "landmarks": 20, "nulls": 100, "prompts": 60}
    sizes |= {name: getattr(Settings(), name) for name in ("documents", "tokens", "sentences")}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--name", default="discovery", help="of the file in benchmarks/results")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "interp-discovery"), help="kept stages")
    given, model = parser.parse_args(), load("landmark")
    seeds: dict[int, dict[str, Any]] = {}
    for seed in range(given.seeds):
        seeds[seed] = Seed(model, given, seed).figures()
        rows, table = verdicts(seeds, given.nulls), side_by_side(seeds)
        figures = {"model": model.fingerprint, "bars": rows, "ways": table, "seeds": seeds}
        file = write(given.name, " ".join(["python", *sys.argv]), figures)
    for row in rows:
        spread = f"  [{row['low']:.3f}, {row['high']:.3f}], n = {row['n']}" if "low" in row else ""
        print(f"{row['verdict']:<5}{row['value']:>7.3f}  {row['bar']:<8} {row['name']}{spread}")
    for way, one in table.items():
        n, r = one["naming"], one["ratio"]
        print(f"{way:<36} names it {n['value']:.2f} [{n['low']:.2f}, {n['high']:.2f}], perplexity ratio "
              f"{r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}], {one['landmarks']} landmarks")  # fmt: skip
    print(f"written: {file}")


if __name__ == "__main__":
    main()
