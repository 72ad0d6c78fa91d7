"""Keys in cells around centres, by faiss: a search looks only into the cells that are nearest to a state."""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.direction import wide
from hooks.errors import InvalidArgument, MissingExtra

ROWS = 262_144
PER_CELL = 64
"""How many keys of a cell its centre is computed from, at most."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class KeyIndex:
    """Keys in cells around the centres that k-means finds (Jégou et al. 2011, the index without product codes).

    Attributes:
        held: faiss's own index, which holds the keys in single precision.
        cells: how many cells there are.
        probes: how many of them a search looks into; with all of them it is exact.
    """

    held: Any
    cells: int
    probes: int

    def __repr__(self) -> str:
        return f"KeyIndex({self.held.ntotal:,} keys in {self.cells:,} cells, {self.probes:,} looked into)"

    def find(self, q: Float[Tensor, "n d_model"], k: int) -> Int[Tensor, "n _"]:
        """The numbers of keys near each state, nearest first as far as the cells show; -1 where they hold fewer."""
        threads = torch.get_num_threads()
        self.held.nprobe = self.probes
        _, at = self.held.search(wide(q).numpy(), k)
        torch.set_num_threads(threads)
        return torch.from_numpy(at)


def make_key_index(
    keys: Float[Tensor, "n d_model"], *, cells: int | None = None, probes: int | None = None, seed: int = 0
) -> KeyIndex:
    """Put keys into cells.

    Args:
        keys: of any precision.
        cells: by default 4 √n, and at most one for 39 keys.
        probes: by default a sixteenth of the cells.
        seed: of k-means.

    Raises:
        InvalidArgument: more cells than keys, or more probes than cells.
        MissingExtra: faiss is not installed.

    Cost: k-means over 64 keys a cell, and a product of keys by centres.

    Examples:
        ```python
        make_key_index(memory.keys)
        ```
    """
    n, d = keys.shape
    cells = max(1, min(n // 39, round(4 * n**0.5))) if cells is None else cells
    probes = max(1, cells // 16) if probes is None else probes
    if not 1 <= probes <= cells <= n:
        raise InvalidArgument(f"{cells} cells, {probes} probes, {n} keys: give 1 to {n} cells, and no more probes")
    faiss, threads = _load(), torch.get_num_threads()
    faiss.omp_set_num_threads(threads)
    held = faiss.index_factory(d, f"IVF{cells},Flat")
    held.cp.seed, held.cp.niter, held.cp.min_points_per_centroid = seed + 1, 10, 1
    held.cp.max_points_per_centroid = PER_CELL
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[: PER_CELL * cells]
    held.train(wide(keys[drawn]).numpy())
    for start in range(0, n, ROWS):
        held.add(wide(keys[start : start + ROWS]).numpy())
    torch.set_num_threads(threads)
    return KeyIndex(held, cells, probes)


def _load() -> Any:
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtra("an index of keys needs the library faiss: pip install 'interp-workbench[search]'") from None
    return faiss
