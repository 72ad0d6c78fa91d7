"""Logistic regression with an L1 penalty: most weights are exactly 0, and fewer are as the penalty falls."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import NotConverged

PRECISION = 1e-6  # of the penalty, that the gradient may be off by
STEPS = 20_000
STOPS = 40  # penalties on the way down
LOWEST = 0.05  # of the largest penalty


def fit_l1_logistic(
    x: Float[Tensor, "n d_model"],
    y: Bool[Tensor, "n"],
    penalty: float,
    start: Float[Tensor, "_"] | None = None,
) -> Float[Tensor, "_"]:
    """argmin over w, b of mean_i log(1 + exp(-s_i (w.x_i + b))) + penalty ||w||_1, s_i = +-1; returns w and, last, b.

    By accelerated proximal steps (Beck and Teboulle 2009), restarted where they overshoot (O'Donoghue and Candès
    2015), from `start` or from 0. Columns of one scale converge soonest.

    Raises:
        NotConverged: the weights still move after the last step.

    Cost:
        Two products with x per step.

    Examples:
        ```python
        w = fit_l1_logistic(x, y, 0.02)[:-1]
        ```
    """
    X = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    step = 4 * len(X) / float(torch.linalg.matrix_norm(X.T @ X if len(X) > X.shape[1] else X @ X.T, 2))
    threshold = torch.full_like(X[0], step * penalty)
    threshold[-1] = 0
    w = torch.zeros_like(X[0]) if start is None else start.clone()
    ahead, momentum = w, 1.0
    for _ in range(STEPS):
        moved = ahead - step * _slope(X, y, ahead)
        new = moved.sign() * (moved.abs() - threshold).clamp_min(0)
        if float((ahead - new).abs().max()) <= PRECISION * step * penalty:
            return new
        if float((ahead - new) @ (new - w)) > 0:
            momentum = 1.0
        further = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        w, ahead, momentum = new, new + (momentum - 1) / further * (new - w), further
    raise NotConverged(f"the L1 path did not converge in {STEPS} steps: standardise the rows, or take another ranking")


def find_entrances(x: Float[Tensor, "n d_model"], y: Bool[Tensor, "n"]) -> Float[Tensor, "d_model"]:
    """The penalty below which each weight leaves 0, as the penalty falls from where all are 0 (Friedman et al. 2010).

    The path is followed down to `LOWEST` of its start; of a weight that is still 0 there, and between two stops, the
    size of the gradient is taken instead. Only weights that may leave 0 at the next stop are solved for, and the others
    checked (Tibshirani et al. 2012).

    Raises:
        NotConverged: the weights still move after the last step.

    Examples:
        ```python
        find_entrances(standardised, y).argmax()
        ```
    """
    w = torch.zeros(x.shape[1] + 1, dtype=x.dtype, device=x.device)
    w[-1] = y.to(x).mean().logit()
    slope = _gradient(x, y, w)
    score = slope.clone()
    last = float(slope.max())
    entered = torch.zeros_like(slope, dtype=torch.bool)
    for penalty in [last * LOWEST ** (i / STOPS) for i in range(1, STOPS + 1)]:
        w = _solve(x, y, w, slope, penalty, last)
        enters = (w[:-1] != 0) & ~entered
        score[enters] = slope[enters].clamp(penalty, last)
        slope, last, entered = _gradient(x, y, w), penalty, entered | enters
        score[~entered] = slope[~entered].clamp_max(penalty)
    return score


def _solve(x: Tensor, y: Tensor, w: Tensor, slope: Tensor, penalty: float, last: float) -> Tensor:
    """The solution at the next penalty, over the weights that may leave 0, until no other would."""
    active = (slope >= 2 * penalty - last) | (w[:-1] != 0)
    while True:
        kept = torch.cat([active, active.new_ones(1)])
        w = torch.zeros_like(w).masked_scatter(kept, fit_l1_logistic(x[:, active], y, penalty, w[kept]))
        missed = (_gradient(x, y, w) > penalty * (1 + 1e-4)) & ~active
        if not bool(missed.any()):
            return w
        active = active | missed


def _gradient(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return (x.T @ ((x @ w[:-1] + w[-1]).sigmoid() - y.to(x))).abs() / len(x)


def _slope(X: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return X.T @ ((X @ w).sigmoid() - y.to(X)) / len(X)
