"""Tiny models in float64 all the way, and two runs of each; some Hugging Face norms fall to float32 inside."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hooks import Model, load
from interp.circuits import logit_difference
from interp.circuits.edges import Task
from tests.conftest import tiny_hf, tiny_tokenizer

CLEAN, CORRUPT = ["fog over", "a baysun"], ["fig ever", "a hatsun"]


def exact_norm(norm: Any, shifted: bool) -> Callable[[Tensor], Tensor]:
    """RMSNorm as its paper has it, in the precision of its input."""
    eps = getattr(norm, "eps", None) or norm.variance_epsilon

    def forward(x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * (norm.weight + shifted)

    return forward


def double(family: str, **changes: Any) -> Model:
    """A tiny model whose every norm keeps float64."""
    hf = tiny_hf(family, **changes).double()
    for module in hf.modules():
        if "RMSNorm" in type(module).__name__:
            module.forward = exact_norm(module, "Gemma" in type(module).__name__)
    return load(hf, tiny_tokenizer(), check=False)


def task_of(model: Model, clean: list[str] = CLEAN, corrupt: list[str] = CORRUPT) -> Task:
    """The logit of one letter over another, the texts differing in two."""
    return Task(clean, corrupt, logit_difference(model, ["a", "b", "e"][: len(clean)], "c"))


def identity_norms(hf: Any) -> Any:
    """A GPT-2 without norms."""
    hf.transformer.ln_f = nn.Identity()
    for block in hf.transformer.h:
        block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
    return hf
