"""Places in the plane by UMAP, imported where a map is made; it leaves torch's threads as they were."""

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import MissingExtra


def lay_out(rows: Float[Tensor, "n d_model"], **settings: Any) -> Float[Tensor, "n 2"]:
    """Return where UMAP puts rows, on one thread.

    Args:
        rows: to be placed.
        settings: of UMAP.

    Raises:
        MissingExtra: umap-learn is not installed.

    Examples:
        ```python
        lay_out(rows, n_neighbors=15, metric="cosine", random_state=0)
        ```
    """
    threads = torch.get_num_threads()
    method = _load()(n_jobs=1, **settings)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "precomputed_knn")  # that it maps no further rows
            return torch.from_numpy(method.fit_transform(rows.numpy())).float()
    finally:
        torch.set_num_threads(threads)  # numba sets the number of its own for all libraries of the process


def _load() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # it would rather have TensorFlow as well
            from umap import UMAP  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtra("a map needs the library umap-learn: pip install 'interp-workbench[map]'") from None
    return UMAP
