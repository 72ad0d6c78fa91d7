"""The blocks of a model as edges see them: what each head reads and writes through, and the norms around it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import Model, Tokens
from hooks.errors import ContractBroken, InvalidArgument
from hooks.norms import norm_after, norm_before
from hooks.site import Site, attn_out, mlp_in, mlp_out, resid_mid, resid_post, resid_pre, z
from hooks.weights import bias_of, matrix_of
from interp.circuits.edges.norm import Norm, norm_of


@dataclass(frozen=True, eq=False)
class HeadReader:
    """What the queries, keys or values of a layer are of their input y: y W + b, by head.

    Attributes:
        module: the projection; its output holds them at `rows`.
        rows: their places in its output, or None for all.
        W: the weights.
        b: the bias, zero where there is none.
    """

    module: nn.Module
    rows: Tensor | None
    W: Float[Tensor, "d_model head d_head"]
    b: Float[Tensor, "head d_head"]

    def of(self, slope: Float[Tensor, "batch pos _"]) -> Float[Tensor, "batch pos head d_head"]:
        """Return their part of the projection's whole output, or of the slope there."""
        slope = slope if self.rows is None else slope.index_select(-1, self.rows)
        return slope.unflatten(-1, self.W.shape[1:])


@dataclass(frozen=True, eq=False)
class Block:
    """One block of a model.

    Attributes:
        layer: its number.
        readers: of `q`, `k` and `v`.
        attn_norm, mlp_norm: before attention and before the feed-forward layer.
        W_O: what each head writes through.
        b_O: the bias of that, a part of it for each head, so that the heads' writes sum to attention's output.
        post_norm: the norm of what attention writes (Gemma-2), or of the form "none".
        mlp: the feed-forward layer, or None.
        mlp_reads: the site of the stream before `mlp_norm`.
    """

    layer: int
    readers: Mapping[str, HeadReader]
    attn_norm: Norm
    mlp_norm: Norm
    W_O: Float[Tensor, "head d_head d_model"] | None
    b_O: Float[Tensor, "d_model"]
    post_norm: Norm
    mlp: nn.Module | None
    mlp_reads: Site

    @property
    def n_heads(self) -> int:
        """How many senders its attention has."""
        return 0 if self.W_O is None else self.W_O.shape[0]

    def head_writes(self, value: Float[Tensor, "*n head d_head"]) -> Float[Tensor, "*n head d_model"]:
        """Return what each head adds to attention's output, before any norm of it: z W_O + b_O / n_heads."""
        return self.head_moves(value) + self.b_O / self.n_heads

    def head_moves(self, change: Float[Tensor, "*n head d_head"]) -> Float[Tensor, "*n head d_model"]:
        """Return how what each head adds changes as its value does: Δz W_O."""
        assert self.W_O is not None
        return torch.einsum("...hf,hfd->...hd", change, self.W_O)


@torch.no_grad()
def blocks_of(model: Model) -> tuple[Block, ...]:
    """Return every block of a model.

    Raises:
        InvalidArgument: a norm of what attention writes together with a factor on it.

    Examples:
        ```python
        blocks_of(model)[0].W_O
        ```
    """
    return tuple(_block(model, layer) for layer in range(model.n_layers))


def _block(model: Model, layer: int) -> Block:
    d, reads = model.d_model, resid_mid[layer] if resid_mid[layer] in model.taps else resid_pre[layer]
    has_attention, has_mlp = z[layer] in model.taps, mlp_in[layer] in model.taps
    W_O, b_O = _writer(model, layer) if has_attention else (None, torch.zeros(d))
    post = norm_of(norm_after(model, layer, "attn") if has_attention else None, d)
    if post.module is not None and has_attention and model.tap(attn_out[layer]).view.factor != 1.0:
        raise InvalidArgument(f"{model.name} both normalises and scales what attention writes: its edges are not known")
    return Block(
        layer,
        {name: _reader(model, Site(name, layer)) for name in "qkv" if Site(name, layer) in model.taps},
        norm_of(norm_before(model, layer, "attn") if has_attention else None, d),
        norm_of(norm_before(model, layer, "mlp") if has_mlp else None, d),
        W_O,
        b_O,
        post,
        model.module(mlp_in[layer]) if has_mlp else None,
        reads,
    )


def _reader(model: Model, site: Site) -> HeadReader:
    tap = model.tap(site)
    W, bias = matrix_of(tap.module), bias_of(tap.module)
    b = W.new_zeros(W.shape[1]) if bias is None else bias
    if tap.view.rows is not None:
        W, b = W.index_select(1, tap.view.rows), b.index_select(0, tap.view.rows)
    return HeadReader(tap.module, tap.view.rows, W.unflatten(-1, tap.shape), b.unflatten(-1, tap.shape))


