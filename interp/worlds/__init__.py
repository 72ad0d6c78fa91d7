"""Small worlds whose truth is planted: lists, induction, segments, a clock, steps, experts, a ladder.

1. A world draws the rows of every training step from a seed, and says what is true of it (`lists.py`, `induction.py`,
   `segments.py`, `clock.py`, `steps.py`, `experts.py`, `ladder.py`).
2. All are trained by one script, with checkpoints at logarithmically spaced steps (`train.py`).
3. The small ones are in the package, and are loaded by name (`load.py`).
"""

from hooks.border import guard
from interp.worlds.load import bundled_worlds, load_world
from interp.worlds.recipe import Rows, World
from interp.worlds.train import WORLDS, checkpoints, train, world

__all__ = ["WORLDS", "Rows", "World", "bundled_worlds", "checkpoints", "load_world", "train", "world"]

guard(globals(), __all__)
