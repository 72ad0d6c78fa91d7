"""What a harvest does: which activations of which data go where, and in what form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.activations import Activations
from hooks.capture import Sites, stream
from hooks.errors import InvalidArgument
from hooks.fingerprint import fingerprint
from hooks.images import Images
from hooks.model import resolve_sites
from hooks.network import AnyModel, Network
from hooks.pieces import piece
from hooks.position import Position
from hooks.site import Site, check_one_width
from hooks.store.documents import Data, as_dataset, sample
from hooks.store.folder import Folder
from hooks.store.manifest import DTYPES, Settings
from hooks.store.packing import DocumentLayout, Documents, Packing, packed
from hooks.store.places import as_items, places


@final
@dataclass(frozen=True, eq=False)
class Job:
    """A harvest about to run, its data a `datasets` object and every name checked."""

    model: AnyModel
    data: Data
    sites: tuple[Site, ...]
    folder: Folder
    packing: Packing
    at: Position
    dtype: torch.dtype
    batch_size: int
    documents_per_shard: int

    def settings(self, same_as: dict[Site, Site]) -> Settings:
        """Return what the store says of itself.

        Examples:
            ```python
            job.settings({})
            ```
        """
        return Settings(
            model=self.model.name,
            fingerprint=fingerprint(self.model.hf),
            sites={str(site): list(self.model.tap(site).shape) for site in self.sites},
            same_as={str(site): str(other) for site, other in same_as.items()},
            dtype=next(name for name, dtype in DTYPES.items() if dtype == self.dtype),
            packing=self.packing.name,
            at=self.at.name,
            documents_per_shard=self.documents_per_shard,
        )

    def batches(self, placed: DocumentLayout) -> Iterator[Activations]:
        """Yield the activations of documents laid out, batch by batch.

        Examples:
            ```python
            for acts in job.batches(placed):
                ...
            ```
        """
        return stream(self.model, placed.tokens, self.sites, batch_size=self.batch_size)

    def place(self, documents: Documents) -> DocumentLayout | None:
        """Lay documents out; None when they have no tokens.

        Examples:
            ```python
            job.place(["The Golden Gate Bridge"])
            ```
        """
        return self.packing.place(self.model, documents)

    def select_rows(self, placed: DocumentLayout, documents: int) -> tuple[Int[Tensor, "n"], Int[Tensor, "_"]]:
        """Return the ids of the tokens that become rows, and at which row each document begins, the end included.

        Examples:
            ```python
            ids, offsets = job.select_rows(placed, 256)
            ```
        """
        mask = self.at.mask(placed.tokens)
        counts = torch.bincount(placed.document[mask], minlength=documents)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return placed.tokens.ids[mask].int().cpu(), offsets.cpu()

    def rows(self, acts: Activations, site: Site) -> Float[Tensor, "n *d"]:
        """Return the selected rows of a site as they are stored.

        Raises:
            InvalidArgument: a value is NaN or infinite, or too large for the dtype.

        Examples:
            ```python
            job.rows(acts, resid_post[6])
            ```
        """
        mask, rows = self.at.mask(acts.tokens), acts[site].to(self.dtype).flatten(0, 1)
        if len(rows) != mask.numel():
            raise InvalidArgument(
                f"{site} has {len(rows) // len(mask)} places in some pictures and {mask.shape[1]} in the first: give "
                "all one size, or the model a processor that does"
            )
        if not bool(mask.all()):  # rows are selected after they were made smaller
            rows = rows.index_select(0, mask.flatten().nonzero()[:, 0])
        if rows.numel() and not bool(torch.stack(torch.aminmax(rows)).isfinite().all()):
            raise InvalidArgument(self._not_finite(acts, site, acts.flat(site, at=self.at), rows))
        return rows

    def _not_finite(self, acts: Activations, site: Site, given: Tensor, rows: Tensor) -> str:
        row = int((~rows.isfinite()).flatten(1).any(1).nonzero()[0])
        text, pos = self.at.mask(acts.tokens).nonzero()[row].tolist()
        token = int(acts.tokens.ids[text, pos])
        tokenizer = self.model.tokenizer
        named = f"place {pos} of a picture" if acts.tokens.are_places else f"id {token}"
        shown = named if tokenizer is None else repr(piece(tokenizer, token))
        if bool(given[row].isfinite().all()):
            return (
                f"{site} is as large as {float(given[row].abs().max()):g} at {shown}, and {self.dtype} ends at "
                f"{torch.finfo(self.dtype).max:g}: store bfloat16 or float32"
            )
        return f"{site} holds NaN or infinity at {shown}: load the model in float32, or leave that document out"


def job(
    model: AnyModel,
    data: Data,
    sites: Sites,
    folder: Folder,
    *,
    packing: Packing | None,
    at: Position,
    dtype: torch.dtype,
    batch_size: int,
    documents_per_shard: int,
) -> Job:
    """Check everything that can be checked before the first forward pass.

    Raises:
        InvalidType: data that are neither texts nor a data set.
        InvalidArgument: an unknown site, one whose rows have no fixed width, sites of pictures with several grids, a
            packing of what is no text, a dtype that is not stored, a position that counts from the beginning of a text
            where rows hold several.
        WrongState: a block of interventions is open.

    Examples:
        ```python
        job(model, texts, "resid_post.6", Folder("store"), packing=packed(), at=everywhere, dtype=torch.float16,
            batch_size=32, documents_per_shard=256)
        ```
    """
    wanted = resolve_sites(model, sites)
    check_one_width(wanted)
    if dtype not in DTYPES.values():
        raise InvalidArgument(f"a store holds {', '.join(DTYPES)}, got {dtype}")
    model.running.check_unchanged(
        "a store says it holds the activations of the unchanged model: harvest outside the block"
    )
    for name, number in (("batch_size", batch_size), ("documents_per_shard", documents_per_shard)):
        if number < 1:
            raise InvalidArgument(f"{name} must be at least 1, got {number}")
    data, packing = _laid_out(model, data, wanted, packing)
    if packing.joins and not at.by_token:
        raise InvalidArgument(
            f"{at} selects by place in a text, and {packing} reads several texts as one row: use separate(), or "
            "at=everywhere"
        )
    return Job(model, data, wanted, folder, packing, at, dtype, batch_size, documents_per_shard)


def _laid_out(model: AnyModel, data: Data, sites: Sequence[Site], packing: Packing | None) -> tuple[Data, Packing]:
    """The data as what can be cut into blocks, and how these are laid out."""
    if not isinstance(model, Network):
        return as_dataset(data), packed() if packing is None else packing
    if packing is not None:
        raise InvalidArgument(f"{packing} lays out texts, and {model.name} reads none: leave `packing` out")
    items = as_items(data)
    some = sample(items, 1, model)
    assert isinstance(some, Images | Tensor)
    return items, places(model, sites, some)


def duplicates(acts: Activations, sites: Sequence[Site]) -> dict[Site, Site]:
    """Return the sites whose tensor is the very tensor of an earlier one, such as resid_pre[1] and resid_post[0].

    Examples:
        ```python
        duplicates(capture(model, "Fog", [resid_post[0], resid_pre[1]]), [resid_post[0], resid_pre[1]])
        ```
    """
    first: dict[tuple[int, torch.Size], Site] = {}
    same: dict[Site, Site] = {}
    for site in sites:
        value = acts[site]
        other = first.setdefault((value.data_ptr(), value.shape), site)
        if other != site:
            same[site] = other
    return same
