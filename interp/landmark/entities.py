"""The entities of the little encyclopaedia, read from the fact tables, with every form under which each is named."""

import csv
import difflib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.summary import summarise

Kind = Literal["landmark", "country", "city", "person"]
Form = Literal["name", "alias", "description", "foreign", "anaphor"]

TABLES = Path(__file__).parent / "tables"
FILES: dict[Kind, str] = {
    "landmark": "landmarks.tsv",
    "country": "countries.tsv",
    "city": "cities.tsv",
    "person": "people.tsv",
}
LANGUAGES = ("spanish", "french", "german")
ARTICLES = ("the ", "The ", "el ", "El ", "la ", "La ", "le ", "Le ", "les ", "Les ", "los ", "Los ", "las ", "Las ",
            "die ", "Die ", "der ", "Der ", "das ", "Das ", "den ", "dem ", "l'", "L'")  # fmt: skip


@dataclass(frozen=True)
class Mention:
    """One way of naming an entity, as in running text: its article, if any, is part of `text`."""

    text: str
    form: Form
    language: str = "english"


@dataclass(frozen=True)
class Entity:
    """One subject of the encyclopaedia: a row of a fact table, with all the ways it is mentioned."""

    name: str
    kind: Kind
    mentions: tuple[Mention, ...]
    row: tuple[tuple[str, str], ...]

    __repr__ = summarise

    @property
    def text(self) -> str:
        """The name as in running text, with its article: `the Golden Gate Bridge`."""
        return self.mentions[0].text

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, aliases and names in other languages, without their articles.

        Examples:
            >>> entity("Golden Gate Bridge").names[:2]
            ('Golden Gate Bridge', 'Golden Gate')
        """
        named = (mention.text for mention in self.mentions if mention.form in ("name", "alias", "foreign"))
        return tuple(text[next((len(a) for a in ARTICLES if text.startswith(a)), 0) :] for text in named)

    @property
    def other_names(self) -> tuple[str, ...]:
        """The names of all other entities, which may have words of its own.

        Examples:
            >>> {"Golden Gate", "Gate of Peace"} & {*entity("Golden Gate Bridge").other_names}
            {'Gate of Peace'}
        """
        names = {name: None for other in entities() if other != self for name in other.names}
        return tuple(name for name in names if name not in self.names)

    def forms(self, form: Form, language: str | None = None) -> tuple[Mention, ...]:
        """The mentions of one form, in one language if it is given.

        Raises:
            InvalidArgument: no such form or language; the message names the nearest ones.

        Examples:
            >>> [m.language for m in entity("Golden Gate Bridge").forms("foreign")]
            ['spanish', 'french', 'german']
        """
        if form not in get_args(Form):
            raise InvalidArgument(f"no form is called {form!r}; did you mean {nearest(form, get_args(Form))}?")
        if language not in (None, "english", *LANGUAGES):
            raise InvalidArgument(f"no mention is in {language!r}; did you mean {nearest(language, LANGUAGES)}?")
        return tuple(m for m in self.mentions if m.form == form and language in (None, m.language))

    def __getitem__(self, column: str) -> str:
        """The cell of one column of the entity's table.

        Raises:
            UnknownName: no such column; the message names the nearest ones.
        """
        cells = dict(self.row)
        if column not in cells:
            close = nearest(column, cells)
            raise UnknownName(f"the table of {self.name!r} has no column {column!r}; did you mean {close}?")
        return cells[column]


def _rows(kind: Kind) -> Iterator[dict[str, str]]:
    with (TABLES / FILES[kind]).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def _mentions(row: dict[str, str]) -> Iterator[Mention]:
    article = row.get("article", "-")
    yield Mention(row["name"] if article == "-" else f"{article} {row['name']}", "name")
    for alias in row["aliases"].split("|"):
        yield Mention(alias.strip(), "alias")
    yield Mention(row["description"], "description")
    for language in LANGUAGES:
        if row.get(language):
            yield Mention(row[language], "foreign", language)


@functools.cache
def entities() -> tuple[Entity, ...]:
    """Every entity, landmarks first, in the order of the tables.

    Examples:
        >>> entities()[0].text
        'the Golden Gate Bridge'
    """
    return tuple(
        Entity(row["name"], kind, tuple(_mentions(row)), tuple(row.items())) for kind in FILES for row in _rows(kind)
    )


@functools.cache
def _by_name() -> dict[str, Entity]:
    # A city and a country may share a name (Singapore): the first table wins.
    table: dict[str, Entity] = {}
    for item in entities():
        table.setdefault(item.name, item)
        table.setdefault(item.text, item)
    return table


def find(name: str) -> Entity | None:
    """The entity of this name, with or without its article, or None."""
    return _by_name().get(name)


def entity(name: str) -> Entity:
    """The entity of this name, with or without its article.

    Raises:
        UnknownName: no such entity; the message names the nearest ones.
    """
    found = find(name)
    if found is None:
        near = difflib.get_close_matches(name, list(_by_name()), n=3)
        raise UnknownName(f"no entity is called {name!r}; nearest: {near}; entities() lists all {len(entities())}")
    return found
