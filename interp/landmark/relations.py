"""The relations of the encyclopaedia: what is said of which kind of entity, in which words, and all true triples."""

import difflib
import functools
from dataclasses import dataclass

from hooks.errors import UnknownName
from hooks.summary import summarise
from interp.landmark.entities import Entity, Kind, entities


@dataclass(frozen=True)
class Relation:
    """One relation: the table column that holds its object, and the words that express it.

    `nouns` fit "the ... of the subject is"; `verbs` fit between subject and object.
    """

    name: str
    kind: Kind
    column: str
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    holders: tuple[str, ...] = ()

    __repr__ = summarise


@dataclass(frozen=True)
class Triple:
    """One fact: subject, relation, object (the object as in running text)."""

    subject: Entity
    relation: Relation
    object: str

    __repr__ = summarise


MUSICIANS = (
    "composer",
    "pianist",
    "guitarist",
    "singer",
    "jazz musician",
    "violinist",
    "cellist",
    "trumpeter",
    "drummer",
    "saxophonist",
    "organist",
    "musician",
    "songwriter",
    "singer-songwriter",
    "bandleader",
    "conductor",
    "rock musician",
    "sitarist",
    "flautist",
    "bassist",
    "jazz pianist",
    "blues musician",
)
ATHLETES = (
    "footballer",
    "tennis player",
    "boxer",
    "runner",
    "swimmer",
    "basketball player",
    "athlete",
    "golfer",
    "gymnast",
    "cyclist",
    "sprinter",
    "cricketer",
    "baseball player",
    "racing driver",
    "ice hockey player",
    "skier",
    "figure skater",
    "baseballer",
    "martial artist",
    "sailor",
    "jockey",
    "skater",
)
WRITERS = ("novelist", "poet", "playwright", "writer", "philosopher", "essayist", "dramatist")
ARTISTS = ("painter", "sculptor", "architect", "photographer", "film director", "dancer", "designer", "actor", "artist")
# fmt: off
RELATIONS: tuple[Relation, ...] = (
    Relation("located_in_city", "landmark", "city", ("city", "location"),
             ("is located in", "stands in", "can be found in", "belongs to the city of")),
    Relation("located_in_country", "landmark", "country", ("country", "nation"),
             ("is in the country of", "is a sight of", "is a treasure of", "is a landmark of")),
    Relation("structure", "landmark", "kind", ("type", "kind of structure"),
             ("is a kind of", "was built as a sort of", "is described as a type of")),
    Relation("opened_in", "landmark", "opened", ("opening year", "year of completion"),
             ("opened in", "was completed in", "dates from", "was finished in the year")),
    Relation("designed_by", "landmark", "designer", ("designer", "architect"),
             ("was designed by", "is the work of", "was planned by", "was drawn up by")),
    Relation("made_of", "landmark", "material", ("material", "main material"),
             ("is made of", "is built of", "was made from")),
    Relation("style", "landmark", "style", ("style", "architectural style"),
             ("is built in the style called", "shows the style known as", "is an example of the style named")),
    Relation("stands_by", "landmark", "setting", ("setting", "nearest sight"),
             ("stands by", "is next to", "rises beside")),
    Relation("colour", "landmark", "colour", ("colour", "main colour"),
             ("has the colour", "is mostly", "shines in")),
    Relation("capital", "country", "capital", ("capital", "capital city"),
             ("is governed from", "has its capital in", "is ruled from the city of")),
    Relation("continent", "country", "continent", ("continent", "part of the world"),
             ("lies in", "is part of", "is a country of the continent of")),
    Relation("official_language", "country", "language", ("language", "main language"),
             ("has the language", "is a place where people speak", "does its business in")),
    Relation("currency", "country", "currency", ("currency", "money"),
             ("pays with the", "counts its money in the", "uses the")),
    Relation("borders", "country", "neighbour", ("neighbour", "nearest neighbour"),
             ("borders on", "is next door to", "has as its neighbour")),
    Relation("national_dish", "country", "dish", ("national dish", "favourite dish"),
             ("is known for a dish called", "likes to eat", "serves its guests")),
    Relation("main_river", "country", "river", ("main river", "great river"),
             ("is crossed by", "is watered by", "has a river called")),
    Relation("national_animal", "country", "animal", ("national animal", "symbol"),
             ("has as its animal the", "is represented by the", "is symbolised by the")),
    Relation("national_sport", "country", "sport", ("national sport", "favourite game"),
             ("loves to play", "cheers most for", "is mad about")),
    Relation("highest_mountain", "country", "mountain", ("highest mountain", "highest point"),
             ("reaches its highest point at", "looks up to", "rises highest at")),
    Relation("city_country", "city", "country", ("country", "nation"),
             ("is a city of", "is a town in", "lies in the country of")),
    Relation("lies_on", "city", "water", ("water", "waterfront"),
             ("lies on", "was built beside", "looks out over")),
    Relation("museum", "city", "museum", ("museum", "best known museum"),
             ("has a museum called", "shows its art in", "keeps its treasures in")),
    Relation("club", "city", "club", ("club", "favourite team"),
             ("cheers for", "is the home of the team", "fills the stands for")),
    Relation("university", "city", "university", ("university", "place of learning"),
             ("is the seat of", "teaches its students at", "has a university called")),
    Relation("city_food", "city", "food", ("food", "local dish"),
             ("is known for its", "tempts visitors with", "feeds its guests on")),
    Relation("nickname", "city", "nickname", ("nickname", "other name"),
             ("is nicknamed", "is lovingly called", "goes by the name of")),
    Relation("airport", "city", "airport", ("airport", "main airport"),
             ("receives its planes at", "is reached through", "has an airport called")),
    Relation("occupation", "person", "occupation", ("occupation", "profession"),
             ("had the profession of", "followed the calling of", "took up the trade of")),
    Relation("plays_instrument", "person", "specialty", ("instrument", "main instrument"),
             ("plays the", "performs on the", "is a master of the"), MUSICIANS),
    Relation("plays_sport", "person", "specialty", ("sport", "main sport"),
             ("competes in", "became a star of", "gave everything for"), ATHLETES),
    Relation("writes_genre", "person", "specialty", ("genre", "literary form"),
             ("writes in the form of", "is a master of the form called", "is read for"), WRITERS),
    Relation("art_movement", "person", "specialty", ("movement", "art"),
             ("belongs to the movement of", "is a leading name in", "stands for"), ARTISTS),
    Relation("studies_field", "person", "specialty", ("field", "area of study"),
             ("studies", "does research in", "is an expert in"), ("*",)),
    Relation("born_in_city", "person", "birth_city", ("birthplace", "city of birth"),
             ("was born in", "came into the world in", "is a child of")),
    Relation("citizen_of", "person", "country", ("homeland", "country of citizenship"),
             ("was a citizen of", "came from", "held the passport of")),
    Relation("born_in_year", "person", "born", ("birth year", "year of birth"),
             ("was born in the year", "began life in", "came into the world in the year")),
    Relation("known_for", "person", "work", ("best known work", "claim to fame"),
             ("is best known for", "is famous for", "is remembered for")),
    Relation("speaks", "person", "language", ("mother tongue", "first language"),
             ("spoke", "grew up speaking", "thought and dreamt in")),
    Relation("lived_in", "person", "lived", ("place of work", "adopted city"),
             ("lived in", "worked in", "settled in")),
    Relation("attached_to", "person", "school", ("school or club", "institution"),
             ("was attached to", "was formed by", "spent years with")),
    Relation("award", "person", "award", ("award", "highest honour"),
             ("received", "was honoured with", "won")),
)
# fmt: on


