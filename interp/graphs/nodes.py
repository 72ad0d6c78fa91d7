"""The nodes of an attribution graph: tokens, errors, features and logits, in the order of its columns."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.errors import UnknownName, nearest
from interp.graphs.cotangents import Sources
from interp.graphs.logits import ChosenLogits

TOKEN, ERROR, FEATURE, LOGIT = 0, 1, 2, 3
KINDS: Final = ("token", "error", "feature", "logit")


@dataclass(frozen=True, eq=False)
class Nodes:
    """Every node of a graph, as columns of a table.

    Attributes:
        kind: TOKEN, ERROR, FEATURE or LOGIT.
        layer: of features and errors; -1 of tokens, and the number of layers of logits.
        pos: the token.
        index: the feature's number, or the id of the token or logit; -1 of errors.
        a: the activation of a feature, 1 of tokens and errors, the logit less the mean of logits.
        p: the probability of a logit, 0 of others.
    """

    kind: Int[Tensor, "node"]
    layer: Int[Tensor, "node"]
    pos: Int[Tensor, "node"]
    index: Int[Tensor, "node"]
    a: Float[Tensor, "node"]
    p: Float[Tensor, "node"]

    def __len__(self) -> int:
        return len(self.kind)

    def name(self, node: int) -> str:
        """Return the name of a node: `t@4`, `f3.120@5`, `e3@5` or `logit.77`, by layer, number and token.

        Examples:
            ```python
            graph.nodes.name(0)  # "t@0"
            ```
        """
        kind, layer, pos, index = (int(part[node]) for part in (self.kind, self.layer, self.pos, self.index))
        return (f"t@{pos}", f"e{layer}@{pos}", f"f{layer}.{index}@{pos}", f"logit.{index}")[kind]

    def number(self, name: str) -> int:
        """Return the number of a node by its name.

        Raises:
            UnknownName: no node is called that.

        Examples:
            ```python
            graph.nodes.number("f3.120@5")
            ```
        """
        if name not in self.numbers:
            raise UnknownName(f"no node is called '{name}'; did you mean {nearest(name, self.numbers)}?")
        return self.numbers[name]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each node, by its name."""
        return {self.name(node): node for node in range(len(self))}

    def of_kind(self, kind: int) -> Int[Tensor, "n"]:
        """Return the numbers of the nodes of a kind.

        Examples:
            ```python
            graph.nodes.of_kind(FEATURE)
            ```
        """
        return (self.kind == kind).nonzero().flatten()


def nodes_of(sources: Sources, logits: ChosenLogits) -> Nodes:
    """Return the nodes of a prompt: its sources, in the order of their columns, and the logits that are explained.

    Examples:
        ```python
        nodes_of(Sources(local), choose_logits(local, unembedding_of(local.model), None))
        ```
    """
    local, T, L = sources.local, sources.n_pos, len(sources.local.layers)
    active, n = local.active, len(logits.ids)
    ones = torch.ones(T * (1 + L), dtype=active.a.dtype)
    tokens, layers = torch.arange(T), torch.arange(L)
    sizes = torch.tensor([T, T * L, len(active), n])
    columns = (
        torch.arange(4).repeat_interleave(sizes),
        torch.cat([torch.full((T,), -1), layers.repeat_interleave(T), active.layer.cpu(), torch.full((n,), L)]),
        torch.cat([tokens, tokens.repeat(L), active.pos.cpu(), torch.full((n,), T - 1)]),
        torch.cat([local.ids.cpu(), torch.full((T * L,), -1), active.latent.cpu(), logits.ids.cpu()]),
        torch.cat([ones, active.a.cpu(), logits.logit.to(active.a).cpu()]),
        torch.cat([torch.zeros(len(ones) + len(active), dtype=active.a.dtype), logits.p.to(active.a).cpu()]),
    )
    return Nodes(*columns)
