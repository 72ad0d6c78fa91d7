"""Tokens: a batch of token ids that knows which are real, which are special, and where each stands in its text."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument, InvalidType, OutOfRange
from hooks.huggingface import Tokenizer


@final
@dataclass(frozen=True, eq=False)
class Tokens:
    """A padded batch of token ids.

    Attributes:
        ids: token ids, padding included.
        mask: True on real tokens, beginning-of-text included; False on padding.
        special: True on beginning-of-text, end-of-text, separators and padding.
        texts: the texts they came from, if they came from texts.
        offsets: start and end of each token in its text, in characters; (0, 0) where it has none.
        prompt_pos: columns from this one on were generated; None when all were given.

    Example:
        ```python
        tokens = model.tokens(["The Golden Gate Bridge", "Fog"])
        tokens.ids.shape, tokens[1].texts
        ```
    """

    ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    special: Bool[Tensor, "batch pos"]
    texts: tuple[str, ...] | None = None
    offsets: Int[Tensor, "batch pos 2"] | None = None
    prompt_pos: int | None = None

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, rows: int | slice) -> "Tokens":
        """Take some texts of the batch; columns that are padding in all of them are dropped.

        Raises:
            IndexError: a text that is not there.

        Example:
            ```python
            first_two = tokens[:2]
            ```
        """
        if isinstance(rows, int):
            if not -len(self) <= rows < len(self):
                raise OutOfRange(f"text {rows} was asked for, and there are {len(self)}")
            rows = slice(rows, rows + 1 or None)
        used = self.mask[rows].any(dim=0).nonzero().flatten()
        start, stop = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        return Tokens(
            ids=self.ids[rows, start:stop],
            mask=self.mask[rows, start:stop],
            special=self.special[rows, start:stop],
            texts=None if self.texts is None else self.texts[rows],
            offsets=None if self.offsets is None else self.offsets[rows, start:stop],
            prompt_pos=None if self.prompt_pos is None else self.prompt_pos - start,
        )

    @property
    def content(self) -> Bool[Tensor, "batch pos"]:
        """True on the tokens that carry text: neither padding nor special."""
        return self.mask & ~self.special

    @property
    def given(self) -> Bool[Tensor, "batch pos"]:
        """True on the tokens of the prompt that carry text."""
        given = self.content.clone()
        if self.prompt_pos is not None:
            given[:, self.prompt_pos :] = False
        return given

    def to(self, device: torch.device) -> "Tokens":
        """Return the same tokens on a device.

        Example:
            ```python
            tokens.to(torch.device("cpu"))
            ```
        """
        return replace(
            self,
            ids=self.ids.to(device),
            mask=self.mask.to(device),
            special=self.special.to(device),
            offsets=None if self.offsets is None else self.offsets.to(device),
        )

    def cut(self, columns: int) -> "Tokens":
        """Return the first columns only.

        Example:
            ```python
            tokens.cut(3).ids.shape
            ```
        """
        return replace(
            self,
            ids=self.ids[:, :columns],
            mask=self.mask[:, :columns],
            special=self.special[:, :columns],
            offsets=None if self.offsets is None else self.offsets[:, :columns],
        )

    def extended(
        self, ids: Int[Tensor, "batch n"], mask: Bool[Tensor, "batch n"], special: Bool[Tensor, "batch n"]
    ) -> "Tokens":
        """Return these tokens followed by generated ones.

        Example:
            ```python
            tokens.extended(new_ids, torch.ones_like(new_ids).bool(), torch.zeros_like(new_ids).bool())
            ```
        """
        offsets = self.offsets
        if offsets is not None:
            offsets = torch.cat([offsets, offsets.new_zeros(*ids.shape, 2)], dim=1)
        return replace(
            self,
            ids=torch.cat([self.ids, ids], dim=1),
            mask=torch.cat([self.mask, mask], dim=1),
            special=torch.cat([self.special, special], dim=1),
            offsets=offsets,
            prompt_pos=self.ids.shape[1] if self.prompt_pos is None else self.prompt_pos,
        )


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that carry no text; unknown and mask tokens stand for text and are left out.

    Example:
        ```python
        special_ids(model.tokenizer)
        ```
    """
    if tokenizer is None:
        return frozenset()
    stand_for_text = {tokenizer.unk_token_id, tokenizer.mask_token_id}
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return frozenset(ends | (set(tokenizer.all_special_ids) - stand_for_text)) - {None}