def _writer(model: Model, layer: int) -> tuple[Tensor, Tensor]:
    module = model.module(z[layer])
    factor, bias = model.tap(attn_out[layer]).view.factor, bias_of(module)
    W = matrix_of(module).unflatten(0, model.tap(z[layer]).shape)
    b = W.new_zeros(W.shape[-1]) if bias is None else bias
    return (W, b) if factor == 1.0 else (W * factor, b * factor)


def sites_of_writes(model: Model) -> tuple[Site, ...]:
    """Return the sites from which every sender's write is known.

    Examples:
        ```python
        capture(model, texts, sites_of_writes(model))
        ```
    """
    inside = [site[layer] for layer in range(model.n_layers) for site in (z, mlp_out) if site[layer] in model.taps]
    return (resid_pre[0], *inside, resid_post[model.n_layers - 1])


def writes_of(
    blocks: tuple[Block, ...], values: Mapping[Site, Float[Tensor, "batch pos *d"]], *, normed: bool
) -> Float[Tensor, "batch sender pos d_model"]:
    """Return what every sender writes in one run, from its activations at `sites_of_writes`.

    Args:
        blocks: of `blocks_of`.
        values: the activations.
        normed: where what attention writes is normalised, whether after that norm, with its divisor held at this
            run's own (so that the heads' writes sum to what attention adds to the stream), or before it.

    Examples:
        ```python
        writes_of(blocks_of(model), acts.values, normed=True)
        ```
    """
    writes = [values[resid_pre[0]][:, None]]
    for block in blocks:
        if block.n_heads:
            raw = block.head_writes(values[z[block.layer]])
            writes.append(_apply_norm(block.post_norm, raw).transpose(1, 2) if normed else raw.transpose(1, 2))
        if block.mlp is not None:
            writes.append(values[mlp_out[block.layer]][:, None])
    return torch.cat(writes, 1)


def moves_of(
    blocks: tuple[Block, ...],
    here: Mapping[Site, Float[Tensor, "batch pos *d"]],
    there: Mapping[Site, Float[Tensor, "batch pos *d"]],
    *,
    held: bool,
) -> Float[Tensor, "batch sender pos d_model"]:
    """Return e_u(there) - e_u(here): how what every sender adds to the stream differs between two runs.

    Where what attention writes is normalised, the heads of a layer share out what the norm makes of both runs by
    `Norm.share_change`, so that they sum to it, and each is right to first order.

    Args:
        blocks: of `blocks_of`.
        here, there: the activations at `sites_of_writes`.
        held: hold the divisor of such a norm at each run's own instead, as rules that hold every norm ask.

    Examples:
        ```python
        moves_of(blocks_of(model), clean.values, corrupt.values, held=False)
        ```
    """
    if held:
        return writes_of(blocks, there, normed=True).sub_(writes_of(blocks, here, normed=True))
    moves = [(there[resid_pre[0]] - here[resid_pre[0]])[:, None]]
    for block in blocks:
        if block.n_heads and block.post_norm.module is None:
            moves.append(block.head_moves(there[z[block.layer]] - here[z[block.layer]]).transpose(1, 2))
        elif block.n_heads:
            raw = [block.head_writes(run[z[block.layer]]) for run in (here, there)]
            moves.append(block.post_norm.share_change(*raw).transpose(1, 2))
        if block.mlp is not None:
            moves.append((there[mlp_out[block.layer]] - here[mlp_out[block.layer]])[:, None])
    return torch.cat(moves, 1)


def _apply_norm(norm: Norm, raw: Float[Tensor, "batch pos head d_model"]) -> Float[Tensor, "batch pos head d_model"]:
    if norm.module is None:
        return raw
    return norm.linear(raw, norm.scale(raw.sum(-2, keepdim=True)))


def check_writes(
    model: Model,
    writes: Float[Tensor, "batch sender pos d_model"],
    final: Float[Tensor, "batch pos d_model"],
    tokens: Tokens,
) -> None:
    """Raise unless the writes of a run sum to its last stream, in its first text.

    Raises:
        ContractBroken: they do not, so that something else writes to this model's stream.

    Examples:
        ```python
        check_writes(model, writes_of(blocks_of(model), acts.values, normed=True), final, tokens)
        ```
    """
    tolerance = 1e-3 if model.dtype.itemsize >= 4 else 5e-2
    real = tokens.mask[:1]
    off = float((writes[:1].sum(1) - final[:1])[real].norm() / final[:1][real].norm())
    if not off < tolerance:
        raise ContractBroken(
            f"what embedding, heads and feed-forward layers of {model.name} write misses {off:.1%} of its last "
            "residual stream, so edges would not explain it: patch_sweep works on any model"
        )
