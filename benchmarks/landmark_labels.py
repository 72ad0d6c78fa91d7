"""Labelled texts of the bundled model's world: types, relations, language and sentiment, each with texts elsewhere."""

from collections import Counter
from dataclasses import dataclass
from random import Random

from interp import landmark
from interp.landmark.abroad import FOREIGN, LIKING, facts_in, foreign_sentence
from interp.landmark.entities import Entity, Mention
from interp.landmark.genres import fact_sentence, phrases
from interp.landmark.relations import facts_of
from interp.landmark.writing import Page, capitalise
from probes import Examples

Row = tuple[str, bool, str]
LEADS = ("Let me tell you about", "Last summer we went to see", "Everyone should know about")


@dataclass(frozen=True)
class Task:
    """A label, texts to learn it from, and others for transfer."""

    name: str
    examples: Examples
    elsewhere: dict[str, Examples]


def tasks(seed: int = 0) -> list[Task]:
    """Every label."""
    rng = Random(seed)
    kinds = [_kind(kind) for kind in ("landmark", "country", "city", "person")]
    relations = [_relation(rng, *pair) for pair in RELATIONS]
    return [*kinds, *relations, *(_language(rng, language) for language in FOREIGN), _sentiment(rng)]


RELATIONS = (("landmark", "located_in_city"), ("country", "capital"), ("person", "occupation"))


def held_out(subject: Entity) -> bool:
    """Whether a subject is kept for the texts elsewhere: a quarter of them."""
    return sum(subject.name.encode()) % 4 == 0


def _kind(kind: str) -> Task:
    """Is this a landmark (a country, ...)? Read at the name's last token; elsewhere: other names of unseen entities."""
    every = landmark.entities()
    borne = Counter(text for e in every for text in {m.text for m in e.mentions})
    rows, others = [], []
    for e in every:
        for m in e.mentions:
            if borne[m.text] > 1 or m.form not in ("name", "alias", "foreign"):
                continue
            said = [(f"{lead} {m.text}", e.kind == kind, f"{e.kind}:{e.name}") for lead in LEADS]
            if held_out(e):
                others += said if m.form != "name" else []
            elif m.form == "name":
                rows += said
    return Task(f"type: {kind}", labelled(rows), {"aliases of unseen entities": labelled(others)})


def _relation(rng: Random, kind: str, name: str) -> Task:
    """Is this relation asked for, of all that its subjects have? Groups are templates; elsewhere: held-out ones."""
    subjects = [e for e in landmark.entities() if e.kind == kind]
    rows, others = [], []
    for relation in dict.fromkeys(t.relation.name for t in landmark.triples() if t.subject.kind == kind):
        for phrasing in landmark.phrasings(relation):
            often = (4 if relation == name else 1) * (3 if phrasing.held_out else 1)
            side = [s for s in subjects if held_out(s) == phrasing.held_out]
            picked = rng.sample(side, min(often, len(side)))
            said = [(phrasing.template.format(s.text), relation == name, phrasing.template) for s in picked]
            (others if phrasing.held_out else rows).extend(said)
    return Task(f"relation: {name}", labelled(rows), {"unseen phrasings and subjects": labelled(others)})


def _language(rng: Random, language: str) -> Task:
    """Is this the language? Learnt from likings, among all four languages; elsewhere: facts about unseen subjects."""
    rows, others = [], []
    for e in landmark.entities():
        for message in FOREIGN:
            for m in e.forms("foreign", message):
                if held_out(e):
                    for t in rng.sample(facts_in(message, e), min(1, len(facts_in(message, e)))):
                        page = Page("sentence")
                        foreign_sentence(rng, page, t, m, message)
                        others.append((page.text.rstrip(), message == language, e.name))
                else:
                    text = capitalise(rng.choice(LIKING[message]).format(m.text))
                    rows.append((text, message == language, e.name))
        if held_out(e):
            page = Page("sentence")
            fact_sentence(rng, page, rng.choice(facts_of(e)), Mention(e.text, "name"))
            others.append((page.text.rstrip(), False, e.name))
        else:
            rows.append((f"{rng.choice(LEADS)} {e.text}.", False, e.name))
    return Task(f"language: {language}", labelled(rows), {"facts about unseen subjects": labelled(others)})


def _sentiment(rng: Random) -> Task:
    """Praise or blame? Groups are templates; elsewhere: other templates and adjectives, about people."""
    words, rows, others = phrases(), [], []
    people = [e for e in landmark.entities() if e.kind == "person"]
    places = [e for e in landmark.entities() if e.kind != "person"]
    for mood in ("positive", "negative"):
        adjectives = words[f"{mood}_adjectives"]
        for i, template in enumerate(words[mood]):
            away = i % 2 == 1
            if away and i >= 20:  # the first 20 can be said of people
                continue
            for e in rng.sample(people if away else places, 6):
                adjective = rng.choice(adjectives[1::2] if away else adjectives[::2])
                x = e.text
                text = template.replace("{adj}", adjective).replace("{X}", capitalise(x)).replace("{x}", x)
                (others if away else rows).append((text, mood == "positive", template))
    return Task("sentiment: praise", labelled(rows), {"unseen templates, of people": labelled(others)})


def labelled(rows: list[Row]) -> Examples:
    """Labelled texts without repetitions."""
    texts, labels, groups = zip(*dict.fromkeys(rows), strict=True)
    return Examples(texts, labels, groups)