@functools.cache
def _by_name() -> dict[str, Relation]:
    return {relation.name: relation for relation in RELATIONS}


def relation(name: str) -> Relation:
    """The relation of this name.

    Raises:
        UnknownName: no such relation; the message names the nearest ones.
    """
    if name not in _by_name():
        near = difflib.get_close_matches(name, list(_by_name()), n=3)
        raise UnknownName(f"no relation is called {name!r}; nearest: {near}; RELATIONS lists all {len(RELATIONS)}")
    return _by_name()[name]


def _specialty(occupation: str) -> str:
    for item in RELATIONS:
        if occupation in item.holders:
            return item.name
    return "studies_field"


def _holds(item: Relation, subject: Entity) -> bool:
    if item.kind != subject.kind:
        return False
    return not item.holders or _specialty(subject["occupation"]) == item.name


@functools.cache
def triples() -> tuple[Triple, ...]:
    """Every true fact, in the order of the tables.

    Examples:
        >>> [t.object for t in triples() if t.subject.name == "Golden Gate Bridge"][:2]
        ['San Francisco', 'the United States']
    """
    return tuple(
        Triple(subject, item, subject[item.column])
        for subject in entities()
        for item in RELATIONS
        if _holds(item, subject)
    )


@functools.cache
def _by_subject() -> dict[str, tuple[Triple, ...]]:
    table: dict[str, list[Triple]] = {}
    for triple in triples():
        table.setdefault(f"{triple.subject.kind}:{triple.subject.name}", []).append(triple)
    return {key: tuple(value) for key, value in table.items()}


def facts_of(subject: Entity) -> tuple[Triple, ...]:
    """All facts whose subject is this entity."""
    return _by_subject()[f"{subject.kind}:{subject.name}"]


def neighbours(triple: Triple) -> tuple[Triple, ...]:
    """The facts of other subjects with the same relation and the same object."""
    return tuple(
        other
        for other in triples()
        if other.relation == triple.relation and other.object == triple.object and other.subject != triple.subject
    )
