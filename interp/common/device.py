"""Where a command computes: the device asked for, or the GPU of this process, or the CPU."""

import os

import torch


def device_called(name: str | None) -> torch.device:
    """The device of that name; without one, this process's GPU (`LOCAL_RANK` under torchrun), or the CPU.

    Examples:
        >>> device_called("cpu")
        device(type='cpu')
    """
    if name is not None:
        return torch.device(name)
    gpu = torch.cuda.is_available()
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")
