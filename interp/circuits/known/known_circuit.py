"""A known circuit: a model, a task, and the edges it needs, with how well a ranking of edges finds them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.circuits.edges.circuit import Circuit
from interp.circuits.edges.edge_effect import EdgeEffect
from interp.circuits.edges.graph import edge_graph
from interp.circuits.edges.task import Task
from probes.metrics import auroc


@dataclass(frozen=True, eq=False)
class KnownCircuit:
    """A model whose circuit for a task is known, as it was made for it.

    Attributes:
        name: of the circuit.
        model: the model.
        task: its task.
        edges: the edges by which a difference between the clean and the corrupt texts reaches the metric.
        single: whether corrupting one edge at a time can show them all; not where two do the same (OR).

    Examples:
        ```python
        known = induction_circuit(attention=20.0)
        known.auroc(edge_attribution(known.model, known.task, eap_ig(50)))
        ```
    """

    name: str
    model: Model
    task: Task
    edges: tuple[str, ...]
    single: bool = True

    __repr__ = summarise

    @property
    def circuit(self) -> Circuit:
        """The true edges as a circuit."""
        return Circuit.of(edge_graph(self.model), self.edges)

    def auroc(self, found: EdgeEffect) -> float:
        """Return the area under the ROC curve of |effect|, over all edges: true ones are to rank first.

        Ties count half, so that a method that finds nothing has 0.5.

        Raises:
            InvalidArgument: effects of another model's edges.

        Examples:
            ```python
            known.auroc(exact_edges(known.model, known.task))
            ```
        """
        return edge_auroc(self.circuit, found.effect.abs())


def edge_auroc(true: Circuit, scores: Float[Tensor, "sender receiver"]) -> float:
    """Return the area under the ROC curve of scores of edges, true ones against all others.

    Scores closer to each other than 1e-9 of the largest are taken as equal.

    Raises:
        InvalidArgument: scores of another graph's edges, or a circuit with no or all edges.

    Examples:
        ```python
        edge_auroc(known.circuit, found.effect.abs())
        ```
    """
    allowed = true.graph.allowed
    if scores.shape != allowed.shape:
        raise InvalidArgument(
            f"the scores have shape {tuple(scores.shape)}, the edges {tuple(allowed.shape)}: score edges of this model"
        )
    flat, truth = scores.detach().cpu().double()[allowed], true.mask.cpu()[allowed]
    if bool(truth.all()) or not bool(truth.any()):
        raise InvalidArgument(f"{int(truth.sum())} of {len(truth)} edges are true: an ROC curve needs both kinds")
    grain = float(flat.abs().max()) * 1e-9
    flat = flat if grain == 0 else (flat / grain).round()
    return float(auroc(flat, truth))


@torch.no_grad()
def token_difference(right: int, wrong: int) -> Callable[[Float[Tensor, "example vocab"]], Float[Tensor, "example"]]:
    """Return the metric logit[right] - logit[wrong], by token ids.

    Examples:
        ```python
        token_difference(3, 5)
        ```
    """
    return lambda logits: logits[:, right] - logits[:, wrong]
