"""How likely a model finds a continuation: teacher-forced log-probabilities of the tokens that spell it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Model, Tokens


@dataclass(frozen=True)
class Completion:
    """Prompts with their continuations, tokenised as one text each; `target` marks the tokens of the continuation."""

    tokens: Tokens
    target: Bool[Tensor, "batch pos"]


def completion(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> Completion:
    """Tokenise `prompt + " " + answer` and mark the answer's tokens by their place in the text.

    Raises:
        ValueError: the tokenizer gives no character offsets.
    """
    tokens = model.tokens([f"{p} {a}" for p, a in zip(prompts, answers, strict=True)])
    if tokens.offsets is None:
        raise ValueError(f"{model.name}'s tokenizer gives no character offsets: load a fast tokenizer")
    ends = torch.tensor([len(p) for p in prompts], device=tokens.ids.device)
    return Completion(tokens, tokens.content & (tokens.offsets[..., 1] > ends[:, None]))


def log_probs(logits: Float[Tensor, "batch pos vocab"], asked: Completion) -> Float[Tensor, "batch"]:
    """Mean log-probability in nats of the continuation's tokens, each given the true ones before it."""
    ids, target = asked.tokens.ids[:, 1:], asked.target[:, 1:]
    each = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
    return (each * target).sum(1) / target.sum(1)


def arg_max_answers(logits: Float[Tensor, "batch pos vocab"], asked: Completion) -> list[list[int]]:
    """The arg-max token at each token of the continuation, teacher-forced."""
    best = logits[:, :-1].argmax(-1)
    return [row[mask].tolist() for row, mask in zip(best, asked.target[:, 1:], strict=True)]


@torch.no_grad()
def score(model: Model, prompts: Sequence[str], answers: Sequence[str], batch_size: int = 64) -> Float[Tensor, "n"]:
    """Mean log-probability of each answer after its prompt, in nats per token. Cost: one forward pass per batch."""
    found = []
    for i in range(0, len(prompts), batch_size):
        asked = completion(model, prompts[i : i + batch_size], answers[i : i + batch_size])
        found.append(log_probs(model.run(asked.tokens), asked))
    return torch.cat(found)


@torch.no_grad()
def forced(model: Model, prompts: Sequence[str], answers: Sequence[str], batch_size: int = 64) -> list[list[int]]:
    """The arg-max tokens at each answer, teacher-forced. Cost: one forward pass per batch."""
    found: list[list[int]] = []
    for i in range(0, len(prompts), batch_size):
        asked = completion(model, prompts[i : i + batch_size], answers[i : i + batch_size])
        found += arg_max_answers(model.run(asked.tokens), asked)
    return found
