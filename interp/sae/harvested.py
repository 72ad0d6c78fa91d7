"""An activation store as a source: what was harvested once is trained on as often as wanted, in shuffled passes."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site
from hooks.store import ActivationStore, Shuffled, StoredRows
from interp.sae.source import Source


def harvested(store: ActivationStore, site: Site | str) -> Source:
    """The activations of one site of a store, as a source; sites with heads are flattened to one axis.

    Costs no forward passes; memory for the store's mixing buffer.

    Raises:
        KeyError: the store does not hold the site.

    Example:
        ```python
        store = harvest(model, dataset, [resid_post[4]], "store")
        train(TopK(model.d_model, 2048, k=32), harvested(store, resid_post[4]))
        ```
    """
    (held,) = store.only(site)
    return _source(store, (held,), lambda rows: _flat(rows, held))


def harvested_pairs(store: ActivationStore, reads: Site | str, writes: Site | str) -> Source:
    """Two sites of a store side by side in each row, as a transcoder is trained on.

    Raises:
        KeyError: the store does not hold one of them.

    Example:
        ```python
        train(Transcoder(model.d_model, 4096), harvested_pairs(store, mlp_in[3], mlp_out[3]))
        ```
    """
    pair = (*store.only(reads), *store.only(writes))
    return _source(store, pair, lambda rows: torch.cat([_flat(rows, site) for site in pair], dim=1))


def harvested_across(store: ActivationStore, sites: Sequence[Site | str]) -> Source:
    """Several sites of one width of a store, `[n layer d_model]`, as a crosscoder is trained on.

    Raises:
        KeyError: the store does not hold one of them.

    Example:
        ```python
        next(iter(harvested_across(store, [resid_post[3], resid_post[4]]))).shape      # n, 2, d_model
        ```
    """
    held = store.only(sites)
    return _source(store, held, lambda rows: torch.stack([_flat(rows, site) for site in held], dim=1))


def _flat(rows: StoredRows, site: Site) -> Float[Tensor, "n d_model"]:
    return rows[site].flatten(1).float()


def _source(
    store: ActivationStore, sites: tuple[Site, ...], joined: Callable[[StoredRows], Float[Tensor, "n *d"]]
) -> Source:
    def batches() -> Iterator[Float[Tensor, "n *d"]]:
        return (joined(rows) for rows in Shuffled(store, sites))

    return Source(batches, f"the store at {store.url}", sites, store.model_name, store.fingerprint)
