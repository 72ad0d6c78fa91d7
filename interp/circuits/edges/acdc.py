"""ACDC: edges are taken out one by one, from the logits backward, for as long as the output stays as it is."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from hooks import Model
from hooks.border import Count, Finite
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.circuits.edges.ablation import Ablation
from interp.circuits.edges.circuit import Circuit
from interp.circuits.edges.graph import EdgeGraph, edge_graph
from interp.circuits.edges.running import run_circuit
from interp.circuits.edges.task import Task, kl_from_clean

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class ACDCResult:
    """What is left after ACDC.

    Attributes:
        circuit: the edges that were kept.
        threshold: tau.
        kl: mean KL(model || circuit) of what is left, in nats.
        increase: how much removing each edge would have raised, or did raise, that KL when its turn came.
        order: the edges in the order of their turns; another order gives another circuit.
    """

    circuit: Circuit
    threshold: float
    kl: float
    increase: dict[str, float]
    order: tuple[str, ...]

    __repr__ = summarise

    def to_pandas(self) -> "DataFrame":
        """A row for each edge in the order of their turns: how much removing it raises the KL, and if it was kept."""
        from pandas import DataFrame

        kept = set(self.circuit.edges)
        rows = [(edge, self.increase.get(edge, 0.0), edge in kept) for edge in self.order]
        return DataFrame(rows, columns=["edge", "increase", "kept"])


def acdc(
    model: Model,
    task: Task,
    threshold: Finite,
    ablation: Ablation | None = None,
    *,
    batch_size: Count = 64,
    progress: bool = True,
) -> ACDCResult:
    """Automatic circuit discovery: an edge goes for good iff KL(model || without it) - KL(model || with it) < tau.

    Receivers take their turns from the logits backward, and the senders of each from the last to the first. Edges
    into a node whose own edges have all gone are taken out without a run, as they change nothing. Several turns share
    a pass: circuits without the next 1, 2, 4 ... edges are run together, and turns after the first edge that has to
    stay are run again, so the result is that of one turn at a time.

    Args:
        model: the model.
        task: clean and corrupt texts; KL is read where its metric is.
        threshold: tau in nats, summed over the vocabulary; published values are from 0.001 to 1.
        ablation: what replaces edges that are gone; by default the corrupt run.
        batch_size: texts times circuits per pass.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: a threshold below 0, texts that do not align.

    Cost: about a forward pass over the texts for each edge.

    Conmy et al. 2023, arXiv:2304.14997.

    Examples:
        ```python
        acdc(model, task, 0.01).circuit.edges
        ```
    """
    if threshold < 0:
        raise InvalidArgument(f"the threshold is {threshold}: give at least 0 nats, such as 0.01")
    graph = edge_graph(model)
    asked = replace(task, metric=kl_from_clean(model, task.tokens(model)[0], task.at))
    n_texts = len(task.tokens(model)[0])
    mask, increase = graph.allowed.clone(), dict[str, float]()
    now = float(run_circuit(model, asked, Circuit(graph, mask), batch_size=batch_size, progress=False).mean())
    order = [graph.name(s, r) for s, r in _turns(graph)]
    for receiver in progress_bar(range(len(graph.receivers) - 1, -1, -1), desc="ACDC", progress=progress):
        waiting = [s for s, r in _turns(graph) if r == receiver]
        if receiver < len(graph.receivers) - 1 and not bool(mask[graph.fed_by[:, receiver]].any()):
            mask[:, receiver] = False
            increase |= {graph.name(s, receiver): 0.0 for s in waiting}
            continue
        while waiting:
            some = waiting[: max(1, batch_size // n_texts)]
            trials = [_without(mask, some[: i + 1], receiver) for i in range(len(some))]
            kl = run_circuit(
                model,
                asked,
                [Circuit(graph, trial) for trial in trials],
                ablation,
                batch_size=batch_size,
                progress=False,
            ).mean(1)
            done = 0
            for s, trial, after in zip(some, trials, kl.tolist(), strict=True):
                increase[graph.name(s, receiver)] = after - now
                done += 1
                if after - now >= threshold:
                    break
                mask, now = trial, after
            waiting = waiting[done:]
    return ACDCResult(Circuit(graph, mask), threshold, now, increase, tuple(order))


def _turns(graph: EdgeGraph) -> Iterator[tuple[int, int]]:
    for receiver in range(len(graph.receivers) - 1, -1, -1):
        for sender in graph.allowed[:, receiver].nonzero().flatten().flip(0).tolist():
            yield sender, receiver


def _without(mask: torch.Tensor, senders: list[int], receiver: int) -> torch.Tensor:
    fewer = mask.clone()
    fewer[senders, receiver] = False
    return fewer
