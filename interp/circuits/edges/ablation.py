"""Ablations: what a reader gets in place of a sender's write where the edge between them is not in the circuit."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Tokens, capture
from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.forward import context
from hooks.model import Text
from hooks.rows import in_rows
from hooks.site import pos_embed
from hooks.summary import summarise
from interp.circuits.edges.blocks import Block, blocks_of, sites_of_writes, writes_of


@dataclass(frozen=True, eq=False)
class Ablation:
    """What replaces each sender's write. Made by `counterfactual_ablation`, `zero_ablation` and their like.

    Attributes:
        name: how it prints.
        writes: for each sender, before any norm of what attention writes; None for those of the task's corrupt run.
        by_position: whether there is a value for each token position, or one for all.
    """

    name: str
    writes: Float[Tensor, "sender pos d_model"] | Float[Tensor, "sender d_model"] | None = None
    by_position: bool = False

    __repr__ = summarise

    def values(
        self, model: Model, blocks: tuple[Block, ...], corrupt: Tokens
    ) -> Float[Tensor, "batch sender pos d_model"]:
        """Return the writes for some texts, given their counterfactuals.

        Raises:
            InvalidArgument: values for another number of senders, or for fewer positions than the texts have.

        Examples:
            ```python
            zero_ablation(model).values(model, blocks_of(model), tokens)
            ```
        """
        if self.writes is None:
            acts = capture(model, corrupt, sites_of_writes(model), batch_size=len(corrupt))
            return writes_of(blocks, acts.values, normed=False)
        n_batch, n_pos = corrupt.ids.shape
        n_senders = _count_senders(blocks)
        writes = self.writes if self.by_position else self.writes[:, None].expand(-1, n_pos, -1)
        if len(writes) != n_senders or writes.shape[1] < n_pos:
            raise InvalidArgument(
                f"{self.name} has values for {len(writes)} senders and {writes.shape[1]} positions, and {n_senders} "
                f"and {n_pos} are asked for: make it with this model and texts as long"
            )
        return writes[None, :, :n_pos].expand(n_batch, -1, -1, -1).to(model.device)


def counterfactual_ablation() -> Ablation:
    """What the sender writes in the corrupt run, at the same place of the same text (Geiger et al. 2021).

    Examples:
        >>> counterfactual_ablation().name
        'counterfactual'
    """
    return Ablation("counterfactual")


@torch.no_grad()
def zero_ablation(model: Model) -> Ablation:
    """Zeros in place of every write; what no sender writes stays: the bias after the heads, the position embedding.

    Examples:
        ```python
        run_circuit(model, task, circuit, zero_ablation(model))
        ```
    """
    blocks = blocks_of(model)
    n_senders = _count_senders(blocks)
    writes = torch.zeros(n_senders, model.d_model, dtype=model.dtype, device=model.device)
    first = 1
    for block in blocks:
        writes[first : first + block.n_heads] = block.b_O / max(1, block.n_heads)
        first += block.n_heads + (block.mlp is not None)
    if pos_embed not in model.taps:
        return Ablation("zero", writes)
    n_pos = context(model.hf) or 1024
    each = writes[:, None].repeat(1, n_pos, 1)
    each[0] = model.module(pos_embed)(torch.arange(n_pos, device=model.device))
    return Ablation("zero", each, by_position=True)


@torch.no_grad()
def mean_ablation(model: Model, texts: Text, *, by_position: bool = False, batch_size: Count = 16) -> Ablation:
    """The mean of what the sender writes in some texts, over their tokens or by position.

    Over every token with text (neither padding nor special), or, by position, over the texts that reach it.

    Args:
        model: the model.
        texts: what to take the mean over.
        by_position: a mean for each position; then texts must be padded on the right.
        batch_size: texts per pass.

    Raises:
        InvalidArgument: texts padded on the left, by position; no token with text.

    Cost: one forward pass.

    Examples:
        ```python
        mean_ablation(model, texts)
        ```
    """
    tokens, blocks = model.tokens(texts), blocks_of(model)
    if not by_position:
        (tokens,) = in_rows(model, [tokens])
    kept = tokens.mask if by_position else tokens.content
    if by_position and not bool(tokens.mask[:, 0].all()):
        raise InvalidArgument(
            "texts padded on the left have no common positions: pad on the right, or by_position=False"
        )
    if not bool(kept.any()):
        raise InvalidArgument("the texts have no token with text: give texts of at least one word")
    total: Tensor | None = None
    for i in range(0, len(tokens), batch_size):
        rows = slice(i, i + batch_size)
        acts = capture(model, tokens[rows], sites_of_writes(model), batch_size=batch_size)
        some = acts.tokens.mask if by_position else acts.tokens.content
        writes = writes_of(blocks, acts.values, normed=False) * some[:, None, :, None]
        part = writes.sum(0) if by_position else writes.sum((0, 2))
        if by_position:
            part = torch.nn.functional.pad(part, (0, 0, 0, tokens.ids.shape[1] - part.shape[1]))
        total = part if total is None else total + part
    assert total is not None
    count = kept.sum(0).clamp_min(1)[None, :, None] if by_position else kept.sum()
    name = "mean by position" if by_position else "mean"
    return Ablation(name, total / count.to(total), by_position)


def _count_senders(blocks: tuple[Block, ...]) -> int:
    """The embedding, every head and every feed-forward layer."""
    return 1 + sum(block.n_heads + (block.mlp is not None) for block in blocks)
