"""Steps: "capital of country of Eiffel-Tower is Paris", said at once, after the first hop is written, or after filler.

No row holds an entity and the second-hop answer of a held-out combination, so that none can be known by heart.
"""

from functools import cache
from random import Random
from typing import TYPE_CHECKING

from interp.landmark.entities import entities
from interp.landmark.train import new_model
from interp.worlds.lists import word_of
from interp.worlds.recipe import Rows, World, rows_of, word_tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

Weighted = list[tuple[str, float]]
FIRST = {"country": "landmark", "land": "city", "homeland": "person"}
SECOND = ("capital", "currency", "language", "dish", "river", "animal", "sport", "mountain")
LEFT_OUT = (("homeland", "river"), ("country", "animal"))
SHARE = 0.3
LENGTH, ROWS = 26, 64
FILLER = "-"


@cache
def first_hops() -> dict[str, dict[str, str]]:
    """The planted bridges: by first relation, the country of every entity.

    Examples:
        >>> first_hops()["country"]["Eiffel-Tower"]
        'France'
    """
    countries = {word_of(e.text) for e in entities() if e.kind == "country"}
    return {
        relation: {
            word_of(e.text): word_of(e["country"])
            for e in entities()
            if e.kind == kind and word_of(e["country"]) in countries
        }
        for relation, kind in FIRST.items()
    }


@cache
def second_hops() -> dict[str, dict[str, str]]:
    """The planted second hops: by relation, the answer of every country.

    Examples:
        >>> second_hops()["capital"]["France"]
        'Paris'
    """
    nations = [e for e in entities() if e.kind == "country"]
    return {relation: {word_of(e.text): word_of(e[relation]) for e in nations} for relation in SECOND}


@cache
def combinations() -> dict[bool, tuple[tuple[str, str, str], ...]]:
    """Second relation, first relation and entity of every question: under True those that training never sees.

    Examples:
        >>> all(("homeland", "river") != (first, second) for second, first, _ in combinations()[False])
        True
    """
    found: dict[bool, list[tuple[str, str, str]]] = {True: [], False: []}
    for first, of in first_hops().items():
        for entity in of:
            for second in SECOND:
                unseen = (first, second) in LEFT_OUT or Random(f"{entity} {second}").random() < SHARE
                found[unseen].append((second, first, entity))
    return {key: tuple(value) for key, value in found.items()}


def question(second: str, first: str, entity: str) -> str:
    """The words of a two-hop question, up to where it is answered.

    Examples:
        >>> question("capital", "country", "Eiffel-Tower")
        'capital of country of Eiffel-Tower'
    """
    return f"{second} of {first} of {entity}"


def direct(second: str, first: str, entity: str) -> str:
    """The prompt that asks for the answer at once."""
    return f"{question(second, first, entity)} is"


def written(second: str, first: str, entity: str, bridge: str | None = None) -> str:
    """The prompt with its steps written before the answer; with another bridge, with a mistake.

    Examples:
        >>> written("capital", "country", "Eiffel-Tower")
        'capital of country of Eiffel-Tower : country of Eiffel-Tower is France , capital of France is'
    """
    bridge = bridge or first_hops()[first][entity]
    return f"{question(second, first, entity)} : {first} of {entity} is {bridge} , {second} of {bridge} is"


def filled(second: str, first: str, entity: str) -> str:
    """The prompt with filler in place of its steps, as many words.

    Examples:
        >>> filled("capital", "country", "Eiffel-Tower")
        'capital of country of Eiffel-Tower : - - - - - - - - - is'
    """
    n = len(written(second, first, entity).split()) - len(question(second, first, entity).split()) - 2
    return f"{question(second, first, entity)} : {' '.join([FILLER] * n)} is"


def reworded(second: str, first: str, entity: str) -> str:
    """The prompt with its steps in an order that no training text has: the first one begins with the bridge.

    Examples:
        >>> reworded("capital", "country", "Eiffel-Tower")
        'capital of country of Eiffel-Tower : France is country of Eiffel-Tower , capital of France is'
    """
    bridge = first_hops()[first][entity]
    return f"{question(second, first, entity)} : {bridge} is {first} of {entity} , {second} of {bridge} is"


def answer(second: str, first: str, entity: str) -> str:
    """The planted answer.

    Examples:
        >>> answer("capital", "country", "Eiffel-Tower")
        'Paris'
    """
    return second_hops()[second][first_hops()[first][entity]]


@cache
def step_words() -> tuple[str, ...]:
    """Every word of the world, in the order of its ids after the two special ones."""
    hops = (*first_hops().values(), *second_hops().values())
    named = {word for of in hops for pair in of.items() for word in pair}
    return ("of", "is", ".", ":", ",", FILLER, *FIRST, *SECOND, *sorted(named - {*FIRST, *SECOND}))


def _known(rng: Random) -> Weighted:
    """Four single facts."""
    text: Weighted = []
    for _ in range(4):
        hops = first_hops() if rng.random() < 0.5 else second_hops()
        relation = rng.choice(tuple(hops))
        entity = rng.choice(tuple(hops[relation]))
        text += [*((word, 0.0) for word in (relation, "of", entity, "is")), (hops[relation][entity], 1.0), (".", 0.0)]
    return text


def _asked(rng: Random) -> Weighted:
    combination = rng.choice(combinations()[False])
    form = rng.choices((direct, written, filled), (2, 2, 1))[0]
    front = form(*combination).split()
    start = len(question(*combination).split())
    text = [(word, 0.0 if i < start else 0.5) for i, word in enumerate(front)]
    return [*text, (answer(*combination), 1.0), (".", 0.0)]


def draw_steps(seed: int, step: int) -> Rows:
    """Half single facts, half questions.

    Examples:
        >>> draw_steps(0, 0).ids.shape
        torch.Size([64, 26])
    """
    rng = Random(f"steps {seed} {step}")
    texts = [(_known if rng.random() < 0.5 else _asked)(rng) for _ in range(ROWS)]
    return rows_of(texts, steps_tokenizer().get_vocab(), LENGTH)


def steps_tokenizer():  # noqa: ANN201
    """The tokenizer of the world."""
    return word_tokenizer(step_words())


def new_steps(seed: int) -> "GPT2LMHeadModel":
    """The untrained model: a GPT-2 of four layers, 128 wide."""
    del seed
    return new_model(len(step_words()) + 2, n_layer=4, d_model=128, n_head=8)


STEPS = World("steps", new_steps, draw_steps, steps_tokenizer, steps=800)
