"""How likely a model finds a continuation: teacher-forced log-probabilities of its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Model, Tokens
from hooks.errors import InvalidArgument
from hooks.pieces import is_blank, piece
from interp.common.texts import join_words


@dataclass(frozen=True)
class Completion:
    """Prompts with their continuations, tokenised as one text each; `target` marks the tokens of the continuation."""

    tokens: Tokens
    target: Bool[Tensor, "batch pos"]


def tokenise_completions(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> Completion:
    """Tokenise each prompt with its answer as one text, `join_words` of both, and mark the answer's tokens.

    Raises:
        InvalidArgument: no prompts, an empty text or spaces around one, as `tokens_after`.
    """
    for name, texts in (("prompt", prompts), ("answer", answers)):
        for text in texts:
            if not text or text != text.strip():
                raise InvalidArgument(f"{name} {text!r}: give a text without spaces around it")
    tokens = model.tokens([join_words(p, a) for p, a in zip(prompts, answers, strict=True)])
    return Completion(tokens, tokens_after(tokens, [len(p) for p in prompts]))


def tokens_after(tokens: Tokens, ends: Sequence[int]) -> Bool[Tensor, "batch pos"]:
    """The tokens of each text that hold something from its character `ends[i]` on.

    Raises:
        InvalidArgument: no character offsets, or a token on both sides of the character.
    """
    if tokens.offsets is None:
        raise InvalidArgument("these tokens have no character offsets: load the model with a fast tokenizer")
    start, stop = tokens.offsets.unbind(-1)
    end = torch.tensor(ends, device=start.device)[:, None]
    for row, _ in (tokens.content & (start < end) & (stop > end)).nonzero().tolist():
        raise InvalidArgument(
            f"one token holds both the end of the prompt and the start of the answer in text {row}"
            f" ({(tokens.texts or ())[row]!r}): end the prompt with a whole word"
        )
    return tokens.content & (stop > end)


def token_log_probs(
    logits: Float[Tensor, "batch pos vocab"], ids: Int[Tensor, "batch pos"], target: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "batch _"]:
    """log p(x_t | x_<t) in nats of each token but the first, where the logits are; 0 where it is no target."""
    log_p = logits[:, :-1].float().log_softmax(-1)
    each = log_p.gather(-1, ids[:, 1:, None].to(log_p.device))[..., 0]
    return each.where(target[:, 1:].to(each.device), each.new_zeros(()))


def log_probs(
    logits: Float[Tensor, "batch pos vocab"], ids: Int[Tensor, "batch pos"], target: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "batch"]:
    """Mean log-probability in nats of the target tokens, each given the true ones before it."""
    each = token_log_probs(logits, ids, target)
    return each.sum(1) / target[:, 1:].sum(1).to(each.device)


@torch.no_grad()
def mean_losses(model: Model, texts: Sequence[str], batch_size: int = 32) -> Float[Tensor, "example"]:
    """The mean next-token loss of each text in nats, over its tokens with one before them, in float64.

    Raises:
        InvalidArgument: a text without such a token.

    Cost: one forward pass per batch.
    """
    found = []
    for i in range(0, len(texts), batch_size):
        tokens = model.tokens([*texts[i : i + batch_size]])
        for row in (~tokens.predicted.any(1)).nonzero().flatten().tolist():
            raise InvalidArgument(f"the text {texts[i + row]!r} holds no token to predict: leave it out")
        found.append(-log_probs(model.run(tokens), tokens.ids, tokens.predicted))
    return torch.cat(found).double().cpu()


@torch.no_grad()
def score(model: Model, prompts: Sequence[str], answers: Sequence[str], batch_size: int = 64) -> Float[Tensor, "n"]:
    """Mean log-probability of each answer after its prompt, in nats per token.

    Cost: one forward pass per batch.
    """
    found = []
    for i in range(0, len(prompts), batch_size):
        asked = tokenise_completions(model, prompts[i : i + batch_size], answers[i : i + batch_size])
        found.append(log_probs(model.run(asked.tokens), asked.tokens.ids, asked.target))
    return torch.cat(found)


def generate_ids(
    model: Model, prompts: Sequence[str], lengths: Sequence[int], *, temperature: float = 0.0, seed: int = 0
) -> list[list[int]]:
    """The tokens that the model continues each prompt by, at most as many as `lengths` says of it.

    Cost: one forward pass over the prompts, and one over a single token for each of the longest.
    """
    made: list[list[int]] = [[] for _ in prompts]

    def keep(ids: list[list[int]]) -> None:
        made[:] = [[*row] for row in ids]

    model.generate([*prompts], max_new_tokens=max(lengths), temperature=temperature, seed=seed, each=keep)
    return [row[:n] for row, n in zip(made, lengths, strict=True)]


@torch.no_grad()
def predict_forced(
    model: Model, prompts: Sequence[str], answers: Sequence[str], batch_size: int = 64
) -> list[list[int]]:
    """The arg-max tokens at each answer, teacher-forced.

    Cost: one forward pass per batch.
    """
    found: list[list[int]] = []
    for i in range(0, len(prompts), batch_size):
        asked = tokenise_completions(model, prompts[i : i + batch_size], answers[i : i + batch_size])
        best = model.run(asked.tokens)[:, :-1].argmax(-1)
        found += [row[mask].tolist() for row, mask in zip(best, asked.target[:, 1:], strict=True)]
    return found


def says(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
    """Whether arg max, token by token and teacher-forced, is each answer.

    Cost: one forward pass per batch.
    """
    said, wanted = predict_forced(model, prompts, answers), find_answer_ids(model, prompts, answers)
    return [one == other for one, other in zip(said, wanted, strict=True)]


def find_first_ids(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> list[int]:
    """The first token of each answer after its prompt, to read of an answer what one token says.

    Raises:
        InvalidArgument: one that is white space alone, which says nothing of the answer.
    """
    first = [ids[0] for ids in find_answer_ids(model, prompts, answers)]
    for token, answer in zip(first, answers, strict=True):
        if is_blank(model.tokenizer, token):
            raise InvalidArgument(
                f"the first token of {answer!r} is {piece(model.tokenizer, token)!r}, white space alone, which says "
                "nothing of the answer: take a model whose tokenizer joins the space before a word to the word"
            )
    return first


def find_answer_ids(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
    """The tokens of each answer after its prompt: what `predict_forced` gives if the model agrees with all of it."""
    asked = tokenise_completions(model, prompts, answers)
    return [row[mask].tolist() for row, mask in zip(asked.tokens.ids, asked.target, strict=True)]
