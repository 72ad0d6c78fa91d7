"""Pictures as documents: each is one, and its rows are its places at sites that share one grid."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks.capture import stream
from hooks.errors import InvalidArgument, InvalidType
from hooks.images import Images, is_picture
from hooks.network import Network
from hooks.site import Site
from hooks.store.packing import DocumentLayout, Packing


def places(model: Network, sites: Sequence[Site], some: Images | Shaped[Tensor, "batch ..."]) -> Packing:
    """Lay out one item to a row, whose tokens are the places of the sites, numbered as in the sites' tensors.

    Args:
        model: what reads the items.
        sites: of one grid, so that each of their rows is of the same place.
        some: items, of which the first is read.

    Raises:
        InvalidArgument: sites of several grids.

    Cost: one forward pass of one item.

    Examples:
        ```python
        places(model, [conv_act[2], conv_act[3]], pictures).place(model, pictures).document.shape
        ```
    """
    acts = next(stream(model, model.tokens(some)[:1], sites))
    said = {site: _grid_of(model, site, acts[site].shape[1]) for site in sites}
    first = sites[0]
    for site, grid in said.items():
        if grid != said[first]:
            raise InvalidArgument(
                f"{first} has {_size(acts[first])} and {site} {_size(acts[site])}, or they are elsewhere in the "
                "picture, and a row of a store is of one place: harvest each grid into a store of its own"
            )
    n = acts[first].shape[1]

    def place(model: Network, items: Images | Tensor) -> DocumentLayout | None:
        tokens = model.tokens(items).places(n, first)
        document = torch.arange(len(tokens), device=model.device)[:, None].expand(tokens.ids.shape).contiguous()
        return DocumentLayout(tokens, document)

    return Packing("places", place)


def _grid_of(model: Network, site: Site, n: int) -> tuple[Any, ...]:
    """What says where the places of a site are, but for how much each sees."""
    grid = model.grids.get(site)
    return (n,) if grid is None or len(grid) != n else (n, grid.shape, grid.stride, grid.first, grid.front)


def _size(value: Tensor) -> str:
    return f"{value.shape[1]} places" if value.shape[1] > 1 else "one place"


def as_items(data: Any) -> Any:
    """Return what a model without a tokenizer reads as data that can be cut into blocks.

    Args:
        data: `Images`, a tensor of what the model is given, a picture or a list of them, or a data set with a column of
            pictures.

    Raises:
        InvalidType: none of these.
        InvalidArgument: no items, or a data set without pictures.

    Examples:
        >>> len(as_items(torch.zeros(3, 3, 8, 8)))
        3
    """
    import datasets

    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise InvalidType(f"the data have splits {sorted(map(str, data))}: choose one, as in data['train']")
    if isinstance(data, datasets.Dataset | datasets.IterableDataset):
        data = data.with_format(None)
        row = next(iter(data), {})
        column = next((name for name, cell in row.items() if is_picture(cell)), None)
        if column is None:
            raise InvalidArgument(f"the dataset has columns {sorted(row)}, expected one of pictures: cast or name one")
        return data.select_columns([column])
    one_by_one = data if isinstance(data, Images | Tensor | list | tuple) else [data]
    if not len(one_by_one):
        raise InvalidArgument("got no pictures: pass a picture or a non-empty list of them")
    return one_by_one


def read_items(model: Network, rows: Any) -> Images | Float[Tensor, "batch ..."]:
    """Return some of the data as the model sizes them: pictures, or a tensor of floats as it is.

    Raises:
        InvalidType: something else.

    Examples:
        ```python
        read_items(model, ["bridge.png", "tower.jpg"]).pixels
        ```
    """
    if isinstance(rows, Mapping):
        (rows,) = rows.values()
    if isinstance(rows, Tensor) and rows.is_floating_point():
        return rows
    images = model.tokens(rows).images
    if images is None:
        raise InvalidType(f"{model.name} reads no pictures, so what is harvested of it is a tensor: pass one")
    return images
