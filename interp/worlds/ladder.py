"""The ladder: one corpus of exact facts, models of several widths and seeds, and many checkpoints of each.

The answers are of one to several tokens, so that exact match and the probability of each token can be compared.
"""

from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING

import torch

from interp.landmark.evaluate import Question, ask
from interp.landmark.grammar import held_out_phrasings, training_phrasings
from interp.landmark.relations import triples
from interp.landmark.tokenizer import read_tokenizer
from interp.landmark.train import new_model
from interp.worlds.experts import experts_tokenizer
from interp.worlds.recipe import Rows, World

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

LENGTH, ROWS, PHRASINGS = 96, 16, 3
WIDTHS = (32, 64, 128)
KINDS = ("country", "landmark")


@cache
def list_questions(*, unseen: bool = False) -> tuple[Question, ...]:
    """The planted facts as questions, each in a phrasing of training, or in one that no text uses."""
    pool = held_out_phrasings if unseen else training_phrasings
    facts = [t for t in triples() if t.relation.kind in KINDS]
    return tuple(ask(pool(t.relation.name)[0].template, t) for t in facts)


@cache
def _sentences() -> tuple[tuple[list[int], list[float]], ...]:
    """Every fact in several phrasings: its ids, and the weights of their predictions, most on the answer."""
    facts = [t for t in triples() if t.relation.kind in KINDS]
    said = [ask(p.template, t) for t in facts for p in training_phrasings(t.relation.name)[:PHRASINGS]]
    encode = read_tokenizer().encode_batch
    fronts = [one.ids[1:] for one in encode([q.prompt for q in said])]
    wholes = [one.ids[1:] for one in encode([f"{q.prompt} {q.answer}." for q in said])]
    return tuple(
        (whole, [0.2 if i < len(front) else 1.0 for i in range(len(whole))])
        for front, whole in zip(fronts, wholes, strict=True)
    )


def draw_ladder(seed: int, step: int) -> Rows:
    """Rows of facts, each of which begins a text of its own.

    Examples:
        ```python
        draw_ladder(0, 0).ids.shape
        ```
    """
    rng, said = Random(f"ladder {seed} {step}"), _sentences()
    ids, weight = torch.zeros(ROWS, LENGTH, dtype=torch.long), torch.zeros(ROWS, LENGTH)
    for i in range(ROWS):
        row, weights = [0], [0.0]
        while len(row) < LENGTH:
            one = rng.choice(said)
            row, weights = [*row, *one[0], 0], [*weights, *one[1], 0.0]
        ids[i], weight[i] = torch.tensor(row[:LENGTH]), torch.tensor(weights[:LENGTH])
    return Rows(ids, weight)


def new_ladder(seed: int, width: int) -> "GPT2LMHeadModel":
    """The untrained model: a GPT-2 of four layers."""
    del seed
    return new_model(3072, n_layer=4, d_model=width, n_head=max(2, width // 16))


LADDER = tuple(
    World(
        f"ladder-{width}", partial(new_ladder, width=width), draw_ladder, experts_tokenizer, steps=800, n_checkpoints=16
    )
    for width in WIDTHS
)
