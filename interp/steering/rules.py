"""Ways of steering by a direction other than adding it: set, ablate, set from an origin, cap, turn."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Intervention, Position
from hooks.direction import wide
from hooks.errors import InvalidArgument
from hooks.interventions import apply, clamp
from hooks.position import everywhere
from interp.steering.steering import Steering

Rule = Callable[[Tensor, float], Intervention]
SCALE = "the direction's largest projection in training"


def set_projection(direction: Direction, at: Position = everywhere) -> Steering:
    """Set the projection: x' = x + (dose * s - <x, u>) u, u = v/|v|, s the direction's scale.

    Examples:
        ```python
        with steer(model, set_projection(direction), 1.0):
            model.generate("I walked")
        ```
    """
    return _along(
        direction,
        "set",
        SCALE,
        lambda u, dose: clamp(u, dose * float(u.norm()), at=at),
        direction.unit * direction.scale,
    )


def ablate_direction(direction: Direction, at: Position = everywhere) -> Steering:
    """Subtract a share of the projection: x' = x - dose <x, u> u; a dose of one projects the direction out.

    Arditi et al. 2024, arXiv:2406.11717, where it is done at every layer.

    Examples:
        ```python
        with steer(model, ablate_direction(direction), 1.0):
            model.generate("I walked")
        ```
    """

    def rule(v: Float[Tensor, "d_model"], dose: float) -> Intervention:
        return _change(v, lambda along: -dose * along, at)

    return _along(direction, "ablation", "the whole projection", rule)


def set_from_origin(direction: Direction, origin: Float[Tensor, "d_model"], at: Position = everywhere) -> Steering:
    """Ablate, then set from an origin: x' = x - <x - mu, u> u + dose * s u, with mu where the concept is absent.

    Affine concept editing (Marshall et al. 2024, arXiv:2411.09003): a dose of 0 makes x as if the concept were absent,
    which ablation does only where mu has no projection. mu is the mean activation of the negative texts.

    Raises:
        InvalidArgument: an origin of another width.

    Examples:
        ```python
        with steer(model, set_from_origin(direction, negative.mean(0)), 1.0):
            model.generate("I walked")
        ```
    """
    mu, s = origin, direction.scale
    if mu.shape != direction.vector.shape:
        raise InvalidArgument(
            f"the origin has shape {tuple(mu.shape)}, and {direction} {tuple(direction.vector.shape)}"
        )

    def rule(v: Float[Tensor, "d_model"], dose: float) -> Intervention:
        u = wide(v) / wide(v).norm()
        return _change(v, lambda along: float(mu.to(u) @ u) + dose * s - along, at)

    return _along(direction, "affine edit", SCALE, rule)


def cap_projection(direction: Direction, low: float, high: float, at: Position = everywhere) -> Steering:
    """Keep the projection inside a range: x' = x + (min(max(<x, u>, a), b) - <x, u>) u.

    A dose of one is the range from `low` to `high` itself (`measure_normal_range` measures one), a smaller dose the
    same about its middle: a, b = middle ± dose (high - low) / 2. Tokens inside it are left bit for bit as they are.

    Raises:
        InvalidArgument: a range that is empty or not finite, or a dose below 0.

    Examples:
        ```python
        with steer(model, cap_projection(direction, *measure_normal_range(model, direction, texts)), 1.0):
            model.generate("I walked")
        ```
    """
    if not -math.inf < low < high < math.inf:
        raise InvalidArgument(f"the range is from {low} to {high}: give two finite numbers, the lower first")
    middle, half = (low + high) / 2, (high - low) / 2

    def rule(v: Float[Tensor, "d_model"], dose: float) -> Intervention:
        if dose < 0:
            raise InvalidArgument(
                f"the dose is {dose}: a range is narrowed by a dose from 0 to 1, widened by a larger one"
            )
        a, b = middle - dose * half, middle + dose * half
        return _change(v, lambda along: along.clamp(a, b) - along, at)

    return _along(direction, "cap", f"the range {low:.3g} to {high:.3g}", rule)


def rotate_in_plane(direction: Direction, other: Direction, at: Position = everywhere) -> Steering:
    """Turn x within a plane, keeping its length: x' = x - P x + |P x| (cos t u + sin t w), t = dose in degrees.

    P projects on the plane of the two directions, w is the part of the second one that is orthogonal to u: at 0 all
    that x has in the plane points along the first direction, at 90 along w, at 180 against the first. Angular
    steering (Vu and Nguyen 2025, arXiv:2510.26243). No dose leaves x as it is.

    Raises:
        InvalidArgument: directions that are parallel, or at different sites.

    Examples:
        ```python
        with steer(model, rotate_in_plane(direction, other), 30.0):
            model.generate("I walked")
        ```
    """
    if direction.site != other.site:
        raise InvalidArgument(f"the plane needs directions at one site, got {direction.site} and {other.site}")
    if abs(direction.cosine(other)) > 0.999:
        raise InvalidArgument(f"{direction} and {other} are parallel, so they span no plane")

    def rule(v: Float[Tensor, "d_model"], dose: float) -> Intervention:
        u = wide(v) / wide(v).norm()
        w = other.vector.to(u) - (other.vector.to(u) @ u) * u
        w = w / w.norm()
        t = math.radians(dose)
        target = math.cos(t) * u + math.sin(t) * w

        def turn(x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
            y = wide(x)
            a, b = y @ u.to(y), y @ w.to(y)
            inside = torch.outer(a, u.to(y)) + torch.outer(b, w.to(y))
            return (y - inside + torch.outer((a * a + b * b).sqrt(), target.to(y))).to(x.dtype)

        return apply(turn, at=at)

    return _along(direction, f"turn in the plane with {other.source}", "one degree from the direction", rule)


def _along(direction: Direction, how: str, unit: str, rule: Rule, vector: Tensor | None = None) -> Steering:
    return Steering(
        site=direction.site,
        source=f"{how} of {direction.source}",
        unit=unit,
        vector=direction.vector if vector is None else vector,
        rule=rule,
        fingerprint=direction.fingerprint,
    )


def _change(v: Tensor, change: Callable[[Tensor], Tensor], at: Position) -> Intervention:
    """x' = x + change(<x, u>) u; rows whose change is 0 stay bit for bit."""

    def fn(x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        y = wide(x)
        u = (wide(v) / wide(v).norm()).to(y)
        return (y + torch.outer(change(y @ u), u)).to(x.dtype)

    return apply(fn, at=at)
