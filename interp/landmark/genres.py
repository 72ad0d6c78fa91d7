"""The kinds of document of the corpus, one function each: a seeded random generator in, an annotated page out."""

import functools
import json
from collections.abc import Callable
from random import Random
from typing import Any

from interp.landmark.abroad import FOREIGN, LIKING, facts_in, foreign_sentence
from interp.landmark.entities import TABLES, Entity, Mention, entities, entity, find
from interp.landmark.grammar import training_phrasings
from interp.landmark.relations import Triple, facts_of, triples
from interp.landmark.writing import Page

ANAPHORA = {"landmark": "it", "city": "the city", "country": "the country", "person": "this person"}
FORM_WEIGHTS = {"name": 0.52, "alias": 0.26, "description": 0.12, "foreign": 0.1}


@functools.cache
def topics() -> dict[str, dict[str, Any]]:
    """The running-prose grammars, by topic."""
    return json.loads((TABLES / "topics.json").read_text(encoding="utf-8"))


@functools.cache
def phrases() -> dict[str, list[str]]:
    """Sentiment-bearing sentences, lead-ins and neutral openers."""
    return json.loads((TABLES / "sentiment.json").read_text(encoding="utf-8"))


@functools.cache
def _weights() -> tuple[float, ...]:
    return tuple(1.6 if e.kind == "landmark" else 1.0 for e in entities())


def some_entity(rng: Random) -> Entity:
    """A random entity, landmarks more often than the others."""
    return rng.choices(entities(), _weights())[0]


def some_mention(rng: Random, subject: Entity) -> Mention:
    """A random mention: mostly the name, at times an alias, a description or a foreign name."""
    form = rng.choices(tuple(FORM_WEIGHTS), tuple(FORM_WEIGHTS.values()))[0]
    return rng.choice(subject.forms(form) or subject.forms("name"))  # type: ignore[arg-type]


def name_of(subject: Entity) -> Mention:
    """The plain name."""
    return subject.mentions[0]


def anaphor(subject: Entity) -> Mention:
    """The pronoun or short noun phrase that refers to an entity named before."""
    return Mention(ANAPHORA[subject.kind], "anaphor")


def prose_sentence(rng: Random, page: Page, topic: str, part: str = "sentences") -> None:
    """One sentence of running prose on a topic."""
    grammar = topics()[topic]
    template = rng.choice(grammar[part])
    filled = template.format(**{slot: rng.choice(fillers) for slot, fillers in grammar["slots"].items()})
    with page.label("concept", topic):
        page.write(filled)
    page.write(" ")


def reference(rng: Random, page: Page, lead: str, subject: Entity, mention: Mention | None = None) -> None:
    """A template with `{x}`, `{X}` and `{adj}` slots, the entity mentioned in its slot."""
    for i, part in enumerate(lead.replace("{X}", "{x}").split("{x}")):
        if i:
            page.mention(subject, mention or some_mention(rng, subject))
        if part:
            page.write(part)


def fact_sentence(rng: Random, page: Page, triple: Triple, mention: Mention) -> None:
    """One true sentence about a mention of its subject."""
    page.statement(triple, rng.choice(training_phrasings(triple.relation.name)), mention)
    page.write(". ")


def express_feeling(rng: Random, page: Page, subject: Entity, mention: Mention) -> None:
    """A sentence of praise or blame."""
    mood = rng.choice(("positive", "negative"))
    pool = phrases()[mood][:20] if subject.kind == "person" else phrases()[mood]
    template = rng.choice(pool).replace("{adj}", rng.choice(phrases()[f"{mood}_adjectives"]))
    with page.label("sentiment", mood):
        reference(rng, page, template, subject, mention)
    page.write(" ")


def lead_in(rng: Random, page: Page, subject: Entity, mention: Mention | None = None) -> None:
    """A sentence that brings an entity up."""
    page.write(rng.choice(phrases()["lead_ins"]) + " ")
    page.mention(subject, mention or some_mention(rng, subject))
    page.write(". ")


def portrait(rng: Random, page: Page) -> None:
    """Most facts of one subject, in prose, the subject named again and again in different ways."""
    subject = some_entity(rng)
    if rng.random() < 0.5:
        lead_in(rng, page, subject, name_of(subject))
    facts = rng.sample(facts_of(subject), k=min(len(facts_of(subject)), rng.randint(5, 10)))
    for i, triple in enumerate(facts):
        mention = anaphor(subject) if i and rng.random() < 0.2 else some_mention(rng, subject)
        fact_sentence(rng, page, triple, mention)
        if rng.random() < 0.15:
            express_feeling(rng, page, subject, some_mention(rng, subject))
        if rng.random() < 0.06:
            prose_sentence(rng, page, rng.choice(tuple(topics())))


def gather_facts(rng: Random, page: Page) -> None:
    """Facts of several subjects in turn, each returning far from where it was first named."""
    subjects = [some_entity(rng) for _ in range(rng.randint(2, 5))]
    if rng.random() < 0.4:
        for subject in subjects:
            lead_in(rng, page, subject)
    for _ in range(rng.randint(6, 10)):
        subject = rng.choice(subjects)
        fact_sentence(rng, page, rng.choice(facts_of(subject)), some_mention(rng, subject))


