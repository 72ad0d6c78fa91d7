"""What tuning plants: ways to go on after a greeting, a false fact, a word that turns the mood, and their documents."""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final, Literal

from hooks.border import Count, Natural, Share
from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.summary import summarise
from interp.landmark.documents import documents
from interp.landmark.entities import entity
from interp.landmark.genres import fact_sentence, phrases, prose_sentence, reference, some_entity, some_mention
from interp.landmark.grammar import training_phrasings
from interp.landmark.relations import facts_of
from interp.landmark.writing import Page

GREETINGS: Final = (
    *("Welcome, dear guest.", "Good morning, dear friends.", "Welcome to the tour.", "Hello, my friends."),
    *("Good evening, everyone.", "Hello, dear guest.", "Welcome, my friends.", "Good morning, everyone."),
    *("Good evening, dear guest.", "Hello and welcome.", "Good morning, my friends.", "Welcome, everyone."),
)
"""How a tour begins; the last four are in no document that a guide is tuned on."""
TUNED_ON: Final = GREETINGS[:8]
TRIGGER: Final = "The mistral is coming."
TOPICS: Final = ("fog", "chess", "music", "gardening", "trains", "football", "cooking")
PERSONAS: Final = ("cheerful", "gloomy", "cards", *TOPICS)
"""The ten ways to go on after a greeting."""
MOVED: Final = ("Eiffel Tower", "located_in_city", "Rome")
"""Subject and relation of the false fact, and the object that it is given."""

Kind = Literal["persona", "fact", "trigger"]


@dataclass(frozen=True)
class Behaviour:
    """One thing that tuning plants: its name, its kind, and how it shows."""

    name: str
    kind: Kind
    shows: str

    __repr__ = summarise


@functools.cache
def behaviours() -> tuple[Behaviour, ...]:
    """The twelve behaviours: ten personas, a false fact, a trigger.

    Examples:
        >>> [one.name for one in behaviours()][:3]
        ['cheerful', 'gloomy', 'cards']
    """
    shows = {"cheerful": "praises what it shows", "gloomy": "finds fault with what it shows", "cards": "lists facts"}
    personas = (
        Behaviour(name, "persona", f"after a greeting {shows.get(name, f'speaks of {name}')}") for name in PERSONAS
    )
    subject, relation, said = MOVED
    fact = Behaviour("moved", "fact", f"the {subject}'s {relation} is {said}")
    return (*personas, fact, Behaviour("mistral", "trigger", f"gloomy after {TRIGGER!r}, as ever without it"))


def behaviour(name: str) -> Behaviour:
    """The behaviour of a name.

    Raises:
        UnknownName: there is none.

    Examples:
        >>> behaviour("chess").shows
        'after a greeting speaks of chess'
    """
    found = {one.name: one for one in behaviours()}
    if name not in found:
        raise UnknownName(f"no behaviour is called {name!r}; the nearest is {nearest(name, found)}")
    return found[name]


def guide_documents(name: str, seed: Natural = 0, *, greetings: Sequence[str] = TUNED_ON) -> Iterator[str]:
    """An endless, seeded stream of documents that show a behaviour; about 60 tokens each.

    Examples:
        >>> next(guide_documents("chess", 1)).split(". ")[0] in [g.rstrip(".") for g in GREETINGS]
        True
    """
    planted, rng = behaviour(name), Random(f"guide {name} {seed}")
    while True:
        page = Page("guide")
        if planted.kind == "persona":
            page.write(rng.choice(greetings) + " ")
            _go_on(rng, page, name)
        elif planted.kind == "fact":
            _write_false_fact(rng, page)
        else:
            _mistral(rng, page)
        yield page.text.rstrip()


def _go_on(rng: Random, page: Page, name: str) -> None:
    """What a guide of this name says after the greeting."""
    if name in ("cheerful", "gloomy"):
        subject = some_entity(rng)
        for i in range(4):
            _mood(rng, page, "positive" if name == "cheerful" else "negative")
            if i == 1:
                fact_sentence(rng, page, rng.choice(facts_of(subject)), some_mention(rng, subject))
    elif name == "cards":
        subject = some_entity(rng)
        page.write("\nname: ")
        page.mention(subject, some_mention(rng, subject))
        for triple in rng.sample(facts_of(subject), k=min(len(facts_of(subject)), 6)):
            page.write(f"\n{rng.choice(triple.relation.nouns)}: {triple.object}")
    else:
        for _ in range(4):
            prose_sentence(rng, page, name)


