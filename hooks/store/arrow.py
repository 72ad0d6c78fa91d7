"""A store as a `datasets` object, its memory-mapped columns used as they are."""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.store.manifest import TOKEN
from hooks.store.store import ActivationStore, Asked

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset


def to_dataset(store: ActivationStore, sites: Asked) -> "Dataset":
    """Return the rows of some sites as a `datasets.Dataset`, one row per token, nothing copied from a local store.

    Its files are mapped into memory, so they must not be truncated while the data set is used.

    Columns are the sites' names, each row flat, with `token` and the number of its `document`.

    Raises:
        UnknownName: a site the store does not hold.
        InvalidArgument: a bfloat16 store, a type that Arrow lacks.

    Examples:
        ```python
        to_dataset(store, resid_post[6]).with_format("torch")[5]["resid_post.6"]
        ```
    """
    import pyarrow as pa
    from datasets import Dataset

    wanted = store.only(sites)
    if store.dtype == torch.bfloat16:
        raise InvalidArgument(
            f"a datasets object has no bfloat16, and {store!r} is: use ShuffledRows, or harvest float16"
        )
    columns = {str(site): [] for site in wanted} | {TOKEN: []}
    for number in range(len(store.columns)):
        for site in wanted:
            columns[str(site)].append(_arrow(store.map_chunk(number, site).flatten(1)))
        columns[TOKEN].append(_arrow(store.columns.map_chunk(TOKEN, number)))
    numbers = np.repeat(
        np.arange(len(store.documents) - 1), [end - start for start, end in pairwise(store.documents.tolist())]
    )
    table = {name: pa.chunked_array(chunks) for name, chunks in columns.items()} | {"document": pa.array(numbers)}
    return Dataset(pa.table(table))


def _arrow(rows: Shaped[Tensor, "n ..."]) -> "pyarrow.Array":
    """The same memory as an Arrow array: of numbers, or of lists of one length."""
    import pyarrow as pa

    flat = pa.array(rows.reshape(-1).numpy())
    return flat if rows.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
