"""An activation atlas: a sample laid out in the plane by its neighbours and cut into cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NotRequired, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import TypedDict

from hooks.border import Count, Natural, Share
from hooks.errors import UnknownName, nearest
from hooks.json_file import Kind, parse_contents
from hooks.site import Site
from hooks.tensor_file import read_tensors, write_tensors
from interp.atlas.cells import Cells, cut_cells
from interp.atlas.neighbour_graph import NeighbourGraph, link_neighbours
from interp.atlas.sample import Sample, unit_rows
from interp.atlas.space import Space
from interp.common.umap_library import lay_out


class AtlasHeader(TypedDict):
    """What a file says of an atlas."""

    names: list[str]
    labels: list[str] | None
    site: str | None
    fingerprint: str | None
    changed_by: NotRequired[list[str]]
    side: int
    least: int


KIND: Final = Kind("interp.atlas", "atlas", "Atlas.save", AtlasHeader)


@final
@dataclass(frozen=True, eq=False)
class Atlas:
    """A sample of activations laid out in the plane.

    Distances between far apart rows of the map mean nothing; those of the graph do. A seed alone does not give the
    same map on another machine or in another order of rows: `save` keeps the places.

    Attributes:
        sample: the activations.
        xy: where each is.
        pca: where the first two principal components put it, to compare with.
        graph: of nearest neighbours, in all dimensions.
        cells: of the map.
        least: rows that a cell has at least.
    """

    sample: Sample
    xy: Float[Tensor, "n 2"]
    pca: Float[Tensor, "n 2"]
    graph: NeighbourGraph
    cells: Cells
    least: int

    def __repr__(self) -> str:
        return f"Atlas({len(self.sample)} activations of {self.sample.space.site}, {self.cells})"

    @property
    def means(self) -> Float[Tensor, "cell d_model"]:
        """The mean row of each cell."""
        return torch.stack([self.sample.space.rows[cell.members].float().mean(0) for cell in self.cells.cells])

    def number(self, what: str | int) -> int:
        """The number of a row: itself, the row nearest to the mean of a label's, or the one of a name.

        Raises:
            UnknownName: no label and no single row is called that.
            OutOfRange: there is no row of that number.

        Examples:
            ```python
            atlas.number("Golden Gate Bridge")
            ```
        """
        labels = self.sample.labels or ()
        if isinstance(what, str) and what in labels:
            own = torch.tensor([i for i, label in enumerate(labels) if label == what])
            unit = unit_rows(self.sample.space)[own]
            return int(own[(unit @ unit.mean(0)).argmax()])
        if isinstance(what, str) and what not in self.sample.space.names:
            near = nearest(what, labels or self.sample.space.names)
            raise UnknownName(f"no row and no label is called {what!r}; the nearest: {near}")
        return self.sample.space.number(what)

    def save(self, path: str | Path) -> None:
        """Write the atlas to one file: rows, places and graph.

        Examples:
            ```python
            atlas.save("atlas.safetensors")
            ```
        """
        one, space = self.sample, self.sample.space
        tensors = {"rows": space.rows, "item": one.item, "place": one.place, "xy": self.xy, "pca": self.pca}
        tensors |= {"neighbours": self.graph.neighbours, "distances": self.graph.distances}
        about = {
            "names": [*space.names],
            "labels": None if one.labels is None else [*one.labels],
            "site": None if space.site is None else str(space.site),
            "fingerprint": space.fingerprint,
            "changed_by": space.changed_by,
            "side": self.cells.side,
            "least": self.least,
        }
        write_tensors(path, KIND, tensors, about)

    @staticmethod
    def load(path: str | Path) -> "Atlas":
        """Read an atlas that `save` wrote.

        Raises:
            MissingFile: there is no such file.
            DamagedFile: it is torn, changed, or holds something else.

        Examples:
            ```python
            Atlas.load("atlas.safetensors")
            ```
        """
        tensors, about = read_tensors(path, KIND)
        return parse_contents(path, KIND, lambda: _atlas_of(tensors, about))


def _atlas_of(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Atlas:
    site = None if about["site"] is None else Site.parse(about["site"])
    made_of = about["fingerprint"], tuple(about.get("changed_by", ()))
    space = Space(tensors["rows"], tuple(about["names"]), "cosine", site, *made_of)
    labels = None if about["labels"] is None else tuple(about["labels"])
    sample = Sample(space, tensors["item"], tensors["place"], labels)
    graph = NeighbourGraph(tensors["neighbours"], tensors["distances"])
    cells = cut_cells(tensors["xy"], unit_rows(space), labels, side=about["side"], least=about["least"])
    return Atlas(sample, tensors["xy"], tensors["pca"], graph, cells, about["least"])


def map_activations(
    sample: Sample,
    *,
    neighbours: Count = 30,
    closeness: Share = 0.05,
    side: Count = 20,
    least: Count = 5,
    seed: Natural = 0,
    progress: bool = True,
) -> Atlas:
    """Return an activation atlas (Carter et al. 2019, doi:10.23915/distill.00015).

    Places x, y minimise the cross entropy of the fuzzy neighbourhoods in the space and in the plane (UMAP, McInnes et
    al. 2018, arXiv:1802.03426), on one thread, from the exact graph of neighbours and the first two principal
    components: the same seed gives the same map.

    Args:
        sample: of `sample_activations`.
        neighbours: of each row, in the graph that the map is made from and that walks follow.
        closeness: how near two rows come on the map at least, UMAP's `min_dist`.
        side: squares of the grid along each axis.
        least: rows that a cell has at least.
        seed: of the layout.
        progress: show a bar.

    Raises:
        InvalidArgument: not more rows than neighbours, or no square with rows enough.
        MissingExtra: umap-learn is not installed.

    Cost: two minutes for 100,000 rows of 64 on one core.

    Examples:
        ```python
        map_activations(sample_activations(load_net("convnet"), pictures, conv_act[4], labels))
        ```
    """
    graph = link_neighbours(sample.space, neighbours, progress=progress)
    unit = unit_rows(sample.space)
    pca = _principal(unit)
    xy = _laid_out(unit, graph, pca, float(closeness), seed)
    cells = cut_cells(xy, unit, sample.labels, side=side, least=least)
    return Atlas(sample, xy, pca, graph, cells, least)


def _principal(unit: Float[Tensor, "n d_model"]) -> Float[Tensor, "n 2"]:
    """The first two principal components, the largest loading of each positive; a zero where there is no second."""
    centred = unit.double() - unit.double().mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    found = (centred @ axes).float()
    return found if found.shape[1] == 2 else torch.nn.functional.pad(found, (0, 2 - found.shape[1]))


def _laid_out(
    unit: Float[Tensor, "n d_model"], graph: NeighbourGraph, pca: Float[Tensor, "n 2"], closeness: float, seed: int
) -> Float[Tensor, "n 2"]:
    own = torch.arange(len(unit))[:, None]  # UMAP counts a row among its neighbours
    near = torch.cat([own, graph.neighbours], 1).numpy().astype(np.int32)
    far = torch.cat([torch.zeros(len(unit), 1), graph.distances], 1).numpy()
    begin = 10.0 * pca / pca.abs().max().clamp_min(1e-9)
    return lay_out(
        unit, n_neighbors=near.shape[1], min_dist=closeness, metric="cosine", random_state=seed,
        precomputed_knn=(near, far), init=begin.numpy(),
    )  # fmt: skip


def cell_of_row(atlas: Atlas) -> Int[Tensor, "n"]:
    """The number of each row's cell, -1 for rows in none."""
    found = torch.full((len(atlas.sample),), -1)
    for number, cell in enumerate(atlas.cells.cells):
        found[cell.members] = number
    return found
