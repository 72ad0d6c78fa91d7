"""Shards: one site's tensor of which each process of a tensor-parallel model computes a part."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, final
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from xxhash import xxh3_64

from hooks.errors import InvalidArgument, WrongState


@final
@dataclass(frozen=True, eq=False)
class ModelRanks:
    """The processes that compute one model together.

    Attributes:
        mesh: torch's mesh of them.
        asked: the sites whose hooks are on the model in this process now, by the hooks.
    """

    mesh: Any
    asked: dict[object, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many there are."""
        return int(self.mesh.size())

    def exchange(self, said: Any) -> list[Any]:
        """Return what each process says; each must call it.

        Examples:
            ```python
            ranks.exchange(torch.distributed.get_rank())
            ```
        """
        heard: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(heard, said, group=self.mesh.get_group())
        return heard

    def check_agreement(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise in every process where a pass begins with other sites or tokens in one than in another.

        It is the first that happens in a pass: two processes that gather different sites would wait for each other
        for ever.

        Raises:
            WrongState: they differ; the text has what each asks for.

        Examples:
            ```python
            hf.register_forward_pre_hook(ranks.check_agreement, with_kwargs=True)
            ```
        """
        del module
        sites = sorted(self.asked.values())
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor) and not one.is_floating_point()]
        said = [(tuple(one.shape), xxh3_64(one.cpu().contiguous().numpy().tobytes()).intdigest()) for one in given]
        mine = xxh3_64(repr((sites, torch.is_grad_enabled(), said)).encode()).intdigest() >> 1
        sent = torch.tensor([mine], device=self.mesh.device_type)
        heard = [torch.empty_like(sent) for _ in range(self.size)]
        torch.distributed.all_gather(heard, sent, group=self.mesh.get_group())
        if len({int(one) for one in heard}) > 1:
            raise WrongState(_disagreement(self.exchange((sites, [shape for shape, _ in said]))))


@final
@dataclass(frozen=True, eq=False)
class TensorShard:
    """How a site's tensor is shared by the processes.

    Attributes:
        ranks: the processes.
        axis: along which axis each holds a part; None where each holds the whole.
        size: how long that axis is.
        packed: how many projections are packed in it, each of which is shared by itself.
    """

    ranks: ModelRanks
    axis: int | None = None
    size: int = 0
    packed: int = 1

    def gather(self, part: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Return the whole of which each process has a part; gradients flow back to the parts.

        Cost: one all-gather.

        Examples:
            ```python
            shard.gather(part).shape[shard.axis] == shard.size
            ```
        """
        if self.axis is None:
            return part
        if self.packed > 1:
            return self._each().gather(part.unflatten(-1, (self.packed, -1))).flatten(-2)
        from torch.distributed.tensor import DTensor
        from torch.distributed.tensor import Shard as Split

        axis = self.axis % part.ndim
        shape = torch.Size((*part.shape[:axis], self.size, *part.shape[axis + 1 :]))
        stride = torch.empty(shape, device="meta").stride()
        split = DTensor.from_local(part, self.ranks.mesh, [Split(axis)], run_check=False, shape=shape, stride=stride)
        return split.full_tensor()

    def scatter(self, whole: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return this process's part of a whole that each process has; gradients flow back to the whole.

        Examples:
            ```python
            shard.scatter(shard.gather(part))
            ```
        """
        if self.axis is None:
            return whole
        if self.packed > 1:
            return self._each().scatter(whole.unflatten(-1, (self.packed, -1))).flatten(-2)
        from torch.distributed.tensor import DTensor, Replicate
        from torch.distributed.tensor import Shard as Split

        same = DTensor.from_local(whole, self.ranks.mesh, [Replicate()], run_check=False)
        return same.redistribute(placements=[Split(self.axis % whole.ndim)]).to_local()

    def _each(self) -> "TensorShard":
        return TensorShard(self.ranks, -1, self.size // self.packed)


_RANKS: Final[WeakKeyDictionary[nn.Module, ModelRanks]] = WeakKeyDictionary()


def ranks_of(hf: nn.Module) -> ModelRanks | None:
    """Return the processes that compute a model together; None where one does.

    Every pass of such a model begins with `ModelRanks.check_agreement` from then on.

    Raises:
        InvalidArgument: the model is shared in another way than by tensor parallelism.

    Examples:
        >>> ranks_of(nn.Linear(3, 5)) is None
        True
    """
    if hf in _RANKS:
        return _RANKS[hf]
    said = getattr(getattr(hf, "config", None), "distributed_config", None)
    for name, kind in (("dp_size", "FSDP"), ("ep_size", "expert parallelism"), ("pp_size", "pipeline parallelism")):
        if (getattr(said, name, 1) or 1) > 1:
            raise InvalidArgument(
                f"the model is shared by {kind}, under which its processes compute different tokens, experts or "
                "layers: load it with DistributedConfig(tp_plan='auto'), or whole in each process"
            )
    if (getattr(hf, "_tp_size", None) or 1) < 2:
        return None
    ranks = ModelRanks(_mesh(hf))
    hf.register_forward_pre_hook(ranks.check_agreement, with_kwargs=True)
    _RANKS[hf] = ranks
    return ranks


def _mesh(hf: Any) -> Any:
    manager = getattr(hf, "_mesh_manager", None)
    if manager is not None:
        return manager.get_mesh("tp")
    mesh = hf._device_mesh
    with suppress(KeyError, RuntimeError):
        return mesh["tp"]
    return mesh


def _disagreement(heard: list[tuple[list[str], list[tuple[int, ...]]]]) -> str:
    def shown(sites: list[str], shapes: list[tuple[int, ...]]) -> str:
        listed = ", ".join(sites[:4]) + (f" and {len(sites) - 4} more" if len(sites) > 4 else "")
        return f"{listed or 'no site'} of inputs {', '.join(map(str, map(list, shapes))) or 'unknown'}"

    each = "; ".join(f"process {rank}: {shown(*one)}" for rank, one in enumerate(heard))
    return (
        f"the processes of this tensor-parallel model do not ask for the same ({each}; gradients and tokens count "
        "too): make the same calls, on the same text, in every process"
    )
