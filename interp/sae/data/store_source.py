"""An activation store as a source: what was harvested once is trained on as often as wanted, in shuffled passes."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site
from hooks.disk import checksum
from hooks.errors import InvalidArgument
from hooks.position import everywhere
from hooks.store import ActivationStore, ShuffledRows, StoredRows
from interp.sae.data.source import Source


def read_activations(store: ActivationStore, site: Site | str) -> Source:
    """The activations of one site of a store, as a source; sites with heads are flattened to one axis.

    Cost: no forward passes; memory for the store's shuffle buffer.

    Raises:
        UnknownName: the store does not hold the site.

    Examples:
        ```python
        store = harvest(model, dataset, [resid_post[4]], "store")
        train(TopK(model.d_model, 2048, k=32), read_activations(store, resid_post[4]))
        ```
    """
    return read_activations_at(store, store.only(site))


def read_activations_at(store: ActivationStore, sites: Sequence[Site | str]) -> Source:
    """Several sites of a store side by side in each row, for many autoencoders in one pass.

    Raises:
        UnknownName: the store does not hold one of them.

    Examples:
        ```python
        source = read_activations_at(store, [resid_post[3], resid_post[4]])
        train_many({str(site): Member(TopK(256, 2048, k=32), site) for site in source.sites}, source)
        ```
    """
    held = store.only(sites)
    source = _source(store, held, lambda rows: torch.cat([_flat(rows, site) for site in held], dim=1))
    shapes = store.manifest.settings.sites
    widths = tuple(math.prod(shapes[str(site)]) for site in held)
    return replace(source, widths=widths)


def read_pairs(store: ActivationStore, reads: Site | str, writes: Site | str) -> Source:
    """Two sites of a store side by side in each row, as a transcoder is trained on.

    Raises:
        UnknownName: the store does not hold one of them.

    Examples:
        ```python
        train(Transcoder(model.d_model, 4096), read_pairs(store, mlp_in[3], mlp_out[3]))
        ```
    """
    pair = (*store.only(reads), *store.only(writes))
    return _source(store, pair, lambda rows: torch.cat([_flat(rows, site) for site in pair], dim=1))


def read_across(store: ActivationStore, sites: Sequence[Site | str]) -> Source:
    """Several sites of one width of a store, `[n layer d_model]`, as a crosscoder is trained on.

    Raises:
        UnknownName: the store does not hold one of them.

    Examples:
        ```python
        next(iter(read_across(store, [resid_post[3], resid_post[4]]))).shape      # n, 2, d_model
        ```
    """
    held = store.only(sites)
    return _source(store, held, lambda rows: torch.stack([_flat(rows, site) for site in held], dim=1))


def _flat(rows: StoredRows, site: Site) -> Float[Tensor, "n d_model"]:
    return rows[site].flatten(1).float()


def _check_finite(store: ActivationStore, rows: StoredRows, sites: tuple[Site, ...], batch: int) -> StoredRows:
    """Rows that are finite; `InvalidArgument` says batch, site, row, document and token of the first that is not."""
    for site in sites:
        bad = ~rows[site].flatten(1).isfinite().all(1)
        if bool(bad.any()):
            place = int(bad.nonzero()[0])
            row = int(rows.number[place])
            document = int(torch.searchsorted(store.documents, row, right=True)) - 1
            what = "token" if store.manifest.settings.at == everywhere.name else "row"
            raise InvalidArgument(
                f"NaN or infinity at {site} in batch {batch}, row {row} of the store at {store.url} (document "
                f"{document}, {what} {row - int(store.documents[document])} of it, id {int(rows.ids[place])}): harvest "
                "again in float32 or bfloat16, or leave the document out"
            )
    return rows


def _source(
    store: ActivationStore, sites: tuple[Site, ...], joined: Callable[[StoredRows], Float[Tensor, "n *d"]]
) -> Source:
    def batches() -> Iterator[Float[Tensor, "n *d"]]:
        return (joined(_check_finite(store, rows, sites, i)) for i, rows in enumerate(ShuffledRows(store, sites)))

    about = (f"the store at {store.url}", sites, store.model_name, store.fingerprint)
    return Source(batches, *about, digest=lambda: checksum(json.dumps(asdict(store.manifest))))
