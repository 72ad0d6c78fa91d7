"""A cross-layer transcoder whose latents are shared among processes: of every layer's, each holds some."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.errors import InvalidArgument, WrongState
from hooks.store.processes import Process
from interp.sae.architectures.batch_topk import set_threshold
from interp.sae.architectures.chunked_gradients import Chunk
from interp.sae.architectures.cross_layer_objective import BatchObjective, CrossLayerObjective, ThresholdObjective
from interp.sae.architectures.cross_layer_transcoder import CrossLayerTranscoder, check_batch_k
from interp.sae.architectures.initialisation import random_rows
from interp.sae.architectures.latent_share import LatentShare
from interp.sae.architectures.objective import Step
from interp.sae.architectures.sharded import check_dense, exchange_all, exchange_sum
from interp.sae.data.distributed import minimum, share_batch
from interp.sae.numerics.ranking import BLOCK
from interp.sae.numerics.sparse import Code


class ShardedCrossLayerTranscoder(CrossLayerTranscoder):
    """`CrossLayerTranscoder` with d_sae / world latents in each process: the same function and loss, to rounding.

        a_r^l   = z_r^l 1[z_r^l > theta_r^l]                       in process r, of its own latents of layer l
        y_hat^l = sum_r sum_{i <= l} a_r^i W_dec,r^{i->l} + b_dec^l     added up by all-reduce

    Of each layer's latents a process holds one run of equal length (`own`). Every process reads every row; b_dec and
    the linear path are the same in all. Exchanged are an n x layer x d_model sum in each step, and codes where they
    are asked for; with `k` given also the values that may be among the n k largest of a batch. Each process draws its
    own first rows, the same for any number of processes, and other ones than `CrossLayerTranscoder`. The process group
    must have begun. `save_cross_layer_shards` and `load_cross_layer_shards` write and read a file for each process, for
    any number of them, and `evaluate`, `search`, `index` and `direction`, called in every process, exchange codes and
    the rows asked for. Only `whole()` gathers the others' weights.

    Args:
        d_in: width of what a layer reads and writes.
        d_sae: latents of all layers and processes together, as many for each layer and process.
        n_layers: feed-forward layers.
        k: latents per token, of all layers and processes together; None for learnt thresholds.
        seed: of the first weights.
        settings: the others of `CrossLayerTranscoder`.

    Raises:
        WrongState: the process group has not begun.
        InvalidArgument: latents that processes cannot share equally.

    Examples:
        ```python
        clt = ShardedCrossLayerTranscoder(model.d_model, 2**20, n_layers=16)     # in every process
        train(clt, normalise_source(source, rms_scaling(source)))
        save_cross_layer_shards(fold_normalisation(clt), "clt")
        ```
    """

    sharded: ClassVar[bool] = True

    def __init__(
        self, d_in: int, d_sae: int, n_layers: int, *, k: float | int | None = None, seed: int = 0, **settings: Any
    ) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise WrongState(
                "a ShardedCrossLayerTranscoder shares its latents among processes, and none have joined: call "
                "init_process_group"
            )
        rank, world = dist.get_rank(), dist.get_world_size()
        if d_sae % (n_layers * world):
            raise InvalidArgument(
                f"d_sae is {d_sae}; it must be a multiple of {n_layers} layers times {world} processes: every share's"
            )
        check_batch_k(k, d_sae)
        super().__init__(d_in, d_sae // world, n_layers, seed=seed, **settings)
        self.rank, self.world, self.d_sae, self.k = rank, world, d_sae, k
        self.own = LatentShare(d_sae, n_layers, rank, world)
        self.register_buffer("max_activation", torch.zeros(d_sae))
        self.threshold.requires_grad_(k is None)
        self._draw(seed)

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        """Each layer's encoder and decoders, rows as any number of processes draws them; and the first thresholds."""
        F, mine = self.d_sae // self.n_layers, self.own.ranges[0]
        for i, D in enumerate(self.decoders()):
            self.W_enc[i].copy_(random_rows(F, self.d_in, seed + 2 * i, mine))
            rows = random_rows(F, D[0].numel(), seed + 2 * i + 1, mine).view(D.shape)
            D.copy_(rows / 10 if self.k is None else rows)
        if self.k is not None:
            self.threshold.zero_()

    @property
    def per_layer(self) -> int:
        """Latents of one layer that this process holds."""
        return self.threshold.shape[1]

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n latent"]:
        """All latents, dense, in every process, those of layer 0 first."""
        check_dense(self, x.shape[:-2].numel())
        return self._join(super().encode(x).movedim(-1, 0)).movedim(0, -1).contiguous()

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n layer d_model"]:
        """What latents write to each layer: the sum over processes, and b_dec."""
        own = self.own.part(f.movedim(-1, 0)).movedim(0, -1)
        return exchange_sum(super().decode(own) - self.b_dec) + self.b_dec

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n *d"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The latents of all processes as values and indices; spare places hold value 0.

        Each process sends as many of a row as the fullest row of any of them has, 8 bytes for each.
        """
        kept, fullest = [], 1
        for rows in x.split(BLOCK):
            f = super().encode(rows)
            most = max(1, int((f > 0).sum(1).max()))
            kept.append(f.topk(most, sorted=False))
            fullest = max(fullest, most)
        width = torch.tensor(fullest, device=x.device)
        dist.all_reduce(width, dist.ReduceOp.MAX)
        values = torch.cat([_widen(one.values, int(width)) for one in kept])
        numbers = torch.cat([_widen(one.indices, int(width)) for one in kept])
        sent = values, self.own.number(numbers).int()
        values, indices = (torch.cat(exchange_all(one), dim=1) for one in sent)
        return values, indices.long()

    @torch.no_grad()
    def reconstruct_sparse(
        self, x: Float[Tensor, "n *d"], values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """The reconstruction by latents that `encode_sparse` gave."""
        local, mine = self.own.locate(indices)
        common = self.skip_path(self._input(x)) + self.b_dec
        return exchange_sum(super().reconstruct_sparse(x, values * mine, local) - common) + common

    def whole(self) -> CrossLayerTranscoder:
        """The same transcoder with all latents, in every process, on the CPU."""
        settings = self.settings()
        whole = CrossLayerTranscoder(self.d_in, self.d_sae, settings.pop("n_layers"), **settings)
        with torch.no_grad():
            for name in ("W_enc", "b_enc", "threshold"):
                getattr(whole, name).copy_(torch.cat(exchange_all(getattr(self, name)), dim=1))
            for D, own in zip(whole.decoders(), self.decoders(), strict=True):
                D.copy_(torch.cat(exchange_all(own)))
            whole.b_dec.copy_(self.b_dec)
            if whole.W_skip is not None and self.W_skip is not None:
                whole.W_skip.copy_(self.W_skip)
            for name in ("max_activation", "variance"):
                whole.get_buffer(name).copy_(self.get_buffer(name))
        for name in ("sites", "model_name", "fingerprint", "dataset", "normalisation"):
            setattr(whole, name, getattr(self, name))
        return whole

    def objective(self) -> "SharedObjective":
        """The objective of learnt thresholds, or of `k`; each process has the gradients of its own latents."""
        return ShardedThresholdObjective(self) if self.k is None else ShardedBatchObjective(self)

    def _each(self, x: Float[Tensor, "..."]) -> list[Float[Tensor, "..."]]:
        return exchange_all(x)

    def _add_up(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return exchange_sum(x)


class SharedObjective(CrossLayerObjective):
    """The loss of `CrossLayerTranscoder`, for latents that are shared among processes."""

    sae: ShardedCrossLayerTranscoder

    def loss(self, rows: Float[Tensor, "n _ d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """The loss as a value without a graph: `gradients` has its gradients, written out."""
        return self.gradients(rows, dead)

    @torch.no_grad()
    def gradients(self, rows: Float[Tensor, "n _ d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """The exact gradients of this process's latents, and of what is the same in all."""
        step = super().gradients(rows, self.sae.own.part(dead))
        reconstruction = step.squared_error / self.scale
        penalty = exchange_sum(step.loss - reconstruction)
        return Step(reconstruction + penalty, step.squared_error, exchange_sum(step.l0), self.sae._join(step.largest))

    def gradient_norm(self) -> Float[Tensor, ""]:
        """||g|| over the parameters of all processes, those that all have counted once."""
        sae, zero = self.sae, self.sae.b_dec.new_zeros(())
        shared = (sae.b_dec, *(() if sae.W_skip is None else (sae.W_skip,)))
        own = (sae.W_enc, sae.W_dec, sae.b_enc, sae.threshold)
        squares = [sum((p.grad.pow(2).sum() for p in some if p.grad is not None), start=zero) for some in (own, shared)]
        return (exchange_sum(squares[0]) + squares[1]).sqrt()

    def _write(
        self, codes: list[Chunk], values: list[Tensor], x: Float[Tensor, "n layer d_model"]
    ) -> Float[Tensor, "n layer d_model"]:
        """y_hat from the latents of all processes."""
        common = self.sae.skip_path(x) + self.sae.b_dec
        return exchange_sum(super()._write(codes, values, x) - common) + common


