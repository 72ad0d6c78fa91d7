"""A TopK autoencoder whose latents are shared among processes, for dictionaries that outgrow one device."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import linear

from hooks.errors import InvalidArgument, WrongState
from interp.sae.architectures.initialisation import random_rows
from interp.sae.architectures.ksparse import backward, check_kept
from interp.sae.architectures.latent_share import LatentShare
from interp.sae.architectures.objective import Objective, Step, measure_variance
from interp.sae.architectures.sae import CHUNK, SAE, convert_rows, weight
from interp.sae.architectures.topk import TopK
from interp.sae.numerics.median import geometric_median
from interp.sae.numerics.sparse import Code, largest_per_latent, times_rows

DENSE: Final = 1 << 30
"""The most bytes of dense latents that `encode` gives; more are refused."""
Result = TypeVar("Result")
STAGES: Final = 4
"""Parts of a batch in a training step: what is exchanged of one is on its way while the next is computed."""


class ShardedTopK(SAE):
    """`TopK` with d_sae / world latents in each process: the same function, loss and weights, to rounding.

        pre_r  = (x - b_dec) W_enc,r + b_enc,r                        in process r, of its own latents
        f      = ReLU(pre) where it is among the k largest of all      chosen from the k largest of each process
        x_hat  = sum_r f_r W_dec,r + b_dec                             added up by all-reduce

    Every process reads every row; b_dec is the same in all. Only what is kept is exchanged: n k values and indices,
    and one n x d_model sum for the reconstruction, one for the auxiliary loss. In a training step the first two are on
    their way while the latents of the next rows are computed. The first decoder is that of `TopK`
    with the same seed, of which each process draws its own rows. The process group must have begun (`torchrun`, then
    `hooks.store.processes.processes` or `init_process_group`). `save_shards` and `load_shards` write and read a file
    for each process, for any number of them, and `evaluate`, `search` and `index`, called in every process, exchange
    codes only. Only `whole()` gathers the others' weights: it gives a plain `TopK`, where that fits in memory.

    ```python
    torch.distributed.init_process_group("nccl")
    sae = ShardedTopK(d_in=4096, d_sae=2**20, k=64, device=torch.device("cuda", rank))
    train(sae, read_activations(store, resid_post[20]))
    ```
    """

    architecture: ClassVar[str] = "topk"
    centred: ClassVar[bool] = True
    sharded: ClassVar[bool] = True

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: int,
        *,
        k_aux: int | None = None,
        aux_coefficient: float | int = 1 / 32,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(d_in, d_sae)
        if not dist.is_initialized():
            raise WrongState("latents are shared among processes, and none have joined: call init_process_group")
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        if d_sae % self.world or k > d_sae // self.world:
            raise InvalidArgument(
                f"d_sae is {d_sae} and k {k}; d_sae must be a multiple of the {self.world} processes, and each share "
                "hold at least k latents"
            )
        self.k, self.k_aux = k, check_kept(k, k_aux, d_in, d_sae)
        self.aux_coefficient = weight("aux_coefficient", aux_coefficient)
        self.own = LatentShare(d_sae, rank=self.rank, world=self.world)
        rows = random_rows(d_sae, d_in, seed, self.own.ranges[0])
        self.W_dec = nn.Parameter(rows)
        self.W_enc = nn.Parameter(rows.clone().T)
        self.b_enc = nn.Parameter(torch.zeros(len(rows)))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("variance", torch.ones(()))
        self.to(device)

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """All latents, dense, in every process."""
        flat = x.reshape(-1, self.d_in)
        check_dense(self, len(flat))
        values, indices = self.encode_sparse(flat)
        dense = torch.zeros(len(flat), self.d_sae, device=flat.device, dtype=values.dtype)
        return dense.scatter(1, indices, values).view(*x.shape[:-1], self.d_sae)

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n d_model"]:
        """The reconstruction: the sum over processes of what each one's latents decode to, and b_dec."""
        (own,) = self.own.ranges
        return exchange_sum(f[..., own.start : own.stop] @ self.W_dec) + self.b_dec

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "n d_model"]) -> tuple[Float[Tensor, "n ..."], Int[Tensor, "n ..."]]:
        """The k latents of each row, in every process."""
        kept = [self._select(self._pre(self._input(rows) - self.b_dec)) for rows in x.split(CHUNK)]
        return torch.cat([values for values, _ in kept]), torch.cat([indices for _, indices in kept])

    @torch.no_grad()
    def reconstruct_sparse(
        self,
        x: Float[Tensor, "n d_model"],  # noqa: ARG002
        values: Float[Tensor, "n ..."],
        indices: Int[Tensor, "n ..."],
    ) -> Float[Tensor, "n d_model"]:
        """The reconstruction by latents that `encode_sparse` gave."""
        return self._decode(*self._mine(values, indices)) + self.b_dec

    def settings(self) -> dict[str, Any]:
        """The settings of `TopK`."""
        return {"k": self.k, "k_aux": self.k_aux, "aux_coefficient": self.aux_coefficient}

    def whole(self) -> TopK:
        """The same autoencoder with all latents, in every process, on the CPU."""
        whole = TopK(self.d_in, self.d_sae, self.k, k_aux=self.k_aux, aux_coefficient=self.aux_coefficient)
        with torch.no_grad():
            whole.W_dec.copy_(torch.cat(exchange_all(self.W_dec)))
            whole.W_enc.copy_(torch.cat(exchange_all(self.W_enc.T)).T)
            whole.b_enc.copy_(torch.cat(exchange_all(self.b_enc)))
            whole.b_dec.copy_(self.b_dec)
            for name in ("max_activation", "variance"):
                whole.get_buffer(name).copy_(self.get_buffer(name))
        for name in ("sites", "model_name", "fingerprint", "dataset", "normalisation"):
            setattr(whole, name, getattr(self, name))
        return whole

    def _each(self, x: Float[Tensor, "..."]) -> list[Float[Tensor, "..."]]:
        return exchange_all(x)

    def _add_up(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return exchange_sum(x)

    def objective(self) -> "ShardedTopKObjective":
        """The objective of `TopK`; each process has the gradients of its own latents."""
        return ShardedTopKObjective(self)

    def _pre(self, centred: Tensor) -> Tensor:
        return linear(centred, self.W_enc.T, self.b_enc)

    def _select(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest of all processes' latents, from the k largest of each."""
        return self._send(pre)()

    def _send(self, pre: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
        """Begin what `_select` does; what this returns waits for it."""
        values, indices = pre.topk(self.k, sorted=False)
        return _begin_merge(values, self.own.number(indices), self.k)

    def _pass(self, centred: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents before selection, the codes, and the error of all rows; what is exchanged is waited for late.

        While the encoder's product is taken for one part of the rows, the codes of the part before are on their way,
        and the reconstruction of the one before that.
        """
        stages: list[_Stage] = []
        for part in centred.chunk(STAGES):
            pre = self._pre(part)
            stages.append(_Stage(pre, self._send(pre)))
            if len(stages) > 1:
                stages[-2].begin_sum(self)
        stages[-1].begin_sum(self)
        x_hat = torch.cat([stage.summed() for stage in stages])
        values, indices = (torch.cat([stage.code[i] for stage in stages]) for i in (0, 1))
        return torch.cat([stage.pre for stage in stages]), values, indices, centred - x_hat

    def _select_dead(self, pre: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The k_aux largest dead latents of all processes.

        Gathering needs equal shapes, so a process with fewer dead latents fills up with values of -inf.
        """
        count = min(self.k_aux, len(latents))
        local, held = self.own.locate(latents)
        mine, own = latents[held], pre[:, local[held]]
        kept = own.topk(min(count, len(mine)), sorted=False)
        values = pre.new_full((len(pre), count), -torch.inf)
        indices = torch.full((len(pre), count), self.own.ranges[0].start, device=pre.device)
        values[:, : kept.values.shape[1]], indices[:, : kept.values.shape[1]] = kept.values, mine[kept.indices]
        return _merge(values, indices, count)

    def _mine(self, values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The part of a code that this process decodes; the value is 0 where the latent is another's."""
        local, mine = self.own.locate(indices)
        return values * mine, local

    def _decode(self, values: Tensor, indices: Tensor) -> Tensor:
        return exchange_sum(times_rows(values, indices, self.W_dec))

    def _backward(self, g: Tensor, values: Tensor, indices: Tensor, centred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return backward(g, Code.padded(values, indices, len(self.W_dec)), centred, self.W_dec)


class ShardedTopKObjective(Objective[ShardedTopK]):
    """The loss of `TopK`, for latents that are shared among processes."""

    unit_norm_decoder: ClassVar[bool] = True

    @torch.no_grad()
    def initialise(self, rows: Float[Tensor, "n d_model"]) -> None:
        """Measure the variance of the rows, and set b_dec, if it is still 0, to their geometric median."""
        sae = self.sae
        sae.get_buffer("variance").copy_(measure_variance(sae, rows))
        if not bool(sae.b_dec.any()):
            sae.b_dec.copy_(geometric_median(convert_rows(sae, rows)))

    def loss(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """The loss of `TopK`, as a value without a graph: `gradients` has its gradients, written out."""
        with torch.no_grad():
            return self.gradients(rows, dead)

    @torch.no_grad()
    def gradients(self, rows: Float[Tensor, "n d_model"], dead: Bool[Tensor, "latent"]) -> Step:
        """The exact gradients of this process's latents and of b_dec, which is the same in all."""
        sae = self.sae
        centred, V = rows - sae.b_dec, sae.get_buffer("variance")
        pre, values, indices, e = sae._pass(centred)
        mine = sae._mine(values, indices)
        sae.W_dec.grad, for_W_enc, sae.b_enc.grad = sae._backward(e * (-2 / (len(rows) * V)), *mine, centred)
        loss = e.pow(2).sum(1).mean() / V
        V_e = (e - e.mean(0)).pow(2).sum(1).mean()
        if bool(dead.any()) and sae.aux_coefficient and V_e > 0:
            scale = sae.aux_coefficient / V_e
            latents = dead.nonzero().flatten()
            revived = sae._mine(*sae._select_dead(pre, latents))
            e_aux = e - sae._decode(*revived)
            by_aux = sae._backward(e_aux * (-2 * scale / len(e)), *revived, centred)
            sae.W_dec.grad += by_aux[0]
            for_W_enc, sae.b_enc.grad = for_W_enc + by_aux[1], sae.b_enc.grad + by_aux[2]
            loss = loss + scale * e_aux.pow(2).sum(1).mean()
        sae.W_enc.grad = for_W_enc.T
        sae.b_dec.grad = (e * (-2 / (len(rows) * V))).sum(0) - exchange_sum(sae.W_enc @ sae.b_enc.grad)
        largest = largest_per_latent(values, indices, sae.d_sae)
        return Step(loss, e.pow(2).sum(1).mean(), (values > 0).sum() / len(rows), largest)

    def gradient_norm(self) -> Float[Tensor, ""]:
        """||g|| over the parameters of all processes, b_dec counted once."""
        sae = self.sae
        own = [p.grad.pow(2).sum() for p in (sae.W_dec, sae.W_enc, sae.b_enc) if p.grad is not None]
        shared = sae.b_dec.grad.pow(2).sum() if sae.b_dec.grad is not None else 0
        return (exchange_sum(torch.stack(own).sum()) + shared).sqrt()


class _Stage:
    """A part of a batch in a training step: its latents, its code when it has come, its reconstruction after that."""

    def __init__(self, pre: Tensor, code: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self.pre, self._receive = pre, code

    def begin_sum(self, sae: ShardedTopK) -> None:
        """Wait for the code, decode this process's part of it, and begin to add up those of all."""
        self.code = self._receive()
        self.summed = _begin_sum(times_rows(*sae._mine(*self.code), sae.W_dec))


def check_dense(sae: SAE, rows: int) -> None:
    """Check that the dense latents of some rows are not more than a process should hold.

    Raises:
        InvalidArgument: they are.

    Examples:
        ```python
        check_dense(sae, len(x))
        ```
    """
    if (size := rows * sae.d_sae * sae.W_dec.element_size()) > DENSE:
        raise InvalidArgument(
            f"the latents of {rows} rows, dense, would be {size / 1e9:.1f} GB: take encode_sparse, which gives those "
            "that are on, or give fewer rows"
        )


def exchange_all(x: Shaped[Tensor, "..."]) -> list[Shaped[Tensor, "..."]]:
    """What each process has, by rank; each must call it, with tensors of one shape."""
    return _begin_gather(x)()


def _begin_gather(x: Tensor) -> Callable[[], list[Tensor]]:
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    return _later(dist.all_gather(parts, x, async_op=True), parts)


def _merge(values: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return _begin_merge(values, indices, k)()


def _begin_merge(values: Tensor, indices: Tensor, k: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """The k largest of all processes' values, after the ReLU, with their indices."""
    sent = _begin_gather(values), _begin_gather(indices.int())

    def receive() -> tuple[Tensor, Tensor]:
        all_values, all_indices = (torch.cat(one(), dim=1) for one in sent)
        kept = all_values.topk(k, sorted=False)
        return kept.values.relu(), all_indices.gather(1, kept.indices).long()

    return receive


def exchange_sum(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The sum of what each process has; each must call it."""
    return _begin_sum(x)()


def _begin_sum(x: Tensor) -> Callable[[], Tensor]:
    x = x.detach().clone(memory_format=torch.contiguous_format)
    return _later(dist.all_reduce(x, async_op=True), x)


def _later(work: Any, result: Result) -> Callable[[], Result]:
    """What was asked for, once it has come; None is what a group of this process alone gives."""

    def wait() -> Result:
        if work is not None:
            work.wait()
        return result

    return wait
