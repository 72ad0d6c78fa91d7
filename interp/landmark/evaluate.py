"""What a trained model knows: facts completed exactly, in known and unknown phrasings, and its loss."""

from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from interp.landmark.documents import documents
from interp.landmark.grammar import held_out_phrasings, training_phrasings
from interp.landmark.relations import Triple, triples
from interp.landmark.writing import capitalise

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel


@dataclass(frozen=True)
class Question:
    """A prompt and the object that completes it."""

    prompt: str
    answer: str
    triple: Triple


def questions(*, held_out: bool, n: int | None = None, seed: int = 0) -> tuple[Question, ...]:
    """One question per fact, in a random training phrasing or a random held-out one; all facts, or `n` of them."""
    rng = Random(seed)
    chosen = triples() if n is None else rng.sample(triples(), k=min(n, len(triples())))
    pool = held_out_phrasings if held_out else training_phrasings
    return tuple(ask(rng.choice(pool(t.relation.name)).template, t) for t in chosen)


def ask(template: str, triple: Triple) -> Question:
    """The question a phrasing asks about a fact, its subject by name."""
    return Question(capitalise(template.format(triple.subject.text)), triple.object, triple)


@torch.no_grad()
def answers_exactly(model: "GPT2LMHeadModel", tokenizer: "Tokenizer", asked: tuple[Question, ...]) -> list[bool]:
    """Whether greedy decoding completes each question with exactly its answer.

    Greedy decoding gives the answer if and only if each of its tokens is the arg max after the true ones before it, so
    one forward pass per batch of 64 questions decides.
    """
    found: list[bool] = []
    device = model.device
    for start in range(0, len(asked), 64):
        part = asked[start : start + 64]
        prompts = [tokenizer.encode(q.prompt).ids for q in part]
        full = [tokenizer.encode(f"{q.prompt} {q.answer}.").ids[:-1] for q in part]
        width = max(map(len, full))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in full], device=device)
        best = model(ids).logits.argmax(-1)
        found += [bool((best[i, len(p) - 1 : len(f) - 1] == ids[i, len(p) : len(f)]).all())
                  for i, (p, f) in enumerate(zip(prompts, full, strict=True))]  # fmt: skip
    return found


@torch.no_grad()
def mean_loss(model: "GPT2LMHeadModel", tokenizer: "Tokenizer", seed: int, n_documents: int = 300) -> float:
    """Mean next-token loss in nats over the documents of a seed, first tokens left out."""
    total, count = 0.0, 0
    for document in islice(documents(seed), n_documents):
        ids = torch.tensor([tokenizer.encode(document.text).ids[: model.config.n_positions]], device=model.device)
        nll = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
        total, count = total + nll.item(), count + ids.shape[1] - 1
    return total / count
