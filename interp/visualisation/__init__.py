"""What units respond to: pictures and texts made for them, kernels, and concepts of known pixels.

1. A canvas holds pictures as numbers (`canvas.py`); an objective says what they are to be large in (`objective.py`).
2. They are made by ascent (`visualise.py`), and set next to real pictures and a random direction (`compare.py`).
3. Texts are made by evolution (`text_evolution.py`, whose tokens `writer.py` keeps readable), and set next to real ones
   (`text_comparison.py`).
4. Kernels of the first layer are read as they are (`kernels.py`), units against masks (`dissection.py`).
"""

from hooks.border import guard
from interp.visualisation.canvas import Canvas, Colours, measure_colours
from interp.visualisation.compare import Comparison, compare_with_natural, visualise_random
from interp.visualisation.dissection import Dissection, dissect
from interp.visualisation.kernels import Kernels, measure_kernels, read_kernels
from interp.visualisation.objective import Objective, along, channel, latent, unit
from interp.visualisation.text_comparison import TextComparison, compare_with_texts, evolve_texts_for_random
from interp.visualisation.text_evolution import TextFront, evolve_texts
from interp.visualisation.visualise import Moves, Visualisation, visualise

__all__ = [
    "Canvas",
    "Colours",
    "Comparison",
    "Dissection",
    "Kernels",
    "Moves",
    "Objective",
    "TextComparison",
    "TextFront",
    "Visualisation",
    "along",
    "channel",
    "compare_with_natural",
    "compare_with_texts",
    "dissect",
    "evolve_texts",
    "evolve_texts_for_random",
    "latent",
    "measure_colours",
    "measure_kernels",
    "read_kernels",
    "unit",
    "visualise",
    "visualise_random",
]

guard(globals(), __all__)
