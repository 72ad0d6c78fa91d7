"""Attribution graphs: how much of each logit and feature of a prompt comes from features, errors, tokens and biases.

They need transcoders, so they rank above `interp.sae`; circuits of edges, which need none, are `interp.circuits.edges`.

1. `transcoders`: what takes the place of feed-forward layers, per layer, across layers, or exact neurons.
2. `local_model`: the model of one prompt with patterns, norms' divisors and errors held, which is linear.
3. `logits`, `cotangents`: targets, and their rows, by slopes that go down the layers in blocks.
4. `nodes`, `graph`, `attribution`: the graph, whose rows for features are taken in the order of their influence.
5. `influence`: influence by back-substitution, and pruning by it.
6. `supernodes`, `feature_texts`: sets of nodes and what goes between them, and what each feature fires on.
7. `steer_features`: features set to other activations, in the local replacement model and in the model.
8. `head_loadings`, `query_key`: which heads bring a source to its target, and why they look where they look.
9. `viewer`: the pruned graph as files of circuit-tracer's graph viewer.

`interp.show` draws a graph and writes it as a page.
"""

from hooks.border import guard
from interp.graphs.attribution import attribution_graph as attribution_graph
from interp.graphs.attribution import attribution_graphs as attribution_graphs
from interp.graphs.feature_texts import FeatureText as FeatureText
from interp.graphs.feature_texts import collect_feature_texts as collect_feature_texts
from interp.graphs.graph import AttributionGraph as AttributionGraph
from interp.graphs.head_loadings import HeadLoadings as HeadLoadings
from interp.graphs.head_loadings import head_loadings as head_loadings
from interp.graphs.influence import influence_of as influence_of
from interp.graphs.nodes import Nodes as Nodes
from interp.graphs.query_key import ScoreTable as ScoreTable
from interp.graphs.query_key import attribute_score as attribute_score
from interp.graphs.steer_features import SteeredFeatures as SteeredFeatures
from interp.graphs.steer_features import scale_features as scale_features
from interp.graphs.steer_features import steer_features as steer_features
from interp.graphs.supernodes import edges_between as edges_between
from interp.graphs.transcoders import LayerTranscoder as LayerTranscoder
from interp.graphs.transcoders import Transcoders as Transcoders
from interp.graphs.transcoders import cross_layer as cross_layer
from interp.graphs.transcoders import neurons as neurons
from interp.graphs.transcoders import per_layer as per_layer
from interp.graphs.transcoders import read_transcoders as read_transcoders
from interp.graphs.transcoders import shuffle_decoders as shuffle_decoders
from interp.graphs.viewer import write_viewer_json as write_viewer_json

__all__ = [
    "AttributionGraph",
    "FeatureText",
    "HeadLoadings",
    "LayerTranscoder",
    "Nodes",
    "ScoreTable",
    "SteeredFeatures",
    "Transcoders",
    "attribute_score",
    "attribution_graph",
    "attribution_graphs",
    "collect_feature_texts",
    "cross_layer",
    "edges_between",
    "head_loadings",
    "influence_of",
    "neurons",
    "per_layer",
    "read_transcoders",
    "scale_features",
    "shuffle_decoders",
    "steer_features",
    "write_viewer_json",
]

guard(globals(), __all__)
