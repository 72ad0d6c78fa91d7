"""What each feature and each error does to the metric, by slopes along the way from the clean to the corrupt run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Model, Site
from hooks.border import Count, Natural, NotNegative
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.circuits.edges.edge_effect import EstimateCheck
from interp.circuits.edges.task import Task
from interp.graphs.feature_circuits.dictionaries import (
    Dictionaries,
    Nodes,
    find_node,
    name_node,
    order_dictionaries,
)
from interp.graphs.feature_circuits.paired_runs import PairedRuns, pair_runs
from interp.sae import SAE

if TYPE_CHECKING:
    from pandas import DataFrame

COPIES = 64
"""Rows of one pass in which nodes are patched exactly."""


@dataclass(frozen=True, eq=False)
class FeatureEffects:
    """What putting each node at its value in the other run does to the metric. Made by `feature_effects`.

    Attributes:
        dictionaries: autoencoders by site, in the order of the forward pass.
        task: that it is of.
        how: by which estimate, and against which run.
        against: "corrupt" or "zero".
        by_position: whether each token has nodes of its own; if not, a node is a feature at all tokens.
        effect: by site, mean over texts; a row for each token, or one; a column for each feature, the last for errors.
        slope: by site, of the metric at each text and token: dm/dx, averaged along the way.
        whole: by site, the exact effect of putting all of it at the other run's value; the sum of effects estimates it.
        clean, corrupt: the metric of each text in the two runs.
        check: exact effects of some nodes, next to their estimates.
    """

    dictionaries: Dictionaries
    task: Task
    how: str
    against: str
    by_position: bool
    effect: Mapping[Site, Float[Tensor, "n node"]]
    slope: Mapping[Site, Float[Tensor, "batch pos d_model"]]
    whole: Mapping[Site, float]
    clean: Float[Tensor, "example"]
    corrupt: Float[Tensor, "example"]
    check: EstimateCheck | None = None

    __repr__ = summarise

    def to_pandas(self) -> "DataFrame":
        """One row for each node with an effect, the largest first.

        Examples:
            ```python
            circuit.effects.to_pandas().head()
            ```
        """
        import pandas

        acting = self.nodes(0.0)
        values = [float(x) for site, mask in acting.items() for x in self.effect[site][mask]]
        frame = pandas.DataFrame({"node": self.names(acting), "effect": values})
        return frame.sort_values("effect", key=abs, ascending=False, ignore_index=True)

    @property
    def places(self) -> int:
        """How many rows nodes have: tokens, or 1."""
        return len(next(iter(self.effect.values())))

    @property
    def errors_share(self) -> float:
        """The share of all nodes' absolute effects that is of errors: what no feature accounts for."""
        error = sum(float(value[:, -1].abs().sum()) for value in self.effect.values())
        whole = sum(float(value.abs().sum()) for value in self.effect.values())
        return error / whole if whole else 0.0

    def nodes(self, threshold: NotNegative = 0.1) -> dict[Site, Bool[Tensor, "n node"]]:
        """Return the mask of the nodes whose absolute effect is above a threshold, in units of the metric.

        Examples:
            ```python
            run_feature_circuit(model, saes, task, effects.nodes(0.1))
            ```
        """
        return {site: value.abs() > threshold for site, value in self.effect.items()}

    def names(self, nodes: Nodes) -> tuple[str, ...]:
        """Return the names of some nodes, in the order of the forward pass.

        Examples:
            ```python
            effects.names(effects.nodes(0.1))
            ```
        """
        return tuple(
            name_node(site, place if self.by_position else None, node, self.dictionaries[site].d_sae)
            for site in self.effect
            for place, node in nodes[site].nonzero().tolist()
        )

    def of(self, name: str) -> float:
        """Return the effect of a node by its name, such as `resid_post.3/120` or `resid_post.3/error`.

        Raises:
            UnknownName: no node is called that.

        Examples:
            ```python
            effects.of("resid_post.3/error")
            ```
        """
        site, place, node = find_node(name, self.dictionaries, self.places)
        return float(self.effect[site][place, node])

    def top(self, count: Count = 10) -> tuple[tuple[str, float], ...]:
        """Return the names and effects of the nodes with the largest ones.

        Examples:
            ```python
            effects.top(5)
            ```
        """
        found = []
        for site, value in self.effect.items():
            flat, width = value.flatten(), value.shape[1]
            for i in flat.abs().topk(min(count, len(flat))).indices.tolist():
                place, node = divmod(i, width)
                name = name_node(site, place if self.by_position else None, node, width - 1)
                found.append((name, float(flat[i])))
        return tuple(sorted(found, key=lambda one: -abs(one[1]))[:count])

    def __str__(self) -> str:
        count = sum(value.numel() for value in self.effect.values())
        head = (
            f"{self.how}: {count} nodes at {len(self.effect)} sites, metric {float(self.clean.mean()):.4g} clean, "
            f"{float(self.corrupt.mean()):.4g} corrupt; errors have {self.errors_share:.0%} of the absolute effects"
        )
        rows = [f"  {name:<24} {effect:+.4g}" for name, effect in self.top()]
        sums = [
            f"  {site}: nodes sum to {float(value.sum()):+.4g}, the whole site does {self.whole[site]:+.4g}"
            for site, value in self.effect.items()
        ]
        return "\n".join([head, *rows, *sums, *([] if self.check is None else [_say_check(self.check)])])