def as_texts(given: Any) -> list[str]:
    """Return a text, or several, as a list.

    Raises:
        TypeError: anything else, such as a mapping, of which a list would hold the keys.

    Example:
        >>> as_texts("Fog")
        ['Fog']
    """
    if isinstance(given, Mapping):
        raise InvalidType(
            f"expected a text or a list of texts, got a {type(given).__name__} of {sorted(map(str, given))}: name one "
            "of them, as in encoded['input_ids'] or dataset['train']"
        )
    texts = [given] if isinstance(given, str) else list(given)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidType(
                f"expected a text or a list of texts, got a {type(text).__name__} as text {number}: pass strings, or "
                "token ids as a tensor of [pos] or [batch pos]"
            )
    return texts


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], side: str) -> Tokens:
    """Turn texts into `Tokens`, with the special tokens the tokenizer adds, padded on one side.

    Args:
        tokenizer: a Hugging Face tokenizer.
        texts: at least one text.
        side: "left" or "right".

    Raises:
        ValueError: no texts, or a text without tokens.

    Example:
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


def from_ids(tokenizer: Tokenizer, ids: Shaped[Tensor, "..."], d_vocab: int) -> Tokens:
    """Turn token ids of shape [pos] or [batch pos] into `Tokens`.

    The tokenizer's padding token, where it is not also the end of text, marks padding; otherwise every
    id is taken for a real token.

    Raises:
        ValueError: not whole numbers, another shape, ids outside the vocabulary, or a text of padding alone.

    Example:
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
        raise InvalidArgument(f"token ids lie in 0..{d_vocab - 1}, got {int(ids.min())}..{int(ids.max())}")
    ids = ids.reshape(-1, ids.shape[-1]).long()
    padding = _padding(tokenizer)
    mask = torch.ones_like(ids, dtype=torch.bool) if padding is None else ids != padding
    if padding is not None and not bool((real := mask.any(dim=1)).all()):
        raise InvalidArgument(f"text {int((~real).nonzero()[0])} has no tokens: leave it out")
    return Tokens(ids=ids, mask=mask, special=~mask | is_in(ids, special_ids(tokenizer)))


def unpadded(
    tokenizer: Tokenizer, rows: Sequence[Sequence[int]], masks: Sequence[Sequence[int]] | None = None
) -> Sequence[Sequence[int]]:
    """Return rows of token ids without their padding: what the masks hide, or else what `from_ids` takes for it.

    Example:
        ```python
        unpadded(model.tokenizer, [[1, 2, 0]], [[1, 1, 0]])  # [[1, 2]]
        ```
    """
    if masks is not None:
        pairs = zip(rows, masks, strict=True)
        return [row if all(mask) else [id for id, real in zip(row, mask, strict=True) if real] for row, mask in pairs]
    padding = _padding(tokenizer)
    if padding is None:
        return rows
    return [row if padding not in row else [id for id in row if id != padding] for row in rows]


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
        ValueError: a row without tokens.

    Example:
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
    spans = None if offsets is None else torch.zeros(len(rows), longest, 2, dtype=torch.long)
    for number, row in enumerate(rows):
        columns = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        ids[number, columns] = torch.as_tensor(row, dtype=torch.long)
        mask[number, columns] = True
        if spans is not None and offsets is not None:
            spans[number, columns] = torch.as_tensor(offsets[number], dtype=torch.long)
    special = ~mask | is_in(ids, special_ids(tokenizer))
    return Tokens(ids=ids, mask=mask, special=special, texts=texts, offsets=spans)


def join(tokenizer: Tokenizer, batches: Sequence[Tokens], side: str) -> Tokens:
    """Put batches one below the other, padded on one side to the longest.

    Example:
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

    Example:
        >>> is_in(torch.tensor([[1, 2]]), {2})
        tensor([[False,  True]])
    """
    return torch.isin(ids, torch.tensor(sorted(members), dtype=ids.dtype, device=ids.device))


def _padding(tokenizer: Tokenizer) -> int | None:
    """The token that is padding wherever it stands; None where it may also be the end of a text."""
    padding = getattr(tokenizer, "pad_token_id", None)
    return None if padding is None or padding in (tokenizer.bos_token_id, tokenizer.eos_token_id) else int(padding)


def _pad_id(tokenizer: Tokenizer) -> int:
    candidates = (getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "eos_token_id", None))
    return next((int(one) for one in candidates if one is not None), 0)
