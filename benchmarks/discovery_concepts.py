"""The concepts that `benchmarks/discovery.py` looks for: entities by their names, topics by passages on them."""

import random
from collections.abc import Iterator
from itertools import islice, pairwise

from interp import landmark
from interp.features import Concept
from interp.landmark.writing import Document

BRIDGE = "Golden Gate Bridge"
SENTENCES = 3  # of a passage on a topic


def entity_concept(name: str, sentences: int, seed: int) -> Concept:
    """Sentences that name an entity, by alias or in another language too, and twice as many about everything else."""
    entity = landmark.entity(name)
    about = landmark.sentences_about(entity, sentences, seed, forms=("name", "alias", "foreign"))
    return Concept.of_sentences(entity.text, about, landmark.sentences_about_others(entity, 2 * sentences, seed))


def entity_concepts(count: int, sentences: int) -> dict[str, Concept]:
    """The bridge, other landmarks and other entities in turn, each by its names, aliases and languages."""
    drawn = random.Random(0)
    marks = [e.name for e in landmark.entities() if e.kind == "landmark" and e.name != BRIDGE]
    others = [e.name for e in landmark.entities() if e.kind != "landmark"]
    drawn.shuffle(marks)
    drawn.shuffle(others)
    in_turn = [name for pair in zip(marks, others, strict=False) for name in pair]
    return {name: entity_concept(name, sentences, 0) for name in [BRIDGE, *in_turn][:count]}


def topic_concepts(seed: int, count: int, n: int) -> dict[str, Concept]:
    """The topics of most passages in held-out documents: up to `n` of each, and twice as many of others.

    The others are passages on other topics and, as many, sentences that name an entity; a text is a passage.
    """
    on: dict[str, dict[str, None]] = {}
    for document in islice(landmark.documents(landmark.UNSEEN + 500 + seed), 200 * n):
        for topic, passage in passages(document):
            on.setdefault(topic, {})[passage] = None
    drawn, made = random.Random(seed), {}
    named = [s.text for s in landmark.sentences_about_others(landmark.entity(BRIDGE), n, seed)]
    for topic in sorted(on, key=lambda value: (-len(on[value]), value))[:count]:
        yes = [*on[topic]][:n]
        other = [text for value in sorted(on) if value != topic for text in on[value] if text not in on[topic]]
        no = [*dict.fromkeys([*drawn.sample(other, min(len(other), len(yes))), *named[: len(yes)]])]
        made[topic] = Concept(topic, [*yes, *no], [True] * len(yes) + [False] * len(no))
    return made


def passages(document: Document) -> Iterator[tuple[str, str]]:
    """Each topic that sentences in a row are on, with every three of them."""
    spans, start = [span for span in document.spans if span.kind == "concept"], 0
    while start < len(spans):
        row = spans[start : start + SENTENCES]
        gaps = [document.text[a.end : b.start].strip() for a, b in pairwise(row)]
        if len(row) == SENTENCES and len({span.value for span in row}) == 1 and not any(gaps):
            yield row[0].value, document.text[row[0].start : row[-1].end].strip()
            start += SENTENCES
        else:
            start += 1
