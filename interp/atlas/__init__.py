"""The space of a model: what is next to what, and which directions are changes.

1. A space is rows with names, captured at a site or made without a model (`space.py`, `baselines.py`).
2. Its items have neighbours, which share their labels or do not (`neighbours.py`).
3. A change adds an offset, whose answers are scored next to no offset and a random one (`analogy.py`).
"""

from hooks.border import guard
from interp.atlas.analogy import Analogies, Offset, find_offset, measure_analogies, solve_analogy
from interp.atlas.baselines import histogram_space, pixel_space
from interp.atlas.neighbours import Hubness, Neighbours, Precision, find_neighbours, measure_hubness, measure_precision
from interp.atlas.space import Space, space_at, token_space

__all__ = [
    "Analogies",
    "Hubness",
    "Neighbours",
    "Offset",
    "Precision",
    "Space",
    "find_neighbours",
    "find_offset",
    "histogram_space",
    "measure_analogies",
    "measure_hubness",
    "measure_precision",
    "pixel_space",
    "solve_analogy",
    "space_at",
    "token_space",
]

guard(globals(), __all__)
