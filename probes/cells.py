"""Cells of a sweep: what every text or picture has at one site and one token or place, for each site and position."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, Images, Position, Site, capture
from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.network import AnyModel
from hooks.progress import progress_bar
from hooks.site import check_one_width
from hooks.summary import summarise

Cell: TypeAlias = tuple[Site, Position]


@final
@dataclass(frozen=True, eq=False)
class Cells:
    """Rows by site and position, one per text, in the order of the texts."""

    rows: Mapping[Cell, Float[Tensor, "example _"]]
    fingerprint: str | None = None

    __repr__ = summarise

    def __post_init__(self) -> None:
        for (site, position), rows in self.rows.items():
            finite = rows.isfinite().all(1)
            if not bool(finite.all()):
                raise InvalidArgument(f"text {int((~finite).nonzero()[0])} is NaN or infinity at {site}, {position}")


def gather(
    model: AnyModel,
    texts: str | Sequence[str] | Images,
    sites: Iterable[Site],
    positions: Iterable[Position],
    *,
    batch_size: Count = 32,
    progress: bool = True,
) -> Cells:
    """The activations of texts or pictures at each site and position, which must select one token or place of each.

    Raises:
        InvalidArgument: an unknown site, a position that selects no or several tokens of a text, NaN.

    Cost:
        One forward pass per text, up to the last site. Memory: one row per text and cell.

    Examples:
        ```python
        gather(model, texts, [resid_post[2], resid_post[4]], [last, index(-2)])
        ```
    """
    wanted = tuple(dict.fromkeys(model.tap(site).site for site in sites))
    check_one_width(wanted)
    places = tuple(dict.fromkeys(positions))
    texts = [texts] if isinstance(texts, str) else texts if isinstance(texts, Images) else list(texts)
    batches = [texts[start : start + batch_size] for start in range(0, max(1, len(texts)), batch_size)]
    parts = [
        rows_of(capture(model, some, wanted, batch_size=batch_size), wanted, places)
        for some in progress_bar(batches, desc="forward passes", progress=progress)
    ]
    return Cells({cell: torch.cat([part[cell] for part in parts]) for cell in parts[0]}, model.fingerprint)


def rows_of(
    acts: Activations, sites: Iterable[Site], positions: Iterable[Position]
) -> dict[Cell, Float[Tensor, "example _"]]:
    """The rows of captured activations at each site and position.

    Raises:
        InvalidArgument: a position that selects no or several tokens of a text.
        UnknownName: a site that was not captured.

    Examples:
        ```python
        Cells(rows_of(capture(model, texts, sites), sites, [last]), model.fingerprint)
        ```
    """
    found: dict[Cell, Float[Tensor, "example _"]] = {}
    for position in positions:
        for site in sites:
            _check_one(acts, site, position)
            found[site, position] = acts.flat(site, position).flatten(1)
    return found


def _check_one(acts: Activations, site: Site, position: Position) -> None:
    """Raise where a position selects no token of a text, or several; of pictures sites differ in their places."""
    tokens = acts.tokens.places(acts[site].shape[1], site)
    count = position.mask(tokens).sum(1)
    for row in (count != 1).nonzero().flatten().tolist():
        if tokens.are_places:
            raise InvalidArgument(
                f"{position} selects {int(count[row])} places of {site} in picture {row} of its batch; a cell needs "
                "one per picture: use patch(row, column), cls, or a site of one place such as embedding"
            )
        text = "" if tokens.texts is None else f" ({tokens.texts[row][:60]!r})"
        raise InvalidArgument(
            f"{position} selects {int(count[row])} tokens of text {row} of its batch{text}; "
            "a cell needs one per text: use last, index(i), or substring(text, occurrence) of one token"
        )
