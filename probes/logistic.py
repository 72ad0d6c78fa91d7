"""Logistic regression with an L2 penalty, solved to its one optimum by L-BFGS."""

from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from probes.linear import LinearProbe

TOLERANCE = 1e-8  # largest entry of the gradient of the mean loss at the end


@final
class Logistic(LinearProbe):
    """argmin over w, b of ||w||^2 / 2 + C sum_i log(1 + exp(-s_i (w.x_i + b))), s_i = +-1: scikit-learn's objective.

    The optimum is unique. It is sought in standardised coordinates, which changes the path and not the optimum.
    Costs one pass over x per L-BFGS step, in float64.

    Example:
        ```python
        probe = Logistic(C=0.1).fit(x, y)
        probe.decision_function(new_x) > 0
        ```
    """

    name: ClassVar[str] = "logistic probe"

    def __init__(self, C: float = 1.0, max_iter: int = 1000) -> None:
        self.C, self.max_iter = C, max_iter

    def _solve(self, x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> tuple[Float[Tensor, "d_model"], float]:
        """The optimal w and b.

        Raises:
            ValueError: C is not positive.
            RuntimeError: not converged after `max_iter` steps.
        """
        if not self.C > 0:
            raise ValueError(f"C is {self.C}; the inverse strength of the penalty must be above 0.")
        mean, std = x.mean(0), x.std(0, unbiased=False)
        std = torch.where(std > 0, std, 1.0)
        x, target, penalty = (x - mean) / std, y.double(), 1 / (self.C * len(x) * std.pow(2))
        w, b = x.new_zeros(x.shape[1]), x.new_zeros(())

        def loss() -> Tensor:
            margin = x @ w + b
            error = (margin.sigmoid() - target) / len(x)
            w.grad, b.grad = x.T @ error + penalty * w, error.sum()
            return (softplus(margin) - target * margin).mean() + (penalty * w * w).sum() / 2

        lbfgs = torch.optim.LBFGS(
            [w, b],
            max_iter=self.max_iter,
            tolerance_grad=TOLERANCE,
            tolerance_change=0.0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )
        lbfgs.step(loss)  # pyright: ignore[reportArgumentType] the closure may return a tensor
        loss()
        left = max(float(p.grad.abs().max()) for p in (w, b) if p.grad is not None)
        if not left < 100 * TOLERANCE:
            raise RuntimeError(
                f"Not converged after {self.max_iter} steps (gradient {left:.1e}): raise max_iter or lower C."
            )
        w = w / std
        return w, float(b - w @ mean)
