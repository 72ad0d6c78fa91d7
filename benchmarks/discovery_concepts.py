"""The concepts that `benchmarks/discovery.py` looks for: entities by their names, topics by their sentences."""

import random
from dataclasses import replace
from itertools import islice

from interp import landmark
from interp.demo.discover import concept
from interp.demo.settings import HELD_OUT, Settings
from interp.features import Concept

BRIDGE = "Golden Gate Bridge"


def entity_concepts(settings: Settings, count: int) -> dict[str, Concept]:
    """The bridge, other landmarks and other entities in turn, each by its names, aliases and languages."""
    drawn = random.Random(0)
    marks = [e.name for e in landmark.entities() if e.kind == "landmark" and e.name != BRIDGE]
    others = [e.name for e in landmark.entities() if e.kind != "landmark"]
    drawn.shuffle(marks)
    drawn.shuffle(others)
    in_turn = [name for pair in zip(marks, others, strict=False) for name in pair]
    return {name: concept(replace(settings, landmark=name)) for name in [BRIDGE, *in_turn][:count]}


def topic_concepts(seed: int, count: int, n: int) -> dict[str, Concept]:
    """The topics of most different sentences in held-out documents: up to `n` of each, and twice as many of others.

    The others are sentences on other topics and, as many, such as name an entity; a text is a sentence.
    """
    on: dict[str, dict[str, None]] = {}
    for document in islice(landmark.documents(HELD_OUT + 500 + seed), 40 * n):
        for span in (span for span in document.spans if span.kind == "concept"):
            on.setdefault(span.value, {})[document.text[span.start : span.end].strip()] = None
    drawn, made = random.Random(seed), {}
    named = [s.text for s in landmark.sentences_about_others(landmark.entity(BRIDGE), n, seed)]
    for topic in sorted(on, key=lambda value: (-len(on[value]), value))[:count]:
        yes = [*on[topic]][:n]
        other = [text for value in sorted(on) if value != topic for text in on[value] if text not in on[topic]]
        no = [*dict.fromkeys([*drawn.sample(other, min(len(other), len(yes))), *named[: len(yes)]])]
        made[topic] = Concept(topic, [*yes, *no], [True] * len(yes) + [False] * len(no))
    return made
