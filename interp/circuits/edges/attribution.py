"""Edge attribution: what corrupting each edge would do to the metric, to first order, for all edges at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Site, Tokens, capture
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.site import resid_post, resid_pre
from interp.circuits.edges.backward_rules import BackwardRules
from interp.circuits.edges.blocks import Block, blocks_of, check_writes, moves_of, sites_of_writes, writes_of
from interp.circuits.edges.edge_effect import EdgeEffect
from interp.circuits.edges.estimate_check import check_estimate
from interp.circuits.edges.graph import EdgeGraph, edge_graph
from interp.circuits.edges.slope import Slope, Slopes, eap_ig, slopes_at
from interp.circuits.edges.task import KLFromClean, Task, ends_of

FLAT = 1e-5
"""A slope this small, next to that of the straight line from the clean to the corrupt run, counts as 0."""


def edge_attribution(
    model: Model,
    task: Task,
    slope: Slope | None = None,
    *,
    batch_size: Count = 16,
    sample: Natural = 24,
    seed: Natural = 0,
    progress: bool = True,
) -> EdgeEffect:
    """The first-order effect of corrupting each edge u -> v: (e_u(corrupt) - e_u(clean)) . dm/din_v.

    Summed over tokens and features, per text; the slope is the mean of those at the points of `slope`, each taken at
    the input of v before its norm. One plain forward and backward pass for each point; the products are one
    matrix product per layer, outside of autograd. Where what attention writes is normalised (Gemma-2), the heads share
    out what the norm makes of both runs: they sum to it, and each is right to first order; `relp()` and `gim()`, which
    hold every norm, hold each run's divisor at its own value there too.

    An estimate may be wrong, so exact effects of a sample of the edges come with it: half are those with the largest
    estimates, and the others are drawn as `check_estimate` says.

    Args:
        model: the model.
        task: clean and corrupt texts and the metric.
        slope: `eap()`, `eap_ig()` (the default), `clean_corrupt()`, `relp()` or `gim()`.
        batch_size: texts per pass.
        sample: how many edges to measure exactly; 0 for none.
        seed: of the sample.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: texts that do not align, a metric that is flat in the clean run (such as KL from it) with a
            slope that is taken there alone, a metric without a finite gradient.

    Cost: two forward passes, a forward and a backward pass for each point (one of them shared for `eap()`), and a
    partial forward pass for each edge of the sample.

    Syed et al. 2023, arXiv:2310.10348; Hanna et al. 2024, arXiv:2403.17806.

    Examples:
        ```python
        found = edge_attribution(model, Task(clean, corrupt, logit_difference(model, " Paris", " Rome")))
        print(found)
        found.circuit(100)
        ```
    """
    slope = eap_ig() if slope is None else slope
    _check_settings(task, slope, batch_size, sample)
    graph, blocks = edge_graph(model), blocks_of(model)
    clean, corrupt = task.tokens(model)
    runs = _Runs(model, task, graph, blocks, slope, len(clean))
    starts = range(0, len(clean), batch_size)
    found = [
        runs.score(clean[i : i + batch_size], corrupt[i : i + batch_size], i)
        for i in progress_bar(starts, desc="edges", progress=progress)
    ]
    effect, m_clean, m_corrupt = (torch.cat(part) for part in zip(*found, strict=True))
    check = None
    if sample:
        check = check_estimate(model, task, graph, effect, sample, seed, progress=progress)
    return EdgeEffect(graph, slope.name, effect, graph.allowed, m_clean, m_corrupt, check)


def _check_settings(task: Task, slope: Slope, batch_size: int, sample: int) -> None:
    if batch_size < 1:
        raise InvalidArgument(f"batch_size is {batch_size}: give at least 1 text per pass")
    if sample < 0:
        raise InvalidArgument(f"sample is {sample}: give 0 for no check, or how many edges to measure exactly")
    if slope.only_clean and isinstance(task.metric, KLFromClean):
        raise InvalidArgument(_flat(slope, "KL from the clean run"))


def _flat(slope: Slope, metric: str) -> str:
    return (
        f"{metric} is flat in the clean run: its slope there is 0, and {slope.name} would find 0 for every "
        "edge: take eap_ig() or clean_corrupt(), whose slopes are taken elsewhere too, or a logit difference"
    )


@dataclass(frozen=True, eq=False)
class _Runs:
    model: Model
    task: Task
    graph: EdgeGraph
    blocks: tuple[Block, ...]
    slope: Slope
    count: int

    def score(
        self, clean: Tokens, corrupt: Tokens, first: int
    ) -> tuple[Float[Tensor, "batch sender receiver"], Float[Tensor, "batch"], Float[Tensor, "batch"]]:
        """The effects in some of the texts, and the metric of both runs."""
        model, sites = self.model, sites_of_writes(self.model)
        texts = torch.arange(first, first + len(clean), device=model.device)
        final = resid_post[model.n_layers - 1]
        there = capture(model, corrupt, sites, batch_size=len(corrupt)).values
        shared = self._slopes(clean, None, texts, self.slope.rules) if self.slope.only_clean else None
        here = shared.values if shared else capture(model, clean, sites, batch_size=len(clean)).values
        moved = self._move(clean, here, there)
        with torch.no_grad():
            m_clean = self._measure(clean, here[final], texts)
            m_corrupt = self._measure(corrupt, there[final], texts)
        if shared is not None and float((m_corrupt - m_clean).abs().max()) > 0:
            steep = (m_corrupt - m_clean).abs().max() / (there[final] - here[final]).norm(dim=-1).max()
            if float(shared.final.abs().max()) < FLAT * float(steep):
                raise InvalidArgument(_flat(self.slope, "the metric"))
        effect = torch.zeros(len(clean), *self.graph.allowed.shape, dtype=moved.dtype, device=model.device)
        way = there[resid_pre[0]] - here[resid_pre[0]]
        for alpha, weight in self.slope.points:
            at = shared or self._slopes(clean, here[resid_pre[0]] + alpha * way, texts, self.slope.rules)
            self._add_products(effect, moved, at, weight)
        return effect, m_clean, m_corrupt

    @torch.no_grad()
    def _move(
        self, tokens: Tokens, here: Mapping[Site, Tensor], there: Mapping[Site, Tensor]
    ) -> Float[Tensor, "batch sender pos d_model"]:
        """e_u(corrupt) - e_u(clean), 0 at padding."""
        first = {site: value[:1] for site, value in here.items()}
        writes = writes_of(self.blocks, first, normed=True)
        check_writes(self.model, writes, first[resid_post[self.model.n_layers - 1]], tokens)
        moves = moves_of(self.blocks, here, there, held=self.slope.rules.norms_held)
        return moves.mul_(tokens.mask[:, None, :, None])

    def _slopes(
        self, tokens: Tokens, embedded: Tensor | None, texts: Int[Tensor, "batch"], rules: BackwardRules
    ) -> Slopes:
        return slopes_at(self.model, self.blocks, tokens, embedded, lambda x: self._measure(tokens, x, texts), rules)

    def _measure(self, tokens: Tokens, final: Tensor, texts: Tensor) -> Float[Tensor, "batch"]:
        return self.task.measure(self.model.unembed(final[ends_of(self.task, tokens)]), texts, self.count)

    @torch.no_grad()
    def _add_products(self, effect: Tensor, moved: Tensor, at: Slopes, weight: float) -> None:
        """Add weight times the products of moves and slopes, a layer's receivers at a time."""
        column, held = 0, self.slope.rules.norms_held
        for slopes in _by_layer(self.blocks, at, held=held):
            before = int(self.graph.allowed[:, column].sum())
            product = moved[:, :before].flatten(2) @ slopes.flatten(2).transpose(1, 2)
            effect[:, :before, column : column + slopes.shape[1]] += weight * product
            column += slopes.shape[1]


def _by_layer(
    blocks: tuple[Block, ...], at: Slopes, *, held: bool
) -> Iterator[Float[Tensor, "batch receiver pos d_model"]]:
    """dm/din_v of the receivers, in their order: attention's of a layer, its feed-forward layer's, the logits'."""
    for block in blocks:
        by_head = [
            torch.einsum("bthf,dhf->bhtd", at.read[block.layer, name], reader.W)
            for name, reader in block.readers.items()
        ]
        if by_head:
            x = at.values[resid_pre[block.layer]]
            yield block.attn_norm.pull_back(x[:, None], torch.cat(by_head, 1), held=held)
        if block.mlp is not None:
            x = at.values[block.mlp_reads]
            yield block.mlp_norm.pull_back(x, at.read[block.layer, "mlp"], held=held)[:, None]
    yield at.final[:, None]
