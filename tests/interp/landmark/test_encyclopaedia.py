"""The fact tables, the relations and the grammar hold what the encyclopaedia promises."""

import re

import pytest

from interp.landmark import (
    entities,
    entity,
    facts_of,
    neighbours,
    phrasings,
    relation,
    sentences_about,
    sentences_about_others,
    triples,
)
from interp.landmark.relations import RELATIONS


def test_the_tables_hold_the_promised_numbers_of_entities_facts_and_relations() -> None:
    kinds = [e.kind for e in entities()]
    assert kinds.count("landmark") >= 64
    assert kinds.count("city") + kinds.count("country") >= 120
    assert kinds.count("person") >= 120
    assert len(triples()) >= 1500
    assert len({t.relation.name for t in triples()}) >= 20


def test_every_subject_has_at_least_eight_relations() -> None:
    assert min(len(facts_of(e)) for e in entities()) >= 8


def test_no_cell_is_empty_and_no_name_is_shared_within_a_kind() -> None:
    assert all(value.strip() == value and value for e in entities() for _, value in e.row)
    assert len({(e.kind, e.name) for e in entities()}) == len(entities())


def test_no_two_entities_share_an_alias_or_a_description() -> None:
    texts = [m.text for e in entities() for m in e.mentions if m.form in ("alias", "description")]
    assert len(set(texts)) == len(texts)


def test_every_landmark_is_named_in_three_other_languages() -> None:
    for e in entities():
        if e.kind == "landmark":
            assert {m.language for m in e.forms("foreign")} == {"spanish", "french", "german"}


@pytest.mark.parametrize("name", [r.name for r in RELATIONS])
def test_each_relation_has_twelve_phrasings_in_both_orders_and_three_held_out(name: str) -> None:
    found = phrasings(name)
    assert len({p.template for p in found}) >= 12 + 3
    assert {p.order for p in found if not p.held_out} == {"subject first", "relation first"}
    assert sum(p.held_out for p in found) == 3
    assert all(p.template.count("{}") == 1 for p in found)


@pytest.mark.parametrize("name", [r.name for r in RELATIONS])
def test_every_word_of_a_held_out_phrasing_is_in_a_training_phrasing_of_the_same_relation(name: str) -> None:
    trained = {word for p in phrasings(name) if not p.held_out for word in re.findall(r"\w+", p.template)}
    assert all(set(re.findall(r"\w+", p.template)) <= trained for p in phrasings(name) if p.held_out)


def test_neighbours_share_relation_and_object_but_not_the_subject() -> None:
    fact = facts_of(entity("Golden Gate Bridge"))[0]
    found = neighbours(fact)
    assert found and all(n.relation == fact.relation and n.object == fact.object for n in found)
    assert fact.subject not in [n.subject for n in found]


def test_a_misspelt_entity_or_relation_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="no entity is called 'Golden Gate Brigde'; nearest: .'Golden Gate Bridge'"):
        entity("Golden Gate Brigde")
    with pytest.raises(KeyError, match="no relation is called 'designed_bye'; nearest: .'designed_by'"):
        relation("designed_bye")
    with pytest.raises(KeyError, match="no relation is called 'located_in'; nearest: .'located_in"):
        phrasings("located_in")
    with pytest.raises(KeyError, match="'Golden Gate Bridge' has no column 'colur'; did you mean 'colo"):
        entity("Golden Gate Bridge")["colur"]


@pytest.mark.usefixtures("unchecked")
def test_forms_that_there_are_not_are_refused_and_no_sentence_is_made_of_them() -> None:
    bridge = entity("Golden Gate Bridge")
    with pytest.raises(ValueError, match="no form is called 'aliases'; did you mean 'alias'"):
        bridge.forms("aliases")
    with pytest.raises(ValueError, match="no mention is in 'frensh'; did you mean 'french'"):
        bridge.forms("foreign", "frensh")
    for forms, n, said in (
        ("name", 3, "takes forms as a tuple of"),
        ((), 3, "give a tuple of forms"),
        (("name",), -1, "n=-1: give a tuple of forms, such as .'name',., and a number from 0 on"),
        (("nmae",), 3, "no form is called 'nmae'; did you mean 'name'"),
        (("name", "anaphor"), 1, "the Golden Gate Bridge is never named by 'anaphor'"),
    ):
        with pytest.raises(ValueError, match=said):
            sentences_about(bridge, n, forms=forms)
    with pytest.raises(ValueError, match="n=-1"):
        sentences_about_others(bridge, -1)
