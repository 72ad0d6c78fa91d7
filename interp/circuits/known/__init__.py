"""Known circuits: models whose circuit is known because it was put there, to test every method of circuits on.

Most are made by hand in a fraction of a second, in plain torch, with the edges of their task as data;
`train_strictly` makes realistic weights for a given program.
"""

from hooks.border import guard
from interp.circuits.known.equality import equality as equality
from interp.circuits.known.equality import equality_program as equality_program
from interp.circuits.known.gates import and_gate as and_gate
from interp.circuits.known.gates import or_gate as or_gate
from interp.circuits.known.induction import induction_circuit as induction_circuit
from interp.circuits.known.known_circuit import KnownCircuit as KnownCircuit
from interp.circuits.known.known_circuit import edge_auroc as edge_auroc
from interp.circuits.known.proportion import proportion_circuit as proportion_circuit
from interp.circuits.known.reverse import reverse_circuit as reverse_circuit
from interp.circuits.known.skip_trio import skip_trio as skip_trio
from interp.circuits.known.strict_training import StrictModel as StrictModel
from interp.circuits.known.strict_training import by_node as by_node
from interp.circuits.known.strict_training import train_strictly as train_strictly

__all__ = [
    "KnownCircuit",
    "StrictModel",
    "and_gate",
    "by_node",
    "edge_auroc",
    "equality",
    "equality_program",
    "induction_circuit",
    "or_gate",
    "proportion_circuit",
    "reverse_circuit",
    "skip_trio",
    "train_strictly",
]

guard(globals(), __all__)
