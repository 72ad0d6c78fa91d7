"""A sample of activations: rows drawn from pictures or texts, each with what it is of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Position, Site, Tokens, stream
from hooks.border import Count, Natural
from hooks.capture import Data
from hooks.errors import InvalidArgument
from hooks.network import AnyModel
from hooks.pieces import pieces
from hooks.position import everywhere
from hooks.site import check_one_width
from hooks.summary import summarise
from interp.atlas.space import Space

BEFORE, AFTER = 10, 3


@final
@dataclass(frozen=True, eq=False)
class Sample:
    """Activations at a site, each of one place of one item.

    Attributes:
        space: the rows; their names say what each is of: a token in its context, or a picture's label and place.
        item: which picture or text each row is from.
        place: which place or token of it.
        labels: of the rows, where their items have labels.

    Examples:
        >>> rows = Sample(Space(torch.eye(3), ("a", "b", "c")), torch.arange(3), torch.zeros(3, dtype=torch.long))
        >>> len(rows)
        3
    """

    space: Space
    item: Int[Tensor, "n"]
    place: Int[Tensor, "n"]
    labels: tuple[str, ...] | None = None

    __repr__ = summarise

    def __post_init__(self) -> None:
        counts = {len(self.space), len(self.item), len(self.place), len(self.labels or self.item)}
        if len(counts) > 1:
            raise InvalidArgument(f"each row has an item, a place and, if any, a label; got {sorted(counts)} of them")

    def __len__(self) -> int:
        return len(self.space)


def sample_activations(
    model: AnyModel,
    data: Data,
    site: Site,
    labels: Sequence[str] | None = None,
    *,
    per_item: Count = 1,
    at: Position = everywhere,
    seed: Natural = 0,
    batch_size: Count = 64,
    progress: bool = True,
) -> Sample:
    """Return activations at places drawn at random, `per_item` of each picture or text, or all where it has fewer.

    A class token and whatever else is before a picture's own places is left out, as are special tokens and padding.
    The places drawn of an item depend on its number and the seed, not on the size of a batch.

    Args:
        model: any model.
        data: what `stream` takes.
        site: where.
        labels: of the items.
        per_item: places or tokens of each.
        at: those to draw from.
        seed: of the draws.
        batch_size: of the passes.
        progress: show a bar.

    Raises:
        InvalidArgument: no place is selected in any item, or another number of labels than items.

    Cost: one forward pass per batch, up to the site.

    Examples:
        ```python
        sample_activations(load_net("convnet"), draw(shown).images(), conv_act[4], per_item=4)
        sample_activations(load("landmark"), texts, resid_post[4], per_item=5)
        ```
    """
    check_one_width([model.tap(site).site])
    rows, items, places, names, begun, made_of = [], [], [], list[str](), 0, (None, ())
    for acts in stream(model, data, site, batch_size=batch_size, progress=progress):
        value = acts[site].flatten(2)
        tokens = acts.tokens.places(value.shape[1], site)
        numbers = begun + tokens.text_number.cpu()
        which, where = _draw_places(at.mask(tokens).cpu(), numbers, per_item, seed)
        rows.append(value[which, where].float().cpu())
        items.append(numbers[which])
        places.append(where)
        names += _names(model, tokens, which, where, numbers[which], labels)
        begun, made_of = int(numbers[-1]) + 1, (acts.fingerprint, acts.changed_by)
    if not names:
        raise InvalidArgument(f"{at} selects no place of any item")
    if labels is not None and len(labels) != begun:
        raise InvalidArgument(f"{len(labels)} labels were given for {begun} items: one for each")
    item = torch.cat(items)
    space = Space(torch.cat(rows), tuple(names), "cosine", site, *made_of)
    named = None if labels is None else tuple([str(labels[i]) for i in item.tolist()])
    return Sample(space, item, torch.cat(places), named)


def _draw_places(
    mask: Bool[Tensor, "batch pos"], numbers: Int[Tensor, "batch"], most: int, seed: int
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
    """Rows and columns of the places that are drawn, by each item's own chance."""
    which, where = [], []
    for row, (number, own) in enumerate(zip(numbers.tolist(), mask, strict=True)):
        allowed = own.nonzero().flatten()
        random = torch.Generator().manual_seed(seed * 1_000_003 + number)
        chosen = allowed[torch.randperm(len(allowed), generator=random)[:most]].sort().values
        which.append(torch.full_like(chosen, row))
        where.append(chosen)
    return torch.cat(which), torch.cat(where)


def _names(
    model: AnyModel,
    tokens: Tokens,
    which: Int[Tensor, "n"],
    where: Int[Tensor, "n"],
    numbers: Int[Tensor, "n"],
    labels: Sequence[str] | None,
) -> list[str]:
    """What each row is of: a token in brackets in its context, or a picture's label or number, and its place."""
    pairs = [*zip(which.tolist(), where.tolist(), numbers.tolist(), strict=True)]
    if tokens.are_places:
        known = labels if labels is not None and max(numbers.tolist(), default=0) < len(labels) else None
        several = tokens.ids.shape[1] > 1  # of a site with one place there is nothing to say
        return [
            f"{number if known is None else known[number]}{f' at {place}' if several else ''}"
            for _, place, number in pairs
        ]
    texts, content = {}, tokens.content.cpu()
    for row in {row for row, *_ in pairs}:
        kept = content[row].nonzero().flatten().tolist()
        texts[row] = dict(zip(kept, pieces(model.tokenizer, tokens.ids[row, kept].tolist()), strict=True))
    return [_context(texts[row], place) for row, place, _ in pairs]


def _context(text: dict[int, str], place: int) -> str:
    said = [f"[{text[i]}]" if i == place else text[i] for i in range(place - BEFORE, place + AFTER + 1) if i in text]
    return "".join(said).replace("\n", " ").strip()


def unit_rows(space: Space) -> Float[Tensor, "n d_model"]:
    """The rows less their mean, each of length 1: their products are the space's cosines.

    Examples:
        >>> unit_rows(Space(torch.tensor([[0.0], [2.0]]), ("a", "b"))).flatten().tolist()
        [-1.0, 1.0]
    """
    return torch.nn.functional.normalize(space.rows.float() - space.mean, dim=-1)
