"""The concepts that `benchmarks/discovery.py` looks for: entities by their names, topics by what expresses them."""

import random
from dataclasses import replace
from itertools import islice

from hooks import Model
from interp import landmark
from interp.demo.discover import concept
from interp.demo.settings import HELD_OUT, Settings
from interp.features import Concept, Mention

BRIDGE = "Golden Gate Bridge"
SHORT = 600  # characters of a document that is searched for topics, at most


def entity_concepts(settings: Settings, count: int) -> dict[str, Concept]:
    """The bridge, other landmarks and other entities in turn, each by its names, aliases and languages."""
    drawn = random.Random(0)
    marks = [e.name for e in landmark.entities() if e.kind == "landmark" and e.name != BRIDGE]
    others = [e.name for e in landmark.entities() if e.kind != "landmark"]
    drawn.shuffle(marks)
    drawn.shuffle(others)
    in_turn = [name for pair in zip(marks, others, strict=False) for name in pair]
    return {name: concept(replace(settings, landmark=name)) for name in [BRIDGE, *in_turn][:count]}


def topic_concepts(model: Model, seed: int, count: int, n: int) -> dict[str, Concept]:
    """The topics that most held-out documents express, by the sentences that do: `n` documents of each, 2 `n` without.

    Documents are short ones, so that a reading takes seconds; the last token of a sentence on the topic is positive.
    """
    drawn = islice((d for d in landmark.documents(HELD_OUT + 500 + seed) if len(d.text) <= SHORT), 40 * n)
    read = {d.text: d for d in drawn}
    spans = {  # the blank at the end of a document is cut off, and a span may reach into it
        d.text: [(s.value, Mention(s.start, min(s.end, len(d.text)))) for s in d.spans if s.kind == "concept"]
        for d in read.values()
    }
    room = model.hf.config.get_text_config().max_position_embeddings
    lengths = dict(zip(spans, model.tokens(list(spans)).mask.sum(1).tolist(), strict=True))
    spans = {text: some for text, some in spans.items() if lengths[text] <= room}
    held = [value for some in spans.values() for value in {value for value, _ in some}]
    made = {}
    for topic in sorted(set(held), key=lambda value: (-held.count(value), value))[:count]:
        mentions = {text: [m for v, m in some if v == topic] for text, some in spans.items()}
        yes = [text for text, some in mentions.items() if some][:n]
        no = [text for text, some in mentions.items() if not some][: 2 * n]
        labels = [True] * len(yes) + [False] * len(no)
        made[topic] = Concept(topic, [*yes, *no], labels, [mentions[text] for text in (*yes, *no)])
    return made
