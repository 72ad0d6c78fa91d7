"""Concepts: what they refuse, and how they are split."""

import pytest

from interp.features import Concept, Mention
from interp.features.search.concept import split_by_group

TEXTS = [f"text {i}" for i in range(40)]
LABELS = [i % 2 == 0 for i in range(40)]


def test_no_group_is_in_both_halves_and_both_halves_hold_both_labels() -> None:
    concept = Concept("c", TEXTS, LABELS, groups=[f"g{i // 4}" for i in range(40)])
    for seed in range(5):
        half = split_by_group(concept, seed).tolist()
        for group in set(concept.groups):
            assert len({half[i] for i in range(40) if concept.groups[i] == group}) == 1
        for side in (True, False):
            assert {LABELS[i] for i in range(40) if half[i] is side} == {True, False}


def test_the_halves_hold_the_same_mixture_of_labels_and_forms() -> None:
    forms = ["name", "alias"]
    mentions = [[Mention(0, 4, forms[i % 4 // 2])] if LABELS[i] else [] for i in range(40)]
    half = split_by_group(Concept("c", TEXTS, LABELS, mentions), seed=3)
    for form in forms:
        inside = [i for i in range(40) if mentions[i] and mentions[i][0].form == form]
        assert sum(bool(half[i]) for i in inside) == len(inside) // 2


def test_the_split_is_the_seeds() -> None:
    concept = Concept("c", TEXTS, LABELS)
    assert (
        split_by_group(concept, 1).tolist()
        == split_by_group(concept, 1).tolist()
        != split_by_group(concept, 2).tolist()
    )


def test_equal_texts_share_a_group() -> None:
    assert Concept("c", ["a", "b", "a"], [True, False, True]).groups == ("a", "b", "a")
    alike = ["Zo\u00eb sang", "b", "Zoe\u0308  sang "]
    assert Concept("c", alike, [True, False, True]).groups == (alike[0], "b", alike[0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": [True]}, "has 2 texts and 1 labels; give one per text"),
        ({"mentions": [[]]}, "has 2 texts and 1 mentions; give one per text"),
        ({"groups": ["g"]}, "has 2 texts and 1 groups; give one per text"),
        ({"texts": "ab"}, "the texts of concept 'fog' are 'ab': give a list, not a string"),
        ({"labels": [True, True]}, "needs texts that express it and texts that do not"),
        ({"texts": ["fog", " "]}, "text 1 of concept 'fog' is empty"),
        ({"mentions": [[Mention(0, 9)], []]}, "has a mention at 0:9, outside its 3 characters"),
        ({"mentions": [[Mention(2, 2)], []]}, "has a mention at 2:2, outside"),
        ({"mentions": [[], [Mention(0, 3)]]}, "text 1 of concept 'fog' is labelled as not expressing the concept"),
        (
            {"texts": ["fog", "fog"], "groups": ["a", "b"]},
            r"has the text 'fog' in groups 'a' and 'b': it could be searched and reported on at once",
        ),
        (
            {"mentions": [[Mention(0, 3, "name")], []], "apart": ["nmae"]},
            "has no mention of form 'nmae'; did you mean 'name'",
        ),
    ],
)
def test_a_concept_refuses(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Concept(**({"name": "fog", "texts": ["fog", "sun"], "labels": [True, False]} | given))


def test_too_few_groups_to_split_are_refused() -> None:
    with pytest.raises(ValueError, match="too few groups to leave texts that .* give at least two groups of each kind"):
        split_by_group(Concept("c", ["a", "b", "d"], [True, True, False]), seed=0)


@pytest.mark.usefixtures("unchecked")
def test_numbers_are_no_labels() -> None:
    with pytest.raises(ValueError, match="has the label 1: give True or False"):
        Concept("fog", ["fog", "sun"], [1, 0])


def test_a_text_counts_unless_all_its_mentions_are_of_forms_set_apart() -> None:
    name, other = Mention(0, 3, "name"), Mention(4, 7, "description")
    texts = ("fog bay", "fog sea", "sea bay", "no more")
    concept = Concept("c", texts, [True] * 3 + [False], [[name, other], [name], [other], []], apart=["description"])
    assert [concept.counts(number) for number in range(4)] == [True, True, False, True]
