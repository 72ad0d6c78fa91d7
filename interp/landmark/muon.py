"""Muon in a chosen precision: PyTorch's own computes in bfloat16, which many processors only emulate."""

from collections.abc import Iterable
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.775, 2.0315)


def orthogonalise(g: Float[Tensor, "n d_model"], steps: int, dtype: torch.dtype) -> Float[Tensor, "n d_model"]:
    """X <- a X + (b X Xᵀ + c (X Xᵀ)²) X from X = G / ‖G‖: singular values go to about 1 (Jordan et al. 2024, Muon)."""
    a, b, c = COEFFICIENTS
    tall = g.shape[0] > g.shape[1]
    x = (g.T if tall else g).to(dtype)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(g.dtype)


class Muon(Optimizer):
    """W <- (1 - lr·decay) W - 0.2 lr √max(m, n) · orthogonalise(Nesterov momentum of the gradient).

    The scale gives an update the size of AdamW's (Liu et al. 2025, arXiv:2502.16982), so both take one learning rate.

    Examples:
        >>> W = torch.nn.Parameter(torch.eye(2))
        >>> W.grad = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> Muon([W], lr=0.1, dtype=torch.float32).step()
        >>> bool((W.diagonal() < 1).all())
        True
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        *,
        lr: float,
        dtype: torch.dtype,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        steps: int = 4,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype, self.steps = dtype, steps

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # noqa: ARG002  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for w in (p for p in group["params"] if p.grad is not None):
                state = self.state[w]
                buffer = state.setdefault("momentum_buffer", torch.zeros_like(w)).lerp_(w.grad, 1 - momentum)
                update = orthogonalise(w.grad.lerp(buffer, momentum), self.steps, self.dtype)
                w.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-0.2 * lr * sqrt(max(w.shape)))
