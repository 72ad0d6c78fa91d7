"""The local replacement model of a prompt: a model with its patterns, its norms' divisors and its errors held."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Tokens, capture
from hooks.direction import wide
from hooks.errors import ContractBroken, InvalidArgument
from hooks.site import Site, mlp_out, pattern, pos_embed, resid_mid, resid_post, resid_pre, z
from interp.circuits.edges.blocks import Block, blocks_of
from interp.circuits.edges.norm import Norm, norm_of
from interp.graphs.transcoders import LayerTranscoder, Transcoders


@dataclass(frozen=True, eq=False)
class ActiveFeatures:
    """The features of a prompt that are on, in the order of layer, token and number.

    Attributes:
        layer, pos, latent: which they are.
        a: their activations.
        z: what they read, before the activation function.
    """

    layer: Int[Tensor, "n"]
    pos: Int[Tensor, "n"]
    latent: Int[Tensor, "n"]
    a: Float[Tensor, "n"]
    z: Float[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.a)


@dataclass(frozen=True, eq=False)
class LocalLayer:
    """One block of a local replacement model, in which everything between features is linear.

    Attributes:
        block: its weights.
        pre: the stream before it.
        read: the stream before the norm of its feed-forward layer.
        pattern: what each head attends to, held.
        raw: what attention writes before a norm of it.
        attention_constant: what attention writes of a stream of zeros: biases, and what norms add.
        error: what the features of the prompt miss of its feed-forward output.
        features: what reads here, or None.
    """

    block: Block
    pre: Float[Tensor, "pos d_model"]
    read: Float[Tensor, "pos d_model"]
    pattern: Float[Tensor, "head pos pos"] | None
    raw: Float[Tensor, "pos d_model"] | None
    attention_constant: Float[Tensor, "pos d_model"] | None
    error: Float[Tensor, "pos d_model"] | None
    features: LayerTranscoder | None

    @property
    def reads_normed(self) -> bool:
        """Whether its features read after the norm."""
        return self.features is not None and self.features.reads.name == "mlp_in"

    def pull_features(
        self, slope: Float[Tensor, "n ... d_model"], read: Float[Tensor, "... d_model"]
    ) -> Float[Tensor, "n ... d_model"]:
        """Return the slope at the stream, from that at what the features read, at tokens whose stream is `read`."""
        return self.block.mlp_norm.pull_back(read, slope, held=True) if self.reads_normed else slope

    def pull_skip(self, slope: Float[Tensor, "n pos d_model"]) -> Float[Tensor, "n pos d_model"] | None:
        """Return the slope at what the features read, by way of their linear path; None where they have none."""
        if self.features is None or self.features.W_skip is None:
            return None
        return slope @ self.features.W_skip.to(slope)

    def push_attention(self, change: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_model"]:
        """Return by how much what attention adds changes with the stream before the block, patterns held."""
        assert self.block.W_O is not None and self.pattern is not None and self.raw is not None
        read = push_norm(self.block.attn_norm, change, self.pre)
        value = torch.einsum("kd,dhf->khf", read, self.block.readers["v"].W.to(change))
        value = value.repeat_interleave(self.pattern.shape[0] // value.shape[1], 1)
        z = torch.einsum("hqk,khf->qhf", self.pattern, value)
        written = torch.einsum("qhf,hfd->qd", z, self.block.W_O.to(change))
        return push_norm(self.block.post_norm, written, self.raw)

    def pull_heads(self, slope: Float[Tensor, "n pos d_model"]) -> Float[Tensor, "n pos head d_head"]:
        """Return the slope at each head's values, from that at what attention adds to the stream."""
        assert self.block.W_O is not None and self.pattern is not None and self.raw is not None
        length = slope.shape[1]
        slope = self.block.post_norm.pull_back(self.raw[:length], slope, held=True)
        at_z = torch.einsum("nqd,hfd->nhqf", slope, self.block.W_O.to(slope))
        return torch.einsum("hqk,nhqf->nkhf", self.pattern[:, :length, :length], at_z)

    def pull_values(self, slope: Float[Tensor, "n pos head d_head"]) -> Float[Tensor, "n pos d_model"]:
        """Return the slope at the stream before the block, from that at the heads' values."""
        W_V = self.block.readers["v"].W.to(slope)
        shared = slope.unflatten(2, (W_V.shape[1], -1)).sum(3)
        slope = torch.einsum("nkhf,dhf->nkd", shared, W_V)
        return self.block.attn_norm.pull_back(self.pre[: slope.shape[1]], slope, held=True)