class ShardedThresholdObjective(SharedObjective, ThresholdObjective):
    """Learnt thresholds: no latent depends on another, so that only reconstructions are exchanged."""


class ShardedBatchObjective(SharedObjective, BatchObjective):
    """The n k largest latents of a batch, of all layers and processes: what may be among them is exchanged."""

    @torch.no_grad()
    def select(self, x: Float[Tensor, "n layer d_model"]) -> list[Code]:
        """This process's latents among the floor(n k) largest of all; moves theta as `follow` says."""
        with share_batch(Process(self.sae.rank, self.sae.world)):
            return super().select(x)

    @torch.no_grad()
    def settle(self, batches: Iterable[Float[Tensor, "n _ d_model"]]) -> None:
        """Set theta to the mean over these batches of the smallest latent that any process kept."""
        set_threshold(self.sae.threshold.data, (self._least(self.sae.parts(rows)[0]) for rows in batches))

    def _least(self, x: Float[Tensor, "n layer d_model"]) -> Float[Tensor, "_"]:
        """The smallest latent kept of a batch; empty where none is."""
        values = torch.cat([code.values for code in self.select(x)])
        with share_batch(Process(self.sae.rank, self.sae.world)):
            least = minimum(values.min() if len(values) else values.new_tensor(math.inf))
        return least[None][least[None].isfinite()]

    def _count(self, n: int) -> tuple[int, float]:
        """The batch is the same in all processes, and each has its part of the latents."""
        assert self.sae.k is not None
        return int(self.sae.k * n), self.sae.k / self.sae.world


def _widen(x: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, width - x.shape[1]))
