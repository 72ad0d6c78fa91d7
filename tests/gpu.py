"""Where the tests of a GPU run: on it, or on the device that `INTERP_TEST_DEVICE` names, the CPU next to itself."""

import os

import pytest
import torch

DEVICE = os.environ.get("INTERP_TEST_DEVICE", "cuda")
on_a_gpu = [
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.usefixtures("unchecked"),
]
