"""Circuits of edges: which writes to the residual stream matter to which reads of it, estimated and exact.

1. `task`: clean and corrupt texts and a metric.
2. `graph`, `circuit`: the edges of a model, and sets of them; `blocks` and `norm` are what edges need of its weights.
3. `slope`, `backward_rules`: how a gradient is taken; `attribution`: the estimate for every edge from it.
4. `exact`: the real effect of single edges; `estimate_check` holds estimates against it, `edge_effect` is the result.
"""

from interp.circuits.edges.attribution import edge_attribution as edge_attribution
from interp.circuits.edges.circuit import Circuit as Circuit
from interp.circuits.edges.circuit import greedy_circuit as greedy_circuit
from interp.circuits.edges.circuit import top_circuit as top_circuit
from interp.circuits.edges.edge_effect import EdgeEffect as EdgeEffect
from interp.circuits.edges.edge_effect import EstimateCheck as EstimateCheck
from interp.circuits.edges.exact import exact_edges as exact_edges
from interp.circuits.edges.graph import EdgeGraph as EdgeGraph
from interp.circuits.edges.graph import edge_graph as edge_graph
from interp.circuits.edges.slope import Slope as Slope
from interp.circuits.edges.slope import clean_corrupt as clean_corrupt
from interp.circuits.edges.slope import eap as eap
from interp.circuits.edges.slope import eap_ig as eap_ig
from interp.circuits.edges.slope import gim as gim
from interp.circuits.edges.slope import relp as relp
from interp.circuits.edges.task import Task as Task
from interp.circuits.edges.task import kl_from_clean as kl_from_clean

__all__ = [
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
