"""Attribution graphs of prompts over transcoders: rows for the logits, then for the features with most influence."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model
from hooks.errors import ContractBroken, InvalidArgument
from hooks.model import Text
from hooks.pieces import piece
from hooks.progress import progress_bar
from interp.circuits.metric import Word
from interp.graphs.cotangents import Sources, feature_targets, rows_of
from interp.graphs.graph import AttributionGraph, closure_of
from interp.graphs.influence import influence_of, normalise_rows
from interp.graphs.local_model import LocalModel, local_models
from interp.graphs.logits import ChosenLogits, choose_logits, logit_targets, unembedding_of
from interp.graphs.nodes import Nodes, nodes_of
from interp.graphs.transcoders import Transcoders

RERANK = 4
"""After so many blocks of rows, features are ranked again."""


def attribution_graph(
    model: Model,
    transcoders: Transcoders,
    text: Text,
    *,
    targets: Sequence[Word] | None = None,
    max_features: int = 7500,
    block: int = 128,
    progress: bool = True,
) -> AttributionGraph:
    """Return the attribution graph of a prompt (Ameisen et al. 2025, "Circuit tracing").

        A[t, s] = a_s · W_dec,s · J(s → t) · w_enc,t,    Σ_s A[t, s] + bias_t = z_t

    in the local replacement model: feed-forward layers are their features' writes and an error, and attention
    patterns and the divisors of norms are held at their values in this prompt, so that J is linear. Sources are the
    active features, the errors and the token embeddings, the first token's included; what comes from biases and
    position embeddings is each target's bias node, so that every row closes.

    Args:
        model: a causal model.
        transcoders: of `per_layer`, `cross_layer` or `neurons`.
        text: one prompt.
        targets: tokens whose logits at the last token are explained; the likeliest, by default (up to 10, with 95 % of
            the probability).
        max_features: how many features get rows, those with most influence first.
        block: rows at a time.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: more than one text, or a model whose blocks or logits are not of the form above.
        ContractBroken: rows that do not close, so that the model does something else than that.

    Cost: one forward pass, then for 100 rows about as much as some passes over the prompt.

    Examples:
        ```python
        graph = attribution_graph(model, per_layer(model, transcoders), "The Golden Gate Bridge is located in")
        ```
    """
    graphs = attribution_graphs(
        model, transcoders, text, targets=targets, max_features=max_features, block=block, progress=progress
    )
    if len(graphs) != 1:
        raise InvalidArgument(f"{len(graphs)} texts were given: a graph is of one; attribution_graphs takes several")
    return graphs[0]


@torch.no_grad()
def attribution_graphs(
    model: Model,
    transcoders: Transcoders,
    texts: Text,
    *,
    targets: Sequence[Word] | None = None,
    max_features: int = 7500,
    block: int = 128,
    progress: bool = True,
) -> tuple[AttributionGraph, ...]:
    """Return the attribution graph of each of several prompts; each is read without padding.

    Arguments and errors are those of `attribution_graph`.

    Examples:
        ```python
        attribution_graphs(model, transcoders, ["The bridge is in", "The tower is in"])
        ```
    """
    if block < 1 or max_features < 0:
        raise InvalidArgument(f"block is {block} and max_features {max_features}: give at least 1 and 0")
    unembedding = unembedding_of(model)
    graphs = []
    for local in local_models(model, transcoders, model.tokens(texts)):
        logits = choose_logits(local, unembedding, targets)
        sources = Sources(local)
        rows = _Rows(sources, nodes_of(sources, logits))
        rows.add_logits(*rows_of(sources, logit_targets(local, unembedding, logits.ids)), logits)
        _add_features(rows, min(max_features, len(local.active)), block, progress=progress)
        graphs.append(_finish(rows, logits))
    return tuple(graphs)


@dataclass(eq=False)
class _Rows:
    """The rows of a graph as they are found."""

    sources: Sources
    nodes: Nodes
    numbers: list[int] = field(default_factory=list)
    blocks: list[Tensor] = field(default_factory=list)
    bias: list[Tensor] = field(default_factory=list)
    value: list[Tensor] = field(default_factory=list)

    def add_logits(self, A: Tensor, bias: Tensor, logits: ChosenLogits) -> None:
        """Keep the rows of logits."""
        self._add(torch.arange(len(self.nodes) - len(A), len(self.nodes)), A, bias, logits.logit)

    def add_features(self, which: Tensor) -> None:
        """Find and keep the rows of some features."""
        local = self.sources.local
        A, bias = rows_of(self.sources, feature_targets(local, which))
        self._add(which + self.sources.first_feature, A, bias, local.active.z[which])

    def _add(self, numbers: Tensor, A: Tensor, bias: Tensor, value: Tensor) -> None:
        self.numbers += numbers.tolist()
        self.blocks.append(torch.nn.functional.pad(A, (0, len(self.nodes) - A.shape[1])).cpu())
        self.bias.append(bias.cpu())
        self.value.append(value.to(bias).cpu())

    def sort(self) -> tuple[Int[Tensor, "target"], Float[Tensor, "target node"], Tensor, Tensor]:
        """The rows in the order of the forward pass: features are numbered in it, and logits after them."""
        rows, order = torch.tensor(self.numbers).sort()
        return rows, torch.cat(self.blocks)[order], torch.cat(self.bias)[order], torch.cat(self.value)[order]


def _add_features(rows: _Rows, count: int, block: int, *, progress: bool) -> None:
    """Find rows of the features with the most influence, and rank again by what has been found."""
    first = rows.sources.first_feature
    waiting = torch.arange(len(rows.sources.local.active))
    bar = progress_bar(total=count, desc="rows", progress=progress)
    left = count
    while left:
        known, A, _, _ = rows.sort()
        influence = influence_of(normalise_rows(A), known, rows.nodes.p)
        waiting = waiting[~torch.isin(waiting + first, known)]
        best = influence[waiting + first].argsort(descending=True)[: min(left, RERANK * block)]
        for which in waiting[best].split(block):
            rows.add_features(which)
            bar.update(len(which))
        left -= len(best)
    bar.close()


def _finish(rows: _Rows, logits: ChosenLogits) -> AttributionGraph:
    local: LocalModel = rows.sources.local
    numbers, A, bias, value = rows.sort()
    off = closure_of(A, bias, value)
    if not off < (1e-2 if local.model.dtype.itemsize >= 4 else 2e-1):
        raise ContractBroken(
            f"the rows of this graph miss {off:.1%} of what {local.model.name} computes: something in it is no sum of "
            "values by pattern, such as a norm of values, so the graph would be wrong"
        )
    tokenizer = local.model.tokenizer
    pieces, said = (tuple(piece(tokenizer, i) for i in ids.tolist()) for ids in (local.ids, logits.ids))
    return AttributionGraph(local, pieces, said, rows.nodes, numbers, A, bias, value)
