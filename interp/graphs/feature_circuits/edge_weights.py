"""What each kept node owes to each other one directly: slopes that stop at every other site with nodes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Model, Site
from hooks.direction import wide
from hooks.errors import UnknownName, nearest
from hooks.progress import progress_bar
from hooks.taps import Edit
from interp.circuits.edges.task import Task
from interp.graphs.feature_circuits.dictionaries import Dictionaries, Nodes, name_node, split
from interp.graphs.feature_circuits.node_effects import effects_by
from interp.graphs.feature_circuits.paired_runs import PairedRuns, fresh_run, pair_runs

METRIC = "metric"


@dataclass(frozen=True, eq=False)
class FeatureEdges:
    """The direct effects of kept nodes on one another and on the metric.

    Attributes:
        names: of the kept nodes, in the order of the forward pass.
        weight: column u, row d: how much of the effect of d comes from u directly; the last row is the metric.
        inflow: of each row, from all nodes, kept or not, features and errors: what weights are a share of.
    """

    names: tuple[str, ...]
    weight: Float[Tensor, "target node"]
    inflow: Float[Tensor, "target"]

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the rows."""
        return (*self.names, METRIC)

    def above(self, threshold: float) -> tuple[tuple[str, str, float], ...]:
        """Return the edges whose absolute weight is above a threshold as (source, target, weight), largest first.

        Examples:
            ```python
            edges.above(0.01)
            ```
        """
        rows = [
            (self.names[u], self.targets[d], float(self.weight[d, u]))
            for d, u in (self.weight.abs() > threshold).nonzero().tolist()
        ]
        return tuple(sorted(rows, key=lambda edge: -abs(edge[2])))

    def of(self, source: str, target: str) -> float:
        """Return the weight of an edge by the names of its ends; the metric is called `metric`.

        Raises:
            UnknownName: a node that is not among those kept.

        Examples:
            ```python
            edges.of("mlp_out.1/2", "metric")
            ```
        """
        for name, names in ((source, self.names), (target, self.targets)):
            if name not in names:
                raise UnknownName(f"no node of the circuit is called '{name}'; did you mean {nearest(name, names)}?")
        return float(self.weight[self.targets.index(target), self.names.index(source)])


def edge_weights(
    model: Model,
    dictionaries: Dictionaries,
    task: Task,
    nodes: Nodes,
    slope: Mapping[Site, Float[Tensor, "batch pos d_model"]],
    *,
    against: str,
    batch_size: int,
    progress: bool,
) -> FeatureEdges:
    """Return the direct effect of each kept node on each other one, and on the metric (Marks et al. 2024).

        w(u → d) = (s · ∂x/∂d) (∂d/∂u) Δu,    all sites with nodes but those of u and d held

    One pass in which the value of every site is exchanged for a leaf of the same value: what a site then is, is a
    function of the leaves it reads directly. For an error d = e(x) the slope at x is that of s · e(x), so those of
    the features and of the error of a site sum to s, and each row sums over all sources to what the move of the
    whole input does to it.

    Cost: for each batch of texts a forward pass, and for each kept node a backward pass from its site to those
    before it.

    Examples:
        ```python
        edge_weights(model, dictionaries, task, nodes, effects.slope, against="corrupt", batch_size=16, progress=True)
        ```
    """
    places = len(next(iter(nodes.values())))
    kept = [(site, place, node) for site in dictionaries for place, node in nodes[site].nonzero().tolist()]
    names = tuple(
        name_node(site, place if places > 1 else None, node, dictionaries[site].d_sae) for site, place, node in kept
    )
    weight = torch.zeros(len(kept) + 1, len(kept), dtype=torch.float64)
    inflow, count, first = torch.zeros(len(kept) + 1, dtype=torch.float64), 0, 0
    for runs in pair_runs(model, dictionaries, task, against, batch_size, by_position=places > 1):
        mine = {site: value[first : first + len(runs.texts)] for site, value in slope.items()}
        first, count = first + len(runs.texts), count + len(runs.texts)
        with torch.inference_mode(False), torch.enable_grad():
            stops = _Stops(runs)
            ends = [*((kept_node, names[row]) for row, kept_node in enumerate(kept)), (None, METRIC)]
            for row, (node, _) in enumerate(progress_bar(ends, desc="edges", progress=progress)):
                value = stops.m.sum() if node is None else stops.value(node, mine[node[0]], places)
                for site, found in stops.slopes(value).items():
                    _add(runs, site, found, nodes[site], kept, weight[row])
                    inflow[row] += float((found * runs.move(site)).sum())
    return FeatureEdges(names, weight / count, inflow / count)


def _add(
    runs: PairedRuns,
    site: Site,
    slope: Float[Tensor, "batch pos d_model"],
    nodes: Bool[Tensor, "n node"],
    kept: list[tuple[Site, int, int]],
    row: Float[Tensor, "_"],
) -> None:
    """Add what the kept nodes of one site give to a target that has this slope there."""
    each = effects_by(slope, runs.at[site].move_a, runs.at[site].move_error, runs.dictionaries[site])
    total = each.sum(0) if len(nodes) > 1 else each.sum((0, 1))[None]
    columns = [i for i, (where, _, _) in enumerate(kept) if where == site]
    row[columns] += total[nodes].double().cpu()


class _Stops:
    """A pass over some texts whose value at each site is exchanged for a leaf of the same value.

    Attributes:
        leaves: by site, what flows on from it.
        values: by site, what came to it: a function of the leaves before.
        m: the metric of each text, likewise.
    """

    def __init__(self, runs: PairedRuns) -> None:
        self.runs = runs
        self.leaves: dict[Site, Tensor] = {}
        self.values: dict[Site, Tensor] = {}
        final = fresh_run(runs.model, runs.tokens).resume(0, {site: self._stop(site) for site in runs.dictionaries})
        self.m = runs.measure(final[:, None])
        self._split: dict[Site, tuple[Tensor, Tensor]] = {}

    def value(
        self, node: tuple[Site, int, int], slope: Float[Tensor, "batch pos d_model"], places: int
    ) -> Float[Tensor, ""]:
        """s · ∂x/∂d times d, for one node, in terms of the leaves before its site."""
        site, place, number = node
        sae = self.runs.dictionaries[site]
        if site not in self._split:
            self._split[site] = split(sae, wide(self.values[site]))
        a, error = self._split[site]
        each = (error * slope).sum(-1) if number == sae.d_sae else a[..., number] * (slope @ sae.W_dec[number].detach())
        each = each * self.runs.tokens.mask
        return each[:, place].sum() if places > 1 else each.sum()

    def slopes(self, value: Float[Tensor, ""]) -> dict[Site, Float[Tensor, "batch pos d_model"]]:
        """The slope of a value at each leaf that it depends on."""
        if not value.requires_grad:
            return {}
        sites = [*self.leaves]
        found = torch.autograd.grad(value, [self.leaves[s] for s in sites], retain_graph=True, allow_unused=True)
        return {site: wide(slope) for site, slope in zip(sites, found, strict=True) if slope is not None}

    def _stop(self, site: Site) -> Edit:
        def stop(x: Float[Tensor, "n pos d_model"]) -> Float[Tensor, "n pos d_model"]:
            self.values[site] = x
            self.leaves[site] = x.detach().clone().requires_grad_()
            return self.leaves[site].clone()

        return stop
