"""From concepts to latents to behaviour on the landmark model, against its per-token truth: `benchmarks/discovery.py`.

One dictionary per seed is trained, all in one pass over the same documents. Then: how many entities (by the last token
of their names) and topics (by passage of three sentences, its highest token counting) have a latent, or a group of at
most three, with held-out F1 of at least 0.90; how often a search with labels shuffled between texts reports p < 0.05;
for how many landmarks some dose of what was found names it at bearable fluency, next to a difference of means, a probe,
PCA, random directions and the prompt; and whether conditional steering acts where it should. Prints each figure with
the bar it has to reach and writes benchmarks/results/discovery.json.

Every finished piece is kept under --work and not repeated, and the result is written after each: killed, the same
command goes on. Hours on two cores; to see that it runs:

    python benchmarks/discovery.py --seeds 1 --entities 3 --topics 2 --landmarks 1 --nulls 3 --documents 200 \
        --tokens 20000 --sentences 40 --prompts 4 --name discovery_tiny
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import torch  # noqa: E402
from discovery_bars import in_words, side_by_side, verdicts  # noqa: E402
from discovery_concepts import BRIDGE, entity_concept, entity_concepts, topic_concepts  # noqa: E402
from timing import write  # noqa: E402

from hooks import Direction, Model, load  # noqa: E402
from hooks.position import everywhere  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp import landmark  # noqa: E402
from interp.common.statistics import share  # noqa: E402
from interp.directions import pursuit  # noqa: E402
from interp.directions.rows import capture_mean_rows  # noqa: E402
from interp.features import Concept, SearchResult, by_text, by_token, choose_candidates, search_many  # noqa: E402
from interp.landmark.genres import phrases  # noqa: E402
from interp.sae import SAE, Checkpoint, Member, TopK, activations_of, save, train_many  # noqa: E402
from interp.sae import load as load_sae  # noqa: E402
from interp.steering import (  # noqa: E402
    Conditional,
    MethodComparison,
    Names,
    Samples,
    Sampling,
    Steering,
    add_direction,
    choose_by_effect,
    choose_sparing_threshold,
    clamp_latent,
    compare_methods,
    measure_dose_response,
    steer,
)
from probes import Logistic  # noqa: E402

DOSE = 4.0  # of the steering whose condition is tried
BATCH, RATE = 1024, 2e-3  # for dictionaries this small: many short, large steps
ALL = 1 << 20  # activations kept at once: all that are read, so that each text is read once
LAYER = 3
SAMPLING = Sampling(per_prompt=4, temperature=0.7)
NEAR = (0.7, 0.85, 1.0, 1.2)  # times the dose that was best where latents were chosen by their effect
EFFECT = "SAE, chosen by effect"


class SeedRuns:
    """The dictionaries of all seeds and what is measured on them, each piece kept on disk and done once."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.model, self.given = load("landmark"), given
        read = {name: getattr(given, name) for name in ("documents", "tokens", "sentences", "latents", "k")}
        about = json.dumps([read, LAYER, asdict(SAMPLING), self.model.fingerprint], sort_keys=True)
        self.folder = Path(given.work) / hashlib.sha256(about.encode()).hexdigest()[:12]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seeds = [str(seed) for seed in range(given.seeds)]
        self.f1: dict[str, Any] = {}
        self.small: list[bool] = []
        self.moved: dict[str, Any] = {seed: {} for seed in self.seeds}
        self.gated: dict[str, Any] = {}
        self.rows: list[Any] = []
        self.table: dict[str, Any] = {}

    def piece(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under a name, from disk where it is there."""
        file = self.folder / f"{''.join(c if c.isalnum() else '-' for c in name)}.json"
        if not file.exists():
            part = file.with_suffix(".part")
            part.write_text(json.dumps(measure()), encoding="utf-8")
            part.replace(file)
        return json.loads(file.read_text(encoding="utf-8"))

    @cached_property
    def saes(self) -> list[SAE]:
        """The dictionaries, trained in one pass or read."""
        missing = [seed for seed in self.seeds if not (self.folder / f"sae-{seed}").exists()]
        if missing:
            size = (self.model.d_model, self.given.latents, self.given.k)
            members = {seed: Member(TopK(*size, seed=int(seed)), lr=RATE) for seed in missing}
            texts = landmark.unseen_texts(self.model, self.given.documents, 0)
            source = activations_of(self.model, texts, resid_post[LAYER])
            train_many(
                members,
                source,
                tokens=self.given.tokens,
                batch_size=BATCH,
                buffer=ALL,
                checkpoint=Checkpoint(self.folder / f"run-{'-'.join(missing)}", every=500_000),
            )
            for seed, member in members.items():
                save(member.sae, self.folder / f"sae-{seed}")
        return [load_sae(self.folder / f"sae-{seed}") for seed in self.seeds]

    @cached_property
    def entities(self) -> dict[str, Concept]:
        """The entities looked for."""
        return entity_concepts(self.given.entities, self.given.sentences)

    def search(self, given: Concept) -> dict[str, SearchResult]:
        """One search in the dictionary of every seed: by token where the concept is named, by text where it is not."""
        unit = by_token if given.mentions else by_text
        found = search_many(self.saes, self.model, given, unit=unit, permutations=100)
        return dict(zip(self.seeds, found, strict=True))

    def run(self) -> None:
        """All pieces, the result written after each."""
        topics = topic_concepts(0, self.given.topics, self.given.sentences)
        of = f"of {len(self.seeds)}"
        for name, one in (self.entities | topics).items():
            self.f1[name] = self.piece(f"f1 {of} {name}", lambda c=one: self.measure_f1(c))
            self.write()
        for seed in range(self.given.nulls):
            self.small += self.piece(f"null {of} {seed}", lambda s=seed: self.find_false_alarms(s))
        for seed in self.seeds:
            self.gated[seed] = self.piece(f"conditional {seed}", lambda s=seed: self.measure_conditional(int(s)))
            self.write()
        marks = [name for name in self.entities if landmark.entity(name).kind == "landmark"]
        for name in marks[: self.given.landmarks]:
            for seed, ways in self.measure_steering(name).items():
                self.moved[seed][name] = ways
            self.write()

    def measure_f1(self, given: Concept) -> dict[str, Any]:
        """By seed the held-out F1 of the latent or group that was better on the searched half, next to the probes."""
        said = {}
        for seed, result in self.search(given).items():
            group = result.group
            better = group is not None and group.score.searched_f1 > result.best.searched_f1
            score = group.score if group is not None and better else result.best
            said[seed] = {"F1": score.held_out.f1, "interval": score.interval, "by": score.name, "p": result.p_value}
            said[seed] |= {"one latent": result.best.held_out.f1, "recall": score.recall_by_form}
            said[seed] |= {"note": group.note if group else "", "probes": probes_of(result)}
        f1_text = " ".join(f"{one['F1']:.3f}" for one in said.values())
        print(f"F1 by seed {f1_text}  {given.name}: {said[self.seeds[0]]['by']}", flush=True)
        return said

    def find_false_alarms(self, seed: int) -> list[bool]:
        """By dictionary whether a search with labels shuffled between texts reports p < 0.05."""
        given = self.entities[BRIDGE]
        drawn = random.Random(seed)
        texts = drawn.sample(given.texts, min(200, len(given.texts)))
        labels = [i % 3 == 0 for i in range(len(texts))]
        drawn.shuffle(labels)
        fake = Concept("shuffled", texts, labels)
        found = search_many(self.saes, self.model, fake, unit=by_text, permutations=99, seed=seed)
        return [one.p_value < 0.05 for one in found]

    def measure_steering(self, name: str) -> dict[str, Any]:
        """By seed every way of turning one landmark up, at its own dose, on prompts the dose was not chosen on."""
        key = f"steer {self.given.prompts} {name}"
        found = cache(lambda: self.search(self.entities[name]))
        common = self.piece(key, lambda: table(self.compare_ways(name, rivals_of(found()[self.seeds[0]]))))
        said = {}
        for seed, sae in zip(self.seeds, self.saes, strict=True):
            mine = self.piece(
                f"{key} {seed}", lambda s=seed, of=sae: table(self.compare_ways(name, ways_of(of, found()[s])))
            )
            effect = self.piece(
                f"{key} {seed} by effect", lambda s=seed, of=sae: self.measure_by_effect(name, of, found()[s])
            )
            said[seed] = common | mine | effect
            best = ", ".join(f"{way} {one['naming']['value']:.2f}" for way, one in said[seed].items())
            print(f"seed {seed}  {name}: {best}", flush=True)
        return said

    def compare_ways(self, name: str, ways: Mapping[str, Steering]) -> MethodComparison:
        """Some ways side by side on neutral openings."""
        named = landmark.entity(name)
        return compare_methods(
            self.model,
            ways,
            phrases()["neutral_openers"][: self.given.prompts],
            Names(named.names, named.other_names),
            f"Let us talk about {named.text}. ",
            doses=(0.4, 0.6, 0.8, 1.0, 1.4),
            sampling=replace(SAMPLING, per_prompt=2),
            progress=False,
        )

    def measure_by_effect(self, name: str, sae: SAE, found: SearchResult) -> dict[str, Any]:
        """The latents that make the model name it on half of the openings, at doses near the best on the other half."""
        prompts = phrases()["neutral_openers"][: self.given.prompts]
        named = Names(landmark.entity(name).names, landmark.entity(name).other_names)
        sampling = replace(SAMPLING, batch_size=256)
        more = replace(sampling, per_prompt=2 * sampling.per_prompt)
        best = choose_by_effect(
            self.model, sae, choose_candidates(sae, found), prompts[::2], named, sampling=more, progress=False
        )
        doses = [times * best.dose for times in NEAR]
        response = measure_dose_response(
            self.model,
            add_direction(best.direction),
            prompts[1::2],
            named,
            doses=doses,
            sampling=sampling,
            progress=False,
        )
        steered, control = response.steered[NEAR.index(1.0)], response.control[NEAR.index(1.0)]
        some = response.best() if response.fluent() else steered
        row = entry(steered, response.unsteered) | {"of": best.direction.source}
        row["some dose"] = entry(some, response.unsteered)
        return {EFFECT: row, f"{EFFECT}: random direction": entry(control, response.unsteered)}

    def measure_conditional(self, seed: int) -> dict[str, Any]:
        """Steer only prompts that speak of the bridge: on which of some unseen ones it acts, and what it leaves."""
        learnt = entity_concept(BRIDGE, 4 * self.given.sentences, seed)
        unseen = entity_concept(BRIDGE, self.given.sentences, seed + 1000)
        fresh = [(t, on) for t, on in zip(unseen.texts, unseen.labels, strict=True) if t not in set(learnt.texts)]
        condition = find_condition(self.model, learnt)
        about = [text for text, on in zip(learnt.texts, learnt.labels, strict=True) if on]
        cut = choose_sparing_threshold(self.model, condition, about)
        steering = ways_of(self.saes[seed], self.search(self.entities[BRIDGE])[str(seed)])["SAE, add"]
        way = Conditional(steering, condition, cut)
        batches = ([text for text, _ in fresh[i : i + 32]] for i in range(0, len(fresh), 32))
        acts = torch.cat([find_changed_texts(self.model, way, batch) for batch in batches])
        on = torch.tensor([label for _, label in fresh])
        return {"acts where it should": asdict(share(acts[on])), "others bit-identical": asdict(share(~acts[~on]))}

    def write(self) -> Path:
        """Write what there is."""
        moved = {seed: marks for seed, marks in self.moved.items() if marks}
        self.rows, self.table = verdicts(self.f1, BRIDGE, self.small, moved, self.gated), side_by_side(moved)
        figures = {"model": self.model.fingerprint, "bars": self.rows, "ways": self.table}
        figures |= {"F1": self.f1, "steering": moved, "conditional": self.gated}
        return write(self.given.name, " ".join(["python", *sys.argv]), figures)


@torch.no_grad()
def find_changed_texts(model: Model, way: Conditional, batch: list[str]) -> torch.Tensor:
    """Which texts have other logits than without it, in any bit."""
    plain = model.run(batch)
    with steer(model, way, DOSE):
        changed = model.run(batch)
    return torch.tensor([not torch.equal(a, b) for a, b in zip(plain, changed, strict=True)])


def find_condition(model: Model, given: Concept) -> Direction:
    """A logistic probe on the mean activation of whole prompts, as a direction."""
    site = resid_post[LAYER]
    x, y = capture_mean_rows(model, given.texts, site, everywhere), torch.tensor(given.labels)
    return Logistic().fit(x, y).direction(site, model.fingerprint)


def ways_of(sae: SAE, found: SearchResult) -> dict[str, Steering]:
    """The ways of steering by what a search found."""
    latent = next(one.latent for one in found.latents if one.latent is not None and one.direction)
    ways = {"SAE, clamp": clamp_latent(sae, latent), "SAE, add": add_direction(sae.direction(latent))}
    if found.group is not None and found.group.score.direction is not None:
        ways["SAE, group found"] = add_direction(found.group.score.direction)
    means = found.baselines[0].direction
    return ways if means is None else ways | {"SAE, three latents": add_direction(pursuit(sae, means))}


def rivals_of(found: SearchResult) -> dict[str, Steering]:
    """The ways of steering by what the latents are compared with."""
    return {one.name.split(",")[0]: add_direction(one.direction) for one in found.baselines if one.direction}


def probes_of(found: SearchResult) -> dict[str, float]:
    """The held-out F1 of what the latents are compared with."""
    return {probe.name: probe.held_out.f1 for probe in found.baselines}


def table(found: MethodComparison) -> dict[str, Any]:
    """Per way its dose, mention rate and perplexity ratio."""
    return {way: {"dose": dose, "naming": asdict(n), "ratio": asdict(r)} for way, dose, n, r in found.rows()}


def entry(one: Samples, unsteered: Samples) -> dict[str, Any]:
    """The dose, mention rate and perplexity ratio of one condition."""
    return {"dose": one.dose, "naming": asdict(one.naming), "ratio": asdict(one.perplexity_over(unsteered))}


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    sizes = {"seeds": 5, "entities": 60, "topics": 20, "landmarks": 20, "nulls": 100, "prompts": 60}
    sizes |= {"documents": 30_000, "tokens": 4_500_000, "latents": 8192, "k": 16, "sentences": 300}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--name", default="discovery", help="of the file in benchmarks/results")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "interp-discovery"), help="kept pieces")
    measured = SeedRuns(parser.parse_args())
    measured.run()
    file = measured.write()
    print("\n".join([*in_words(measured.rows, measured.table), f"written: {file}"]))


if __name__ == "__main__":
    main()
