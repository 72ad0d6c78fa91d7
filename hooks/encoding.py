"""Encoding: a batch of `Tokens` from texts, from token ids, or from what a tokenizer returned, padded on one side."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument, InvalidType
from hooks.huggingface import Tokenizer
from hooks.tokens import Tokens


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that are no text; unknown and mask tokens take the place of text, so they are not among them.

    Examples:
        ```python
        special_ids(model.tokenizer)
        ```
    """
    if tokenizer is None:
        return frozenset()
    of_text = {tokenizer.unk_token_id, tokenizer.mask_token_id}
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return frozenset(ends | (set(tokenizer.all_special_ids) - of_text)) - {None}


def as_texts(given: Any) -> list[str]:
    """Return a text, or several, as a list.

    Raises:
        InvalidType: anything else, such as a mapping, of which a list would hold the keys.
        InvalidArgument: the name of a file, or a text that holds half of a character.

    Examples:
        >>> as_texts("Fog")
        ['Fog']
    """
    if isinstance(given, Mapping):
        raise InvalidType(
            f"expected a text or a list of texts, got a {type(given).__name__} of {sorted(map(str, given))}: name one "
            "of them, as in dataset['train']; what a tokenizer returned is taken whole by tokens, run and capture"
        )
    only = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    if isinstance(only, Path) or (isinstance(only, str) and looks_like_a_file(only)):
        raise InvalidArgument(
            f"'{only}' is the name of a file, and its name would be read in place of its text: pass what is in it, as "
            "in Path(name).read_text().splitlines(), or open_dataset(name)"
        )
    texts = [given] if isinstance(given, str) else list(given)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidType(
                f"expected a text or a list of texts, got a {type(text).__name__} as text {number}: pass strings, or "
                "token ids as a tensor of [pos] or [batch pos]"
            )
        _check_characters(text, number)
    return texts


