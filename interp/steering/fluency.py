"""How fluent a continuation is: its surprisal under a model, and how much it repeats itself."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Model, Tokens
from hooks.errors import InvalidArgument
from interp.common.completion import token_log_probs
from interp.common.texts import cut_to_context


def measure_surprisal(
    model: Model, prompts: Sequence[str], continuations: Sequence[str], *, batch_size: int = 32
) -> tuple[Float[Tensor, "example"], Int[Tensor, "example"]]:
    """Total surprisal of each continuation after its prompt, in nats, and its number of tokens.

    S = -sum_t log p(x_t | prompt, x_<t) over the tokens that reach past the prompt's characters, read as the tokenizer
    splits prompt and continuation together. exp(sum S / sum n) is the perplexity. A token that nothing comes before, as
    the first after an empty prompt where the tokenizer begins no text, has no surprisal and does not count.

    Raises:
        InvalidArgument: there are not as many continuations as prompts.

    Cost: one forward pass per batch.

    Examples:
        ```python
        nats, n = measure_surprisal(model, ["The bridge"], [" is red."])
        ```
    """
    if not prompts or len(prompts) != len(continuations):
        raise InvalidArgument(
            f"{len(continuations)} continuations were given with {len(prompts)} prompts: give one for each"
        )
    nats, lengths = [], []
    for start in range(0, len(prompts), batch_size):
        head, tail = prompts[start : start + batch_size], continuations[start : start + batch_size]
        whole = [a + b for a, b in zip(head, tail, strict=True)]
        # bytes that were sampled and make no character take more tokens when they are read again
        tokens = model.tokens(cut_to_context(model, whole))
        chosen = select_continuation(tokens, [len(a) for a in head])
        with torch.no_grad():
            nats.append(-token_log_probs(model.run(tokens), tokens.ids, chosen).sum(-1).cpu())
        lengths.append(chosen.sum(-1))
    return torch.cat(nats), torch.cat(lengths)


def select_continuation(tokens: Tokens, lengths: Sequence[int]) -> Bool[Tensor, "batch pos"]:
    """The predicted tokens that reach past the prompts' characters, of which each text has as many as `lengths` says.

    Raises:
        InvalidArgument: tokens without character offsets.
    """
    if tokens.offsets is None:
        raise InvalidArgument("the tokens have no character offsets: load the model with a fast tokenizer")
    ends = tokens.offsets[..., 1].cpu() > torch.tensor(lengths)[:, None]
    return ends & tokens.predicted.cpu()


def measure_distinctness(text: str, n: int = 2) -> float:
    """Share of a text's word n-grams that are different from one another; 1 for a text too short to repeat one.

    distinct-n = |set of n-grams| / number of n-grams (Li et al. 2016, arXiv:1510.03055, section 5).

    >>> measure_distinctness("the bay and the bay and the bay", 2)
    0.42857142857142855
    """
    words = text.casefold().split()
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else 1.0
