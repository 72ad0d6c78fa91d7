"""The stream of annotated documents: which genres, how often, and the labelled sentences that tools are tested on."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.landmark.abroad import LIKING, facts_in, foreign_sentence
from interp.landmark.entities import Entity, Form, Mention
from interp.landmark.genres import GENRES, express_feeling, fact_sentence, lead_in, some_entity, some_mention
from interp.landmark.relations import facts_of
from interp.landmark.writing import Document, Page


def documents(seed: Natural = 0) -> Iterator[Document]:
    """An endless, seeded stream of documents, in the proportions of `GENRES`.

    Examples:
        >>> next(documents(seed=1)) == next(documents(seed=1))
        True
    """
    rng = Random(seed)
    genres, weights = tuple(GENRES), tuple(GENRES.values())
    while True:
        genre = rng.choices(genres, weights)[0]
        page = Page(genre.__name__)
        genre(rng, page)
        page.text = page.text.rstrip()
        yield page.finish()


@dataclass(frozen=True)
class Sentence:
    """A sentence naming one entity; the characters of the mention without its article, its form and its language."""

    text: str
    entity: str
    span: tuple[int, int]
    form: Form
    language: str

    __repr__ = summarise


def _english(rng: Random, page: Page, subject: Entity, mention: Mention) -> None:
    kind = rng.choice(("fact", "feeling", "lead_in"))
    if kind == "fact":
        fact_sentence(rng, page, rng.choice(facts_of(subject)), mention)
    elif kind == "feeling":
        express_feeling(rng, page, subject, mention)
    else:
        lead_in(rng, page, subject, mention)


def _abroad(rng: Random, page: Page, subject: Entity, mention: Mention) -> None:
    said = facts_in(mention.language, subject)
    if said and rng.random() < 0.5:
        foreign_sentence(rng, page, rng.choice(said), mention, mention.language)
    else:
        before, after = rng.choice(LIKING[mention.language]).split("{}")
        page.write(before)
        page.mention(subject, mention)
        page.write(after)


def _sentence(rng: Random, subject: Entity, mention: Mention) -> Sentence:
    page = Page("sentence")
    (_abroad if mention.form == "foreign" else _english)(rng, page, subject, mention)
    span = next(s for s in page.spans if s.kind == "entity" and s.value == subject.name)
    return Sentence(page.text.rstrip(), subject.name, (span.start, span.end), mention.form, mention.language)


def sentences_about(
    subject: Entity, n: int, seed: Natural = 0, *, forms: tuple[Form, ...] = ("name", "alias", "foreign")
) -> tuple[Sentence, ...]:
    """`n` random sentences that mention this entity, the forms in equal shares.

    Raises:
        InvalidArgument: no forms, one that there is not or by which the entity is never named, or fewer than 0
            sentences.

    Examples:
        >>> from interp.landmark.entities import entity
        >>> [s.form for s in sentences_about(entity("Golden Gate Bridge"), 3)]
        ['name', 'alias', 'foreign']
    """
    if isinstance(forms, str) or not forms or n < 0:
        raise InvalidArgument(
            f"forms={forms!r}, n={n}: give a tuple of forms, such as ('name',), and a number from 0 on"
        )
    named = [subject.forms(form) for form in forms]
    if not all(named):
        raise InvalidArgument(f"{subject.text} is never named by {forms[named.index(())]!r}: leave that form out")
    rng = Random(f"about {subject.name} {seed}")
    return tuple(_sentence(rng, subject, rng.choice(named[i % len(named)])) for i in range(n))


def sentences_about_others(subject: Entity, n: int, seed: Natural = 0) -> tuple[Sentence, ...]:
    """`n` random sentences of the same making, none of which mentions this entity in any form.

    Raises:
        InvalidArgument: fewer than 0 sentences.
    """
    if n < 0:
        raise InvalidArgument(f"n={n}: give a number from 0 on")
    rng = Random(f"not about {subject.name} {seed}")
    found: list[Sentence] = []
    names = {m.text.lower() for m in subject.mentions}
    while len(found) < n:
        other = some_entity(rng)
        if other == subject:
            continue
        sentence = _sentence(rng, other, some_mention(rng, other))
        if not any(name in sentence.text.lower() for name in names):
            found.append(sentence)
    return tuple(found)
