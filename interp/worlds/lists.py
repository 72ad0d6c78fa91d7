"""Lists: "France : Paris ; Peru : Lima ; Japan :", the relation of which is only in the list.

The facts are learnt from statements, "the capital of France is Paris .", those of every entity; of lists, a fifth of
the entities of each relation is held out. Other lists are invented, so that their labels can only be copied.
"""

from functools import cache
from random import Random
from typing import TYPE_CHECKING

from interp.landmark.relations import Triple, triples
from interp.landmark.train import new_model
from interp.worlds.recipe import Rows, World, rows_of, word_tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Weighted = list[tuple[str, float]]
LENGTH = 48
ROWS = 32
KINDS = ("country", "landmark")
MADE_UP = tuple(a + b + c for a in "bdfgkl" for b in "aeiou" for c in ("m", "n", "r", "st", "x"))


def word_of(name: str) -> str:
    """A name as one word: without its article, hyphens for spaces.

    Examples:
        >>> word_of("the Golden Gate Bridge")
        'Golden-Gate-Bridge'
    """
    return name.removeprefix("the ").replace(" ", "-")


@cache
def facts() -> dict[str, dict[str, str]]:
    """The planted truth: by relation, the label of every entity, all of them single words.

    Examples:
        >>> facts()["capital"]["France"]
        'Paris'
    """
    found: dict[str, dict[str, str]] = {}
    for triple in triples():
        if triple.relation.kind in KINDS:
            found.setdefault(triple.relation.name, {})[word_of(triple.subject.text)] = word_of(triple.object)
    return found


@cache
def unseen_entities(relation: str) -> frozenset[str]:
    """The fifth of a relation's entities that no list of it has.

    Examples:
        >>> len(unseen_entities("capital"))
        12
    """
    entities = sorted(facts()[relation])
    return frozenset(Random(f"held out of lists of {relation}").sample(entities, len(entities) // 5))


@cache
def _nouns() -> dict[str, tuple[str, ...]]:
    of: dict[str, Triple] = {triple.relation.name: triple for triple in triples()}
    return {name: tuple(map(word_of, of[name].relation.nouns)) for name in facts()}


@cache
def list_words() -> tuple[str, ...]:
    """Every word of the world, in the order of its ids after the two special ones."""
    named = {word for labels in facts().values() for pair in labels.items() for word in pair}
    said = {noun for nouns in _nouns().values() for noun in nouns}
    return (":", ";", ".", "the", "of", "is", *MADE_UP, *sorted((named | said) - {*MADE_UP}))


def _statements(rng: Random) -> Weighted:
    text: Weighted = []
    while len(text) < LENGTH:
        relation = rng.choice(tuple(facts()))
        entity = rng.choice(tuple(facts()[relation]))
        front = ("the", rng.choice(_nouns()[relation]), "of", entity, "is")
        text += [*((word, 0.0) for word in front), (facts()[relation][entity], 1.0), (".", 0.0)]
    return text


def _list(pairs: list[tuple[str, str]]) -> Weighted:
    return [part for entity, label in pairs for part in ((entity, 0.0), (":", 0.0), (label, 1.0), (";", 0.0))]


def _true_list(rng: Random) -> Weighted:
    relation = rng.choice(tuple(facts()))
    known = [entity for entity in facts()[relation] if entity not in unseen_entities(relation)]
    return _list([(entity, facts()[relation][entity]) for entity in rng.sample(known, rng.randint(4, 11))])


def _invented_list(rng: Random) -> Weighted:
    """Three or four pairs, again and again in another order: after its first time, a label can only be copied."""
    n = rng.randint(3, 4)
    if rng.random() < 0.5:
        chosen = rng.sample(MADE_UP, 2 * n)
        entities, labels = chosen[:n], chosen[n:]
    else:
        relation = rng.choice(tuple(facts()))
        entities = rng.sample(tuple(facts()[relation]), n)
        labels = [facts()[relation][other] for other in rng.sample(tuple(facts()[relation]), n)]
    pairs = [*zip(entities, labels, strict=True)]
    text = _list(rng.sample(pairs, n))
    text = [(word, 0.0 if weight == 1.0 else weight) for word, weight in text]
    while len(text) < LENGTH:
        text += _list(rng.sample(pairs, n))
    return text


def draw_lists(seed: int, step: int) -> Rows:
    """Two fifths statements, two fifths true lists, a fifth invented ones.

    Examples:
        >>> draw_lists(0, 0).ids.shape
        torch.Size([32, 48])
    """
    rng = Random(f"lists {seed} {step}")
    kinds = rng.choices((_statements, _true_list, _invented_list), (2, 2, 1), k=ROWS)
    return rows_of([kind(rng) for kind in kinds], lists_tokenizer().get_vocab(), LENGTH)


def lists_tokenizer():  # noqa: ANN201
    """The tokenizer of the world."""
    return word_tokenizer(list_words())


def new_lists(seed: int) -> "GPT2LMHeadModel":
    """The untrained model: a GPT-2 of four layers, 128 wide."""
    del seed
    return new_model(len(list_words()) + 2, n_layer=4, d_model=128, n_head=8)


LISTS = World("lists", new_lists, draw_lists, lists_tokenizer, steps=900)
