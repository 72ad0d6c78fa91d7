"""Optimal ablation: the constant for each sender with which a circuit stays closest to the model."""

from dataclasses import replace

import torch

from hooks import Model
from hooks.border import Count, Positive
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from interp.circuits.edges.ablation import Ablation, mean_ablation
from interp.circuits.edges.blocks import blocks_of
from interp.circuits.edges.circuit import Circuit
from interp.circuits.edges.masked_run import run_masked
from interp.circuits.edges.running import measure_streams
from interp.circuits.edges.task import Task, kl_from_clean


def optimal_ablation(
    model: Model,
    task: Task,
    circuit: Circuit,
    *,
    steps: Count = 100,
    lr: Positive = 0.01,
    batch_size: Count = 32,
    progress: bool = True,
) -> Ablation:
    """Learn a constant a_u per sender, min over a of E[KL(model || circuit with a_u for removed edges)], by Adam.

    It starts from the mean of what the sender writes in the clean texts, and keeps the best constants it met. An
    ablation that does harm by what it puts in, and not by what it takes out, overstates what a part is for; this one
    does the least harm that a constant can.

    Args:
        model: the model; its weights stay.
        task: clean and corrupt texts; KL is read where its metric is.
        circuit: whose missing edges get the constants.
        steps: of Adam, over the texts in turn.
        lr: of the constants.
        batch_size: texts per step.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: no steps, texts that do not align.

    Cost: a forward and a backward pass for each step, as that of a circuit.

    Li and Janson 2024, arXiv:2409.09951.

    Examples:
        ```python
        run_circuit(model, task, circuit, optimal_ablation(model, task, circuit))
        ```
    """
    if steps < 1:
        raise InvalidArgument(f"steps is {steps}: give at least 1")
    clean, _ = task.tokens(model)
    asked = replace(task, metric=kl_from_clean(model, clean, task.at))
    blocks, start = blocks_of(model), mean_ablation(model, clean)
    assert start.writes is not None
    constants = start.writes.clone().requires_grad_()
    adam = torch.optim.Adam([constants], lr=lr)
    removed = (circuit.graph.allowed & ~circuit.mask.cpu())[None].to(model.device, model.dtype)
    best, least = start.writes, float("inf")
    starts = range(0, len(clean), batch_size)
    for step in progress_bar(range(steps), desc="optimal ablation", progress=progress):
        total = 0.0
        given = constants.detach().clone()
        for first in starts if len(starts) == 1 or step % len(starts) == 0 else [starts[step % len(starts)]]:
            tokens = clean[first : first + batch_size]
            with torch.inference_mode(False), torch.enable_grad():
                each = constants[None, :, None].expand(len(tokens), -1, tokens.ids.shape[1], -1)
                final = run_masked(model, blocks, tokens, removed, each)
                kl = measure_streams(model, asked, tokens, final, first, len(clean)).mean()
            (constants.grad,) = torch.autograd.grad(kl, [constants])
            adam.step()
            total += float(kl.detach()) * len(tokens) / len(clean)
        if (len(starts) == 1 or step % len(starts) == 0) and total < least:
            best, least = given, total
    return Ablation("optimal", best)