def _say_check(check: EstimateCheck) -> str:
    said = (
        f"exact effects of {len(check.edges)} nodes: correlation with the estimates {check.correlation:.3f}, relative "
        f"error {check.error:.3f}"
    )
    if check.trusted:
        return said
    worst = int((check.estimated - check.exact).abs().argmax())
    return (
        f"{said};\nthis estimate is WRONG here: {check.edges[worst]} changes the metric by {check.exact[worst]:+.4g}, "
        f"and the estimate is {check.estimated[worst]:+.4g}; take more steps"
    )


def feature_effects(
    model: Model,
    autoencoders: Sequence[SAE],
    task: Task,
    *,
    steps: Natural = 10,
    against: str = "corrupt",
    by_position: bool = False,
    sample: Natural = 16,
    batch_size: Count = 16,
    progress: bool = True,
) -> FeatureEffects:
    """The effect of every feature and error on the metric, to first order or integrated (Marks et al. 2024).

        x = a W_dec + b_dec + e,    IE(a_i) = Δa_i W_dec,i · s,    IE(e) = Δe · s,    s = mean_k dm/dx at x + α_k Δx

    with Δ the other run's value less the clean one, and α_k = (k + 1/2)/steps. Features and errors are leaves: no
    slope goes through an encoder, the slope is that of the model as it is, and the effects at one site sum to those
    of the whole site, exactly so as steps grow. `steps=0` takes the slope in the clean run (attribution patching).

    Args:
        model: the model.
        autoencoders: one for each site that is to have nodes, of the stream or of what is added to it.
        task: clean and corrupt texts and the metric.
        steps: points of each site's way; the published code takes 10, at its left ends.
        against: the other run: "corrupt", or "zero" for features and errors of 0, where there is no counterpart.
        by_position: nodes of each token by themselves, of texts of equal length.
        sample: how many nodes are measured exactly as well, the largest ones.
        batch_size: texts per pass.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: as `order_dictionaries`; texts that do not align; another `against`.
        WrongModel: autoencoders of other weights.

    Cost: two forward passes, and for each site a partial forward and backward pass for each step.

    Marks et al. 2024, arXiv:2403.19647.

    Examples:
        ```python
        print(feature_effects(model, saes, Task(clean, corrupt, logit_difference(model, right, wrong))))
        ```
    """
    dictionaries = order_dictionaries(model, autoencoders)
    sums = _Sums(dictionaries)
    bar = progress_bar(desc="node effects", unit=" sites", progress=progress)
    for runs in pair_runs(model, dictionaries, task, against, batch_size, by_position=by_position):
        for site in dictionaries:
            sums.add(runs, site, slope_at(runs, site, steps), by_position)
            bar.update()
        sums.ends.append((runs.m_clean, runs.m_corrupt))
    bar.close()
    clean, corrupt = (torch.cat(part) for part in zip(*sums.ends, strict=True))
    effect = {site: value / len(clean) for site, value in sums.effect.items()}
    whole = {site: value / len(clean) for site, value in sums.whole.items()}
    slope = {site: torch.cat(parts) for site, parts in sums.slope.items()}
    how = f"integrated over {steps} steps" if steps else "first order"
    how = f"{how}, against {'0' if against == 'zero' else 'the corrupt run'}"
    found = FeatureEffects(dictionaries, task, how, against, by_position, effect, slope, whole, clean, corrupt)
    if not sample:
        return found
    largest = found.top(sample)
    exact = exact_feature_effects(
        model,
        autoencoders,
        task,
        [name for name, _ in largest],
        against=against,
        by_position=by_position,
        progress=progress,
    )
    estimated = torch.tensor([value for _, value in largest], dtype=exact.dtype)
    check = EstimateCheck(tuple(name for name, _ in largest), exact.cpu(), estimated, len(clean))
    return FeatureEffects(dictionaries, task, how, against, by_position, effect, slope, whole, clean, corrupt, check)


@dataclass(eq=False)
class _Sums:
    """Effects and slopes, batch by batch."""

    dictionaries: Dictionaries
    effect: dict[Site, Tensor] = field(default_factory=dict)
    whole: dict[Site, float] = field(default_factory=dict)
    slope: dict[Site, list[Tensor]] = field(default_factory=dict)
    ends: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @torch.no_grad()
    def add(self, runs: PairedRuns, site: Site, slope: Tensor, by_position: bool) -> None:
        """Add one site of some texts."""
        each = effects_by(slope, runs.at[site].move_a, runs.at[site].move_error, self.dictionaries[site])
        total = each.sum(0) if by_position else each.sum((0, 1))[None]
        self.effect[site] = self.effect.get(site, 0) + total
        there = runs.at[site].x + runs.move(site)
        gone = runs.resume(site, lambda x: there.to(x))[:, 0] - runs.m_clean
        self.whole[site] = self.whole.get(site, 0.0) + float(gone.sum())
        self.slope.setdefault(site, []).append(slope)


