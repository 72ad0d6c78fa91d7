"""Edge pruning: a mask over all edges, trained by gradient, for the circuit of a given size closest to the model."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.border import Count, Natural, Positive
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.circuits.edges.ablation import Ablation, counterfactual_ablation
from interp.circuits.edges.blocks import blocks_of
from interp.circuits.edges.circuit import Circuit, top_circuit
from interp.circuits.edges.graph import edge_graph
from interp.circuits.edges.masked_run import run_masked
from interp.circuits.edges.running import measure_streams, run_circuit
from interp.circuits.edges.task import Task, kl_from_clean

LOW, HIGH, SHARP = -0.1, 1.1, 2 / 3
"""The ends of the stretched interval and the temperature of the hard-concrete distribution (Louizos et al. 2018)."""


@dataclass(frozen=True, eq=False)
class PrunedEdges:
    """What edge pruning found.

    Attributes:
        circuit: the edges whose log alpha is highest.
        log_alpha: of each edge; the chance that it is on grows with it.
        kl: KL(model || circuit) of that circuit, each edge on or off, mean over texts in nats.
        loss: KL at each step.
    """

    circuit: Circuit
    log_alpha: Float[Tensor, "sender receiver"]
    kl: float
    loss: tuple[float, ...]

    __repr__ = summarise


def prune_edges(
    model: Model,
    task: Task,
    n_edges: Count,
    ablation: Ablation | None = None,
    *,
    steps: Count = 300,
    lr: Positive = 0.2,
    masks: Count = 8,
    batch_size: Count = 32,
    seed: Natural = 0,
    progress: bool = True,
) -> PrunedEdges:
    """Train a hard-concrete mask z per edge, in_v = sum_u z_uv e_u + (1 - z_uv) ablated_u, down to a number of edges.

    z = clamp(1.2 sigmoid((log u/(1-u) + log alpha) / (2/3)) - 0.1, 0, 1) with u uniform. The loss is KL(model ||
    circuit) + a (t - s) + b (t - s)², where s is the expected share of edges that are off, t its target, which rises
    to that of `n_edges` over the first five sixths of the steps, and a and b are raised by gradient ascent. Each step
    is the mean over several masks: with one, an edge that a task cannot do without is soon off by chance, and where
    the task is saturated there is no gradient that would bring it back.

    Args:
        model: the model; its weights stay.
        task: clean and corrupt texts; KL is read where its metric is.
        n_edges: how many edges to keep.
        ablation: what replaces the others; by default the corrupt run.
        steps: of Adam.
        lr: of log alpha and of the two multipliers.
        masks: drawn at each step.
        batch_size: texts per step.
        seed: of the masks and of the texts drawn.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no steps, or a number of edges that the graph cannot have.

    Cost: a forward and a backward pass for each step and mask, as that of a circuit; memory for
        the writes of every sender.

    Bhaskar et al. 2024, arXiv:2406.16778.

    Examples:
        ```python
        prune_edges(model, task, 20).circuit.edges
        ```
    """
    graph = edge_graph(model)
    if steps < 1 or not 1 <= n_edges <= graph.n_edges:
        raise InvalidArgument(f"{steps} steps to {n_edges} edges were asked for: give 1 step, and 1 to {graph.n_edges}")
    ablation = counterfactual_ablation() if ablation is None else ablation
    clean, corrupt = task.tokens(model)
    asked = replace(task, metric=kl_from_clean(model, clean, task.at))
    blocks, random = blocks_of(model), torch.Generator().manual_seed(seed)
    allowed = graph.allowed
    log_alpha = torch.full((graph.n_edges,), 2.0, dtype=model.dtype, requires_grad=True)
    pull = torch.zeros(2, dtype=model.dtype, requires_grad=True)
    adam = torch.optim.Adam([{"params": [log_alpha]}, {"params": [pull], "maximize": True}], lr=lr)
    losses = []
    for step in progress_bar(range(steps), desc="edge pruning", progress=progress):
        first = int(torch.randint(max(1, len(clean) - batch_size + 1), (), generator=random))
        texts = slice(first, first + batch_size)
        with torch.inference_mode(False), torch.enable_grad():
            z = _sample(log_alpha.expand(masks, -1), random)
            removed = z.new_zeros(masks, *allowed.shape).masked_scatter(allowed, 1 - z)
            with torch.no_grad():
                ablated = ablation.values(model, blocks, corrupt[texts])
            final = run_masked(model, blocks, clean[texts], removed.to(model.device), ablated)
            kl = measure_streams(model, asked, clean[texts], final, first, len(clean)).mean()
            off = 1 - _on(log_alpha).mean()
            target = (1 - n_edges / graph.n_edges) * min(1.0, (step + 1) / (steps * 5 / 6))
            loss = kl + pull[0] * (target - off) + pull[1] * (target - off) ** 2
        log_alpha.grad, pull.grad = torch.autograd.grad(loss, [log_alpha, pull])
        adam.step()
        losses.append(float(kl.detach()))
    found = torch.zeros(allowed.shape, dtype=model.dtype).masked_scatter(allowed, log_alpha.detach())
    circuit = top_circuit(graph, found, n_edges)
    kl = float(run_circuit(model, asked, circuit, ablation, progress=False).mean())
    return PrunedEdges(circuit, found, kl, tuple(losses))


def _sample(log_alpha: Float[Tensor, "n edge"], random: torch.Generator) -> Float[Tensor, "n edge"]:
    u = torch.rand(log_alpha.shape, generator=random, dtype=log_alpha.dtype).clamp(1e-6, 1 - 1e-6)
    soft = ((u / (1 - u)).log() + log_alpha).div(SHARP).sigmoid()
    return ((HIGH - LOW) * soft + LOW).clamp(0, 1)


def _on(log_alpha: Float[Tensor, "edge"]) -> Float[Tensor, "edge"]:
    """The chance that an edge is not 0."""
    return (log_alpha - SHARP * torch.tensor(-LOW / HIGH).log()).sigmoid()
