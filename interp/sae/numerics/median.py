"""The geometric median of activations: where the decoder's bias starts."""

from jaxtyping import Float
from torch import Tensor


def geometric_median(
    x: Float[Tensor, "n d_model"], *, tolerance: float = 1e-5, max_steps: int = 200
) -> Float[Tensor, "d_model"]:
    """The point with the least mean distance to the rows, argmin_m E||x - m||, by Weiszfeld's iteration.

    m <- sum_i x_i / ||x_i - m||  over  sum_i 1 / ||x_i - m||  (Weiszfeld 1937), from the mean, until a step is
    shorter than `tolerance` times the mean distance. Unlike the mean, it is moved little by a few huge rows.
    """
    m = x.mean(0)
    for _ in range(max_steps):
        distance = (x - m).norm(dim=1)
        scale = float(distance.mean())
        weight = 1 / distance.clamp(min=1e-6 * scale + 1e-30)
        moved = (weight @ x) / weight.sum()
        step, m = float((moved - m).norm()), moved
        if step <= tolerance * scale:
            break
    return m
