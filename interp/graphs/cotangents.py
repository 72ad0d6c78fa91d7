"""Rows of a graph, many at a time: slopes go down the local replacement model in blocks, without autograd."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.graphs.local_model import LocalModel, constant_of

LOGITS, FEATURES, ATTENTION = 2, 1, 0
"""Where a target reads: the last stream, what a layer's features read, or the stream that a layer's attention reads."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What rows are taken of: linear functions of the stream at one place.

    Attributes:
        where: LOGITS, FEATURES or ATTENTION.
        layer: of the features or the attention; the number of layers for logits.
        pos: the token.
        slope: of the target at the stream there, norms held.
        constant: what it is for a stream of zeros.
    """

    where: Int[Tensor, "target"]
    layer: Int[Tensor, "target"]
    pos: Int[Tensor, "target"]
    slope: Float[Tensor, "target d_model"]
    constant: Float[Tensor, "target"]

    def __len__(self) -> int:
        return len(self.pos)

    def __getitem__(self, rows: Int[Tensor, "n"]) -> "Targets":
        """Return some of them."""
        return Targets(self.where[rows], self.layer[rows], self.pos[rows], self.slope[rows], self.constant[rows])

    def height(self, *, parallel: bool) -> Int[Tensor, "target"]:
        """Return how late each reads: a number that is larger for what reads later."""
        where = self.where.clamp(max=0) if parallel else self.where
        return 3 * self.layer + where


@dataclass(frozen=True, eq=False)
class Sources:
    """What writes to the stream of a local replacement model, in the columns of a graph.

    Columns are the tokens, the errors by layer and token, and the active features.
    """

    local: LocalModel

    @property
    def n_pos(self) -> int:
        """How many tokens the prompt has."""
        return len(self.local.ids)

    @property
    def first_feature(self) -> int:
        """The column of the first feature."""
        return self.n_pos * (1 + len(self.local.layers))

    @property
    def count(self) -> int:
        """How many columns there are."""
        return self.first_feature + len(self.local.active)

    @cached_property
    def writes(self) -> tuple[tuple[Int[Tensor, "_"], Int[Tensor, "_"], Float[Tensor, "pos _ d_model"]] | None, ...]:
        """By layer: the columns of the features that write there, where each is in a table by token, and the table.

        The table holds a_s W_dec,s for each, and zeros where a token has fewer than others.
        """
        return tuple(self._write_table(layer) for layer in range(len(self.local.layers)))

    def _write_table(self, layer: int) -> tuple[Tensor, Tensor, Tensor] | None:
        active, found, vectors = self.local.active, [], []
        for source in self.local.transcoders.writers(layer):
            here = (active.layer == source).nonzero().flatten()
            W_dec = self.local.transcoders.layers[source].W_dec[layer]
            found.append(here)
            vectors.append(W_dec[active.latent[here]].to(active.a) * active.a[here, None])
        if not found or not sum(map(len, found)):
            return None
        here, rows = torch.cat(found), torch.cat(vectors)
        pos = active.pos[here]
        order = torch.argsort(pos, stable=True)
        here, rows, pos = here[order], rows[order], pos[order]
        counts = torch.bincount(pos, minlength=self.n_pos)
        width = int(counts.max())
        place = torch.arange(len(pos), device=pos.device) - (counts.cumsum(0) - counts)[pos]
        at = pos * width + place
        table = rows.new_zeros(self.n_pos * width, rows.shape[1])
        table[at] = rows
        return here + self.first_feature, at, table.unflatten(0, (self.n_pos, width))


def rows_of(sources: Sources, targets: Targets) -> tuple[Float[Tensor, "target node"], Float[Tensor, "target"]]:
    """Return the part of each target that comes from each source, and the part that comes from no source.

        A[t, s] = a_s Σ_m W_dec,s→m · J(output of feed-forward layer m → target t),    Σ_s A[t, s] + bias_t = z_t

    with J the Jacobian of the local replacement model, whose only paths are the stream, attention's values by held
    patterns, and the transcoders' own linear paths. Slopes of all targets go down together, each from where it reads.

    Cost: for each target and layer, about 4 T d² multiplications, and 2 T² d of patterns, of T tokens.

    Examples:
        ```python
        rows_of(sources, logit_targets(local, torch.tensor([7])))
        ```
    """
    local = sources.local
    order = torch.argsort(targets.height(parallel=local.parallel), descending=True, stable=True)
    length = int(targets.pos.max()) + 1
    A = targets.slope.new_zeros(len(targets), sources.count)
    bias = targets.constant[order].clone()
    sweep = Sweep(sources, targets[order], length)
    for layer, written in sweep:
        read_layer(sources, layer, written, A, bias)
    first = sweep.slope
    A[:, :length] = torch.einsum("ntd,td->nt", first, local.token[:length])
    bias += torch.einsum("ntd,td->n", first, local.position[:length])
    bias += sweep.constant
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return A[back], bias[back]


def read_layer(
    sources: Sources,
    layer: int,
    slope: Float[Tensor, "n pos d_model"],
    A: Float[Tensor, "target node"],
    bias: Float[Tensor, "target"],
) -> None:
    """Add what the sources that write at a layer give the first targets, which have this slope there.

    Examples:
        ```python
        for layer, slope in Sweep(sources, targets, length):
            read_layer(sources, layer, slope, A, bias)
        ```
    """
    here, n, length = sources.local.layers[layer], len(slope), slope.shape[1]
    if here.error is not None:
        start = sources.n_pos * (1 + layer)
        A[:n, start : start + length] = torch.einsum("ntd,td->nt", slope, here.error[:length])
    if here.features is not None:
        bias[:n] += slope.sum(1) @ here.features.b_dec.to(slope)
    if (written := sources.writes[layer]) is not None:
        columns, at, table = written
        product = torch.bmm(slope.transpose(0, 1), table[:length].transpose(1, 2))
        flat = product.transpose(0, 1).flatten(1)
        reached = at < flat.shape[1]
        A[:n].index_add_(1, columns[reached], flat[:, at[reached]])


class Sweep:
    """One pass down the layers: yields the slope at each feed-forward output, of the targets that read after it.

    Attributes:
        slope: where it is now; at the end, the slope at the first stream.
        constant: what attention's and skips' constants have given each target so far.
    """

    def __init__(self, sources: Sources, targets: Targets, length: int) -> None:
        self.local, self.targets, self.length = sources.local, targets, length
        self.slope = targets.slope.new_zeros(0, length, targets.slope.shape[1])
        self.constant = torch.zeros_like(targets.constant)
        self._height = targets.height(parallel=self.local.parallel)

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "n pos d_model"]]]:
        last = len(self.local.layers)
        self.join(3 * last + (ATTENTION if self.local.parallel else LOGITS))
        for layer in range(last - 1, -1, -1):
            if len(self.slope):
                yield layer, self.slope
            after = self.slope
            self.slope = after + self._skip(layer, after)
            if not self.local.parallel:
                self.join(3 * layer + FEATURES)
                after = self.slope
            if len(after):
                self.slope = self.slope + self._attention(layer, after)
            self.join(3 * layer + ATTENTION)

    def join(self, height: int) -> None:
        """Let the targets that read here take part from here on."""
        new = int((self._height >= height).sum()) - len(self.slope)
        if new:
            rows = torch.arange(len(self.slope), len(self.slope) + new, device=self.slope.device)
            fresh = self.slope.new_zeros(new, *self.slope.shape[1:])
            fresh[torch.arange(new, device=rows.device), self.targets.pos[rows]] = self.targets.slope[rows]
            self.slope = torch.cat([self.slope, fresh])

    def _skip(self, layer: int, slope: Tensor) -> Tensor | float:
        """The slope by way of a transcoder's linear path."""
        here = self.local.layers[layer]
        at_input = here.pull_skip(slope)
        if at_input is None:
            return 0.0
        if here.reads_normed:
            self.constant[: len(slope)] += at_input.sum(1) @ constant_of(here.block.mlp_norm, here.read)
        return here.pull_features(at_input, here.read[: self.length])

    def _attention(self, layer: int, slope: Tensor) -> Tensor | float:
        """The slope by way of attention, patterns held."""
        here = self.local.layers[layer]
        if here.attention_constant is None:
            return 0.0
        self.constant[: len(slope)] += torch.einsum("ntd,td->n", slope, here.attention_constant[: self.length])
        return here.pull_values(here.pull_heads(slope))


def feature_targets(local: LocalModel, which: Int[Tensor, "n"]) -> Targets:
    """Return some of a prompt's active features as targets: what they read, before their activation function.

    Examples:
        ```python
        feature_targets(local, torch.arange(10))
        ```
    """
    active = local.active
    layer, pos, latent = active.layer[which], active.pos[which], active.latent[which]
    slope = local.final.new_zeros(len(which), local.final.shape[1])
    constant = local.final.new_zeros(len(which))
    for at in layer.unique().tolist():
        rows, here = (layer == at).nonzero().flatten(), local.layers[at]
        features = local.transcoders.layers[at]
        w = features.W_enc[latent[rows]].to(slope)
        slope[rows] = here.pull_features(w, here.read[pos[rows]])
        constant[rows] = features.b_enc[latent[rows]].to(slope)
        if here.reads_normed:
            constant[rows] += w @ constant_of(here.block.mlp_norm, here.read)
    return Targets(torch.full_like(layer, FEATURES), layer, pos, slope, constant)
