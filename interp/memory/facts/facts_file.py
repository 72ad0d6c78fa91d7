"""Facts to edit out of a file: JSON or CSV with a fact a record, or the layouts of CounterFact and zsRE."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hooks.errors import InvalidArgument, MissingFile, nearest
from interp.memory.facts.case import Case, read_cases
from interp.memory.facts.fact import Fact, Query

FIELDS = ("subject", "prompt", "old", "new")
TEXTS, QUERIES = ("paraphrases", "references"), ("neighbours", "others", "hops", "reverse", "aliases")


def read_facts(file: Path, n: int | None = None) -> tuple[Case, ...]:
    """Read facts, and what is to be asked about them where the file says so.

    A record has subject, prompt (with {} for the subject), old and new; in JSON also, as lists, paraphrases and
    references (texts, in which {} is the subject too), neighbours, others, hops, reverse and aliases (records of prompt
    and answer).

    Args:
        file: a .json list of such records, a .csv with a column for each of the four, or CounterFact or zsRE.
        n: how many to read, from the first; all by default.

    Raises:
        MissingFile: there is no such file.
        InvalidArgument: another kind of file, no records, a field that is missing, unknown or no fact's.

    Examples:
        ```python
        facts = [case.fact for case in read_facts(Path("facts.csv"))]
        ```
    """
    if not file.is_file():
        raise MissingFile(f"there is no file {str(file)!r}: give a .json or .csv file of facts")
    if file.suffix == ".csv":
        records: Any = _table(file)
    elif file.suffix == ".json":
        try:
            records = json.loads(_text(file))
        except json.JSONDecodeError as error:
            raise InvalidArgument(f"{file} is not JSON: {error}") from error
    else:
        raise InvalidArgument(f"{file} ends in {file.suffix!r}, and facts are read from .json or .csv")
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise InvalidArgument(f"{file} holds no list of facts: give records of {', '.join(FIELDS)}")
    if "old" not in records[0] and file.suffix == ".json" and not {"new", "neighbours"} & records[0].keys():
        return read_cases(file, n)
    return tuple(_case(record, f"record {i} of {file}") for i, record in enumerate(records[:n]))


def parse_facts(words: Sequence[str]) -> tuple[Case, ...]:
    """Facts given as words, four to each: subject, prompt, old and new object.

    Raises:
        InvalidArgument: words left over.

    Examples:
        >>> parse_facts(["Rome", "{} is in", "Italy", "Peru"])[0].fact.text
        'Rome is in'
    """
    if len(words) % len(FIELDS):
        raise InvalidArgument(f"{len(words)} words were given, and a fact is four: {' '.join(map(str.upper, FIELDS))}")
    return tuple(Case(Fact(*(word.strip() for word in words[i : i + 4]))) for i in range(0, len(words), 4))


def _case(record: Mapping[str, Any], where: str) -> Case:
    for name in record:
        if name not in (*FIELDS, *TEXTS, *QUERIES):
            close = nearest(str(name), [*FIELDS, *TEXTS, *QUERIES])
            raise InvalidArgument(f"{where} has a field {name!r}, which facts do not have; did you mean {close}?")
    for name in FIELDS:
        if not isinstance(record.get(name), str):
            raise InvalidArgument(f"{where} has no {name}: a fact is {', '.join(FIELDS)}")
    try:
        fact = Fact(*(record[name].strip() for name in FIELDS))
        listed = {name: _each(record, name, str, "texts") for name in TEXTS if name in record}
        texts = {name: tuple(text.replace("{}", fact.subject) for text in found) for name, found in listed.items()}
        asked = {name: _each(record, name, dict, "records of prompt and answer") for name in QUERIES if name in record}
        queries = {name: tuple(Query(**query) for query in found) for name, found in asked.items()}
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"{where} is no fact: {error}") from error
    return replace(Case(fact), **texts, **queries)


def _each(record: Mapping[str, Any], name: str, kind: type, called: str) -> list[Any]:
    value = record[name]
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise InvalidArgument(f"{name} is {value!r}: give a list of {called}")
    return value


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"{file} is not in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error


def _table(file: Path) -> list[dict[str, str]]:
    """The rows of a file of comma-separated values, by the names in its first."""
    head, *rows = [row for row in csv.reader(_text(file).splitlines()) if row] or [[]]
    if len(head) == 1 and ";" in head[0]:
        raise InvalidArgument(f"{file} is separated by semicolons: separate its columns by commas")
    for number, row in enumerate(rows):
        if len(row) != len(head):
            raise InvalidArgument(
                f"record {number} of {file} has {len(row)} values for the {len(head)} columns {', '.join(head)}: "
                'put a text that holds a comma in quotes, "…"'
            )
    return [dict(zip(head, row, strict=True)) for row in rows]
