"""The space of a model: what is next to what, which directions are changes, and a map of it to walk.

1. A space is rows with names, captured at a site or made without a model (`space.py`, `baselines.py`).
2. Its items have neighbours, which share their labels or do not (`neighbours.py`), found by an index where there are
   millions (`space_index.py`).
3. A change adds an offset, whose answers are scored next to no offset and a random one (`analogy.py`).
4. Activations are drawn at places of pictures or texts (`sample.py`), linked to their neighbours
   (`neighbour_graph.py`), laid out in the plane and cut into cells (`activation_atlas.py`, `cells.py`).
5. The map is measured (`map_quality.py`); its cells get icons (`icons.py`) and words (`cell_words.py`).
6. Walks lead from one row to another over neighbours (`walk.py`).
"""

from hooks.border import guard
from interp.atlas.activation_atlas import Atlas, map_activations
from interp.atlas.analogy import Analogies, Offset, find_offset, measure_analogies, solve_analogy
from interp.atlas.baselines import histogram_space, pixel_space, random_query
from interp.atlas.cell_words import attribute_cells, read_cells
from interp.atlas.cells import Cell, Cells, cut_cells
from interp.atlas.icons import Icons, draw_icons
from interp.atlas.map_quality import MapQuality, measure_map
from interp.atlas.neighbour_graph import NeighbourGraph, link_neighbours
from interp.atlas.neighbours import Hubness, Neighbours, Precision, find_neighbours, measure_hubness, measure_precision
from interp.atlas.sample import Sample, sample_activations
from interp.atlas.space import Space, space_at, token_space
from interp.atlas.space_index import SpaceIndex, index_space, measure_index_recall
from interp.atlas.walk import Route, Walk, find_walk

__all__ = [
    "Analogies",
    "Atlas",
    "Cell",
    "Cells",
    "Hubness",
    "Icons",
    "MapQuality",
    "NeighbourGraph",
    "Neighbours",
    "Offset",
    "Precision",
    "Route",
    "Sample",
    "Space",
    "SpaceIndex",
    "Walk",
    "attribute_cells",
    "cut_cells",
    "draw_icons",
    "find_neighbours",
    "find_offset",
    "find_walk",
    "histogram_space",
    "index_space",
    "link_neighbours",
    "map_activations",
    "measure_analogies",
    "measure_hubness",
    "measure_index_recall",
    "measure_map",
    "measure_precision",
    "pixel_space",
    "random_query",
    "read_cells",
    "sample_activations",
    "solve_analogy",
    "space_at",
    "token_space",
]

guard(globals(), __all__)
