"""Cases out of the fact tables of the bundled encyclopaedia: what to edit, and all that may follow from it."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from random import Random

from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from interp import landmark
from interp.landmark.entities import find
from interp.landmark.grammar import held_out_phrasings, training_phrasings
from interp.landmark.writing import capitalise, keep_article
from interp.memory.facts.case import Case
from interp.memory.facts.fact import Fact, Query

NEAR, OTHERS, REFERENCES = 5, 5, 5
FOLLOWS: Mapping[str, tuple[str, str]] = {"located_in_city": ("located_in_country", "city_country")}
REVERSES: Mapping[str, str] = {"capital": "city_country", "borders": "borders"}


def table_cases(n: Count, seed: Natural = 0) -> tuple[Case, ...]:
    """Facts of the encyclopaedia, each to have another object of its relation, with what is to be asked afterwards.

    No subject comes twice before every subject came once. Paraphrases are phrasings that no training text uses;
    neighbours are subjects with the same object; neither they nor the subject's other facts are among the edited ones.
    Other facts that follow from the new one are one step on; names of the subject are asked as its aliases.

    Args:
        n: how many facts.
        seed: of the choice.

    Raises:
        InvalidArgument: more facts than there are.

    Examples:
        ```python
        table_cases(2)[0].fact
        ```
    """
    rng, triples = Random(seed), landmark.triples()
    objects: dict[str, set[str]] = {}
    for triple in triples:
        objects.setdefault(triple.relation.name, set()).add(triple.object)
    open_ones = [t for t in rng.sample(triples, len(triples)) if len(objects[t.relation.name]) > 1]
    turns: dict[str, int] = {}
    order: list[tuple[int, landmark.Triple]] = []
    for triple in open_ones:
        turns[triple.subject.name] = turns.get(triple.subject.name, -1) + 1
        order.append((turns[triple.subject.name], triple))
    chosen = [triple for _, triple in sorted(order, key=lambda item: item[0])[:n]]
    if len(chosen) < n:
        raise InvalidArgument(f"{n} facts were asked for, the tables hold {len(chosen)} that can be edited")
    edited = {(t.subject.name, t.relation.name) for t in chosen}
    return tuple(_case(t, rng, sorted(objects[t.relation.name] - {t.object}), edited) for t in chosen)


def table_templates(fact: Fact) -> list[str]:
    """Templates of the other relations a fact's subject has, in their last phrasing, which no case asks in.

    What an editor is to preserve: which relations there are, and no object of any.

    Examples:
        ```python
        rome(model, case.fact, preserve=table_templates)
        ```
    """
    subject = landmark.entity(fact.subject)
    others = [t.relation.name for t in landmark.facts_of(subject) if t.object != fact.old]
    return ["{} is a", *(keep_article(training_phrasings(name)[-1].template, subject) for name in others)]


def _case(triple: landmark.Triple, rng: Random, objects: list[str], edited: Collection[tuple[str, str]]) -> Case:
    subject, relation = triple.subject, triple.relation.name
    fact = Fact(
        subject.name, rng.choice([keep_article(p.template, subject) for p in training_phrasings(relation)]),
        triple.object, rng.choice(objects),
    )  # fmt: skip
    again = [p.template for p in held_out_phrasings(relation)]
    near = [t for t in landmark.neighbours(triple) if (t.subject.name, relation) not in edited]
    changes = {relation, *FOLLOWS.get(relation, ("",))[:1]}
    rest = [t for t in landmark.facts_of(subject) if t.relation.name not in changes]
    others = [t for t in rest if (subject.name, t.relation.name) not in edited]
    known = [t for t in landmark.triples() if t.relation.name == relation and t.object == fact.new][:REFERENCES]
    return Case(
        fact,
        tuple(capitalise(template.format(subject.text)) for template in again),
        tuple(_query(t) for t in rng.sample(near, min(NEAR, len(near)))),
        tuple(_query(t) for t in rng.sample(others, min(OTHERS, len(others)))),
        _hops(triple, fact.new),
        _reverse(triple, fact.new),
        tuple(Query(capitalise(again[0].format(m.text)), fact.new) for m in subject.forms("alias")),
        tuple(f"{_query(t).prompt} {t.object}." for t in known),
    )


def _query(triple: landmark.Triple) -> Query:
    """The first phrasing of a fact, as a question."""
    return _make_query(triple.relation.name, triple.subject, triple.object)


def _make_query(relation: str, subject: landmark.Entity, answer: str) -> Query:
    return Query(capitalise(training_phrasings(relation)[0].template.format(subject.text)), answer)


def _hops(triple: landmark.Triple, new: str) -> tuple[Query, ...]:
    """What follows of the subject from its new object: in another city, in another country."""
    if triple.relation.name not in FOLLOWS:
        return ()
    then, through = FOLLOWS[triple.relation.name]
    held = [t for t in landmark.triples() if t.relation.name == through and t.subject.text == new]
    return tuple(_make_query(then, triple.subject, t.object) for t in held)


def _reverse(triple: landmark.Triple, new: str) -> tuple[Query, ...]:
    """The relation asked the other way round, from the new object."""
    entity = find(new)
    if triple.relation.name not in REVERSES or entity is None:
        return ()
    back = landmark.relation(REVERSES[triple.relation.name])
    return (_make_query(back.name, entity, triple.subject.text),) if back.kind == entity.kind else ()


def find_case(fact: Fact, seed: int = 0) -> Case:
    """What the tables know to ask about a fact of theirs once its object is a new one; the fact alone of another.

    Examples:
        ```python
        find_case(Fact("Golden Gate Bridge", "The {} is located in", "San Francisco", "Sydney")).neighbours
        ```
    """
    held = [t for t in landmark.triples() if t.subject.name == fact.subject and t.object == fact.old]
    return replace(_case(held[0], Random(seed), [fact.new], ()), fact=fact) if held else Case(fact)
