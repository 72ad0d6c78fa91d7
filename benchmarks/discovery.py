"""From concepts to latents to behaviour on the landmark model, against its per-token truth: `benchmarks/discovery.py`.

For each seed a dictionary is trained as the demonstration trains it. Then: how many entities and topics have a latent,
or a group of at most three, with held-out F1 of at least 0.90; how often a search with labels shuffled between texts
reports p < 0.05; for how many landmarks some dose of the found latent names it at bearable fluency, beside adding the
latent, a difference of means, a probe, PCA and the prompt; and whether conditional steering acts where it should.
Prints each figure with the bar it has to reach and writes benchmarks/results/discovery.json. Hours on two cores:
`--seeds 1 --entities 3 --topics 2 --landmarks 1 --nulls 5 --documents 200 --tokens 20000` only shows that it runs.
"""

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import torch  # noqa: E402
from timing import write  # noqa: E402

from hooks import Model, load  # noqa: E402
from interp import landmark  # noqa: E402
from interp.demo.discover import concept, learn  # noqa: E402
from interp.demo.settings import Settings  # noqa: E402
from interp.demo.turn_up import names  # noqa: E402
from interp.features import Concept, Mention, SearchResult, by_text, by_token, search  # noqa: E402
from interp.landmark.genres import phrases  # noqa: E402
from interp.sae import SAE  # noqa: E402
from interp.steering import Conditional, adding, beside, clamping, projections, steer, threshold_of  # noqa: E402

BAR, WANTED, BRIDGE = 0.90, 0.90, "Golden Gate Bridge"


def entity_concepts(settings: Settings, count: int) -> dict[str, Concept]:
    """The bridge and other entities, each by its names, aliases and languages."""
    others = [e.name for e in landmark.entities() if e.name != BRIDGE]
    random.Random(0).shuffle(others)
    return {name: concept(replace(settings, landmark=name)) for name in [BRIDGE, *others][:count]}


def topic_concepts(seed: int, count: int, n: int = 3000) -> dict[str, Concept]:
    """Topics that many documents express, by the spans that express them."""
    from itertools import islice

    read = list(islice(landmark.documents(9000 + seed), n))
    spans = [[(s.value, Mention(s.start, s.end)) for s in d.spans if s.kind == "concept"] for d in read]
    values = sorted({value for some in spans for value, _ in some})
    often = sorted(values, key=lambda v: -sum(any(v == value for value, _ in some) for some in spans))[:count]
    made = {}
    for topic in often:
        mentions = {d.text: [m for v, m in some if v == topic] for d, some in zip(read, spans, strict=True)}
        yes, no = ([t for t, m in mentions.items() if bool(m) == on][:400] for on in (True, False))
        if len(yes) >= 20:
            made[topic] = Concept(
                topic, [*yes, *no], [True] * len(yes) + [False] * len(no), [mentions[t] for t in (*yes, *no)]
            )
    return made


def reached(found: SearchResult) -> float:
    """The held-out F1 of the latent or group that was better on the searched half."""
    group = found.group
    better = group is not None and group.score.searched_f1 > found.best.searched_f1
    return (group.score if group is not None and better else found.best).held_out.f1


def false_discoveries(sae: SAE, model: Model, given: Concept, count: int) -> float:
    """The share of searches with labels shuffled between texts that report p < 0.05."""
    small = 0
    for seed in range(count):
        labels = list(given.labels)
        random.Random(seed).shuffle(labels)
        shuffled = Concept("shuffled", given.texts, labels)
        small += search(sae, model, shuffled, unit=by_text, permutations=99, seed=seed).p_value < 0.05
    return small / count


def steered(sae: SAE, model: Model, found: SearchResult, settings: Settings) -> dict[str, object]:
    """Every way of turning one landmark up, at its own dose, on prompts the dose was not chosen on."""
    directions = {score.name: score.direction for score in found.baselines}
    ways = {"SAE, clamp": clamping(sae, found.best.latent), "SAE, add": adding(sae.direction(found.best.latent))}
    ways |= {name: adding(direction) for name, direction in directions.items()}
    table = beside(
        model,
        ways,
        phrases()["neutral_openers"],
        names(settings),
        f"Let us talk about the {settings.landmark}. ",
        doses=settings.doses,
        sampling=settings.sampling,
        progress=False,
    )
    print(table)
    return {
        name: {"dose": dose, "naming": vars(naming), "perplexity ratio": vars(ratio)}
        for name, dose, naming, ratio in table.rows()
    }


def conditional(model: Model, found: SearchResult, given: Concept) -> dict[str, float | bool]:
    """Steer only texts that name the concept: how often it acts rightly, and whether the others keep every bit."""
    condition = next(score.direction for score in found.baselines if score.name == "logistic probe")
    yes, no = ([t for t, label in zip(given.texts, given.labels, strict=True) if label == on] for on in (True, False))
    cut = threshold_of(model, condition, yes[::2], no[::2])
    hits = projections(model, condition, yes[1::2]) > cut
    alarms = projections(model, condition, no[1::2]) > cut
    quiet = [text for text, on in zip(no[1::2], alarms.tolist(), strict=True) if not on][:32]
    with torch.no_grad(), steer(model, Conditional(adding(found.best.direction), condition, cut), 4.0):
        acted = model.run(quiet)
    with torch.no_grad():
        same = torch.equal(acted, model.run(quiet))
    figures = {"true positives": float(hits.double().mean()), "false positives": float(alarms.double().mean())}
    return figures | {"others bit-identical": same}


def one_seed(model: Model, given: argparse.Namespace, seed: int) -> dict[str, object]:
    """All figures of one dictionary."""
    settings = replace(Settings(), seed=seed, documents=given.documents, tokens=given.tokens)
    sae = learn(model, settings, progress=False).sae
    entities, topics = entity_concepts(settings, given.entities), topic_concepts(seed, given.topics)
    found = {name: search(sae, model, c, unit=by_token, seed=seed) for name, c in (entities | topics).items()}
    f1 = {name: reached(result) for name, result in found.items()}
    for name, value in f1.items():
        print(f"seed {seed}  {value:.3f}  {name}  {found[name].group.note if found[name].group else ''}")
    marks = [name for name in entities if landmark.entity(name).kind == "landmark"][: given.landmarks]
    moved = {name: steered(sae, model, found[name], replace(settings, landmark=name)) for name in marks}
    return {
        "share with F1 >= 0.90": sum(value >= BAR for value in f1.values()) / len(f1),
        "the bridge": f1[BRIDGE],
        "F1": f1,
        "false discoveries": false_discoveries(sae, model, entities[BRIDGE], given.nulls),
        "steering": moved,
        "conditional": conditional(model, found[BRIDGE], entities[BRIDGE]),
    }


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {"seeds": 5, "entities": 60, "topics": 20, "landmarks": 20, "nulls": 100}
    defaults |= {"documents": Settings().documents, "tokens": Settings().tokens}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given, model = parser.parse_args(), load("landmark")
    seeds = {seed: one_seed(model, given, seed) for seed in range(given.seeds)}
    for seed, figures in seeds.items():
        share, bridge = figures["share with F1 >= 0.90"], figures["the bridge"]
        print(f"seed {seed}: {share:.2f} of concepts (bar {WANTED}), the bridge {bridge:.2f} (bar {BAR})")
        print(f"  false discoveries {figures['false discoveries']:.2f} (bar 0.05); {figures['conditional']}")
    print(write("discovery", " ".join(sys.argv), seeds))


if __name__ == "__main__":
    main()