def effects_by(
    slope: Float[Tensor, "batch pos d_model"],
    move_a: Float[Tensor, "batch pos latent"],
    move_error: Float[Tensor, "batch pos d_model"],
    sae: SAE,
) -> Float[Tensor, "batch pos node"]:
    """Return Δa_i W_dec,i · s for every feature, and Δe · s as the last column.

    Examples:
        ```python
        effects_by(slope, runs.at[site].move_a, runs.at[site].move_error, sae)
        ```
    """
    features = (slope @ sae.W_dec.detach().to(slope).T) * move_a.to(slope)
    return torch.cat([features, (move_error.to(slope) * slope).sum(-1, keepdim=True)], -1)


def slope_at(runs: PairedRuns, site: Site, steps: int) -> Float[Tensor, "batch pos d_model"]:
    """Return dm/dx at a site, averaged over points of the way to the other run; in the clean run for 0 steps.

    Examples:
        ```python
        slope_at(runs, resid_post[3], steps=10)
        ```
    """
    x, move = runs.at[site].x, runs.move(site)
    way = (torch.arange(steps or 1, device=x.device, dtype=x.dtype) + 0.5) / steps if steps else x.new_zeros(1)
    total = torch.zeros_like(x)
    for some in way.split(max(1, COPIES // len(x))):
        with torch.inference_mode(False), torch.enable_grad():
            at = (x[:, None] + some[None, :, None, None] * move[:, None]).flatten(0, 1).clone().requires_grad_()
            m = runs.resume(site, lambda old, at=at: at.to(old), len(some))
            (found,) = torch.autograd.grad(m.sum(), [at])
        total += found.unflatten(0, (len(x), -1)).sum(1)
    return total / len(way)


@torch.no_grad()
def exact_feature_effects(
    model: Model,
    autoencoders: Sequence[SAE],
    task: Task,
    nodes: Sequence[str],
    *,
    against: str = "corrupt",
    by_position: bool = False,
    batch_size: Count = 16,
    progress: bool = True,
) -> Float[Tensor, "node"]:
    """The exact effect of single nodes: m(clean run with the node at the other run's value) - m(clean), texts' mean.

    Args:
        model: the model.
        autoencoders: as for `feature_effects`.
        task: likewise.
        nodes: their names, such as `resid_post.3/120`.
        against: likewise.
        by_position: likewise; names then end with a token, as `@5`.
        batch_size: texts per pass.
        progress: show a bar.

    Raises:
        InvalidArgument: no nodes; as `feature_effects`.
        UnknownName: no node is called that.

    Cost: for each node a partial forward pass.

    Examples:
        ```python
        exact_feature_effects(model, saes, task, [name for name, _ in effects.top(5)])
        ```
    """
    if not nodes:
        raise InvalidArgument("no nodes were given: name at least one, such as resid_post.3/120")
    dictionaries = order_dictionaries(model, autoencoders)
    total, count = torch.zeros(len(nodes), dtype=torch.float64), 0
    bar = progress_bar(desc="exact effects", progress=progress, unit=" nodes")
    for runs in pair_runs(model, dictionaries, task, against, batch_size, by_position=by_position):
        places = runs.tokens.ids.shape[1] if by_position else 1
        found = [find_node(name, dictionaries, places) for name in nodes]
        count += len(runs.texts)
        for site in dictionaries:
            mine = iter([i for i, (where, _, _) in enumerate(found) if where == site])
            while some := [*islice(mine, max(1, COPIES // len(runs.texts)))]:
                moves = torch.stack([_move_node(runs, site, found[i], by_position) for i in some], 1)
                there = (runs.at[site].x[:, None] + moves).flatten(0, 1)
                m = runs.resume(site, lambda old, there=there: there.to(old), len(some))
                bar.update(len(some))
                total[some] += (m - runs.m_clean[:, None]).sum(0).double().cpu()
    bar.close()
    return total / count


def _move_node(runs: PairedRuns, site: Site, node: tuple[Site, int, int], by_position: bool) -> Tensor:
    """How x changes where one node is put at its other value."""
    _, place, number = node
    sae = runs.dictionaries[site]
    if number == sae.d_sae:
        move = runs.at[site].move_error
    else:
        move = runs.at[site].move_a[..., number, None] * sae.W_dec[number].to(runs.at[site].move_a)
    if not by_position:
        return move
    only = torch.zeros_like(move)
    only[:, place] = move[:, place]
    return only
