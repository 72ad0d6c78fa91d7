"""Decoding with a KV cache, greedy or sampled."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.forward import check_length, positions
from hooks.tokens import Tokens


@torch.no_grad()
def decode(
    hf: Any, tokens: Tokens, *, max_new_tokens: int, temperature: float, seed: int, stop: frozenset[int]
) -> list[list[int]]:
    """Continue every prompt of a left-padded batch and return the ids of each continuation.

    Args:
        hf: a Hugging Face causal language model.
        tokens: the prompts, padded on the left.
        max_new_tokens: how many tokens to add at most.
        temperature: 0 takes the likeliest token, otherwise tokens are sampled at this temperature.
        seed: of the sampling.
        stop: ids that end a continuation (they are not returned).

    Raises:
        ValueError: prompt and continuation do not fit into the context.

    Cost: one forward pass over the prompts and one over a single token per new token.

    Example:
        ```python
        decode(model.hf, tokens, max_new_tokens=5, temperature=0.0, seed=0, stop=frozenset({2}))
        ```
    """
    check_length(hf, tokens.ids.shape[1] + max_new_tokens)
    random = torch.Generator().manual_seed(seed)
    chunk, mask, cache = tokens.ids, tokens.mask, None
    alive = torch.ones(len(tokens), dtype=torch.bool, device=chunk.device)
    ends = torch.tensor(sorted(stop), dtype=torch.long, device=chunk.device)
    made: list[list[int]] = [[] for _ in range(len(tokens))]
    for _ in range(max_new_tokens):
        place = {name: ids[:, -chunk.shape[1] :] for name, ids in positions(hf, mask).items()}
        output = hf(
            input_ids=chunk, attention_mask=mask.long(), past_key_values=cache, use_cache=True, **place
        )
        cache = output.past_key_values
        chosen = _choose(output.logits[:, -1], temperature, random)
        alive = alive & ~torch.isin(chosen, ends)
        if not bool(alive.any()):
            break
        for row in alive.nonzero().flatten().tolist():
            made[row].append(int(chosen[row]))
        chunk, mask = chosen[:, None], torch.cat([mask, alive[:, None]], dim=1)
    return made


def _choose(
    logits: Float[Tensor, "batch vocab"], temperature: float, random: torch.Generator
) -> Int[Tensor, "batch"]:
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    chances = (logits.float() / temperature).softmax(dim=-1).cpu()
    return torch.multinomial(chances, 1, generator=random)[:, 0].to(logits.device)
