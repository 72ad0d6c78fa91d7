"""Devices by name, refused where this machine has none such."""

import torch

from hooks.errors import InvalidArgument


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name, on which a tensor can be made.

    Raises:
        InvalidArgument: there is no such device here; those that there are, are named.

    Examples:
        >>> find_device("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        held = ["'cpu'", *(f"'cuda:{i}'" for i in range(torch.cuda.device_count()))]
        raise InvalidArgument(f"no device is called '{name}' on this machine: there is {', '.join(held)}") from error
    return device
