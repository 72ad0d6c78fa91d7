"""Decoding with a KV cache, greedy or sampled."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.forward import check_length, named_outputs, positions
from hooks.huggingface import HFModel, Tokenizer
from hooks.temporary import grad_mode
from hooks.tokens import Tokens

Each = Callable[[list[list[int]]], None]
"""What is called with the ids that every prompt was continued by so far."""


@grad_mode(False)
def decode(
    hf: HFModel,
    tokens: Tokens,
    *,
    max_new_tokens: int,
    temperature: float | int,
    seed: int,
    stop: frozenset[int],
    each: Each | None = None,
) -> list[list[int]]:
    """Continue every prompt of a left-padded batch and return the ids of each continuation.

    Args:
        hf: a Hugging Face causal language model.
        tokens: the prompts, padded on the left.
        max_new_tokens: how many tokens to add at most.
        temperature: 0 takes the likeliest token, otherwise tokens are sampled at this temperature.
        seed: of the sampling.
        stop: ids that end a continuation (they are not returned).
        each: called after every new token with the ids made so far; what it raises ends the decoding.

    Raises:
        InvalidArgument: prompt and continuation do not fit into the context, a setting below its least value, or logits
            that are NaN or infinite.

    Cost: one forward pass over the prompts and one over a single token per new token.

    Examples:
        ```python
        decode(model.hf, tokens, max_new_tokens=5, temperature=0.0, seed=0, stop=frozenset({2}))
        ```
    """
    if max_new_tokens < 1 or not temperature >= 0.0:
        raise InvalidArgument(
            f"max_new_tokens is at least 1 and temperature at least 0, got {max_new_tokens} and {temperature}"
        )
    check_length(hf, tokens.ids.shape[1] + max_new_tokens)
    random = torch.Generator().manual_seed(seed)
    chunk, mask, cache = tokens.ids, tokens.mask, None
    alive = torch.ones(len(tokens), dtype=torch.bool, device=chunk.device)
    ends = torch.tensor(sorted(stop), dtype=torch.long, device=chunk.device)
    made: list[list[int]] = [[] for _ in range(len(tokens))]
    # a mixture that is set to return its routers' logits weighs them by the mask of the whole text, and breaks
    plain = {"output_router_logits": False} if getattr(hf.config, "output_router_logits", False) else {}
    for _ in range(max_new_tokens):
        place = {name: ids[:, -chunk.shape[1] :] for name, ids in positions(hf, mask).items()}
        with named_outputs(hf):
            given = {"input_ids": chunk, "attention_mask": mask.long(), "past_key_values": cache, "use_cache": True}
            output = hf(**given, **place, **plain)
        cache = output.past_key_values
        chosen = _choose(output.logits[:, -1], temperature, random)
        alive = alive & ~torch.isin(chosen, ends)
        if not bool(alive.any()):
            break
        for row in alive.nonzero().flatten().tolist():
            made[row].append(int(chosen[row]))
        if each is not None:
            each(made)
        chunk, mask = chosen[:, None], torch.cat([mask, alive[:, None]], dim=1)
    return made


def stop_ids(hf: HFModel, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that end a text, as the model's generation settings and the tokenizer say.

    Examples:
        ```python
        stop_ids(model.hf, model.tokenizer)
        ```
    """
    settings = getattr(hf, "generation_config", None)
    listed = getattr(settings, "eos_token_id", None)
    listed = listed if isinstance(listed, list) else [listed]
    return frozenset(int(one) for one in (*listed, tokenizer.eos_token_id) if one is not None)


def continuation(tokenizer: Tokenizer, given: Sequence[int], new: Sequence[int]) -> str:
    """Return the text that `new` adds to `given`.

    Both are decoded together and cut: decoded alone, a continuation can lose its leading space.

    Examples:
        ```python
        continuation(model.tokenizer, [1, 403], [407, 261])
        ```
    """
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    before = tokenizer.decode(list(given), **options)
    whole = tokenizer.decode([*given, *new], **options)
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(list(new), **options)


def _choose(
    logits: Float[Tensor, "batch vocab"], temperature: float | int, random: torch.Generator
) -> Int[Tensor, "batch"]:
    likeliest = logits.argmax(dim=-1)
    highest = logits.gather(1, likeliest[:, None])[:, 0]  # NaN where any is
    for row in (~highest.isfinite()).nonzero().flatten().tolist():
        raise InvalidArgument(
            f"the highest logit of text {row} is {float(highest[row])}, so it has no next token: load the model in "
            "float32, or lower the strength of what changes it"
        )
    if temperature == 0.0:
        return likeliest
    chances = (logits.float() / temperature).softmax(dim=-1).cpu()
    return torch.multinomial(chances, 1, generator=random)[:, 0].to(logits.device)
