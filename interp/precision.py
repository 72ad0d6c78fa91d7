"""The precision that this processor multiplies fastest without emulating it."""

import torch


def precision() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, float32 where it would be emulated.

    Example:
        >>> precision() in (torch.bfloat16, torch.float32)
        True
    """
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
