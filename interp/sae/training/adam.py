"""Adam over parameters in the order they have in memory: its kernel copies what is transposed, at every step."""

from collections.abc import Iterable
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON: Final = 6.25e-10


@final
class Adam(torch.optim.Adam):
    """PyTorch's fused Adam, which sees a parameter that is a transposed block of memory as that block.

    Examples:
        ```python
        adam = Adam(sae.parameters(), lr=1e-3)
        objective.gradients(rows, dead)
        adam.step()
        ```
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self.own = [*parameters]
        self.blocks = [nn.Parameter(p.detach().T) if _is_transposed(p) else p for p in self.own]
        super().__init__(self.blocks, lr=lr, betas=betas, eps=EPSILON, fused=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step along the gradients of the parameters."""
        for p, block in zip(self.own, self.blocks, strict=True):
            if block is not p:
                block.grad = None if p.grad is None else p.grad.T
        super().step(closure)

    def moments(self, parameter: nn.Parameter) -> list[Float[Tensor, "*d"]]:
        """Both moments of a parameter, in its own order; none before the first step."""
        at = next(i for i, p in enumerate(self.own) if p is parameter)
        held = self.state.get(self.blocks[at], {})
        found = [held[name] for name in ("exp_avg", "exp_avg_sq") if name in held]
        return [m if self.blocks[at] is parameter else m.T for m in found]


def _is_transposed(p: nn.Parameter) -> bool:
    return p.ndim == 2 and not p.is_contiguous() and p.T.is_contiguous()
