"""Rows: texts longer than a model's context are cut into rows that it reads one by one."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.forward import context
from hooks.model import Model
from hooks.network import AnyModel
from hooks.tokens import Tokens


def fit_rows(model: AnyModel, tokens: Tokens) -> Tokens:
    """Return tokens in rows that fit the model's context: a text that does not is cut into several.

    Every row of a text begins and ends with the special tokens that the text begins and ends with, so that no row
    lacks its beginning-of-text. `cut_from` says which text each row is from. Texts that fit are the same object.

    Examples:
        ```python
        fit_rows(model, model.tokens(book)).ids.shape
        ```
    """
    room = None if tokens.are_places else context(model.hf)
    if room is None or tokens.ids.shape[1] <= room:
        return tokens
    parts = [(number, part) for number in range(len(tokens)) for part in _columns(tokens, number, room)]
    cut_from = tuple(number for number, _ in parts) if len(parts) > len(tokens) else None
    return replace(_take_rows(model, tokens, parts), cut_from=cut_from)


def fit_ends(model: AnyModel, tokens: Tokens) -> Tokens:
    """Return tokens of which each text that does not fit the model's context is its end, as long as fits.

    For what is read after the last token of a text. A text keeps the special tokens that it begins and ends with; a
    warning says how many were cut.

    Examples:
        ```python
        model.run(fit_ends(model, model.tokens(prompts)))
        ```
    """
    room = None if tokens.are_places else context(model.hf)
    if room is None or tokens.ids.shape[1] <= room or not (long := int((tokens.mask.sum(1) > room).sum())):
        return tokens
    said = f"{long} of {len(tokens)} texts are longer than the context of {room} tokens: their ends are read"
    warnings.warn(said, stacklevel=2)
    return _take_rows(model, tokens, [(number, _end(tokens, number, room)) for number in range(len(tokens))])


def _take_rows(model: AnyModel, tokens: Tokens, parts: Sequence[tuple[int, list[int]]]) -> Tokens:
    """Tokens with a row for each part, which is the number of a text and some of its columns."""
    longest = max(len(part) for _, part in parts)
    column = torch.full((len(parts), longest), -1)
    for row, (_, part) in enumerate(parts):
        side = slice(longest - len(part), None) if model.padding_side == "left" else slice(0, len(part))
        column[row, side] = torch.tensor(part)
    column = column.to(tokens.ids.device)
    text = torch.tensor([number for number, _ in parts], device=column.device)[:, None]

    def taken(values: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        return values[text, column.clamp_min(0)]

    return replace(
        tokens,
        ids=taken(tokens.ids),
        mask=taken(tokens.mask) & (column >= 0),
        special=taken(tokens.special) | (column < 0),
        texts=None if tokens.texts is None else tuple(tokens.texts[number] for number, _ in parts),
        offsets=None if tokens.offsets is None else taken(tokens.offsets) * (column >= 0)[..., None],
        prompt_pos=None,
        more={name: _more(name, one, tokens, taken) for name, one in tokens.more.items()},
    )


def check_rows(model: AnyModel, tokens: Tokens) -> None:
    """Raise where a text is longer than the model's context, and say which.

    Raises:
        InvalidArgument: a text does not fit.

    Examples:
        ```python
        check_rows(model, model.tokens(texts))
        ```
    """
    room = None if tokens.are_places else context(model.hf)
    if room is None or tokens.ids.shape[1] <= room or not bool((long := tokens.mask.sum(1) > room).any()):
        return
    number = int(long.nonzero()[0])
    shown = "" if tokens.texts is None else f" ({tokens.texts[number][:40]!r} …)"
    raise InvalidArgument(
        f"text {number}{shown} is too long: {int(tokens.mask[number].sum())} tokens do not fit into the context of "
        f"{room}: shorten or split the text (in Python, stream cuts it into rows)"
    )


def _more(name: str, one: Tensor, tokens: Tokens, taken: Callable[[Tensor], Tensor]) -> Tensor:
    if one.shape != tokens.ids.shape:
        raise InvalidArgument(f"a text with {name} is longer than the context, and cannot be cut: shorten it")
    return taken(one)


def _columns(tokens: Tokens, number: int, room: int) -> list[list[int]]:
    """The columns of each row of a text."""
    begin, body, end = _places(tokens, number, room)
    step = room - len(begin) - len(end)
    return [[*begin, *body[i : i + step], *end] for i in range(0, max(1, len(body)), step)]


def _end(tokens: Tokens, number: int, room: int) -> list[int]:
    """The columns of a text's end."""
    begin, body, end = _places(tokens, number, room)
    return [*begin, *body[-(room - len(begin) - len(end)) :], *end]


def _places(tokens: Tokens, number: int, room: int) -> tuple[list[int], list[int], list[int]]:
    """The columns of the special tokens that a text begins with, of what is to be cut, and of those it ends with."""
    real = tokens.mask[number].nonzero().flatten().tolist()
    if len(real) <= room:
        return [], real, []
    special = tokens.special[number, real].tolist()
    head = special.index(False) if False in special else 0
    tail = special[::-1].index(False) if False in special else 0
    if head + tail >= room:
        raise InvalidArgument(f"{head + tail} special tokens around a text leave no room for it in a context of {room}")
    return real[:head], real[head : len(real) - tail], real[len(real) - tail :]


def in_rows(model: AnyModel, batches: Iterable[Tokens]) -> Iterator[Tokens]:
    """Yield batches in rows that fit the model's context; a warning says at the end how many texts were cut.

    Examples:
        ```python
        in_rows(model, [model.tokens(texts)])
        ```
    """
    texts = long = rows = 0
    try:
        for tokens in batches:
            fitted = fit_rows(model, tokens)
            fitted = tokens if fitted is tokens else model.tokens(fitted)  # refused where batches or padding are
            counts = fitted.text_number.bincount()
            texts, long, rows = (
                texts + len(counts),
                long + int((counts > 1).sum()),
                rows + int(counts[counts > 1].sum()),
            )
            yield fitted
    finally:
        if long:
            note_cut(model, texts, long, rows)


def note_cut(model: AnyModel, texts: int, long: int, rows: int) -> None:
    """Warn that texts were longer than the context and were read in rows.

    Examples:
        ```python
        note_cut(model, texts=100, long=3, rows=8)
        ```
    """
    room = context(model.hf)
    said = f"{long} of {texts} texts are longer than the context of {room} tokens and are read as {rows} rows"
    warnings.warn(said, stacklevel=3)


def cut_texts(model: Model, texts: Sequence[str]) -> list[list[str]]:
    """Return the pieces of each text that fit the model's context, cut between words where it can be.

    Raises:
        InvalidArgument: the tokenizer gives no character offsets.

    Cost: reading the tokens of every text.

    Examples:
        ```python
        cut_texts(model, ["Fog", book])[0]  # ["Fog"]
        ```
    """
    room = context(model.hf)
    return [[text] if room is None else [piece for piece in _pieces(model, text, room) if piece] for text in texts]


def _pieces(model: Model, text: str, room: int) -> Iterator[str]:
    while text and (tokens := model.tokens(text)).ids.shape[1] > room:
        if tokens.offsets is None:
            raise InvalidArgument(f"the tokenizer of {model.name} gives no character offsets: load its fast version")
        most = max(1, int(tokens.offsets[0, room - 1, 0]))
        cut = max((i for i in range(1, most) if text[i].isspace()), default=most)
        yield text[:cut].rstrip()
        text = text[cut:].lstrip()
    yield text