@dataclass(frozen=True, eq=False)
class LocalModel:
    """The local replacement model of one prompt. Made by `local_models`.

    Attributes:
        model: the model.
        transcoders: what takes the place of its feed-forward layers.
        ids: the tokens of the prompt.
        token: what each token's embedding gives to the stream.
        position: what else is in the first stream.
        layers: the blocks.
        final: the last stream.
        final_norm: the norm before the unembedding.
        active: the features that are on.
        parallel: whether attention and feed-forward layer read the same stream.
    """

    model: Model
    transcoders: Transcoders
    ids: Int[Tensor, "pos"]
    token: Float[Tensor, "pos d_model"]
    position: Float[Tensor, "pos d_model"]
    layers: tuple[LocalLayer, ...]
    final: Float[Tensor, "pos d_model"]
    final_norm: Norm
    active: ActiveFeatures
    parallel: bool


@torch.no_grad()
def local_models(model: Model, transcoders: Transcoders, tokens: Tokens) -> tuple[LocalModel, ...]:
    """Return the local replacement model of each text of a batch.

    Raises:
        InvalidArgument: a model that normalises the stream itself (BERT), whose attention patterns cannot be read, or
            with a norm that is no LayerNorm or RMSNorm.
        ContractBroken: blocks that do more than add attention and feed-forward outputs to the stream.

    Cost: one forward pass for each text, and the encoding of every token at every layer.

    Examples:
        ```python
        local_models(model, neurons(model), model.tokens("The bridge is in"))
        ```
    """
    if model.paths.norms_after or model.paths.norms_last:
        raise InvalidArgument(f"{model.name} normalises its stream after each addition: its graph is not linear")
    blocks = blocks_of(model)
    sites = _sites(model, blocks, transcoders)
    found = []
    for row in range(len(tokens)):
        alone = tokens[row]
        values = {site: wide(value[0]) for site, value in capture(model, alone, sites).values.items()}
        found.append(_local_model(model, blocks, transcoders, alone.ids[0], values))
    return tuple(found)


def _sites(model: Model, blocks: tuple[Block, ...], transcoders: Transcoders) -> list[Site]:
    sites = [*([pos_embed] if pos_embed in model.taps else []), resid_post[model.n_layers - 1]]
    for block in blocks:
        sites += [resid_pre[block.layer], block.mlp_reads]
        if block.n_heads:
            if pattern[block.layer] not in model.sites:
                raise InvalidArgument(f"the attention patterns of {model.name} cannot be read, so they cannot be held")
            sites += [z[block.layer], pattern[block.layer]]
        if block.mlp is not None:
            sites.append(mlp_out[block.layer])
    sites += [one.reads for one in transcoders.layers.values()]
    return [*dict.fromkeys(sites)]


def _local_model(
    model: Model, blocks: tuple[Block, ...], transcoders: Transcoders, ids: Tensor, values: Mapping[Site, Tensor]
) -> LocalModel:
    dense = {
        layer: wide(one.encode(values[one.reads])).to(values[one.reads]) for layer, one in transcoders.layers.items()
    }
    layers = tuple(_local_layer(block, transcoders, values, dense) for block in blocks)
    first = values[resid_pre[0]]
    position = values[pos_embed].expand_as(first) if pos_embed in values else torch.zeros_like(first)
    final_norm = norm_of(model.final_norm, model.d_model)
    if final_norm.module is not None and final_norm.gain is None:
        raise InvalidArgument(f"the final norm of {model.name} is no LayerNorm or RMSNorm, so it cannot be held")
    final = values[resid_post[model.n_layers - 1]]
    local = LocalModel(
        model,
        transcoders,
        ids,
        first - position,
        position,
        layers,
        final,
        final_norm,
        _active(transcoders, values, dense),
        bool(model.paths.parallel),
    )
    _check_blocks(local, values)
    return local


