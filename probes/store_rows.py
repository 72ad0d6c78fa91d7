"""Rows of a store as probes read them: labelled batches for what does not fit in memory, and cells of a sweep."""

from collections.abc import Iterable, Iterator, Mapping
from typing import final

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from hooks import Position, Site
from hooks.errors import InvalidArgument
from hooks.store import ActivationStore
from probes.batches import Paired
from probes.cells import Cells


@final
class StoreBatches:
    """A store's rows at one site with a label per row, or several numbers: chunk by chunk, as often as asked.

    Attributes:
        keep: which rows count, all unless given: labels may be about some tokens only.

    Raises:
        InvalidArgument: labels or a mask that are not one per row of the store.
        UnknownName: the store does not hold the site.

    Examples:
        ```python
        Logistic().fit_batches(StoreBatches(store, resid_post[6], y))
        ```
    """

    def __init__(
        self, store: ActivationStore, site: Site, y: Shaped[Tensor, "n ..."], keep: Bool[Tensor, "n"] | None = None
    ) -> None:
        (self.site,) = store.only(site)
        self.store, self.y, self.fingerprint = store, y, store.fingerprint
        self.keep = torch.ones(len(y), dtype=torch.bool) if keep is None else keep
        if not len(store) == len(y) == len(self.keep):
            raise InvalidArgument(
                f"the store has {len(store)} rows, there are {len(y)} labels and a mask of {len(self.keep)}: give one "
                "of each per row"
            )

    def __iter__(self) -> Iterator[Paired]:
        for rows in self.store.chunks(self.site):
            kept = self.keep[rows.number]
            if bool(kept.any()):
                yield rows[self.site][kept].float().flatten(1), self.y[rows.number][kept]


def read_cells(store: ActivationStore, sites: Iterable[Site], at: Mapping[Position, Int[Tensor, "example"]]) -> Cells:
    """Cells whose rows are already in a store: for each position, the store's row of each text.

    Raises:
        UnknownName: the store does not hold a site.
        OutOfRange: a row that is not there.

    Cost:
        No forward pass; one read per position.

    Examples:
        ```python
        cells = read_cells(store, [resid_post[2], resid_post[4]], {last: store.documents[1:] - 1})
        measure(cells, examples, Logistic(), {"embedding": tokens, "untrained": random})
        ```
    """
    wanted = store.only(list(sites))
    read = {position: store[number] for position, number in at.items()}
    rows = {(site, position): got[site].float().flatten(1) for site in wanted for position, got in read.items()}
    return Cells(rows, store.fingerprint)
