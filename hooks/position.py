"""Positions: which tokens of a text, anchored to the text so that padding, batches and KV caches change nothing."""

import builtins
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooks.encoding import is_in
from hooks.errors import InvalidArgument, nearest
from hooks.grid import Grid
from hooks.tokens import Tokens


@final
@dataclass(frozen=True)
class Position:
    """A rule that selects tokens of a text.

    Padding is never selected, special tokens (beginning and end of text) only by `special` and
    `tokens`, which ask for them. `everywhere`, `generated`, `after`, `tokens` and `special` also select generated
    tokens; all others select from the prompt alone. So each selects the same tokens whether the
    continuation is decoded one token at a time, several at once, or read again as a whole.

    Positions combine as sets: `|`, `&`, and `~` for the tokens of the text that are not selected.

    Attributes:
        name: how it prints; two positions of one name are equal.
        select: from tokens to the mask of the selected ones; whether a token is selected must not
            depend on later ones, which are not known yet while decoding.
        by_token: whether a token of a prompt is selected depends on that token alone, not on its place in the text.

    Examples:
        ```python
        (last | substring("Paris")).mask(model.tokens("Paris is in"))
        ```
    """

    name: str
    select: Callable[[Tokens], Bool[Tensor, "batch pos"]] = field(compare=False)
    by_token: bool = field(default=False, compare=False)

    def __repr__(self) -> str:
        return self.name

    def __or__(self, other: "Position") -> "Position":
        both = self.by_token and other.by_token
        return Position(f"({self} | {other})", lambda tokens: self.mask(tokens) | other.mask(tokens), both)

    def __and__(self, other: "Position") -> "Position":
        both = self.by_token and other.by_token
        return Position(f"({self} & {other})", lambda tokens: self.mask(tokens) & other.mask(tokens), both)

    def __invert__(self) -> "Position":
        return Position(f"~{self}", lambda tokens: tokens.content & ~self.mask(tokens), self.by_token)

    def mask(self, tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        """Return True on the selected tokens.

        Raises:
            InvalidArgument: a text lacks what the position speaks of, or the rule gives no mask.

        Examples:
            ```python
            everywhere.mask(model.tokens("Fog over the bay"))
            ```
        """
        mask = self.select(tokens)
        if mask.dtype != torch.bool or mask.shape != tokens.ids.shape:
            raise InvalidArgument(
                f"{self} must select by a bool mask of shape {tuple(tokens.ids.shape)}, "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )
        return mask & tokens.mask


def first(n: int) -> Position:
    """Select the first `n` tokens of the prompt (all of them if it has fewer).

    Examples:
        >>> first(3)
        first(3)
    """
    if n < 1:
        raise InvalidArgument(f"first(n) needs n of at least 1, got {n}")
    return Position(f"first({n})", lambda tokens: tokens.given & (tokens.given.cumsum(dim=1) <= n))


def index(i: int) -> Position:
    """Select token `i` of the prompt, counted from 0 at its first token or from -1 at its last.

    Examples:
        >>> index(-2)
        index(-2)
    """

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        given = tokens.given
        counts = given.sum(dim=1)
        wanted = torch.full_like(counts, i) if i >= 0 else counts + i
        for row in ((wanted < 0) | (wanted >= counts)).nonzero().flatten().tolist():
            raise InvalidArgument(
                f"index({i}) asks for a token that {_name_text(tokens, row)} does not have: "
                f"it has {int(counts[row])} tokens besides special ones"
            )
        return given & (given.cumsum(dim=1) == wanted[:, None] + 1)

    return Position(f"index({i})", select)


def slice(start: int | None, stop: int | None) -> Position:
    """Select the tokens `start` to `stop` of the prompt as Python's slices do, as many as there are.

    Both count from 0 at the first token or from -1 at the last; None is the end on its side.

    Raises:
        InvalidArgument: bounds between which no text has a token.

    Examples:
        >>> slice(1, -1)
        slice(1, -1)
    """
    crossed = start is not None and stop is not None and (start < 0) == (stop < 0) and stop <= start
    if stop == 0 or crossed:
        raise InvalidArgument(f"slice({start}, {stop}) selects nothing: stop must come after start")

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        given = tokens.given
        number = given.cumsum(dim=1) - 1
        bounds = [builtins.slice(start, stop).indices(count) for count in given.sum(dim=1).tolist()]
        low, high = (torch.tensor([bound[i] for bound in bounds], device=number.device) for i in (0, 1))
        return given & (number >= low[:, None]) & (number < high[:, None])

    return Position(f"slice({start}, {stop})", select)


def tokens(ids: int | Collection[int]) -> Position:
    """Select every token, given or generated, whose id is one of `ids`; special ones as well.

    Raises:
        InvalidArgument: no ids, or negative ones.

    Examples:
        >>> tokens([13, 30])
        tokens([13, 30])
    """
    wanted = sorted({ids} if isinstance(ids, int) else {int(one) for one in ids})
    if not wanted or wanted[0] < 0:
        raise InvalidArgument(f"tokens(ids) needs token ids, whole numbers from 0 on, got {ids}")
    return Position(f"tokens({wanted})", lambda tokens: tokens.mask & is_in(tokens.ids, wanted), by_token=True)


def substring(text: str, occurrence: int | None = None) -> Position:
    """Select the tokens of the prompt that spell `text`, in part or in whole.

    Args:
        text: what to look for, letter for letter.
        occurrence: which one, counted from 0 (or -1 for the last); None for all of them.

    Raises:
        InvalidArgument: when used on a text that does not contain it (so often), or on bare token ids.

    Examples:
        >>> substring("Golden Gate Bridge", occurrence=0)
        substring('Golden Gate Bridge', 0)
    """
    if not text:
        raise InvalidArgument("substring('') selects nothing: name the text to look for")

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        starts, ends = _offsets(tokens, f"substring({text!r})")
        chosen = torch.zeros_like(tokens.mask)
        for row in range(len(tokens)):
            for start in _find_text(tokens, row, text, occurrence):
                chosen[row] |= (starts[row] < start + len(text)) & (ends[row] > start)
        return chosen & tokens.given

    tail = "" if occurrence is None else f", {occurrence}"
    return Position(f"substring({text!r}{tail})", select)


def after(text: str, occurrence: int = 0) -> Position:
    """Select the tokens that begin at or after the end of `text`, generated ones included.

    Args:
        text: what to look for in the prompt, letter for letter.
        occurrence: which one, counted from 0 (or -1 for the last).

    Raises:
        InvalidArgument: when used on a prompt that does not contain it, or on bare token ids.

    Examples:
        >>> after("Question:")
        after('Question:')
    """
    if not text:
        raise InvalidArgument("after('') is everywhere: name the text to look for")

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        starts, _ = _offsets(tokens, f"after({text!r})")
        chosen = tokens.content & ~tokens.given
        for row in range(len(tokens)):
            (found,) = _find_text(tokens, row, text, occurrence)
            chosen[row] |= tokens.given[row] & (starts[row] >= found + len(text))
        return chosen

    tail = f", {occurrence}" if occurrence else ""
    return Position(f"after({text!r}{tail})", select)


def patch(row: int, column: int) -> Position:
    """Select the place in a row and a column of a site's map, counted from 0.

    Examples:
        >>> patch(2, 5)
        patch(2, 5)
    """
    asked = f"patch({row}, {column})"

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        return (tokens.ids == _grid(tokens, asked).place(row, column)) & tokens.mask

    return Position(asked, select)


def region(top: float | int, left: float | int, bottom: float | int, right: float | int) -> Position:
    """Select the places of which at least half the cell is in a rectangle, in pixels of the picture.

    The cell of a place is the part of the picture that is nearer to it than to its neighbours (`hooks.grid`).

    Raises:
        InvalidArgument: an empty rectangle; when used, one that holds no place of the site.

    Examples:
        >>> region(0, 0, 32, 64)
        region(0, 0, 32, 64)
    """
    asked = f"region({top:g}, {left:g}, {bottom:g}, {right:g})"
    if not (top < bottom and left < right):
        raise InvalidArgument(f"{asked} is empty: bottom comes after top, and right after left")

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        grid = _grid(tokens, asked)
        inside = torch.zeros(1, *grid.size, dtype=torch.bool, device=tokens.ids.device)
        inside[:, max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] = True
        chosen = grid.coverage(inside) >= 0.5
        if not bool(chosen.any()):
            raise InvalidArgument(
                f"{asked} holds no place of this site, of which each has {grid.stride[0]:g} by {grid.stride[1]:g} "
                f"pixels of a picture of {grid.size[0]} by {grid.size[1]}: give a larger one, or use patch(row, column)"
            )
        return chosen.expand(tokens.ids.shape) & tokens.content

    return Position(asked, select)


def where(mask: str | Bool[Tensor, "height width"]) -> Position:
    """Select the places of which at least half the cell is in a mask of pixels.

    Args:
        mask: the name of one of the masks that the pictures came with, or one mask for all pictures.

    Raises:
        InvalidArgument: when used on pictures without such a mask, or of another size.

    Examples:
        >>> where("landmark")
        where('landmark')
    """
    asked = f"where({mask!r})" if isinstance(mask, str) else f"where(a mask of {int(mask.sum())} pixels, {id(mask)})"

    def select(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
        grid, masks = _grid(tokens, asked), {} if tokens.images is None else tokens.images.masks
        if isinstance(mask, str) and mask not in masks:
            there = f"the nearest are {nearest(mask, masks)}" if masks else "these pictures came without masks"
            raise InvalidArgument(f"{asked} needs a mask of that name: {there}; give them as Images(pixels, masks)")
        one = masks[mask] if isinstance(mask, str) else mask[None].to(tokens.ids.device)
        if tuple(one.shape[1:]) != grid.size:
            raise InvalidArgument(f"{asked} is of {tuple(one.shape[1:])} pixels, and the pictures of {grid.size}")
        return (grid.coverage(one) >= 0.5).expand(tokens.ids.shape) & tokens.content

    return Position(asked, select)


def _cls(tokens: Tokens) -> Bool[Tensor, "batch pos"]:
    if not _grid(tokens, "cls").front:
        raise InvalidArgument("cls asks for a place before the picture's own, and this site has none: use everywhere")
    return (tokens.ids == 0) & tokens.mask


def _grid(tokens: Tokens, asked: str) -> Grid:
    if tokens.grid is not None:
        return tokens.grid
    if not tokens.are_places:
        raise InvalidArgument(f"{asked} speaks of places in a picture, and a text was read: use index(i) or substring")
    raise InvalidArgument(
        f"{asked} asks where this site's places are in the picture, which is not known: it has none, or the pictures "
        "have another size than the example that the model was loaded with"
    )


def _offsets(tokens: Tokens, asked: str) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    if tokens.texts is None or tokens.offsets is None:
        raise InvalidArgument(
            f"{asked} needs the text the tokens came from, and these came without: "
            "pass texts (with a fast tokenizer) instead of token ids, or use index(i)"
        )
    return tokens.offsets[..., 0], tokens.offsets[..., 1]


def _find_text(tokens: Tokens, row: int, text: str, occurrence: int | None) -> list[int]:
    whole = (tokens.texts or ())[row]
    starts, at = [], whole.find(text)
    while at >= 0:
        starts.append(at)
        at = whole.find(text, at + 1)
    if not starts:
        words = whole.split()
        hint = f"; nearest: {nearest(text, words)}" if words else ""
        raise InvalidArgument(f"'{text}' is not in {_name_text(tokens, row)}{hint}")
    if occurrence is None:
        return starts
    if not -len(starts) <= occurrence < len(starts):
        raise InvalidArgument(
            f"occurrence {occurrence} of '{text}' is not in {_name_text(tokens, row)}: it occurs {len(starts)} times"
        )
    return [starts[occurrence]]


def _name_text(tokens: Tokens, row: int) -> str:
    return f"text {row}" if tokens.texts is None else f"text {row} ({tokens.texts[row][:60]!r})"


everywhere: Final = Position("everywhere", lambda tokens: tokens.content, by_token=True)
prompt: Final = Position("prompt", lambda tokens: tokens.given, by_token=True)
special: Final = Position("special", lambda tokens: tokens.special & tokens.mask, by_token=True)
generated: Final = Position("generated", lambda tokens: tokens.content & ~tokens.given)
last: Final = Position("last", index(-1).select)
cls: Final = Position("cls", _cls)