def _active(transcoders: Transcoders, values: Mapping[Site, Tensor], dense: Mapping[int, Tensor]) -> ActiveFeatures:
    columns = []
    for layer, one in sorted(transcoders.layers.items()):
        x, a = values[one.reads], dense[layer]
        pos, latent = a.nonzero(as_tuple=True)
        read = (x[pos] * one.W_enc[latent].to(x)).sum(-1) + one.b_enc[latent].to(x)
        columns.append((torch.full_like(pos, layer), pos, latent, a[pos, latent], read))
    return ActiveFeatures(*(torch.cat(part) for part in zip(*columns, strict=True)))


def _local_layer(
    block: Block, transcoders: Transcoders, values: Mapping[Site, Tensor], dense: Mapping[int, Tensor]
) -> LocalLayer:
    layer, error, held, raw, constant = block.layer, None, None, None, None
    for norm in (block.attn_norm, block.mlp_norm, block.post_norm):
        if norm.module is not None and norm.gain is None:
            raise InvalidArgument(f"a norm of layer {layer} is no LayerNorm or RMSNorm, so it cannot be held")
    features = transcoders.layers.get(layer)
    if block.mlp is not None:
        error = values[mlp_out[layer]].clone()
        for source in transcoders.writers(layer):
            error -= dense[source] @ transcoders.layers[source].W_dec[layer].to(error)
        if features is not None:
            error -= features.b_dec.to(error)
            if features.W_skip is not None:
                error -= values[features.reads] @ features.W_skip.to(error).T
    if block.n_heads:
        held = values[pattern[layer]]
        raw = block.head_writes(values[z[layer]]).sum(-2)
        constant = _attention_constant(block, held, raw)
    return LocalLayer(block, values[resid_pre[layer]], values[block.mlp_reads], held, raw, constant, error, features)


def _attention_constant(block: Block, held: Tensor, raw: Tensor) -> Tensor:
    """What attention adds to a stream of zeros, with patterns and divisors as they are."""
    reader = block.readers["v"]
    W_V, b_V = reader.W.to(raw), reader.b.to(raw)
    value = torch.einsum("d,dhf->hf", constant_of(block.attn_norm, raw), W_V) + b_V
    value = value.repeat_interleave(held.shape[0] // value.shape[0], 0)
    written = block.head_writes(torch.einsum("hqk,hf->qhf", held, value)).sum(-2)
    if block.post_norm.module is None:
        return written
    return block.post_norm.linear(written, block.post_norm.scale(raw)) + constant_of(block.post_norm, raw)


def constant_of(norm: Norm, like: Float[Tensor, "*n d_model"]) -> Float[Tensor, "d_model"]:
    """Return what a norm gives for a stream of zeros: its bias."""
    zero = torch.zeros_like(like[0])
    if norm.module is None:
        return zero
    weight = next(norm.module.parameters(), zero)
    return norm(zero.to(weight)).to(zero)


def push_norm(
    norm: Norm, change: Float[Tensor, "*n d_model"], at: Float[Tensor, "*n d_model"]
) -> Float[Tensor, "*n d_model"]:
    """Return what a norm makes of a change of its input, with its divisor held at that of its input."""
    return change if norm.module is None else norm.linear(change, norm.scale(at))


def _check_blocks(local: LocalModel, values: Mapping[Site, Tensor]) -> None:
    """Raise unless each block adds attention and feed-forward output to its stream, as a sum of values by pattern."""
    tolerance = 1e-3 if local.model.dtype.itemsize >= 4 else 5e-2
    for at, layer in enumerate(local.layers):
        after = local.layers[at + 1].pre if at + 1 < len(local.layers) else local.final
        total = layer.pre.clone()
        if layer.raw is not None:
            block = layer.block
            post = block.post_norm
            total += layer.raw if post.module is None else post(layer.raw.to(local.model.dtype)).to(total)
            mid = values.get(resid_mid[at])
            if mid is not None and float((mid - total).norm() / mid.norm()) > tolerance:
                raise ContractBroken(_misses(local.model, at))
        total += values.get(mlp_out[at], 0.0)
        if float((after - total).norm() / after.norm()) > tolerance:
            raise ContractBroken(_misses(local.model, at))


def _misses(model: Model, layer: int) -> str:
    return (
        f"what attention and feed-forward layer {layer} of {model.name} write does not sum to its residual stream, so "
        "a graph would not explain it: patch_sweep works on any model"
    )
