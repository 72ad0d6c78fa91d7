"""Checking an estimate: the exact effects of some edges, chosen where the estimate is most likely to be wrong."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from interp.circuits.edges.edge_effect import EstimateCheck
from interp.circuits.edges.exact import exact_edges
from interp.circuits.edges.graph import EdgeGraph
from interp.circuits.edges.task import Task

TEXTS = 16


def check_estimate(
    model: Model,
    task: Task,
    graph: EdgeGraph,
    each: Float[Tensor, "example sender receiver"],
    sample: int,
    seed: int,
    *,
    progress: bool = True,
) -> EstimateCheck:
    """Measure some edges exactly, in at most 16 of the texts.

    Half are the largest of the estimate. Of the others, each edge is drawn with a chance that grows with the size of
    the estimates for the edges out of the node it goes into. A node that matters must get its input from somewhere, so
    an estimate that finds nothing there is caught.

    Examples:
        ```python
        check_estimate(model, task, graph, found.each, sample=24, seed=0).correlation
        ```
    """
    edges = _choose(graph, each.mean(0).cpu(), sample, seed)
    names = [graph.name(s, r) for s, r in edges]
    n_texts = min(TEXTS, len(each))
    exact = exact_edges(model, _of_first(model, task, n_texts), names, progress=progress)
    places = [s for s, _ in edges], [r for _, r in edges]
    return EstimateCheck(
        tuple(names), exact.effect[places].cpu(), each[:n_texts].mean(0)[places].to(exact.each).cpu(), n_texts
    )


def _of_first(model: Model, task: Task, n_texts: int) -> Task:
    """The same task with its first texts alone; the metric is still given logits for all of them."""
    clean, corrupt = task.tokens(model)
    if n_texts == len(clean):
        return task
    count = len(clean)

    def metric(logits: Float[Tensor, "example vocab"]) -> Float[Tensor, "example"]:
        return task.metric(logits[torch.arange(count, device=logits.device) % len(logits)])[: len(logits)]

    return Task(clean[:n_texts], corrupt[:n_texts], metric, task.at)


def _choose(
    graph: EdgeGraph, effect: Float[Tensor, "sender receiver"], sample: int, seed: int
) -> list[tuple[int, int]]:
    edges = list(graph.edges)
    size = torch.stack([effect[s, r].abs() for s, r in edges]).double()
    n = min(sample, len(edges))
    largest = size.argsort(descending=True, stable=True)[: n // 2]
    leaving = effect.abs().sum(1).double()
    node = graph.fed_by.double().T @ leaving  # effects of the edges out of the node that each receiver feeds
    node[-1] = leaving[0] * 0
    chance = torch.stack([node[r] for _, r in edges])
    chance = chance + (chance.max() * 0.05 + 1e-30)
    chance[largest] = 0.0
    drawn = torch.multinomial(chance, n - len(largest), generator=torch.Generator().manual_seed(seed))
    return [edges[i] for i in sorted([*largest.tolist(), *drawn.tolist()])]
