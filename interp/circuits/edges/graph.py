"""The edge graph of a model: what writes to the residual stream, what reads from it, and who can reach whom."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.site import Site
from hooks.summary import summarise

ARROW = "->"


@dataclass(frozen=True, eq=False)
class EdgeGraph:
    """Senders, receivers, and which of them are joined. Made by `edge_graph`.

    A sender is what writes to the stream: `embed`, head 3 of layer 0 as `h0.3`, a feed-forward layer as `mlp0` (a
    mixture of experts is one too). A receiver is what reads it: the queries, keys and values of a head as `q0.3`,
    `k0.3`, `v0.3` (keys and values by key-value head, where several query heads share one), a feed-forward layer as
    `mlp0`, and the last of all, `logits`. A receiver's input is the stream before its norm.

    Biases and position embeddings are no senders: they are the same in both runs.

    Attributes:
        senders: their names, in the order in which they write.
        receivers: their names, in the order in which they read.
        allowed: whether the sender writes before the receiver reads.

    Examples:
        ```python
        edge_graph(load("gpt2")).n_edges  # 32491
        ```
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    allowed: Bool[Tensor, "sender receiver"]

    __repr__ = summarise

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return int(self.allowed.sum())

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Every edge as the numbers of its sender and its receiver."""
        return tuple((s, r) for s, r in self.allowed.nonzero().tolist())

    def name(self, sender: int, receiver: int) -> str:
        """Return how an edge prints, such as `h0.3->q1.2`.

        Examples:
            ```python
            graph.name(0, 0)  # "embed->q0.0"
            ```
        """
        return f"{self.senders[sender]}{ARROW}{self.receivers[receiver]}"

    def edge(self, name: str) -> tuple[int, int]:
        """Return the numbers of an edge by its name; spaces do not count.

        Raises:
            UnknownName: no such sender or receiver.
            InvalidArgument: a name without an arrow, or an edge against the order of the forward pass.

        Examples:
            ```python
            graph.edge("embed -> mlp0")
            ```
        """
        sender, arrow, receiver = (part.strip() for part in name.partition(ARROW))
        if not arrow:
            raise InvalidArgument(
                f"'{name}' is no edge: write sender{ARROW}receiver, such as embed{ARROW}{self.receivers[0]}"
            )
        s, r = _place(sender, self.senders, "writes"), _place(receiver, self.receivers, "reads")
        if not bool(self.allowed[s, r]):
            raise InvalidArgument(f"{sender} writes after {receiver} has read, so there is no edge {name}")
        return s, r

    def mask(self, names: Iterable[str]) -> Bool[Tensor, "sender receiver"]:
        """Return the mask of some edges by their names; errors as those of `edge`.

        Examples:
            ```python
            graph.mask(["embed->v0.0", "h0.0->logits"])
            ```
        """
        mask = torch.zeros_like(self.allowed)
        for s, r in map(self.edge, names):
            mask[s, r] = True
        return mask

    @cached_property
    def fed_by(self) -> Bool[Tensor, "sender receiver"]:
        """Whether the receiver is an input of the sender's own node: `h0.3` of `q0.3`, `mlp0` of `mlp0`."""
        fed = torch.zeros_like(self.allowed)
        for r, name in enumerate(self.receivers[:-1]):
            for s in self._nodes(name):
                fed[s, r] = True
        return fed

    def _nodes(self, receiver: str) -> list[int]:
        if receiver.startswith("mlp"):
            return [self.senders.index(receiver)]
        layer, _, head = receiver[1:].partition(".")
        heads = [s for s, name in enumerate(self.senders) if name.startswith(f"h{layer}.")]
        shared = len(heads) // sum(name.startswith(f"{receiver[0]}{layer}.") for name in self.receivers)
        return heads[int(head) * shared : (int(head) + 1) * shared]


def edge_graph(model: Model) -> EdgeGraph:
    """Return the edge graph of a model.

    Raises:
        InvalidArgument: blocks that normalise the stream itself after each addition (BERT), so that it is no sum of
            what is written to it; attention whose queries, keys and values are not all known, so that edges into it
            would be missing (Persimmon, DeepSeek).

    Examples:
        ```python
        edge_graph(model).senders
        ```
    """
    if model.paths.norms_after:
        raise InvalidArgument(
            f"{model.name} normalises its residual stream after each addition, so the stream is no sum of writes and "
            "has no edges: take a model with norms before or within its blocks, or patch_sweep for nodes"
        )
    senders, receivers, allowed = ["embed"], [], []
    for layer in range(model.n_layers):
        before = len(senders)
        _check_readers(model, layer)
        for name in "qkv":
            if Site(name, layer) in model.taps:
                count = model.tap(Site(name, layer)).shape[0]
                receivers += [f"{name}{layer}.{head}" for head in range(count)]
                allowed += [before] * count
        if Site("z", layer) in model.taps:
            senders += [f"h{layer}.{head}" for head in range(model.tap(Site("z", layer)).shape[0])]
        if Site("mlp_in", layer) in model.taps:
            receivers.append(f"mlp{layer}")
            allowed.append(before if model.paths.parallel else len(senders))
            senders.append(f"mlp{layer}")
    receivers.append("logits")
    allowed.append(len(senders))
    reach = torch.arange(len(senders))[:, None] < torch.tensor(allowed)[None, :]
    return EdgeGraph(tuple(senders), tuple(receivers), reach)


def _check_readers(model: Model, layer: int) -> None:
    missing = [name for name in "qkv" if Site(name, layer) not in model.taps]
    if Site("z", layer) in model.taps and missing:
        named = " and no ".join(f"{name}.{layer}" for name in missing)
        raise InvalidArgument(
            f"{model.name} has no {named}, so edges into its attention would be missing: take patch_sweep for nodes, "
            "which works on any model"
        )


def sender_number(graph: EdgeGraph, name: str) -> int:
    """Return the number of a sender by its name.

    Raises:
        UnknownName: no sender is called that.

    Examples:
        ```python
        sender_number(graph, "embed")  # 0
        ```
    """
    return _place(name, graph.senders, "writes")


def receiver_number(graph: EdgeGraph, name: str) -> int:
    """Return the number of a receiver by its name.

    Raises:
        UnknownName: no receiver is called that.

    Examples:
        ```python
        receiver_number(graph, "logits")
        ```
    """
    return _place(name, graph.receivers, "reads")


def _place(name: str, names: tuple[str, ...], does: str) -> int:
    if name not in names:
        raise UnknownName(f"nothing that {does} is called '{name}'; did you mean {nearest(name, names)}?")
    return names.index(name)
