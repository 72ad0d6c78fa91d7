"""Exact edge effects: one edge at a time has the corrupt run's value, and everything after it is recomputed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Site, Tokens, capture
from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.resume import HeldPass, hold
from hooks.site import mlp_in, resid_post, resid_pre
from hooks.taps import Edit
from interp.circuits.edges.blocks import Block, blocks_of, check_writes, sites_of_writes, writes_of
from interp.circuits.edges.edge_effect import EdgeEffect
from interp.circuits.edges.graph import EdgeGraph, edge_graph
from interp.circuits.edges.task import Task, ends_of

Edge = tuple[int, int]
TEXTS = 16


@torch.no_grad()
def exact_edges(
    model: Model,
    task: Task,
    edges: Iterable[str] | None = None,
    *,
    batch_size: Count = 128,
    progress: bool = True,
) -> EdgeEffect:
    """The exact effect of corrupting each edge u -> v: m(in_v <- in_v + e_u(corrupt) - e_u(clean)) - m(clean).

    u itself runs clean, and everything after v is recomputed. Where what attention writes is normalised (Gemma-2), so
    is the sum with that head's write replaced. An edge whose write is the same in both runs is not run: its effect
    is exactly 0.

    Args:
        model: the model.
        task: clean and corrupt texts and the metric.
        edges: which, by name; all of them by default.
        batch_size: rows per pass; the edges of one layer's receivers share passes.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: texts that do not align, a metric that gives no finite number, no edges.
        UnknownName: an edge between nodes that are not there.

    Cost: for each edge and text the blocks from the receiver's on.

    Examples:
        ```python
        exact_edges(model, task, ["embed->v0.0"]).effect
        ```
    """
    if batch_size < 1:
        raise InvalidArgument(f"batch_size is {batch_size}: give at least 1 row per pass")
    graph = edge_graph(model)
    chosen = graph.edges if edges is None else tuple(dict.fromkeys(map(graph.edge, edges)))
    if not chosen:
        raise InvalidArgument("no edges were given: name at least one, such as embed->logits")
    clean, corrupt = task.tokens(model)
    each = torch.zeros(len(clean), *graph.allowed.shape, device=model.device)
    each = each.to(torch.promote_types(torch.float32, model.dtype))
    ends: list[tuple[Tensor, Tensor]] = []
    groups = list(_by_layer(graph, chosen))
    bar = progress_bar(total=len(chosen) * len(clean), desc="exact edges", progress=progress)
    for i in range(0, len(clean), min(TEXTS, batch_size)):
        rows = slice(i, i + min(TEXTS, batch_size))
        runs = _clean_run(model, task, clean[rows], corrupt[rows], i, len(clean))
        ends.append((runs.m_clean, runs.m_corrupt))
        for layer, group in groups:
            for some in _split_edges(group, max(1, batch_size // len(runs.m_clean))):
                found = runs.effects(layer, some)
                each[rows, [s for s, _ in some], [r for _, r in some]] = found.to(each)
                bar.update(found.numel())
    bar.close()
    known = torch.zeros_like(graph.allowed)
    known[[s for s, _ in chosen], [r for _, r in chosen]] = True
    m_clean, m_corrupt = (torch.cat(part) for part in zip(*ends, strict=True))
    return EdgeEffect(graph, "exact", each, known, m_clean, m_corrupt)


def _by_layer(graph: EdgeGraph, edges: Sequence[Edge]) -> Iterator[tuple[tuple[str, int], list[Edge]]]:
    """The edges of one layer's heads, of one feed-forward layer, of the logits, together."""

    def place(edge: Edge) -> tuple[int, str, int]:
        name = graph.receivers[edge[1]]
        if name == "logits":
            return (2**31, "logits", 0)
        kind, number = ("mlp", name[3:]) if name.startswith("mlp") else ("attn", name[1:].partition(".")[0])
        return (int(number), kind, int(number))

    for (_, kind, layer), group in groupby(sorted(edges, key=place), key=place):
        yield (kind, layer), list(group)


def _split_edges(edges: list[Edge], size: int) -> Iterator[list[Edge]]:
    return (edges[i : i + size] for i in range(0, len(edges), size))


