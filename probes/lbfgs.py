"""L-BFGS for convex losses of linear scores: many problems over the same rows at once, one factorisation for all."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import NotConverged

HISTORY = 15
PRECISION = 1e-6  # of the weights: ||w - w*|| <= ||gradient||, because the penalty's curvature is 1
NOTHING = 1e-12  # of the first gradient, which ends the search when the solution itself is 0
ROUNDING = 1e-14  # of the sum of sizes that a gradient is the sum of: below it a gradient is noise

REFRESHED = (6, 20, 60)  # steps after which the curvature is measured again

Rows: TypeAlias = Iterable[Float[Tensor, "_ d_model"]]
Dot: TypeAlias = Callable[[Tensor, Tensor], Float[Tensor, "_"]]


@runtime_checkable
class Loss(Protocol):
    """A convex loss of scores, for one problem or for each column."""

    bound: float | Float[Tensor, "n"]

    def __call__(self, m: Float[Tensor, "n class"]) -> tuple[Float[Tensor, "_"], Float[Tensor, "n class"]]:
        """The loss of each problem, and its derivative by the scores."""
        ...

    def curvature(self, m: Float[Tensor, "n class"]) -> Float[Tensor, "n"]:
        """The second derivative by a row's score, the mean over columns; nowhere above `bound`."""
        ...


def each(a: Float[Tensor, "_ class"], b: Float[Tensor, "_ class"]) -> Float[Tensor, "class"]:
    """The inner products of columns, for problems that are columns."""
    return (a * b).sum(0)


def all_together(a: Float[Tensor, "_ class"], b: Float[Tensor, "_ class"]) -> Float[Tensor, "1"]:
    """The inner product of matrices, for one problem whose columns depend on each other."""
    return (a * b).sum().reshape(1)


def minimise(
    rows: Rows, loss: Loss, dot: Dot, classes: int, *, penalty: Float[Tensor, "d_model"], max_iter: int
) -> tuple[Float[Tensor, "d_model class"], int]:
    """argmin over W of loss(X W) + sum_j penalty_j ||W_j||^2 / 2, for each problem (Liu and Nocedal 1989).

    The recursion of every problem starts from one inverse of X^T D X + diag(penalty), D the curvature of the loss: at
    first its bound, so that the inverse is below that of every Hessian (Böhning 1992), later its mean over problems.
    Steps along a line cost no product with X. With W comes the number of steps.

    Raises:
        NotConverged: not converged after `max_iter` steps.

    Cost:
        Two products with X per step, and four X^T D X at most.

    Examples:
        ```python
        W, steps = minimise([x], CrossEntropy(y, weight), each, 3, penalty=torch.ones(d), max_iter=100)
        ```
    """
    W = penalty.new_zeros(len(penalty), classes)
    score = _forth(rows, W)
    value, error = loss(score)
    grad = _back(rows, error)
    sizes = _back((x.abs() for x in rows), error.abs())
    enough = NOTHING * dot(grad, grad).sqrt() + ROUNDING * dot(sizes, sizes).sqrt()
    inverse = _inverse(rows, torch.ones_like(score[:, 0]) * loss.bound, penalty)
    past: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(max_iter + 1):
        left = dot(grad, grad).sqrt() > PRECISION * dot(penalty[:, None] * W, W).sqrt() + enough
        if not bool(left.any()):
            return W, step
        if step in REFRESHED:
            inverse = _inverse(rows, loss.curvature(score), penalty)
        P = -_two_loop(grad, past, inverse, dot) * left
        along = _forth(rows, P)
        t, value, error = _line(loss, dot, (score, along, value), (W, P, grad, penalty))
        W, score = W + t * P, score + t * along
        new = _back(rows, error) + penalty[:, None] * W
        past = [*past[-HISTORY + 1 :], (t * P, new - grad, dot(t * P, new - grad))]
        grad = new
    worst = float(dot(grad, grad).sqrt().max())
    raise NotConverged(f"not converged after {max_iter} steps (gradient {worst:.1e}): raise max_iter or lower C")


def _line(loss: Loss, dot: Dot, scores: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The first of the steps 1, 1/2, 1/4, ... that lowers each problem by what its slope promises (Armijo 1966)."""
    score, along, value = scores
    W, P, grad, penalty = weights
    slope, linear, square = dot(grad, P), dot(penalty[:, None] * W, P), dot(penalty[:, None] * P, P)
    fixed, rounding = dot(penalty[:, None] * W, W) / 2, 1e-12 * value.abs()

    def at(t: Tensor) -> tuple[Tensor, Tensor]:
        data, error = loss(score + t * along)
        return data + fixed + t * linear + t * t * square / 2, error

    t = torch.ones_like(value)
    lower, error = at(t)
    for _ in range(40):
        falls = lower <= value + 1e-4 * t * slope + rounding
        if bool(falls.all()):
            break
        t = torch.where(falls, t, t / 2)
        lower, error = at(t)
    return t, lower, error


def _two_loop(grad: Tensor, past: list[tuple[Tensor, Tensor, Tensor]], inverse: Tensor, dot: Dot) -> Tensor:
    """The inverse Hessian times the gradient, estimated from the past steps s and gradient changes y."""
    q, alphas = grad, []
    for s, y, sy in reversed(past):
        alphas.append(torch.where(sy > 0, dot(s, q) / sy, 0.0))
        q = q - alphas[-1] * y
    r = inverse @ q
    if past:
        _, y, sy = past[-1]
        yy = dot(y, inverse @ y)
        r = torch.where((sy > 0) & (yy > 0), sy / yy, 1.0) * r
    for (s, y, sy), alpha in zip(past, reversed(alphas), strict=True):
        r = r + (alpha - torch.where(sy > 0, dot(y, r) / sy, 0.0)) * s
    return r


def _forth(rows: Rows, W: Tensor) -> Tensor:
    """X W."""
    parts = [x @ W for x in rows]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _back(rows: Rows, error: Tensor) -> Tensor:
    """X^T error."""
    start, total = 0, None
    for x in rows:
        part = x.T @ error[start : start + len(x)]
        start, total = start + len(x), part if total is None else total + part
    assert total is not None
    return total


def _inverse(rows: Rows, curvature: Tensor, penalty: Tensor) -> Tensor:
    """(X^T D X + diag(penalty))^-1."""
    start, total = 0, penalty.diag()
    for x in rows:
        total.addmm_(x.T * curvature[start : start + len(x)], x)
        start += len(x)
    factor, failed = torch.linalg.cholesky_ex(total)
    if int(failed):  # saturated: all curvature is gone in a direction without penalty
        total.diagonal().add_(1e-10 * total.diagonal().max())
        factor = torch.linalg.cholesky(total)
    return torch.cholesky_inverse(factor)
