"""Head loadings: a row of a graph split by the attention head that brings each source to its target."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument
from interp.graphs.cotangents import Sources, Targets, feature_targets, read_layer
from interp.graphs.graph import AttributionGraph
from interp.graphs.local_model import LocalLayer
from interp.graphs.logits import logit_targets, unembedding_of
from interp.graphs.nodes import FEATURE, LOGIT


@dataclass(frozen=True, eq=False)
class HeadLoadings:
    """How much of each edge into one target comes by each head. Made by `head_loadings`.

    Attributes:
        graph: of the prompt.
        target: the name of the node.
        by_head: of each source, the part whose last head on the way to the target is this one.
        direct: the part that goes through no head.
    """

    graph: AttributionGraph
    target: str
    by_head: Float[Tensor, "layer head node"]
    direct: Float[Tensor, "node"]

    def top(self, n: int = 10, sources: list[str] | None = None) -> list[tuple[str, float]]:
        """Return the heads that bring most, of all sources or of some, by name (`h3.5`).

        Raises:
            UnknownName: a source that is no node of the graph.

        Examples:
            ```python
            head_loadings(graph, "logit.1067").top(3, ["f0.476@4"])
            ```
        """
        numbers = range(len(self.direct)) if sources is None else [self.graph.nodes.number(name) for name in sources]
        whole = self.by_head[:, :, [n for n in numbers if n < self.by_head.shape[2]]].sum(2)
        best = whole.abs().flatten().argsort(descending=True)[:n].tolist()
        return [(f"h{i // whole.shape[1]}.{i % whole.shape[1]}", float(whole.flatten()[i])) for i in best]

    def __repr__(self) -> str:
        said = ", ".join(f"{name} {value:+.3f}" for name, value in self.top(3))
        return f"HeadLoadings({self.target}: {said}; through no head {float(self.direct.sum()):+.3f})"


@torch.no_grad()
def head_loadings(graph: AttributionGraph, target: str) -> HeadLoadings:
    """Split a row of a graph by the last head that each path goes through on its way to the target.

        A[t, s] = direct[s] + Σ_h loading_h[s]

    Between the source and that head, and by linear paths of transcoders, any path counts; so the parts sum to the row.

    Args:
        graph: of a prompt.
        target: a feature or logit, by its name; it needs no row.

    Raises:
        UnknownName: no node is called that.
        InvalidArgument: a token or an error, which reads nothing.

    Cost: that of a row for each head of the model.

    Kamath et al. 2025, transformer-circuits.pub/2025/attention-qk.

    Examples:
        ```python
        print(head_loadings(graph, "logit.1067"))
        ```
    """
    local = graph.local
    targets = _target(graph, target)
    layer, pos = int(targets.layer[0]), int(targets.pos[0])
    height, length = int(targets.height(parallel=local.parallel)[0]), pos + 1
    sources = Sources(local)
    slope = torch.zeros_like(local.final)[None, :length]
    slope[0, pos] = targets.slope[0]
    heads = max((one.block.n_heads for one in local.layers), default=0)
    A = slope.new_zeros(1 + heads * len(local.layers), sources.count)
    names = list[int]()  # which head each row but the first came by
    for at in range(min(layer, len(local.layers) - 1), -1, -1):
        if height > 3 * at + 1:
            read_layer(sources, at, slope, A, A.new_zeros(len(A)))
        here, after = local.layers[at], slope
        if height > 3 * at + 1:
            slope = slope + _through_skip(here, slope)
        after = after if local.parallel else slope
        if here.pattern is not None and height > 3 * at:
            onward = here.pull_values(here.pull_heads(after[1:]))
            slope = torch.cat([slope[:1], slope[1:] + onward, _by_head(here, after[:1])])
            names += [at * heads + head for head in range(here.block.n_heads)]
    A[: len(slope), :length] += torch.einsum("ntd,td->nt", slope, local.token[:length])
    by_head = A.new_zeros(len(local.layers) * heads, sources.count)
    by_head[torch.tensor(names, dtype=torch.long)] = A[1 : 1 + len(names)]
    return HeadLoadings(graph, target, by_head.unflatten(0, (len(local.layers), heads)).cpu(), A[0].cpu())


def _target(graph: AttributionGraph, name: str) -> Targets:
    """The node as a target."""
    number, local = graph.nodes.number(name), graph.local
    kind = int(graph.nodes.kind[number])
    if kind == FEATURE:
        first = Sources(local).first_feature
        return feature_targets(local, torch.tensor([number - first], device=local.final.device))
    if kind != LOGIT:
        raise InvalidArgument(f"{name} reads nothing, so no head brings it anything: give a feature or a logit")
    ids = graph.nodes.index[number : number + 1].to(local.final.device)
    return logit_targets(local, unembedding_of(local.model), ids)


def _through_skip(here: LocalLayer, slope: Tensor) -> Tensor | float:
    at_input = here.pull_skip(slope)
    return 0.0 if at_input is None else here.pull_features(at_input, here.read[: slope.shape[1]])


def _by_head(here: LocalLayer, slope: Float[Tensor, "1 pos d_model"]) -> Float[Tensor, "head pos d_model"]:
    """The slope before a block by each of its heads alone."""
    whole = here.pull_heads(slope)[0]
    alone = whole.new_zeros(whole.shape[1], *whole.shape)
    every = torch.arange(len(alone), device=whole.device)
    alone[every, :, every] = whole.transpose(0, 1)
    return here.pull_values(alone)
