"""QK attributions: an attention score of a prompt, split over pairs of what the query reads and what the key reads."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import capture
from hooks.direction import wide
from hooks.errors import InvalidArgument, OutOfRange
from hooks.site import Site
from interp.graphs.cotangents import ATTENTION, Sources, Targets, rows_of
from interp.graphs.graph import AttributionGraph
from interp.graphs.local_model import LocalModel, constant_of


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """An attention score as a sum over pairs. Made by `attribute_score`.

    Attributes:
        graph: of the prompt.
        head: its name, such as `h3.5`.
        query, key: the tokens.
        table: what each pair of a source of the query (rows) and of the key (columns) adds; the last row and column
            are biases.
        score: what the model computes, before the softmax.
    """

    graph: AttributionGraph
    head: str
    query: int
    key: int
    table: Float[Tensor, "node node"]
    score: float

    def top(self, n: int = 10) -> list[tuple[str, str, float]]:
        """Return the pairs that add or take away most: source of the query, source of the key, and how much.

        Examples:
            ```python
            attribute_score(graph, 3, 5, query=8, key=4).top(3)
            ```
        """
        best = self.table.abs().flatten().argsort(descending=True)[:n].tolist()
        width = self.table.shape[1]
        return [(self._name(i // width), self._name(i % width), float(self.table.flatten()[i])) for i in best]

    def _name(self, i: int) -> str:
        return "bias" if i == len(self.table) - 1 else self.graph.nodes.name(i)

    def __repr__(self) -> str:
        said = ", ".join(f"{query} × {key} {value:+.2f}" for query, key, value in self.top(3))
        return f"ScoreTable({self.head}, {self.query} → {self.key}: {self.score:+.2f} = {said}, …)"


@torch.no_grad()
def attribute_score(graph: AttributionGraph, layer: int, head: int, *, query: int, key: int) -> ScoreTable:
    """Split an attention score over pairs of sources, with divisors of norms and earlier patterns held.

        score = c (R_q q) · (R_k k) = c Σ_{s, s'} (R_q A_q[:, s]) · (R_k A_k[:, s'])

    where q = Σ_s A_q[:, s] is the query as the graph's sources and biases add it up, k the key, R the rotations of
    rotary embeddings, and c the scale of scores.

    Args:
        graph: of a prompt.
        layer: of the head.
        head: its number, among query heads.
        query: the token that looks.
        key: the token that is looked at.

    Raises:
        OutOfRange: a layer, head or token that there is not, or a key after its query.
        InvalidArgument: scores of another form, such as those with norms of queries and keys or a soft cap.

    Cost: that of 2 d_head rows.

    Kamath et al. 2025, transformer-circuits.pub/2025/attention-qk.

    Examples:
        ```python
        print(attribute_score(graph, 3, 5, query=8, key=4))
        ```
    """
    local = graph.local
    _check_range(local, layer, head, query, key)
    q, k = (_turn_heads(local, name, layer) for name in "qk")
    held = local.layers[layer].pattern
    assert held is not None
    group = held.shape[0] // k.shape[1]
    scale = _scale_of(torch.einsum("qf,kf->qk", q[:, head], k[:, head // group]), held[head], local.model.name, layer)
    sources = Sources(local)
    A_q = _parts(sources, "q", layer, head, query)
    A_k = _parts(sources, "k", layer, head // group, key)
    table = scale * torch.einsum("fs,ft->st", A_q, A_k)
    score = float(scale * q[query, head] @ k[key, head // group])
    return ScoreTable(graph, f"h{layer}.{head}", query, key, table.cpu(), score)


def _check_range(local: LocalModel, layer: int, head: int, query: int, key: int) -> None:
    if not 0 <= layer < len(local.layers):
        raise OutOfRange(f"there is no layer {layer}: give one from 0 to {len(local.layers) - 1}")
    if not 0 <= head < local.layers[layer].block.n_heads:
        raise OutOfRange(f"there is no head {head} in layer {layer}, which has {local.layers[layer].block.n_heads}")
    if not 0 <= key <= query < len(local.ids):
        raise OutOfRange(f"query {query} and key {key}: give tokens from 0 to {len(local.ids) - 1}, the key not later")


def _parts(sources: Sources, which: str, layer: int, head: int, pos: int) -> Float[Tensor, "d_head node"]:
    """What each source gives a query or key, turned; the last column is what no source gives."""
    local, here = sources.local, sources.local.layers[layer]
    reader = here.block.readers[which]
    W = reader.W[:, head].to(local.final).T
    n = len(W)
    slope = here.block.attn_norm.pull_back(here.pre[pos : pos + 1], W, held=True)
    constant = reader.b[head].to(W) + W @ constant_of(here.block.attn_norm, here.pre)
    at = torch.full((n,), pos, device=W.device)
    where, layers = torch.full_like(at, ATTENTION), torch.full_like(at, layer)
    A, bias = rows_of(sources, Targets(where, layers, at, slope, constant))
    return _turn(local, torch.cat([A, bias[:, None]], 1).T[None], torch.tensor([pos]))[0].T


def _turn_heads(local: LocalModel, which: str, layer: int) -> Float[Tensor, "pos head d_head"]:
    """The queries or keys of a layer, turned."""
    site = Site(which, layer)
    value = wide(capture(local.model, local.model.tokens(local.ids[None]), [site])[site][0])
    return _turn(local, value, torch.arange(len(local.ids)))


def _turn(local: LocalModel, x: Float[Tensor, "pos n d_head"], at: Tensor) -> Float[Tensor, "pos n d_head"]:
    """Rotary embeddings of vectors at some positions; the vectors themselves in a model without them."""
    rotary: Any = next((m for name, m in local.model.hf.named_modules() if name.endswith("rotary_emb")), None)
    if rotary is None:
        return x
    cos, sin = (wide(part)[0, :, None].to(x) for part in rotary(x, at[None].to(x.device)))
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    one, other = turned.chunk(2, -1)
    return torch.cat([turned * cos + torch.cat([-other, one], -1) * sin, rest], -1)


def _scale_of(product: Float[Tensor, "pos pos"], pattern: Float[Tensor, "pos pos"], name: str, layer: int) -> float:
    """The scale by which products of queries and keys are a pattern's logarithms, but for a constant of each query."""
    seen = (pattern > 1e-12) & torch.ones_like(pattern, dtype=torch.bool).tril()
    logs = pattern.clamp(min=1e-30).log()

    def centre(x: Tensor) -> Tensor:
        mean = (x * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
        return (x - mean) * seen

    x, y = centre(product), centre(logs)
    scale = float((x * y).sum() / (x * x).sum().clamp(min=1e-30))
    off = float((y - scale * x).norm() / y.norm().clamp(min=1e-30))
    if off > 1e-2:
        raise InvalidArgument(
            f"the attention scores of layer {layer} of {name} are no products of its queries and keys ({off:.0%} is "
            "missed): norms of queries and keys, soft caps and score biases have no such table"
        )
    return scale