def _check_characters(text: str, number: int) -> None:
    """Refuse half of a character, which tokenizers cannot read."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"text {number} holds {text[error.start]!r} at character {error.start}, which is half of a character: cut "
            "the text elsewhere, or leave it out by text.encode('utf-8', 'ignore').decode()"
        ) from error


def looks_like_a_file(text: str) -> bool:
    """Return whether a text is the name of a file that is there.

    Examples:
        >>> looks_like_a_file("Fog over the bay")
        False
    """
    if len(text) > 1024 or "\n" in text or ("." not in text and "/" not in text):
        return False
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], side: str) -> Tokens:
    """Turn texts into `Tokens`, with the special tokens the tokenizer adds, padded on one side.

    Args:
        tokenizer: a Hugging Face tokenizer.
        texts: at least one text.
        side: "left" or "right".

    Raises:
        InvalidArgument: no texts, or a text without tokens.

    Examples:
        ```python
        tokenize(model.tokenizer, ["The Golden Gate Bridge"], side="right")
        ```
    """
    if tokenizer is None:
        raise InvalidArgument(
            "this model has no tokenizer, so it cannot read text: pass token ids, or load(source, tokenizer)"
        )
    if not texts:
        raise InvalidArgument("got no texts: pass a text or a non-empty list of texts")
    with_offsets = bool(tokenizer.is_fast)
    encoded = tokenizer(list(texts), return_offsets_mapping=with_offsets, return_attention_mask=False, verbose=False)
    offsets = encoded["offset_mapping"] if with_offsets else None
    return pad(tokenizer, encoded["input_ids"], side, texts=tuple(texts), offsets=offsets)


def from_encoding(tokenizer: Tokenizer, encoding: Mapping[str, Any], d_vocab: int, side: str) -> Tokens:
    """Turn what a tokenizer or processor returned into `Tokens`: padding is what its "attention_mask" hides.

    Its "decoder_input_ids" are what a decoder reads, and whatever other tensors it has are handed on by their names.

    Raises:
        InvalidArgument: as `from_ids`, or a mask of another shape; other entries without `return_tensors="pt"`.

    Examples:
        ```python
        from_encoding(model.tokenizer, model.tokenizer(["Fog", "The bay"], padding=True), model.d_vocab, "right")
        ```
    """
    ids, mask = encoding["input_ids"], encoding.get("attention_mask")
    more = {name: one for name, one in encoding.items() if name not in _SAID and one is not None}
    decoder_ids, decoder_mask = (more.pop(f"decoder_{name}", None) for name in ("input_ids", "attention_mask"))
    if isinstance(ids, Tensor):
        tokens = from_ids(tokenizer, ids, d_vocab, None if mask is None else torch.as_tensor(mask))
        more = {name: one.reshape(tokens.ids.shape) if one.shape == ids.shape else one for name, one in more.items()}
        decoder = None if decoder_ids is None else from_ids(tokenizer, decoder_ids, d_vocab, decoder_mask)
        return replace(tokens, more=more, decoder=decoder)
    if more or decoder_ids is not None:
        raise InvalidArgument(
            f"{', '.join(sorted(encoding))} came without tensors: tokenise with return_tensors='pt' (and padding=True)"
        )
    if ids and isinstance(ids[0], int):
        ids, mask = [ids], None if mask is None else [mask]
    return pad(tokenizer, strip_padding(tokenizer, ids, mask), side)


_SAID: Final = frozenset({
    "input_ids", "attention_mask", "offset_mapping", "special_tokens_mask", "length", "num_truncated_tokens",
    "overflowing_tokens", "overflow_to_sample_mapping", "labels",
})  # fmt: skip
"""What a tokenizer returns that is no argument of a pass of its own."""


def from_ids(
    tokenizer: Tokenizer, ids: Shaped[Tensor, "..."], d_vocab: int, mask: Shaped[Tensor, "..."] | None = None
) -> Tokens:
    """Turn token ids of shape [pos] or [batch pos] into `Tokens`.

    Padding is what the mask hides. Without a mask it is the runs of the tokenizer's padding token at the ends of a
    text. Where it cannot be known what is padding, that is an error: the padding token inside a text, or one that is
    also the end of text and is at the end of some texts more often than of others.

    Raises:
        InvalidArgument: not whole numbers, another shape, ids outside the vocabulary, a text of padding alone, or ids
            of which it cannot be known what is padding.

    Examples:
        ```python
        from_ids(model.tokenizer, torch.tensor([1, 2, 3]), model.d_vocab)
        ```
    """
    whole = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    if ids.ndim not in (1, 2) or not whole or not ids.numel():
        raise InvalidArgument(
            f"token ids are whole numbers of shape [pos] or [batch pos], got {ids.dtype} {tuple(ids.shape)}"
        )
    if int(ids.min()) < 0 or int(ids.max()) >= d_vocab:
        raise InvalidArgument(f"token ids are in 0..{d_vocab - 1}, got {int(ids.min())}..{int(ids.max())}")
    if mask is not None and mask.shape != ids.shape:
        raise InvalidArgument(
            f"the attention mask has shape {tuple(mask.shape)}, and the token ids {tuple(ids.shape)}: give one for them"
        )
    ids = ids.reshape(-1, ids.shape[-1]).long()
    mask = _real(tokenizer, ids) if mask is None else mask.reshape(ids.shape).bool().to(ids.device)
    if not bool((real := mask.any(dim=1)).all()):
        raise InvalidArgument(f"text {int((~real).nonzero()[0])} has no tokens: leave it out")
    return Tokens(ids=ids, mask=mask, special=~mask | is_in(ids, special_ids(tokenizer)))


def _real(tokenizer: Tokenizer, ids: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """True where ids that came without a mask are not padding."""
    padding = getattr(tokenizer, "pad_token_id", None)
    if padding is None:
        return torch.ones_like(ids, dtype=torch.bool)
    found = ids == padding
    runs = [found.long().cumprod(1), found.flip(1).long().cumprod(1)]
    if padding in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        for number in (run.sum(1) for run in runs):
            if int(number.min()) != int(number.max()):
                text = int((number != number.min()).nonzero()[0])
                raise InvalidArgument(
                    f"text {text} has {int(number[text])} of the token {tokenizer.pad_token!r} at its end where "
                    f"another has {int(number.min())}, and it is both padding and a part of texts: {WITH_MASK}"
                )
        return torch.ones_like(ids, dtype=torch.bool)
    edge = runs[0].bool() | runs[1].flip(1).bool()
    if bool((inside := found & ~edge).any()):
        text, pos = inside.nonzero()[0].tolist()
        raise InvalidArgument(_inside(tokenizer, text, pos))
    return ~edge


WITH_MASK: Final = "pass what the tokenizer returned, with its attention_mask"


def _inside(tokenizer: Tokenizer, text: int, pos: int) -> str:
    return (
        f"text {text} has the padding token {tokenizer.pad_token!r} inside it, at {pos}, so whether it is padding or "
        f"text is not known: {WITH_MASK}"
    )


def strip_padding(
    tokenizer: Tokenizer, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[int]] | None = None
) -> Sequence[Sequence[int]]:
    """Return rows of token ids without their padding: what the masks hide, or else runs of padding at their ends.

    Raises:
        InvalidArgument: without masks, the padding token inside a row, or more than one of it at an end where it is
            also the end of text.

    Examples:
        ```python
        strip_padding(model.tokenizer, [[1, 2, 0]], [[1, 1, 0]])  # [[1, 2]]
        ```
    """
    if masks is not None:
        pairs = zip(rows, masks, strict=True)
        return [row if all(mask) else [id for id, real in zip(row, mask, strict=True) if real] for row, mask in pairs]
    padding = getattr(tokenizer, "pad_token_id", None)
    if padding is None:
        return rows
    return [
        row if padding not in row else _without_ends(tokenizer, int(padding), number, row)
        for number, row in enumerate(rows)
    ]


def _without_ends(tokenizer: Tokenizer, padding: int, number: int, row: Sequence[int]) -> Sequence[int]:
    start, stop = 0, len(row)
    while start < stop and row[start] == padding:
        start += 1
    while stop > start and row[stop - 1] == padding:
        stop -= 1
    if padding in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if max(start, len(row) - stop) > 1:
            raise InvalidArgument(
                f"text {number} has {max(start, len(row) - stop)} of the token {tokenizer.pad_token!r} at its end, and "
                f"it is both padding and a part of texts: {WITH_MASK}"
            )
        return row
    kept = row[start:stop]
    if padding in kept:
        raise InvalidArgument(_inside(tokenizer, number, start + [*kept].index(padding)))
    return kept


def pad(
    tokenizer: Tokenizer,
    rows: Sequence[Sequence[int]],
    side: str,
    *,
    texts: tuple[str, ...] | None = None,
    offsets: Sequence[Sequence[tuple[int, int]]] | None = None,
) -> Tokens:
    """Pad rows of token ids to one length.

    Raises:
        InvalidArgument: a row without tokens.

    Examples:
        ```python
        pad(model.tokenizer, [[1, 2, 3], [4]], side="left")
        ```
    """
    for number, row in enumerate(rows):
        if not len(row):
            shown = "" if texts is None else f" ({texts[number]!r})"
            raise InvalidArgument(f"text {number}{shown} has no tokens: leave it out")
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), _pad_id(tokenizer))
    mask = torch.zeros_like(ids, dtype=torch.bool)
    spans = torch.zeros(len(rows), longest, 2, dtype=torch.long)
    for number, row in enumerate(rows):
        columns = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        ids[number, columns] = torch.as_tensor(row, dtype=torch.long)
        mask[number, columns] = True
        if offsets is not None:
            spans[number, columns] = torch.as_tensor(offsets[number], dtype=torch.long)
    special = ~mask | is_in(ids, special_ids(tokenizer))
    return Tokens(ids=ids, mask=mask, special=special, texts=texts, offsets=None if offsets is None else spans)


def join(tokenizer: Tokenizer, batches: Sequence[Tokens], side: str) -> Tokens:
    """Put batches one below the other, padded on one side to the longest.

    Examples:
        ```python
        join(model.tokenizer, [tokens, more], side="right")
        ```
    """
    longest = max(batch.ids.shape[1] for batch in batches)

    def wide(name: str, fill: int, axes: int = 1) -> Shaped[Tensor, "batch pos ..."]:
        grown = []
        for batch in batches:
            value = getattr(batch, name)
            more = longest - value.shape[1]
            around = (0, 0) * (axes - 1) + ((more, 0) if side == "left" else (0, more))
            grown.append(torch.nn.functional.pad(value, around, value=fill))
        return torch.cat(grown)

    texts = [batch.texts for batch in batches if batch.texts is not None]
    return Tokens(
        ids=wide("ids", _pad_id(tokenizer)),
        mask=wide("mask", False),
        special=wide("special", True),
        texts=sum(texts, ()) if len(texts) == len(batches) else None,
        offsets=None if any(batch.offsets is None for batch in batches) else wide("offsets", 0, axes=2),
    )


def is_in(ids: Int[Tensor, "batch pos"], members: Collection[int]) -> Bool[Tensor, "batch pos"]:
    """Return where `ids` is one of `members`.

    Examples:
        >>> is_in(torch.tensor([[1, 2]]), {2})
        tensor([[False,  True]])
    """
    return torch.isin(ids, torch.tensor(sorted(members), dtype=ids.dtype, device=ids.device))


def _pad_id(tokenizer: Tokenizer) -> int:
    candidates = (getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "eos_token_id", None))
    return next((int(one) for one in candidates if one is not None), 0)
