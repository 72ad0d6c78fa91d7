"""A cross-layer transcoder whose latents are shared among processes: of every layer's, each holds some."""

from typing import Any, ClassVar

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks.errors import InvalidArgument, WrongState
from interp.sae.architectures.chunked_gradients import Chunk
from interp.sae.architectures.cross_layer_objective import ThresholdObjective
from interp.sae.architectures.cross_layer_transcoder import CrossLayerTranscoder
from interp.sae.architectures.initialisation import random_rows
from interp.sae.architectures.objective import Step
from interp.sae.architectures.sae import check_whole
from interp.sae.architectures.sharded import exchange_all, exchange_sum
from interp.sae.data.normalisation import Normalisation
from interp.sae.numerics.ranking import BLOCK


class ShardedCrossLayerTranscoder(CrossLayerTranscoder):
    """`CrossLayerTranscoder` with d_sae / world latents in each process: the same function and loss, to rounding.

        a_r^l   = z_r^l 1[z_r^l > theta_r^l]                       in process r, of its own latents of layer l
        y_hat^l = sum_r sum_{i <= l} a_r^i W_dec,r^{i->l} + b_dec^l     added up by all-reduce

    Thresholds are learnt, so that no latent depends on another; a batch's k largest, of all layers and processes, is
    refused. Of each layer's latents a process holds one run of equal length. Every process reads every row; b_dec and
    the linear path are the same in all. Exchanged are an n x layer x d_model sum in each step, and codes where they
    are asked for. Each process draws its own first rows, the same for any number of processes, and other ones than
    `CrossLayerTranscoder`. The process group must have begun. `save_cross_layer_shards` and `load_cross_layer_shards`
    write and read a file for each process, for any number of them; only `whole()` gathers the others' weights.

    Args:
        d_in: width of what a layer reads and writes.
        d_sae: latents of all layers and processes together, as many for each layer and process.
        n_layers: feed-forward layers.
        seed: of the first weights.
        settings: the others of `CrossLayerTranscoder`, but for `k`.

    Raises:
        WrongState: the process group has not begun.
        InvalidArgument: latents that processes cannot share equally, or `k`.

    Examples:
        ```python
        clt = ShardedCrossLayerTranscoder(model.d_model, 2**20, n_layers=16)     # in every process
        train(clt, normalise_source(source, rms_scaling(source)))
        save_cross_layer_shards(clt, "clt")
        ```
    """

    sharded: ClassVar[bool] = True

    def __init__(self, d_in: int, d_sae: int, n_layers: int, *, seed: int = 0, **settings: Any) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise WrongState(
                "a ShardedCrossLayerTranscoder shares its latents among processes, and none have joined: call "
                "init_process_group"
            )
        if settings.get("k") is not None:
            raise InvalidArgument(
                "k latents of a batch are chosen among all, and here no process sees the others': leave k out, and "
                "thresholds are learnt"
            )
        rank, world = dist.get_rank(), dist.get_world_size()
        if d_sae % (n_layers * world):
            raise InvalidArgument(
                f"d_sae is {d_sae}; it must be a multiple of {n_layers} layers times {world} processes: every share's"
            )
        super().__init__(d_in, d_sae // world, n_layers, seed=seed, **settings)
        self.rank, self.world, self.d_sae = rank, world, d_sae
        self.own = range(rank * d_sae // world, (rank + 1) * d_sae // world)
        self.register_buffer("max_activation", torch.zeros(d_sae))
        self._draw(seed)

    @torch.no_grad()
    def _draw(self, seed: int) -> None:
        """Each layer's encoder and decoders; rows as any number of processes draws them."""
        F, mine = self.d_sae // self.n_layers, range(self.rank * self.per_layer, (self.rank + 1) * self.per_layer)
        for i, D in enumerate(self.decoders()):
            self.W_enc[i].copy_(random_rows(F, self.d_in, seed + 2 * i, mine))
            D.copy_(random_rows(F, D[0].numel(), seed + 2 * i + 1, mine).view(D.shape) / 10)

    @property
    def per_layer(self) -> int:
        """Latents of one layer that this process holds."""
        return self.threshold.shape[1]

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*n layer d_model"]) -> Float[Tensor, "*n latent"]:
        """All latents, dense, in every process, those of layer 0 first."""
        own = super().encode(x)
        return torch.stack(exchange_all(own.unflatten(-1, (self.n_layers, -1))), dim=-2).flatten(-3)

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n layer d_model"]:
        """What latents write to each layer: the sum over processes, and b_dec."""
        own = f.unflatten(-1, (self.n_layers, self.world, -1))[..., self.rank, :].flatten(-2)
        return exchange_sum(super().decode(own) - self.b_dec) + self.b_dec

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n *d"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The latents of all processes as values and indices; spare places hold value 0."""
        dense = [super(ShardedCrossLayerTranscoder, self).encode(rows) for rows in x.split(BLOCK)]
        fullest = torch.stack([torch.ones((), dtype=torch.long), *((f > 0).sum(1).max() for f in dense if len(f))])
        width = fullest.max()
        dist.all_reduce(width, dist.ReduceOp.MAX)
        kept = [f.topk(min(int(width), f.shape[1]), sorted=False) for f in dense]
        mine = torch.cat([k.values for k in kept]), self._number(torch.cat([k.indices for k in kept]))
        values, indices = (torch.cat(exchange_all(one), dim=1) for one in mine)
        return values, indices

    @torch.no_grad()
    def reconstruct_sparse(
        self, x: Float[Tensor, "n *d"], values: Float[Tensor, "n ..."], indices: Int[Tensor, "n ..."]
    ) -> Float[Tensor, "n ..."]:
        """The reconstruction by latents that `encode_sparse` gave."""
        F, own = self.d_sae // self.n_layers, self.per_layer
        layer, number = indices // F, indices % F
        mine = number // own == self.rank
        local = torch.where(mine, layer * own + number % own, 0)
        common = self.skip_path(self._input(x)) + self.b_dec
        return exchange_sum(super().reconstruct_sparse(x, values * mine, local) - common) + common

    def whole(self) -> CrossLayerTranscoder:
        """The same transcoder with all latents, in every process, on the CPU."""
        settings = {name: value for name, value in self.settings().items() if name != "k"}
        n_layers = settings.pop("n_layers")
        whole = CrossLayerTranscoder(self.d_in, self.d_sae, n_layers, **settings)
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

    def objective(self) -> "ShardedThresholdObjective":
        """The objective of learnt thresholds; each process has the gradients of its own latents."""
        return ShardedThresholdObjective(self)

    def _absorb(self, normalisation: Normalisation) -> None:  # noqa: ARG002
        """Refuse: a normalisation is folded into the weights of `whole()`, not into a share of them."""
        check_whole(self, "a normalisation of its weights")

    def _number(self, local: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """The numbers among all latents of this process's own ones."""
        layer, number = local // self.per_layer, local % self.per_layer
        return (layer * self.world + self.rank) * self.per_layer + number


class ShardedThresholdObjective(ThresholdObjective):
    """The loss of `CrossLayerTranscoder` with learnt thresholds, for latents that are shared among processes."""

    sae: ShardedCrossLayerTranscoder

    def loss(self, rows: Float[Tensor, "n _ d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """The loss as a value without a graph: `gradients` has its gradients, written out."""
        return self.gradients(rows, dead)

    @torch.no_grad()
    def gradients(self, rows: Float[Tensor, "n _ d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """The exact gradients of this process's latents, and of what is the same in all."""
        sae = self.sae
        own = dead.view(sae.n_layers, sae.world, -1)[:, sae.rank].flatten()
        step = super().gradients(rows, own)
        penalty = exchange_sum(step.loss - step.squared_error / self.scale)
        each = exchange_all(step.largest.view(sae.n_layers, -1))
        largest = torch.stack(each, dim=1).flatten()
        return Step(step.squared_error / self.scale + penalty, step.squared_error, exchange_sum(step.l0), largest)

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
