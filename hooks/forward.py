"""One plain forward pass of the Hugging Face model on a batch of tokens."""

import inspect
from functools import cache

from jaxtyping import Bool, Int
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.huggingface import HFModel, HFOutput
from hooks.tokens import Tokens


def forward(hf: HFModel, tokens: Tokens) -> HFOutput:
    """Run a Hugging Face model once over tokens, without a cache, under the caller's grad mode.

    Raises:
        ValueError: more tokens than the model's context holds.

    Example:
        ```python
        forward(model.hf, model.tokens("Fog over the bay")).logits
        ```
    """
    check_length(hf, tokens.ids.shape[1])
    extra = {"use_cache": False} if accepts(hf, "use_cache") else {}
    return hf(input_ids=tokens.ids, attention_mask=tokens.mask.long(), **positions(hf, tokens.mask), **extra)


def positions(hf: HFModel, mask: Bool[Tensor, "batch pos"]) -> dict[str, Int[Tensor, "batch pos"]]:
    """Return the position ids left padding calls for, as keyword arguments; none without it.

    Example:
        ```python
        positions(model.hf, tokens.mask)
        ```
    """
    if bool(mask[:, 0].all()) or not accepts(hf, "position_ids"):
        return {}
    return {"position_ids": (mask.long().cumsum(dim=1) - 1).clamp_min(0)}


def accepts(hf: HFModel, argument: str) -> bool:
    """Return whether the model's forward names an argument.

    Example:
        ```python
        accepts(model.hf, "use_cache")
        ```
    """
    return argument in _arguments(type(hf))


@cache
def _arguments(kind: type) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)


def check_length(hf: HFModel, n_pos: int) -> None:
    """Raise when a text is longer than the model's context.

    Example:
        ```python
        check_length(model.hf, 12)
        ```
    """
    limit = getattr(hf.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and n_pos > limit:
        raise InvalidArgument(
            f"{n_pos} tokens do not fit into the context of {limit}: shorten or split the text, "
            "or ask for fewer new tokens"
        )
