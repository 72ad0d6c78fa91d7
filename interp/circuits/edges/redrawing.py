"""Redrawing texts: how much a circuit, and its faithfulness, depend on the texts it was found on."""

from dataclasses import dataclass

import torch

from hooks import Model
from hooks.border import Count, Natural, Share
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from interp.circuits.edges.ablation import Ablation
from interp.circuits.edges.edge_effect import EdgeEffect
from interp.circuits.edges.faithfulness import MIB_SIZES, faithfulness_curve
from interp.circuits.edges.task import Task
from interp.common.statistics import Estimate, percentile_ends


@dataclass(frozen=True, eq=False)
class RedrawnTexts:
    """What a bootstrap over texts, drawn again before each discovery, says of a ranking.

    Attributes:
        cpr: of circuits by signed rank, with the ends that hold 95 % of the draws.
        cmd: of circuits by absolute rank.
        overlap: the mean share of edges that circuits of two draws have in common (of those that either has), at
            `overlap_share` of the edges.
        overlap_share: that size.
        draws: how many.
    """

    cpr: Estimate
    cmd: Estimate
    overlap: float
    overlap_share: float
    draws: int


def redraw_texts(
    model: Model,
    task: Task,
    effect: EdgeEffect,
    ablation: Ablation | None = None,
    *,
    draws: Count = 20,
    overlap_share: Share = 0.05,
    seed: Natural = 0,
    batch_size: Count = 64,
    progress: bool = True,
) -> RedrawnTexts:
    """Draw the texts again with replacement, find the circuits again from those, and measure them on those.

    A ranking by effects per text is found again without a pass: it is the mean over the texts drawn.

    Args:
        model: the model.
        task: the task that the effects are of.
        effect: effects per text.
        ablation: what replaces edges that are not in a circuit; by default the corrupt run.
        draws: how often.
        overlap_share: the size at which circuits are compared.
        seed: of the draws.
        batch_size: texts times circuits per pass.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: fewer than two texts or draws, or effects of another number of texts.

    Cost: for each draw a forward pass over the texts for each of twenty circuits.

    Examples:
        ```python
        redraw_texts(model, task, edge_attribution(model, task)).cpr
        ```
    """
    count = len(effect.clean)
    if count < 2 or draws < 2:
        raise InvalidArgument(f"{draws} draws of {count} texts were asked for: give at least 2 of each")
    if count != len(task.tokens(model)[0]):
        raise InvalidArgument(f"the effects are of {count} texts, the task has {len(task.tokens(model)[0])}")
    random = torch.Generator().manual_seed(seed)
    cpr, cmd, masks = [], [], []
    for draw in progress_bar(range(draws + 1), desc="redrawing texts", progress=progress):
        rows = torch.randint(count, (count,), generator=random).tolist() if draw else list(range(count))
        found = effect.of_texts(rows)
        for by, into in (("contribution", cpr), ("size", cmd)):
            curve = faithfulness_curve(
                model, task, found.scores(by), ablation, shares=MIB_SIZES, batch_size=batch_size, progress=False
            ).of_texts(rows)
            into.append(curve.cpr if by == "contribution" else curve.cmd)
        masks.append(found.circuit(max(1, int(overlap_share * found.graph.n_edges)), "size").mask)
    pairs = [(masks[i], masks[j]) for i in range(1, len(masks)) for j in range(1, i)]
    overlap = sum(float((a & b).sum() / (a | b).sum()) for a, b in pairs) / len(pairs)
    return RedrawnTexts(_interval(cpr, count), _interval(cmd, count), overlap, overlap_share, draws)


def _interval(values: list[float], count: int) -> Estimate:
    drawn = torch.tensor(values[1:], dtype=torch.float64)
    low, high = percentile_ends(drawn).tolist()
    return Estimate(values[0], low, high, count)
