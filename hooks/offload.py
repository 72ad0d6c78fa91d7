"""Where a model's weights are: on the device where it runs, or offloaded by accelerate to memory or to disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hooks.errors import WrongState


def place_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device on which a module runs, and the type of its numbers; the CPU and float32 without weights.

    Examples:
        >>> place_of(nn.Linear(3, 5))
        (device(type='cpu'), torch.float32)
    """
    first = next(module.parameters(), None)
    floating = next((weight for weight in module.parameters() if weight.is_floating_point()), None)
    dtype = torch.float32 if floating is None else floating.dtype
    if first is None:
        return torch.device("cpu"), dtype
    if not first.is_meta:
        return first.device, dtype
    hooks = (hook for part in module.modules() for hook in _accelerate_hooks(part))
    device = next((hook.execution_device for hook in hooks if hook.execution_device is not None), "cpu")
    return torch.device(device), dtype


def is_offloaded(model: nn.Module) -> bool:
    """Return whether some weights of a model are elsewhere than where it runs.

    Examples:
        >>> is_offloaded(nn.Linear(3, 5)), is_offloaded(nn.Linear(3, 5, device="meta"))
        (False, True)
    """
    return any(weight.is_meta for weight in model.parameters())


def offloaded_value(module: nn.Module, name: str) -> Shaped[Tensor, "..."]:
    """Return the numbers of a weight that accelerate keeps elsewhere.

    Raises:
        WrongState: nothing says where they are.

    Examples:
        ```python
        offloaded_value(linear, "weight")
        ```
    """
    for hook in _accelerate_hooks(module):
        kept = getattr(hook, "weights_map", None)
        if kept is not None and (value := kept[name]) is not None and not value.is_meta:
            return value
    raise WrongState(
        f"the {name} of this {type(module).__name__} is on the meta device, and nothing says where its numbers are: "
        "load the model from its folder, or give it weights first"
    )


def stays_in_memory(module: nn.Module, name: str) -> bool:
    """Return whether an offloaded weight is one tensor in memory, rather than read from a file each time.

    Examples:
        ```python
        stays_in_memory(linear, "weight")
        ```
    """
    first, again = offloaded_value(module, name), offloaded_value(module, name)
    return first.data_ptr() == again.data_ptr()


@contextmanager
def refuse_meta(model: nn.Module) -> Iterator[None]:
    """Inside the block, raise where a tensor without numbers meets one with numbers; free where nothing is offloaded.

    Raises:
        WrongState: an operation was given both.

    Examples:
        ```python
        with refuse_meta(hf):
            hf(ids)
        ```
    """
    if not is_offloaded(model):
        yield
        return
    with _RefuseMeta():
        yield


@final
class _RefuseMeta(TorchDispatchMode):
    """Raises where an operation gets numbers and a tensor without any."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        given = [*_tensors(args), *_tensors((kwargs or {}).values())]
        meta = [one for one in given if one.is_meta]
        if meta and len(meta) < len(given) and "copy_" not in str(func):
            raise WrongState(
                f"{func} got a weight of shape {tuple(meta[0].shape)} that is offloaded, so it has no numbers: the "
                "part of the model that uses it must load it first; load the model with a device_map that keeps that "
                "part on the device"
            )
        return func(*args, **(kwargs or {}))


def _tensors(given: Any) -> Iterator[Tensor]:
    for one in given:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, list | tuple):
            yield from _tensors(one)


def _accelerate_hooks(module: nn.Module) -> list[Any]:
    """What accelerate has on a module."""
    hook = getattr(module, "_hf_hook", None)
    return [one for one in getattr(hook, "hooks", (hook,)) if hasattr(one, "execution_device")]
