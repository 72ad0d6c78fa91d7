"""Masked runs: forward passes in which each reader of the stream gets some senders' writes from elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, Model, Site, Tokens
from hooks.resume import HeldPass
from hooks.site import mlp_in, mlp_out, resid_pre, z
from hooks.taps import Edit
from interp.circuits.edges.blocks import Block
from interp.circuits.edges.norm import Norm


@dataclass(frozen=True, eq=False)
class _Moves:
    """How much the writes of some senders would change if they were ablated, in this run.

    Attributes:
        first: the number of the first of them.
        moved: ablated less present writes, before any norm of them.
        whole: the sum of the present ones, where a norm follows.
        norm: that norm.
    """

    first: int
    moved: Float[Tensor, "batch circuit sender pos d_model"]
    whole: Float[Tensor, "batch circuit pos d_model"] | None
    norm: Norm

    def into(self, removed: Float[Tensor, "circuit sender receiver"]) -> Tensor:
        """How the input of each receiver changes: [batch circuit receiver pos d_model]."""
        mine = removed[:, self.first : self.first + self.moved.shape[2]].to(self.moved)
        move = torch.einsum("csr,bcstd->bcrtd", mine, self.moved)
        if self.whole is None:
            return move
        whole = self.whole[:, :, None]
        return self.norm(whole + move) - self.norm(whole)


def run_masked(
    model: Model,
    blocks: tuple[Block, ...],
    tokens: Tokens,
    removed: Float[Tensor, "circuit sender receiver"],
    ablated: Float[Tensor, "batch sender pos d_model"],
) -> Float[Tensor, "batch circuit pos d_model"]:
    """Return the last stream of each text in each circuit: in_v = x_v + sum_u removed_uv (ablated_u - e_u).

    x_v is the stream before v in this very run, and e_u what u writes in it: senders that stay have the circuit's own
    values. A reader none of whose edges is removed reads what the model itself gives it, bit for bit.

    Args:
        model: the model.
        blocks: of `blocks_of`.
        tokens: the texts.
        removed: how much of each edge is removed, from 0 to 1.
        ablated: what replaces each write, before any norm of it.

    Cost: a forward pass over texts times circuits, and as many products of senders with receivers.

    Examples:
        ```python
        run_masked(model, blocks, tokens, removed, ablated)
        ```
    """
    run = _Run(blocks, removed, ablated * tokens.mask[:, None, :, None], tokens)
    held = HeldPass(model, Activations({}, tokens, model.fingerprint), lambda x: x)
    final = held.resume(0, run.edits(), len(removed)).unflatten(0, (len(tokens), -1))
    return run.read(final, [removed.shape[2] - 1])[:, :, 0]


@dataclass(eq=False)
class _Run:
    blocks: tuple[Block, ...]
    removed: Float[Tensor, "circuit sender receiver"]
    ablated: Float[Tensor, "batch sender pos d_model"]
    tokens: Tokens
    moves: list[_Moves] = field(default_factory=list)
    inputs: dict[Site, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    def edits(self) -> dict[Site, Edit]:
        """What to attach to the model's sites, in the order in which they are reached."""
        edits: dict[Site, Edit] = {}
        sender, receiver = 1, 0
        for block in self.blocks:
            columns: dict[str, list[int]] = {}
            for name, reader in block.readers.items():
                columns[name] = list(range(receiver, receiver + reader.W.shape[1]))
                receiver += reader.W.shape[1]
            at_mlp = [receiver] if block.mlp is not None else []
            receiver += len(at_mlp)
            parallel = block.mlp_reads.name == "resid_pre"
            edits[resid_pre[block.layer]] = self._at_stream(block, columns, at_mlp if parallel else [])
            for name in columns:
                edits[Site(name, block.layer)] = self._exchange(Site(name, block.layer))
            if block.n_heads:
                edits[z[block.layer]] = self._after_heads(block, sender)
                sender += block.n_heads
            if block.mlp is not None:
                if not parallel:
                    edits[block.mlp_reads] = self._at_stream(block, {}, at_mlp)
                edits[mlp_in[block.layer]] = self._exchange(mlp_in[block.layer])
                edits[mlp_out[block.layer]] = self._after_mlp(block, sender)
                sender += 1
        return edits

    def read(self, x: Float[Tensor, "batch circuit pos d_model"], columns: list[int]) -> Tensor:
        """What receivers read where the stream is x: [batch circuit receiver pos d_model]."""
        removed = self.removed[:, :, columns]
        moves = [part.into(removed) for part in self.moves if bool((removed != 0).any())]
        return sum(moves, x[:, :, None].expand(-1, -1, len(columns), -1, -1))

    def _at_stream(self, block: Block, columns: dict[str, list[int]], at_mlp: list[int]) -> Edit:
        """Where the stream is known, get ready what heads or the feed-forward layer will read."""

        def note(a: Tensor) -> None:
            if block.layer == 0 and not self.moves:
                self._note_moves(0, self._split_circuits(a)[:, :, None], None, Norm(None, None, False, None))
            x = self._split_circuits(a)
            for name, mine in columns.items():
                self.inputs[Site(name, block.layer)] = lambda old, n=name, c=mine: self._heads(block, n, c, x, old)
            if at_mlp:
                self.inputs[mlp_in[block.layer]] = lambda old: self._feed_forward(block, at_mlp, x, old)

        return note

    def _exchange(self, site: Site) -> Edit:
        return lambda old: self.inputs.pop(site)(old)

    def _heads(self, block: Block, name: str, columns: list[int], x: Tensor, old: Tensor) -> Tensor:
        changed = (self.removed[:, :, columns] != 0).any(1)
        if not bool(changed.any()):
            return old
        reader = block.readers[name]
        y = block.attn_norm(self.read(x, columns))
        new = torch.einsum("bchtd,dhf->bcthf", y, reader.W) + reader.b
        return torch.where(changed[None, :, None, :, None], new, self._split_circuits(old)).flatten(0, 1)

    def _feed_forward(self, block: Block, columns: list[int], x: Tensor, old: Tensor) -> Tensor:
        changed = (self.removed[:, :, columns] != 0).any(1)
        if not bool(changed.any()):
            return old
        new = block.mlp_norm(self.read(x, columns)[:, :, 0])
        return torch.where(changed[None, :, :, None], new, self._split_circuits(old)).flatten(0, 1)

    def _after_heads(self, block: Block, first: int) -> Edit:
        def note(a: Tensor) -> None:
            raw = block.head_writes(self._split_circuits(a)).transpose(2, 3)
            whole = None if block.post_norm.module is None else raw.sum(2)
            self._note_moves(first, raw, whole, block.post_norm)

        return note

    def _after_mlp(self, block: Block, first: int) -> Edit:
        return lambda a: self._note_moves(first, self._split_circuits(a)[:, :, None], None, block.post_norm)

    def _note_moves(self, first: int, writes: Tensor, whole: Tensor | None, norm: Norm) -> None:
        """Note ablated less present writes of senders from the number `first` on; 0 at padding."""
        mine = self.ablated[:, None, first : first + writes.shape[2]]
        moved = mine - writes * self.tokens.mask[:, None, None, :, None]
        self.moves.append(_Moves(first, moved, whole, norm))

    def _split_circuits(self, a: Tensor) -> Tensor:
        rows = len(self.tokens) * len(self.removed)
        a = a if a.shape[0] == rows else a.expand(rows, *a.shape[1:])
        return a.unflatten(0, (len(self.tokens), len(self.removed)))
