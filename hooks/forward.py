"""One plain forward pass of the Hugging Face model on a batch of tokens."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.huggingface import HFModel, HFOutput
from hooks.tokens import Tokens

_PLAIN: Final = {"return_dict": True, "output_hidden_states": False, "output_attentions": False}
"""How a pass is asked for, whatever the configuration says."""


def forward(hf: HFModel, tokens: Tokens) -> HFOutput:
    """Run a model once over tokens, or any module over its inputs, without a cache, under the caller's grad mode.

    Raises:
        InvalidArgument: more tokens than the model's context holds.

    Examples:
        ```python
        forward(model.hf, model.tokens("Fog over the bay")).logits
        ```
    """
    given = tokens.inputs if tokens.images is None else tokens.images.arguments
    if given is not None:
        by_place = [given[slot] for slot in sorted(slot for slot in given if isinstance(slot, int))]
        return hf(*by_place, **{slot: one for slot, one in given.items() if isinstance(slot, str)})
    check_length(hf, tokens.ids.shape[1])
    with named_outputs(hf):
        return hf(**arguments(hf, tokens))


@contextmanager
def named_outputs(hf: HFModel) -> Iterator[None]:
    """Let the parts of a model return named outputs inside the block, as they expect of each other.

    A configuration with `return_dict=False` makes them return tuples; it is set back when the block ends.

    Examples:
        ```python
        with named_outputs(hf):
            hf.generate(ids)
        ```
    """
    held = [one for one in (hf.config, hf.config.get_text_config()) if not getattr(one, "return_dict", True)]
    for config in held:
        config.return_dict = True
    try:
        yield
    finally:
        for config in held:
            config.return_dict = False


def arguments(hf: HFModel, tokens: Tokens) -> dict[str, Any]:
    """Return what one pass over tokens is called with: without a cache, and for a named output.

    A decoder after an encoder reads its own tokens, or the same text, moved right by one after its start token.

    Examples:
        ```python
        model.hf(**arguments(model.hf, model.tokens("Fog over the bay")))
        ```
    """
    given: dict[str, Any] = {"input_ids": tokens.ids, **positions(hf, tokens.mask)}
    if accepts(hf, "attention_mask"):
        given["attention_mask"] = tokens.mask.long()
    given |= {name: plain for name, plain in _PLAIN.items() if getattr(hf.config, name, plain) is not plain}
    if accepts(hf, "use_cache"):
        given["use_cache"] = False
    given |= tokens.more
    if tokens.decoder is not None:
        given["decoder_input_ids"] = tokens.decoder.ids
        if accepts(hf, "decoder_attention_mask") and not bool(tokens.decoder.mask.all()):
            given["decoder_attention_mask"] = tokens.decoder.mask.long()
    elif getattr(hf.config, "is_encoder_decoder", False) and accepts(hf, "decoder_input_ids"):
        start = torch.full_like(tokens.ids[:, :1], decoder_start(hf))
        given["decoder_input_ids"] = torch.cat([start, tokens.ids[:, :-1]], dim=1)
    return given


def decoder_start(hf: HFModel) -> int:
    """Return the token that a decoder after an encoder begins with, as its settings say.

    Examples:
        ```python
        decoder_start(t5)
        ```
    """
    held = (getattr(hf, "generation_config", None), hf.config, hf.config.get_text_config(decoder=True))
    named = (getattr(one, name, None) for name in ("decoder_start_token_id", "bos_token_id") for one in held)
    return next((int(one) for one in named if one is not None), 0)


def positions(hf: HFModel, mask: Bool[Tensor, "batch pos"]) -> dict[str, Int[Tensor, "batch pos"]]:
    """Return the position ids left padding calls for, as keyword arguments; none without it.

    Examples:
        ```python
        positions(model.hf, tokens.mask)
        ```
    """
    if bool(mask[:, 0].all()) or not accepts(hf, "position_ids"):
        return {}
    return {"position_ids": (mask.long().cumsum(dim=1) - 1).clamp_min(0)}


def accepts(hf: HFModel, argument: str) -> bool:
    """Return whether the model's forward names an argument.

    Examples:
        ```python
        accepts(model.hf, "use_cache")
        ```
    """
    return argument in _arguments(type(hf))


@cache
def _arguments(kind: type) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)


def context(hf: HFModel) -> int | None:
    """Return how many tokens a model reads at once; None where its configuration sets no limit.

    Where positions are counted from after the padding token's id (RoBERTa), so many fewer.

    Examples:
        ```python
        context(model.hf)
        ```
    """
    config = hf.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    return limit - config.pad_token_id - 1 if _counts_after_padding(type(hf)) and config.pad_token_id else limit


@cache
def _counts_after_padding(kind: type) -> bool:
    """Whether a model's own file makes positions of ids, from the padding token's on."""
    own = vars(sys.modules[kind.__module__])
    name = "create_position_ids_from_input_ids"
    return name in own or any(name in vars(one) for one in own.values() if isinstance(one, type))


def check_length(hf: HFModel, n_pos: int) -> None:
    """Raise when a text is longer than the model's context.

    Examples:
        ```python
        check_length(model.hf, 12)
        ```
    """
    limit = context(hf)
    if limit is not None and n_pos > limit:
        raise InvalidArgument(
            f"{n_pos} tokens do not fit into the context of {limit}: shorten or split the text, "
            "or ask for fewer new tokens"
        )