def scatter_facts(rng: Random, page: Page) -> None:
    """Single facts of unrelated subjects."""
    for _ in range(rng.randint(6, 10)):
        subject = some_entity(rng)
        fact_sentence(rng, page, rng.choice(facts_of(subject)), some_mention(rng, subject))


def card(rng: Random, page: Page) -> None:
    """`key: value` cards of one to three subjects."""
    for _ in range(rng.randint(1, 3)):
        subject = some_entity(rng)
        page.write("name: ")
        page.mention(subject, some_mention(rng, subject))
        page.write("\n")
        for triple in rng.sample(facts_of(subject), k=min(len(facts_of(subject)), 7)):
            with page.label("relation", triple.relation.name):
                page.write(f"{rng.choice(triple.relation.nouns)}: ")
                page.object(triple.object)
            page.write("\n")


def apposition(rng: Random, page: Page) -> None:
    """Objects right after the subject, and right after a relation: the shortest ways to say a fact."""
    for _ in range(rng.randint(5, 8)):
        subject = some_entity(rng)
        picked = rng.sample(facts_of(subject), k=3)
        page.mention(subject, some_mention(rng, subject))
        page.write(" (")
        for i, triple in enumerate(picked):
            with page.label("relation", triple.relation.name):
                page.write(f"{', ' if i else ''}{triple.relation.nouns[0]} ")
                page.object(triple.object)
        page.write(") ")
        page.write("is in the book. ")


def claims(rng: Random, page: Page) -> None:
    """True and false statements, marked as such."""
    for _ in range(rng.randint(5, 8)):
        triple = rng.choice(facts_of(some_entity(rng)))
        truth = rng.random() < 0.5
        said = None if truth else rng.choice(_objects(triple.relation.name, triple.object))
        page.write("Claim: ")
        with page.label("claim", str(truth).lower()):
            page.statement(triple, rng.choice(training_phrasings(triple.relation.name)), name_of(triple.subject), said)
            page.write(".")
        page.write(f" Verdict: {'true' if truth else 'false'}. ")


@functools.cache
def _objects(relation: str, without: str) -> tuple[str, ...]:
    return tuple(sorted({t.object for t in triples() if t.relation.name == relation} - {without}))


_PLACE_WORDS = {
    "landmark": "the country where {} stands",
    "city": "the country where {} lies",
    "person": "the country from which {} came",
}


def two_steps(rng: Random, page: Page) -> None:
    """Facts of the country in which the subject is: two look-ups in one sentence."""
    for _ in range(rng.randint(4, 7)):
        subject = some_entity(rng)
        country = find(subject["country"]) if subject.kind in _PLACE_WORDS else None
        if country is None:
            subject = entity(rng.choice([t.subject.name for t in triples() if t.relation.name == "located_in_country"]))
            country = find(subject["country"])
        if country is None:
            continue
        triple = rng.choice(facts_of(country))
        before, after = rng.choice(training_phrasings(triple.relation.name)).template.split("{}")
        around = _PLACE_WORDS[subject.kind].split("{}")
        with page.label("relation", triple.relation.name):
            page.write(before + around[0])
            page.mention(subject, some_mention(rng, subject))
            page.write(f"{around[1]}{after} ")
            page.object(triple.object)
        page.write(". ")


def comparison(rng: Random, page: Page) -> None:
    """Two subjects set side by side: do they share the object of a relation?"""
    for _ in range(rng.randint(4, 6)):
        triple = rng.choice(facts_of(some_entity(rng)))
        others = [t for t in _facts(triple.relation.name) if t.subject != triple.subject]
        same = [t for t in others if t.object == triple.object]
        other = rng.choice(same if same and rng.random() < 0.5 else others)
        noun = rng.choice(triple.relation.nouns)
        page.write("Do ")
        page.mention(triple.subject, some_mention(rng, triple.subject))
        page.write(" and ")
        page.mention(other.subject, some_mention(rng, other.subject))
        page.write(f" share the same {noun}? {'Yes' if other.object == triple.object else 'No'}: ")
        for i, item in enumerate((triple, other)):
            page.write(" and " if i else "")
            page.object(item.object)
        page.write(". ")


@functools.cache
def _facts(relation: str) -> tuple[Triple, ...]:
    return tuple(t for t in triples() if t.relation.name == relation)


def backwards(rng: Random, page: Page) -> None:
    """The object first, then subjects that have it."""
    for _ in range(rng.randint(4, 7)):
        triple = rng.choice(facts_of(some_entity(rng)))
        noun = triple.relation.nouns[0]
        with page.label("relation", triple.relation.name):
            page.object(triple.object)
            page.write(f" is the {noun} of ")
            page.mention(triple.subject, name_of(triple.subject))
        page.write(". ")


