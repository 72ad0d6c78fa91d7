"""Interchange: whether a model implements a causal model, by putting a place of one run into another.

1. `causal_model`: the program, and what it says if one of its variables is as on another input.
2. `interchange`: the language model under the same exchange, and how often the two agree.
3. `das`: the subspace where they agree most, with its controls.
"""

from hooks.border import guard
from interp.circuits.interchange.causal_model import CausalModel as CausalModel
from interp.circuits.interchange.das import Alignment as Alignment
from interp.circuits.interchange.das import align_subspace as align_subspace
from interp.circuits.interchange.interchange import Implementation as Implementation
from interp.circuits.interchange.interchange import Place as Place
from interp.circuits.interchange.interchange import interchange_accuracy as interchange_accuracy
from interp.circuits.interchange.interchange import interchange_table as interchange_table

__all__ = [
    "Alignment",
    "CausalModel",
    "Implementation",
    "Place",
    "align_subspace",
    "interchange_accuracy",
    "interchange_table",
]

guard(globals(), __all__)
