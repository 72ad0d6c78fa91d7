"""The precision that a device multiplies fastest without emulating it."""

import torch


def precision(device: torch.device = torch.device("cpu")) -> torch.dtype:  # noqa: B008
    """bfloat16 where the device multiplies it in hardware, float32 where it would be emulated.

    Examples:
        >>> precision() in (torch.bfloat16, torch.float32)
        True
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
