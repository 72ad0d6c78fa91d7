"""Weights: the one place that reads the weights of a model, and the one that changes them, however they are kept.

| kept as | read as | changed |
| --- | --- | --- |
| plain | the parameter itself | in place |
| offloaded by accelerate (on the meta device) | what its hook loads for a pass | in memory; on disk it is refused |
| a shard of several processes (DTensor) | gathered; every process must read it | each process its own shard |
| under a LoRA adapter | W + Σ scale · B A over the active adapters | W; the adapters stay |
| quantised | dequantised | refused |

A tensor on the meta device has no numbers, and PyTorch multiplies by it on a CPU without an error: what comes out is
whatever was in memory. So nothing here returns one, and nothing outside this file reads a weight.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from hooks.errors import EditRefused, InvalidArgument
from hooks.offload import offloaded_value, place_of, stays_in_memory
from hooks.temporary import grad_mode

_PROBED: Final = 512
"""How many unit vectors a module is given at once, where that is the only way to read its matrix."""


@grad_mode(False)
def weight_of(module: nn.Module, name: str = "weight") -> Shaped[Tensor, "..."]:
    """Return a weight of a module as a pass uses it: whole, dequantised, and with the adapters that are active.

    Of a plain weight it is the parameter itself, without its gradient; of any other a copy.

    Args:
        module: the module that holds it, or the adapter around that module.
        name: "weight", "bias" or how else its parameter is called.

    Raises:
        InvalidArgument: the module has no such weight, or its matrix cannot be read.
        WrongState: the weight is on the meta device, and nothing says where its numbers are.

    Examples:
        >>> weight_of(nn.Linear(3, 5)).shape
        torch.Size([5, 3])
    """
    return _whole(module, name) if base_of(module) is module else _add_adapters(module, name)


def matrix_of(module: nn.Module) -> Float[Tensor, "_ _"]:
    """Return the matrix W of a projection, with what it writes = x W + b, for `nn.Linear` and GPT-2's `Conv1D` alike.

    Raises:
        InvalidArgument: as `weight_of`.

    Examples:
        >>> matrix_of(nn.Linear(3, 5)).shape
        torch.Size([3, 5])
    """
    W = weight_of(module)
    return W.T if is_output_first(module) else W


def bias_of(module: nn.Module) -> Float[Tensor, "_"] | None:
    """Return the bias of a module as a pass uses it, or None where it has none.

    Examples:
        >>> bias_of(nn.Linear(3, 5, bias=False)) is None
        True
    """
    return weight_of(module, "bias") if has_weight(module, "bias") else None


def has_weight(module: nn.Module, name: str = "weight") -> bool:
    """Return whether a module, or the module inside an adapter, has a weight of that name.

    Examples:
        >>> has_weight(nn.Linear(3, 5)), has_weight(nn.Identity())
        (True, False)
    """
    held = _look_up(base_of(module), name)
    return isinstance(held, Tensor) or name == "bias" and _adds_bias(module)


def shape_of(module: nn.Module, name: str = "weight") -> tuple[int, ...]:
    """Return the shape of a weight of a module without reading it; () where it has none.

    Examples:
        >>> shape_of(nn.Linear(3, 5))
        (5, 3)
    """
    base = base_of(module)
    held = _look_up(base, name)
    sizes = (getattr(base, "out_features", None), getattr(base, "in_features", None))
    if name == "weight" and isinstance(base, nn.Linear) and None not in sizes:
        return tuple(int(size) for size in sizes if size is not None)  # four bits a number are packed
    return tuple(held.shape) if isinstance(held, Tensor) else ()


def width(projection: nn.Module) -> tuple[int, int]:
    """Return how many features a projection reads and writes, for `nn.Linear` and GPT-2's `Conv1D` alike.

    Examples:
        >>> width(nn.Linear(3, 5))
        (3, 5)
    """
    rows, columns = shape_of(projection)
    return (columns, rows) if is_output_first(projection) else (rows, columns)


def is_tied(module: nn.Module, other: nn.Module) -> bool:
    """Return whether two modules hold the same weight.

    Examples:
        >>> is_tied(nn.Linear(3, 5), nn.Linear(3, 5))
        False
    """
    held = _look_up(base_of(module), "weight")
    return held is not None and held is _look_up(base_of(other), "weight")


def is_quantised(module: nn.Module) -> bool:
    """Return whether the weight of a module is kept in fewer bits than it is used with.

    Examples:
        >>> is_quantised(nn.Linear(3, 5))
        False
    """
    base = base_of(module)
    held = _look_up(base, "weight")
    return isinstance(held, Tensor) and (_is_packed(held) or callable(getattr(base, "weight", None)))


def own_matrix(module: nn.Module) -> Float[Tensor, "_ _"]:
    """Return the matrix that a change of a projection is written to: under an adapter that of the module inside it.

    Raises:
        EditRefused: it cannot be changed, as `write_matrix` says.

    Examples:
        >>> own_matrix(nn.Linear(3, 5)).shape
        torch.Size([3, 5])
    """
    check_writable(module)
    return matrix_of(base_of(module))


@grad_mode(False)
def write_matrix(module: nn.Module, W: Float[Tensor, "_ _"]) -> None:
    """Set the matrix of a projection, wherever it is kept; adapters around it stay and still add to it.

    Raises:
        InvalidArgument: a matrix of another shape.
        EditRefused: the weight is quantised, or is read from a file at each pass.

    Examples:
        >>> write_matrix(linear := nn.Linear(3, 5), torch.zeros(3, 5))
        >>> int(linear.weight.count_nonzero())
        0
    """
    check_writable(module)
    base = base_of(module)
    if tuple(W.shape) != width(base):
        raise InvalidArgument(
            f"the matrix of this {type(base).__name__} is {list(width(base))}, got {list(W.shape)}: give rows for what "
            "it reads, and columns for what it writes"
        )
    value, held = (W.T if is_output_first(base) else W), _look_up(base, "weight")
    if held.is_meta:
        held = offloaded_value(base, "weight")
    elif _is_sharded(held):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(held), held.device_mesh, held.placements)
    held.detach().copy_(value)


def check_writable(module: nn.Module) -> None:
    """Raise where the weight of a module cannot be changed.

    Raises:
        EditRefused: the weight is quantised, or is read from a file at each pass.

    Examples:
        >>> check_writable(nn.Linear(3, 5))
    """
    base = base_of(module)
    if is_quantised(base):
        raise EditRefused(
            f"the weight of this {type(base).__name__} is quantised, and a change far smaller than its steps would be "
            "lost: edit the model before it is quantised, or load it without quantization_config"
        )
    held = _look_up(base, "weight")
    if held is None:
        raise InvalidArgument(f"{type(base).__name__} has no weight that can be changed")
    if held.is_meta and not stays_in_memory(base, "weight"):
        raise EditRefused(
            f"the weight of this {type(base).__name__} is offloaded to disk and read again at each pass, so that a "
            "change would be lost: load the model with a device_map that keeps this layer on 'cpu'"
        )


def weights_of(model: nn.Module) -> Iterator[tuple[str, Shaped[Tensor, "..."]]]:
    """Yield the name and value of every weight and saved buffer of a model as a pass uses them, tied ones once.

    Names are those of the model without adapters, and so are the values where no adapter is active. A weight is read
    when its turn comes, so that one at a time is in memory.

    Raises:
        WrongState: a weight is on the meta device, and nothing says where its numbers are.

    Examples:
        >>> [name for name, _ in weights_of(nn.Sequential(nn.Linear(3, 5)))]
        ['0.weight', '0.bias']
    """
    seen, tied = set[int](), set(getattr(model, "all_tied_weights_keys", None) or ())
    inside = set[int]()
    for path, module in model.named_modules():
        base = base_of(module)
        if id(module) in inside:
            continue
        if base is not module:
            inside |= {id(part) for part in module.modules()} - {id(module)}
        for name in _names(base, module):
            called = f"{path}.{name}" if path else name
            held = base._parameters.get(name, base._buffers.get(name))
            if held is not None and (id(held) in seen or held.is_meta and called in tied):
                continue
            seen |= {id(held)} - {id(None)}
            yield called, weight_of(module, name)


def base_of(module: nn.Module) -> nn.Module:
    """Return the module inside an adapter of PEFT; a module without one is its own.

    Examples:
        >>> base_of(nn.Linear(3, 5))
        Linear(in_features=3, out_features=5, bias=True)
    """
    trained = _trained_whole(module)
    if trained is not None:
        held: Any = module
        active = [name for name in held.active_adapters if name in trained]
        use = active and not held.disable_adapters
        return base_of(trained[active[0]] if use else module.get_submodule("original_module"))
    inner = module._modules.get("base_layer")
    return module if inner is None else base_of(inner)


def is_output_first(module: nn.Module) -> bool:
    """Return whether the rows of a weight are what the module writes (`nn.Linear`), or what it reads (`Conv1D`).

    Examples:
        >>> is_output_first(nn.Linear(3, 5))
        True
    """
    base = base_of(module)
    return isinstance(base, nn.Linear) or hasattr(base, "in_features") and hasattr(base, "out_features")


def _names(base: nn.Module, module: nn.Module) -> list[str]:
    """The names of the weights and saved buffers that a module itself holds."""
    own = [name for name, weight in base._parameters.items() if weight is not None]
    own += [name for name, held in base._buffers.items() if held is not None]
    own = [name for name in own if name not in base._non_persistent_buffers_set]
    if not own and has_weight(base):  # torch's own quantised modules hold packed numbers that are no parameters
        own = ["weight", *(["bias"] if has_weight(base, "bias") else [])]
    return [*own, "bias"] if _adds_bias(module) and "bias" not in own else own


def _look_up(module: nn.Module, name: str) -> Any:
    """What a module holds under a name: a parameter, a buffer, what is computed of them, or what a method returns."""
    held = module._parameters.get(name)
    held = module._buffers.get(name) if held is None else held
    if held is None and (hasattr(module, "parametrizations") or hasattr(module, "_packed_params")):
        held = getattr(module, name, None)
        held = held() if callable(held) and not isinstance(held, nn.Module) else held
    return held


def _whole(module: nn.Module, name: str) -> Tensor:
    """A weight of a module without an adapter."""
    held = _look_up(module, name)
    if not isinstance(held, Tensor):
        raise InvalidArgument(f"{type(module).__name__} has no {name}")
    if held.is_meta:
        loaded = offloaded_value(module, name)
        held, at = loaded, place_of(module)[0]
        held = held.to(at)
    if _is_sharded(held):
        held = held.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
    if name == "weight" and _is_packed(held):
        return _dequantise(module, held)
    return held.detach()


def _is_sharded(held: Tensor) -> bool:
    """Whether each process has a part of a weight."""
    return hasattr(held, "full_tensor")


def _is_packed(held: Tensor) -> bool:
    """Whether a weight is kept in fewer bits than it is used with."""
    if held.is_quantized or not (held.is_floating_point() or held.is_complex()):
        return True
    return is_traceable_wrapper_subclass(held) and not _is_sharded(held)


def _dequantise(module: nn.Module, held: Tensor) -> Tensor:
    """The numbers that a quantised weight represents: as its type says, else as its module multiplies unit vectors."""
    if held.is_quantized or is_traceable_wrapper_subclass(held):
        return held.dequantize()
    return _probe(module)


def _probe(module: nn.Module) -> Tensor:
    """The weight of a linear module, from what it writes for each unit vector."""
    base = base_of(module)
    size, dtype = _features(base), place_of(module)[1]
    device = place_of(base)[0]
    zero = module(torch.zeros(1, size, dtype=dtype, device=device))
    rows = []
    for some in torch.arange(size, device=device).split(_PROBED):
        unit = torch.zeros(len(some), size, dtype=dtype, device=device)
        rows.append(module(unit.scatter_(1, some[:, None], 1.0)) - zero)
    W = torch.cat(rows)
    x = torch.linspace(-1, 1, size, dtype=dtype, device=device)[None]
    left, right = (module(x) - zero).float(), x.float() @ W.float()
    if not float((left - right).norm()) <= 0.05 * float(right.norm()):
        raise InvalidArgument(
            f"this {type(module).__name__} is no linear map of what it reads, so that it has no one matrix: load the "
            "model without quantization, or merge its adapters first"
        )
    return W.T if is_output_first(module) else W


def _features(base: nn.Module) -> int:
    size = getattr(base, "in_features", None)
    return int(size) if size is not None else shape_of(base)[0]


def _add_adapters(module: nn.Module, name: str) -> Tensor:
    """W + Σ scale · B A over the active adapters, B A being what PEFT says each adds."""
    base, names = base_of(module), _active(module)
    if not names and not getattr(module, "merged", False):
        return _whole(base, name)
    if name == "bias":
        return _add_adapter_biases(module, base, names)
    if name != "weight" or getattr(module, "merged", False):
        return _whole(base, name)
    if getattr(module, "get_delta_weight", None) is None or not {*names}.isdisjoint(_variants(module)):
        return _probe(module)
    inner: Any = module
    W = weight_of(module.get_submodule("base_layer"))
    return W + sum((inner.get_delta_weight(one).to(W) for one in names), torch.zeros_like(W))


def _trained_whole(module: nn.Module) -> nn.ModuleDict | None:
    """What PEFT trains in place of a module, by adapter, the original kept next to it; None of any other module."""
    trained = getattr(module, "modules_to_save", None)
    return trained if isinstance(trained, nn.ModuleDict) else None


def _active(module: nn.Module) -> list[str]:
    """The adapters that add to what a module writes now, and are not merged into its weight."""
    held: Any = module
    if not hasattr(held, "active_adapters") or held.disable_adapters or _trained_whole(module) is not None:
        return []
    merged, of_lora = getattr(held, "merged_adapters", ()), hasattr(held, "lora_A")
    return [one for one in held.active_adapters if one not in merged and (one in _lora(held) or not of_lora)]


def _lora(module: Any) -> set[str]:
    return {*getattr(module, "lora_A", ()), *getattr(module, "lora_embedding_A", ())}


def _variants(module: nn.Module) -> Any:
    """The adapters of a layer that do more than add B A (DoRA and others)."""
    return getattr(module, "lora_variant", None) or ()


def _adds_bias(module: nn.Module) -> bool:
    """Whether an active adapter has a bias of its own."""
    said = getattr(module, "lora_bias", {})
    return any(said.get(one) for one in _active(module))


def _add_adapter_biases(module: nn.Module, base: nn.Module, names: list[str]) -> Tensor:
    held: Any = module
    own = _whole(base, "bias") if _look_up(base, "bias") is not None else None
    added = [held.lora_B[one].bias.detach() * held.scaling[one] for one in names if held.lora_bias.get(one)]
    if own is None and not added:
        raise InvalidArgument(f"{type(module).__name__} has no bias")
    return sum(added, torch.zeros_like(added[0]) if own is None else own)
