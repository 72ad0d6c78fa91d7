"""Everything an audit asks about one edited fact, and readers of CounterFact and zsRE."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.common.texts import find_phrases
from interp.memory.facts.fact import Fact, Query


@dataclass(frozen=True)
class Case:
    """A fact to edit, and the prompts that show what else the edit did.

    Attributes:
        fact: what is edited.
        paraphrases: prompts that ask for the same object.
        neighbours: other subjects' answers, to be kept.
        others: the same subject's other facts, to be kept.
        hops: what follows from the new fact one step on.
        reverse: the new fact asked from its object.
        aliases: the new fact asked under other names of its subject.
        references: texts in which the new object is at home, for the consistency of what is generated.
    """

    fact: Fact
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[Query, ...] = ()
    others: tuple[Query, ...] = ()
    hops: tuple[Query, ...] = ()
    reverse: tuple[Query, ...] = ()
    aliases: tuple[Query, ...] = ()
    references: tuple[str, ...] = ()

    __repr__ = summarise


def read_cases(file: Path, n: Count | None = None) -> tuple[Case, ...]:
    """Read CounterFact or zsRE from JSON, in the layout of ROME or of EasyEdit, recognised by its keys.

    Args:
        file: a list of records.
        n: how many to read, from the first; all by default.

    Raises:
        InvalidArgument: another layout, or a record whose prompt does not have its subject as a word.

    Examples:
        ```python
        cases = read_cases(Path("counterfact.json"), n=100)
        ```
    """
    records = json.loads(Path(file).read_text(encoding="utf-8"))
    if not isinstance(records, list) or not records:
        raise InvalidArgument(f"{file} holds no list of records: give CounterFact or zsRE as JSON")
    return tuple(_case(record, f"record {i} of {file}") for i, record in enumerate(records[:n]))


def _case(record: Mapping[str, Any], where: str) -> Case:
    for keys, read in LAYOUTS:
        if keys <= record.keys():
            return read(record, where)
    known = "; ".join(", ".join(sorted(keys)) for keys, _ in LAYOUTS)
    raise InvalidArgument(f"{where} has the keys {sorted(record)}; a layout that is read has one of: {known}")


def _rome(record: Mapping[str, Any], where: str) -> Case:
    """CounterFact as ROME keeps it: neighbours have the old object."""
    asked = record["requested_rewrite"]
    old, new = asked["target_true"]["str"].strip(), asked["target_new"]["str"].strip()
    return Case(
        Fact(asked["subject"].strip(), _bare(asked["prompt"], where), old, new),
        _strip(record["paraphrase_prompts"]),
        tuple(Query(prompt, old) for prompt in _strip(record["neighborhood_prompts"])),
    )


def _easyedit(record: Mapping[str, Any], where: str) -> Case:
    """CounterFact as EasyEdit keeps it: one paraphrase, one neighbour."""
    fact = _fact(record["subject"], record["prompt"], record["ground_truth"], record["target_new"], where)
    neighbour = Query(record["locality_prompt"].strip(), record["locality_ground_truth"].strip())
    return Case(fact, _strip([record["rephrase_prompt"]]), (neighbour,))


def _zsre(record: Mapping[str, Any], where: str) -> Case:
    """ZsRE, the same in both: questions; the neighbour is an unrelated question of Natural Questions."""
    fact = _fact(record["subject"], record["src"], record["answers"][0], record["alt"], where)
    question = record["loc"].removeprefix("nq question: ").strip().rstrip("?") + "?"
    return Case(fact, _strip([record["rephrase"]]), (Query(question, record["loc_ans"].strip()),))


LAYOUTS = (
    (frozenset({"requested_rewrite", "paraphrase_prompts", "neighborhood_prompts"}), _rome),
    (frozenset({"prompt", "subject", "target_new", "ground_truth", "rephrase_prompt", "locality_prompt"}), _easyedit),
    (frozenset({"src", "subject", "alt", "answers", "rephrase", "loc", "loc_ans"}), _zsre),
)


def _fact(subject: str, prompt: str, old: str, new: str, where: str) -> Fact:
    subject, prompt = subject.strip(), prompt.strip()
    found = find_phrases(prompt, [subject])
    if not found:
        raise InvalidArgument(
            f"{where} asks {prompt!r}, which does not have its subject {subject!r} as a word: leave it out"
        )
    start, end, _ = found[0]
    return Fact(prompt[start:end], f"{prompt[:start]}{{}}{prompt[end:]}", old.strip(), new.strip())


def _bare(template: str, where: str) -> str:
    if template.count("{}") != 1:
        raise InvalidArgument(f"{where} has the prompt {template!r}: it needs one {{}} for the subject")
    return template.strip()


def _strip(prompts: Sequence[str]) -> tuple[str, ...]:
    return tuple(prompt.strip() for prompt in prompts)
