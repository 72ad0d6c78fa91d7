"""Sparse feature circuits: the dictionary features and errors that a behaviour runs through (Marks et al. 2024).

They need only autoencoders of what is in the stream or added to it; attribution graphs, which need transcoders, are
in the folder above.

1. `dictionaries`: autoencoders by site, in the order of the forward pass, and what each makes of its site.
2. `paired_runs`: the clean and the corrupt run of some texts, and how far apart their features and errors are.
3. `node_effects`: what each feature and error does to the metric, by slopes, next to exact effects of some.
4. `running`: the metric of the model with some nodes kept and all others as in the corrupt run.
5. `edge_weights`: what each kept node owes to each other one directly, all nodes in between held.
6. `circuit`: nodes and edges above their thresholds, and how faithful they are.
"""

from hooks.border import guard
from interp.graphs.feature_circuits.circuit import FeatureCircuit as FeatureCircuit
from interp.graphs.feature_circuits.circuit import FeatureFaithfulness as FeatureFaithfulness
from interp.graphs.feature_circuits.circuit import feature_circuit as feature_circuit
from interp.graphs.feature_circuits.circuit import feature_faithfulness as feature_faithfulness
from interp.graphs.feature_circuits.edge_weights import FeatureEdges as FeatureEdges
from interp.graphs.feature_circuits.node_effects import FeatureEffects as FeatureEffects
from interp.graphs.feature_circuits.node_effects import exact_feature_effects as exact_feature_effects
from interp.graphs.feature_circuits.node_effects import feature_effects as feature_effects
from interp.graphs.feature_circuits.running import run_feature_circuit as run_feature_circuit

__all__ = [
    "FeatureCircuit",
    "FeatureEdges",
    "FeatureEffects",
    "FeatureFaithfulness",
    "exact_feature_effects",
    "feature_circuit",
    "feature_effects",
    "feature_faithfulness",
    "run_feature_circuit",
]

guard(globals(), __all__)
