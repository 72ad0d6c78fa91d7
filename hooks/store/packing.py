"""How documents are laid out in the rows a model reads: one to a row, or packed end to end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import torch
from jaxtyping import Int
from torch import Tensor

from hooks.border import Count
from hooks.encoding import pad, special_ids
from hooks.errors import InvalidArgument
from hooks.forward import check_length
from hooks.forward import context as context_of
from hooks.huggingface import Tokenizer
from hooks.images import Images
from hooks.model import Model
from hooks.pieces import piece
from hooks.tokens import Tokens

Texts: TypeAlias = Sequence[str] | Sequence[Sequence[int]]
"""Texts, or the token ids of texts."""
Documents: TypeAlias = Texts | Images | Tensor
"""Texts; pictures; or of a model that reads neither what it is given, item by item."""
LONGEST = 1024


@final
@dataclass(frozen=True, eq=False)
class DocumentLayout:
    """Documents laid out for the model.

    Attributes:
        tokens: what the model reads.
        document: of which document each token is, counted from 0.
    """

    tokens: Tokens
    document: Int[Tensor, "batch pos"]


@final
@dataclass(frozen=True)
class Packing:
    """A rule that lays documents out in rows; made by `separate` and `packed`, of pictures by `places`.

    Attributes:
        name: how it prints; two packings of one name are equal.
        place: from documents to rows; None when they have no tokens at all.
        joins: a row may hold several documents, or begin within one.

    Examples:
        ```python
        packed(128).place(model, ["The Golden Gate Bridge", "Fog"])
        ```
    """

    name: str
    place: Callable[[Any, Any], DocumentLayout | None] = field(compare=False, repr=False)
    joins: bool = False

    def __repr__(self) -> str:
        return self.name


def separate(context: Count | None = None) -> Packing:
    """One document to a row, cut to the context, with the special tokens the tokenizer adds.

    Args:
        context: tokens of a row at most; by default the model's own context, at most 1024.

    Examples:
        >>> separate(128)
        separate(128)
    """

    def place(model: Model, documents: Texts) -> DocumentLayout | None:
        length = _context(model, context)
        texts = tuple(one for one in documents if isinstance(one, str))
        rows, offsets = _encode(model, texts, length) if texts else ([row[:length] for row in _ids(documents)], None)
        kept = [number for number, row in enumerate(rows) if len(row)]
        if not kept:
            return None
        tokens = pad(
            model.tokenizer,
            [rows[number] for number in kept],
            model.padding_side,
            texts=tuple(texts[number] for number in kept) if texts else None,
            offsets=None if offsets is None else [offsets[number] for number in kept],
        )
        document = torch.tensor(kept)[:, None].expand(tokens.ids.shape).contiguous()
        return DocumentLayout(tokens.to(model.device), document.to(model.device))

    return Packing(f"separate({'' if context is None else context})", place)


def packed(context: Count | None = None) -> Packing:
    """Documents end to end, cut into rows of equal length, so that no token is lost and hardly any is padding.

    Where the tokenizer begins a text with BOS, so does every row and every document. Where it does not, end-of-text
    separates documents.

    Args:
        context: tokens of a row, BOS included; by default the model's own context, at most 1024.

    Examples:
        >>> packed(128)
        packed(128)
    """

    def place(model: Model, documents: Texts) -> DocumentLayout | None:
        length = _context(model, context)
        begin, between = _separators(model, length)
        bare = _bare(model, documents, begin)
        rows = [*_cut_rows(bare, length, begin, between)]
        if not rows:
            return None
        tokens = pad(model.tokenizer, [[id for id, _ in row] for row in rows], model.padding_side)
        document = torch.zeros_like(tokens.ids)
        document[tokens.mask] = torch.tensor([number for row in rows for _, number in row])
        return DocumentLayout(tokens.to(model.device), document.to(model.device))

    return Packing(f"packed({'' if context is None else context})", place, joins=True)


def _cut_rows(
    documents: Sequence[Sequence[int]], length: int, begin: list[int], between: list[int]
) -> Iterator[list[tuple[int, int]]]:
    """Rows of (id, document)."""
    row: list[tuple[int, int]] = []
    for number, ids in enumerate(documents):
        rest = [*(between if row else begin), *ids] if ids else []
        while rest:
            room = length - len(row)
            row += [(id, number) for id in rest[:room]]
            rest = rest[room:]
            if len(row) == length:
                yield row
                row = [(id, number) for id in begin] if rest else []
    if len(row) > len(begin):
        yield row


def _context(model: Model, asked: int | None) -> int:
    """How long rows are: what was asked for, if the model can read it; otherwise what it can read."""
    if asked is not None:
        if asked < 1:
            raise InvalidArgument(f"a context of {asked} leaves no room for text: give at least 1")
        check_length(model.hf, asked)
        return asked
    return min(LONGEST, context_of(model.hf) or LONGEST)


def _encode(
    model: Model, texts: Sequence[str], length: int
) -> tuple[list[list[int]], list[list[tuple[int, int]]] | None]:
    fast = bool(_tokenizer(model).is_fast)
    encoded = model.tokenizer(
        list(texts),
        truncation=True,
        max_length=length,
        return_offsets_mapping=fast,
        return_attention_mask=False,
        verbose=False,
    )
    return encoded["input_ids"], encoded["offset_mapping"] if fast else None


def _bare(model: Model, documents: Texts, begin: list[int]) -> list[list[int]]:
    """The ids of documents without the special tokens before them."""
    texts = [one for one in documents if isinstance(one, str)]
    if texts:
        tokenizer = _tokenizer(model)
        return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    return [row[len(begin) :] if begin and row[: len(begin)] == begin else row for row in _ids(documents)]


def _ids(documents: Texts) -> list[list[int]]:
    return [[int(id) for id in row] for row in documents]


def _separators(model: Model, length: int) -> tuple[list[int], list[int]]:
    """What comes at the beginning of a row, and what between documents."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return [], []
    ids, special = tokenizer("a", verbose=False)["input_ids"], special_ids(tokenizer)
    if ids and ids[-1] in special:
        raise InvalidArgument(
            f"the tokenizer of {model.name} ends every text with {piece(tokenizer, ids[-1])!r}, "
            "so its texts cannot be packed end to end: use separate()"
        )
    begin = ids[: next((i for i, id in enumerate(ids) if id not in special), 0)]
    if len(begin) >= length:
        raise InvalidArgument(
            f"a context of {length} leaves no room for text after {len(begin)} special tokens: give more"
        )
    end = tokenizer.eos_token_id
    return begin, begin or ([] if end is None else [end])


def _tokenizer(model: Model) -> Tokenizer:
    if model.tokenizer is None:
        raise InvalidArgument(
            f"{model.name} has no tokenizer, so it cannot read text: load(source, tokenizer), or give 'input_ids'"
        )
    return model.tokenizer