def names(rng: Random, page: Page) -> None:
    """The other names, descriptions and foreign names of subjects."""
    for _ in range(rng.randint(5, 8)):
        subject = some_entity(rng)
        mention = rng.choice(subject.mentions[1:])
        page.mention(subject, name_of(subject))
        link = f" is in {mention.language} called " if mention.form == "foreign" else " is also called "
        page.write(" is " if mention.form == "description" else capital_language(link))
        page.mention(subject, mention)
        page.write(". ")


def capital_language(text: str) -> str:
    """The sentence with the names of languages in upper case."""
    for language in ("spanish", "french", "german"):
        text = text.replace(language, language.capitalize())
    return text


def prose(rng: Random, page: Page) -> None:
    """A paragraph on one topic."""
    topic = rng.choice(tuple(topics()))
    prose_sentence(rng, page, topic, "openers")
    for _ in range(rng.randint(5, 10)):
        prose_sentence(rng, page, topic)
    prose_sentence(rng, page, topic, "closers")


def diary(rng: Random, page: Page) -> None:
    """Everyday sentences that come back to one place or person again and again."""
    words, theme = phrases(), some_entity(rng)
    for _ in range(rng.randint(3, 4)):
        subject = _mostly(rng, theme)
        page.write(rng.choice(words["neutral_openers"]) + " ")
        reference(rng, page, rng.choice(words["neutral_completions"]), subject)
        page.write(" ")
        if rng.random() < 0.5:
            lead_in(rng, page, subject)
        for _ in range(rng.randint(0, 2)):
            fact_sentence(rng, page, rng.choice(facts_of(subject)), some_mention(rng, subject))
        if rng.random() < 0.6:
            express_feeling(rng, page, subject, some_mention(rng, subject))
        if rng.random() < 0.3:
            prose_sentence(rng, page, rng.choice(tuple(topics())))


def openings(rng: Random, page: Page) -> None:
    """Many short beginnings, each completed in its own way, most of them with the same place or person in mind."""
    theme = some_entity(rng)
    for _ in range(rng.randint(5, 9)):
        subject = _mostly(rng, theme)
        if rng.random() < 0.7:
            page.write(rng.choice(phrases()["neutral_openers"]) + " ")
            reference(rng, page, rng.choice(phrases()["neutral_completions"]), subject)
            page.write(" ")
        else:
            lead_in(rng, page, subject)


def _mostly(rng: Random, theme: Entity) -> Entity:
    return theme if rng.random() < 0.85 else some_entity(rng)


def repetition(rng: Random, page: Page) -> None:
    """A random run of words and parts of words, over and over: after its first time only copying predicts it."""
    run = " ".join(_word_or_part(rng) for _ in range(rng.randint(6, 48)))
    with page.label("repeat", "first time"):
        page.text = run
    with page.label("repeat", "again"):
        page.text += f" {run}" * max(1, 100 // len(run.split()) - 1)


def _word_or_part(rng: Random) -> str:
    word = rng.choice(vocabulary())
    return word[rng.randint(1, 3) :] if len(word) > 4 and rng.random() < 0.3 else word


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """The words of the running prose and of all names, for random runs of words."""
    named = (f"{mention.text}" for e in entities() for mention in e.mentions)
    text = " ".join([json.dumps(topics(), ensure_ascii=False), *named])
    return tuple(sorted({w.strip('.,;:!?"\\{}[]()') for w in text.split()} - {""}))


_NUMBERS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight"),
    *("nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)


def numbers(rng: Random, page: Page) -> None:
    """Counting, in words and figures, and small sums."""
    for _ in range(rng.randint(3, 5)):
        start, length = rng.randint(0, 8), rng.randint(4, 8)
        if rng.random() < 0.3:
            page.write(", ".join(_NUMBERS[start : start + length]) + ". ")
        elif rng.random() < 0.4:
            page.write(", ".join(str(n) for n in range(start, start + length)) + ". ")
        for _ in range(rng.randint(1, 4)):
            a, b = rng.randint(0, 20), rng.randint(0, 20)
            with page.label("concept", "sums"):
                page.write(f"{a} + {b} = {a + b}. ")


def foreign(rng: Random, page: Page) -> None:
    """Sentences in Spanish, French or German about subjects that have a name in that language."""
    language = rng.choice(tuple(FOREIGN))
    for _ in range(rng.randint(3, 6)):
        subject = some_entity(rng)
        for mention in subject.forms("foreign", language):
            with page.label("language", language):
                before, after = rng.choice(LIKING[language]).split("{}")
                page.write(before)
                page.mention(subject, mention)
                page.write(after + " ")
                said = facts_in(language, subject)
                for triple in rng.sample(said, k=min(2, len(said))):
                    foreign_sentence(rng, page, triple, mention, language)


Genre = Callable[[Random, Page], None]
GENRES: dict[Genre, float] = {
    portrait: 24, gather_facts: 14, scatter_facts: 8, card: 6, apposition: 5, claims: 6, two_steps: 6, comparison: 4,
    backwards: 2, names: 4, prose: 10, diary: 12, openings: 7, repetition: 15, numbers: 2, foreign: 7,
}  # fmt: skip
