"""Circuits of edges: which writes to the residual stream matter to which reads of it, estimated and exact.

1. `task`: clean and corrupt texts and a metric.
2. `graph`, `circuit`: the edges of a model, and sets of them; `blocks` and `norm` are what edges need of its weights.
3. `slope`, `backward_rules`: how a gradient is taken; `attribution`: the estimate for every edge from it.
4. `exact`: the real effect of single edges; `estimate_check` compares estimates with it, `edge_effect` is the result.
5. `ablation`, `masked_run`, `running`: the metric of a model left with any set of edges; `path_patching` for paths.
6. `acdc`, `pruning`, `optimal_ablation`: circuits found by running circuits.
7. `faithfulness`, `completeness`, `redrawing`: how good a circuit is, and how much it depends on its texts.
"""

from hooks.border import guard
from interp.circuits.edges.ablation import Ablation as Ablation
from interp.circuits.edges.ablation import counterfactual_ablation as counterfactual_ablation
from interp.circuits.edges.ablation import mean_ablation as mean_ablation
from interp.circuits.edges.ablation import zero_ablation as zero_ablation
from interp.circuits.edges.acdc import ACDCResult as ACDCResult
from interp.circuits.edges.acdc import acdc as acdc
from interp.circuits.edges.attribution import edge_attribution as edge_attribution
from interp.circuits.edges.circuit import Circuit as Circuit
from interp.circuits.edges.circuit import greedy_circuit as greedy_circuit
from interp.circuits.edges.circuit import top_circuit as top_circuit
from interp.circuits.edges.completeness import Completeness as Completeness
from interp.circuits.edges.completeness import complement_faithfulness as complement_faithfulness
from interp.circuits.edges.completeness import completeness as completeness
from interp.circuits.edges.completeness import minimality as minimality
from interp.circuits.edges.edge_effect import EdgeEffect as EdgeEffect
from interp.circuits.edges.edge_effect import EstimateCheck as EstimateCheck
from interp.circuits.edges.exact import exact_edges as exact_edges
from interp.circuits.edges.faithfulness import FaithfulnessCurve as FaithfulnessCurve
from interp.circuits.edges.faithfulness import faithfulness_curve as faithfulness_curve
from interp.circuits.edges.faithfulness import random_scores as random_scores
from interp.circuits.edges.graph import EdgeGraph as EdgeGraph
from interp.circuits.edges.graph import edge_graph as edge_graph
from interp.circuits.edges.optimal_ablation import optimal_ablation as optimal_ablation
from interp.circuits.edges.path_patching import path_patching as path_patching
from interp.circuits.edges.pruning import PrunedEdges as PrunedEdges
from interp.circuits.edges.pruning import prune_edges as prune_edges
from interp.circuits.edges.redrawing import RedrawnTexts as RedrawnTexts
from interp.circuits.edges.redrawing import redraw_texts as redraw_texts
from interp.circuits.edges.running import run_circuit as run_circuit
from interp.circuits.edges.slope import Slope as Slope
from interp.circuits.edges.slope import clean_corrupt as clean_corrupt
from interp.circuits.edges.slope import eap as eap
from interp.circuits.edges.slope import eap_ig as eap_ig
from interp.circuits.edges.slope import gim as gim
from interp.circuits.edges.slope import relp as relp
from interp.circuits.edges.task import Task as Task
from interp.circuits.edges.task import kl_from_clean as kl_from_clean

__all__ = [
    "Ablation",
    "counterfactual_ablation",
    "mean_ablation",
    "zero_ablation",
    "ACDCResult",
    "acdc",
    "Completeness",
    "complement_faithfulness",
    "completeness",
    "minimality",
    "FaithfulnessCurve",
    "faithfulness_curve",
    "random_scores",
    "optimal_ablation",
    "path_patching",
    "PrunedEdges",
    "prune_edges",
    "RedrawnTexts",
    "redraw_texts",
    "run_circuit",
    "Circuit",
    "EdgeEffect",
    "EdgeGraph",
    "EstimateCheck",
    "Slope",
    "Task",
    "clean_corrupt",
    "eap",
    "eap_ig",
    "edge_attribution",
    "edge_graph",
    "exact_edges",
    "gim",
    "greedy_circuit",
    "kl_from_clean",
    "relp",
    "top_circuit",
]

guard(globals(), __all__)