@dataclass(frozen=True, eq=False)
class _Clean:
    """The clean run of some texts, kept to be continued from any block, and how each sender's write would change."""

    model: Model
    task: Task
    graph: EdgeGraph
    blocks: tuple[Block, ...]
    held: HeldPass
    moved: Float[Tensor, "batch sender pos d_model"]
    texts: Int[Tensor, "batch"]
    count: int
    m_clean: Float[Tensor, "batch"]
    m_corrupt: Float[Tensor, "batch"]

    def effects(self, place: tuple[str, int], edges: list[Edge]) -> Float[Tensor, "batch edge"]:
        """The effects of edges into receivers of one layer."""
        live = [i for i, (s, _) in enumerate(edges) if bool((self.moved[:, s] != 0).any())]
        found = self.m_clean.new_zeros(len(self.m_clean), len(edges))
        if live:
            found[:, live] = self._run(place, [edges[i] for i in live]) - self.m_clean[:, None]
        return found

    def _run(self, place: tuple[str, int], edges: list[Edge]) -> Float[Tensor, "batch edge"]:
        kind, layer = place
        moved = self.moved[:, [s for s, _ in edges]]
        if kind == "logits":
            final = self.held.final[:, None] + moved
        else:
            block = self.blocks[layer]
            edits = self._into_mlp(block, moved) if kind == "mlp" else self._into_heads(block, edges, moved)
            final = self.held.resume(layer, edits, len(edges)).unflatten(0, (-1, len(edges)))
        ends = ends_of(self.task, self.held.activations.tokens)
        said = self.model.unembed(final.transpose(1, 2)[ends])
        return torch.stack([self.task.measure(said[:, i], self.texts, self.count) for i in range(len(edges))], 1)

    def _into_mlp(self, block: Block, moved: Tensor) -> dict[Site, Edit]:
        x = self.held.activations[block.mlp_reads][:, None] + moved
        y = block.mlp_norm(x).flatten(0, 1)
        return {mlp_in[block.layer]: lambda _: y}

    def _into_heads(self, block: Block, edges: list[Edge], moved: Tensor) -> dict[Site, Edit]:
        y = block.attn_norm(self.held.activations[resid_pre[block.layer]][:, None] + moved)
        edits: dict[Site, Edit] = {}
        for name, reader in block.readers.items():
            mine = [i for i, (_, r) in enumerate(edges) if self.graph.receivers[r][0] == name]
            if mine:
                heads = [int(self.graph.receivers[edges[i][1]].partition(".")[2]) for i in mine]
                new = torch.einsum("bctd,dcf->bctf", y[:, mine], reader.W[:, heads]) + reader.b[heads][:, None]
                edits[Site(name, block.layer)] = _put(new, mine, heads, len(edges))
        return edits


def _put(new: Float[Tensor, "batch n pos d_head"], copies: list[int], heads: list[int], times: int) -> Edit:
    """Replace one head's value in some of the copies."""

    def edit(a: Float[Tensor, "n pos head d_head"]) -> Float[Tensor, "n pos head d_head"]:
        a = a.unflatten(0, (-1, times)).clone()
        for i, (copy, head) in enumerate(zip(copies, heads, strict=True)):
            a[:, copy, :, head] = new[:, i].to(a)
        return a.flatten(0, 1)

    return edit


def _clean_run(model: Model, task: Task, clean: Tokens, corrupt: Tokens, first: int, count: int) -> _Clean:
    blocks, sites = blocks_of(model), sites_of_writes(model)
    streams = [block.mlp_reads for block in blocks if block.mlp is not None]
    held = hold(model, clean, [*sites, *streams])
    there = capture(model, corrupt, sites, batch_size=len(corrupt))
    moved = move_alone(blocks, held.activations.values, there.values) * clean.mask[:, None, :, None]
    check_writes(model, writes_of(blocks, held.activations.values, normed=True), held.final, clean)
    texts = torch.arange(first, first + len(clean), device=model.device)
    final = resid_post[model.n_layers - 1]
    m_clean, m_corrupt = (
        task.measure(model.unembed(acts[final][ends_of(task, acts.tokens)]), texts, count)
        for acts in (held.activations, there)
    )
    graph = edge_graph(model)
    return _Clean(model, task, graph, blocks, held, moved, texts, count, m_clean, m_corrupt)


def move_alone(
    blocks: tuple[Block, ...],
    here: Mapping[Site, Float[Tensor, "batch pos *d"]],
    there: Mapping[Site, Float[Tensor, "batch pos *d"]],
) -> Float[Tensor, "batch sender pos d_model"]:
    """Return how the stream changes when one sender alone writes what it does in another run, norms recomputed.

    Examples:
        ```python
        move_alone(blocks_of(model), clean.values, corrupt.values)
        ```
    """
    raw = writes_of(blocks, here, normed=False)
    moved = writes_of(blocks, there, normed=False) - raw
    first = 1
    for block in blocks:
        if block.n_heads and block.post_norm.module is not None:
            mine = slice(first, first + block.n_heads)
            whole = raw[:, mine].sum(1, keepdim=True)
            moved[:, mine] = block.post_norm(whole + moved[:, mine]) - block.post_norm(whole)
        first += block.n_heads + (block.mlp is not None)
    return moved
