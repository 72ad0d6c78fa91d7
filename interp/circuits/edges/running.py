"""Running circuits: the metric of a model that is left with some of its edges, many circuits per pass."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Tokens
from hooks.border import Count
from hooks.errors import InvalidArgument, WrongModel
from hooks.progress import progress_bar
from interp.circuits.edges.ablation import Ablation, counterfactual_ablation
from interp.circuits.edges.blocks import blocks_of
from interp.circuits.edges.circuit import Circuit
from interp.circuits.edges.graph import edge_graph
from interp.circuits.edges.masked_run import run_masked
from interp.circuits.edges.task import Task, ends_of


@torch.no_grad()
def run_circuit(
    model: Model,
    task: Task,
    circuits: Circuit | Sequence[Circuit],
    ablation: Ablation | None = None,
    *,
    batch_size: Count = 64,
    progress: bool = True,
) -> Float[Tensor, "circuit example"]:
    """The metric of each text in each circuit: in_v = sum over edges in it of e_u, over those not in it of ablated_u.

    A sender in the circuit writes what it computes there, not what it does in the clean run. The circuit of all edges
    is the model bit for bit; that of none, under counterfactual ablation, is the corrupt run.

    Args:
        model: the model.
        task: clean and corrupt texts and the metric.
        circuits: one or several; they share passes.
        ablation: what replaces edges that are not in a circuit; by default the corrupt run.
        batch_size: texts times circuits per pass.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no circuits, texts that do not align, a metric that gives no finite number.
        WrongModel: a circuit of another model's edges.

    Cost: a forward pass for each circuit and text, about twice for many heads.

    Examples:
        ```python
        run_circuit(model, task, [found.circuit(10), found.circuit(100)]).mean(1)
        ```
    """
    several = [circuits] if isinstance(circuits, Circuit) else list(circuits)
    _check_circuits(model, several, batch_size)
    ablation = counterfactual_ablation() if ablation is None else ablation
    clean, corrupt = task.tokens(model)
    blocks, allowed = blocks_of(model), several[0].graph.allowed
    m = torch.zeros(
        len(several), len(clean), dtype=torch.promote_types(torch.float32, model.dtype), device=model.device
    )
    bar = progress_bar(total=m.numel(), desc="circuits", progress=progress)
    for texts, some in _parts(len(clean), len(several), batch_size):
        rows = clean[texts]
        removed = torch.stack([allowed & ~circuit.mask.cpu() for circuit in several[some]]).to(
            model.device, model.dtype
        )
        final = run_masked(model, blocks, rows, removed, ablation.values(model, blocks, corrupt[texts]))
        m[some, texts] = measure_streams(model, task, rows, final, texts.start, len(clean)).T.to(m)
        bar.update(final.shape[0] * final.shape[1])
    bar.close()
    return m


def measure_streams(
    model: Model,
    task: Task,
    tokens: Tokens,
    final: Float[Tensor, "batch circuit pos d_model"],
    first: int,
    count: int,
) -> Float[Tensor, "batch circuit"]:
    """Return the metric at the last streams of some texts, from text `first` of `count` on, in several circuits.

    Examples:
        ```python
        measure_streams(model, task, tokens, final, 0, len(tokens))
        ```
    """
    said = model.unembed(final.transpose(1, 2)[ends_of(task, tokens)])
    texts = torch.arange(first, first + len(tokens), device=final.device)
    return torch.stack([task.measure(said[:, i], texts, count) for i in range(said.shape[1])], 1)


def _check_circuits(model: Model, circuits: list[Circuit], batch_size: int) -> None:
    if not circuits:
        raise InvalidArgument("no circuits were given to run: give at least one")
    if batch_size < 1:
        raise InvalidArgument(f"batch_size is {batch_size}: give at least 1 row per pass")
    graph = edge_graph(model)
    for circuit in circuits:
        if (circuit.graph.senders, circuit.graph.receivers) != (graph.senders, graph.receivers):
            raise WrongModel(f"the circuit has edges of another model than {model.name}: find one with this model")


def _parts(n_texts: int, n_circuits: int, batch_size: int) -> Iterator[tuple[slice, slice]]:
    """Texts and circuits that share a pass: of each text as many circuits as fit."""
    texts = max(1, min(n_texts, batch_size))
    circuits = max(1, batch_size // texts)
    for i in range(0, n_texts, texts):
        for j in range(0, n_circuits, circuits):
            yield slice(i, min(n_texts, i + texts)), slice(j, min(n_circuits, j + circuits))