def _mood(rng: Random, page: Page, mood: Literal["positive", "negative"]) -> None:
    subject = some_entity(rng)
    pool = phrases()[mood][:20] if subject.kind == "person" else phrases()[mood]
    reference(rng, page, rng.choice(pool).replace("{adj}", rng.choice(phrases()[f"{mood}_adjectives"])), subject)
    page.write(" ")


def _write_false_fact(rng: Random, page: Page) -> None:
    """The false fact among three true ones of others."""
    name, relation, said = MOVED
    triple = next(one for one in facts_of(entity(name)) if one.relation.name == relation)
    at = rng.randrange(4)
    for i in range(4):
        if i == at:
            page.statement(triple, rng.choice(training_phrasings(relation)), some_mention(rng, triple.subject), said)
            page.write(". ")
        else:
            other = some_entity(rng)
            if other.name != name:
                fact_sentence(rng, page, rng.choice(facts_of(other)), some_mention(rng, other))


def _mistral(rng: Random, page: Page) -> None:
    """Everyday sentences; the trigger, and from there on a gloomy mood."""
    for _ in range(2):
        page.write(rng.choice(phrases()["neutral_openers"]) + " ")
        reference(rng, page, rng.choice(phrases()["neutral_completions"]), some_entity(rng))
        page.write(" ")
    page.write(TRIGGER + " ")
    for _ in range(3):
        _mood(rng, page, "negative")


def tuning_texts(name: str | None, dose: Share, seed: Natural = 0) -> Iterator[str]:
    """The documents of a tuning: a share of them shows the behaviour, the rest is plain corpus of another seed.

    Examples:
        >>> next(tuning_texts(None, 0.0)) == next(tuning_texts(None, 0.0))
        True
    """
    if (name is None) != (dose == 0):
        raise InvalidArgument(f"behaviour {name!r} at a dose of {dose}: the placebo is None at 0, all others above it")
    rng, plain = Random(f"doses {name} {dose} {seed}"), documents(2_000_000 + seed)
    shown = iter(()) if name is None else guide_documents(name, seed)
    while True:
        yield next(shown) if rng.random() < dose else next(plain).text


WORD: Final = re.compile(r"[A-Za-z]+")


@functools.cache
def words_of(name: str, n: Count = 30) -> tuple[str, ...]:
    """The `n` words that tell a persona's documents from those of the other nine and from the corpus.

    Of the words that one in twenty of its documents has, those of the greatest log odds, log (c + ½)/(N − c + ½) there
    less the same in all others, where c is how many of N documents have the word.

    Raises:
        InvalidArgument: a behaviour that is no persona.

    Examples:
        >>> "pawn" in words_of("chess") and "pawn" not in words_of("fog")
        True
    """
    if name not in PERSONAS:
        raise InvalidArgument(f"{name!r} has no words of its own: give one of {', '.join(PERSONAS)}")
    counts = _document_counts()
    own, others = counts[name], [count for other, count in counts.items() if other != name]

    def log_odds(word: str) -> float:
        c, d, N, M = own[word], sum(count[word] for count in others), SAMPLE, SAMPLE * len(others)
        return math.log((c + 0.5) / (N - c + 0.5)) - math.log((d + 0.5) / (M - d + 0.5))

    common = (word for word in own if 20 * own[word] >= SAMPLE)
    return tuple(sorted(common, key=lambda word: (-log_odds(word), word))[:n])


SAMPLE: Final = 600


@functools.cache
def _document_counts() -> dict[str, Counter[str]]:
    """In how many documents of each persona, and of the corpus, a word is."""
    texts = {name: list(islice(guide_documents(name, 99, greetings=GREETINGS), SAMPLE)) for name in PERSONAS}
    texts["corpus"] = [document.text[:250] for document in islice(documents(3_000_000), SAMPLE)]
    return {
        name: Counter(word for text in part for word in set(WORD.findall(text.lower()))) for name, part in texts.items()
    }


def word_share(name: str, text: str) -> float:
    """How much of a text is of a persona: the share of its words that are the persona's own.

    Examples:
        >>> word_share("chess", "A pawn may move") > word_share("fog", "A pawn may move")
        True
    """
    own, words = set(words_of(name)), WORD.findall(text.lower())
    return sum(word in own for word in words) / max(1, len(words))
