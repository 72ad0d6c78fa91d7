"""Interventions: pure functions a -> a' on the selected tokens of one site."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.direction import Direction, as_vector, wide
from hooks.errors import InvalidArgument, InvalidType
from hooks.position import Position, everywhere


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """Where the rows given to an intervention come from.

    Attributes:
        row: the text of the batch.
        column: the column of the padded batch.
        token: the number of the token in its text, special tokens and all, whatever the padding.
        start: the column the pass begins at; those before are in a KV cache.
        shape: how many texts the batch has, and how many columns their prompts.
    """

    row: Int[Tensor, "n"]
    column: Int[Tensor, "n"]
    token: Int[Tensor, "n"]
    start: int = 0
    shape: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self.row)

    def from_column(self, first: int, device: torch.device) -> "Rows":
        """Return the rows from one column of the batch on, on a device.

        Examples:
            ```python
            rows.from_column(3, torch.device("cpu"))
            ```
        """
        kept = (self.column >= first).nonzero()[:, 0] if first else slice(None)
        row, column, token = (part[kept].to(device) for part in (self.row, self.column, self.token))
        return Rows(row, column, token, self.start, self.shape)


@final
@dataclass(frozen=True, eq=False)
class Intervention:
    """A change at one site: `fn` maps the selected tokens' values to what replaces them.

    Made by the functions of this module; `apply` makes one from any function.

    Attributes:
        name: how it prints.
        at: which tokens it changes.
        fn: from the values and where they come from to the new values, of the same shape and dtype.
        overwrites: nothing of the old value is left, so what came before at that place is lost.
        sets_projection: it fixes the projection on `value`, so an earlier such value is lost.
        value: a tensor it puts in, checked against the site's shape before anything runs.
        batched: `value` may also hold one value per selected token, or per text and column.
        fingerprint: of the model its direction belongs to.
    """

    name: str
    at: Position
    fn: Callable[[Tensor, Rows], Tensor]
    overwrites: bool = False
    sets_projection: bool = False
    value: Tensor | None = None
    batched: bool = False
    fingerprint: str | None = None

    def __repr__(self) -> str:
        return f"{self.name}(at={self.at})"


def add(
    direction: Direction | Float[Tensor, "*d"], strength: float | int = 1.0, at: Position = everywhere
) -> Intervention:
    """Add a vector: a' = a + strength * v (activation addition, Turner et al. 2023).

    Args:
        direction: v, as it is; its length counts.
        strength: how much of it, a finite number.
        at: which tokens.

    Examples:
        ```python
        add(direction, 8.0, at=generated)
        ```
    """
    vector = _finite(as_vector(direction), "add")
    factor = _number(strength, "strength")
    return Intervention(
        "add", at, lambda a, _: a + factor * _like(vector, a), value=vector, fingerprint=_model_of(direction)
    )


def scale(factor: float | int, at: Position = everywhere) -> Intervention:
    """Multiply: a' = factor * a.

    Examples:
        ```python
        scale(0.5)
        ```
    """
    number = _number(factor, "factor")
    return Intervention("scale", at, lambda a, _: number * a)


def zero(at: Position = everywhere) -> Intervention:
    """Zero ablation: a' = 0.

    Examples:
        ```python
        zero(at=last)
        ```
    """
    return Intervention("zero", at, lambda a, _: torch.zeros_like(a), overwrites=True)


def mean(value: Float[Tensor, "*d"], at: Position = everywhere) -> Intervention:
    """Mean ablation: a' = the mean given, the same for every token (Wang et al. 2022).

    Examples:
        ```python
        mean(acts.flat(mlp_out[3]).mean(dim=0))
        ```
    """
    value = _finite(value, "mean")
    return Intervention("mean", at, lambda a, _: _like(value, a).expand_as(a), overwrites=True, value=value)


def replace(value: Float[Tensor, "*d"], at: Position = everywhere) -> Intervention:
    """Activation patching: a' = other activations (Vig et al. 2020; Meng et al. 2022).

    Args:
        value: one value [*d] for every selected token; one per selected token [n *d], of texts that
            are read as a whole; or a capture [batch pos *d] of as many texts, padded to the same columns.
        at: which tokens.

    Examples:
        ```python
        replace(clean[resid_post[3]], at=last)
        ```
    """
    value = _finite(value, "replace")
    return Intervention(
        "replace", at, lambda a, rows: _place_value(value, a, rows), overwrites=True, value=value, batched=True
    )


def project_out(direction: Direction | Float[Tensor, "*d"], at: Position = everywhere) -> Intervention:
    """Directional ablation: a' = a - <a, u> u with u the unit vector (Arditi et al. 2024).

    Examples:
        ```python
        project_out(direction)
        ```
    """
    unit = _unit(direction, "project_out")
    return Intervention(
        "project_out",
        at,
        lambda a, _: (a - _along(a, unit)).to(a.dtype),
        sets_projection=True,
        value=unit,
        fingerprint=_model_of(direction),
    )


def clamp(direction: Direction | Float[Tensor, "*d"], value: float | int, at: Position = everywhere) -> Intervention:
    """Set a projection: a' = a + (value - <a, u>) u with u the unit vector; the rest of a stays.

    Args:
        direction: along which; only its direction counts.
        value: what <a', u> becomes; `3 * direction.scale` is three times the largest seen.
        at: which tokens.

    Examples:
        ```python
        clamp(direction, 3 * direction.scale)
        ```
    """
    unit = _unit(direction, "clamp")
    target = _number(value, "value")
    return Intervention(
        "clamp",
        at,
        lambda a, _: (a - _along(a, unit) + target * _like(unit, wide(a))).to(a.dtype),
        sets_projection=True,
        value=unit,
        fingerprint=_model_of(direction),
    )


def noise(std: float | int, seed: int, at: Position = everywhere) -> Intervention:
    """Add Gaussian noise: a' = a + std * e, as causal tracing corrupts a subject (Meng et al. 2022, 2.1).

    The noise of a token depends on the seed, its row in the batch and its number in the text alone:
    not on padding, and not on whether a KV cache is used. Rows of a batch get independent noise.

    Examples:
        ```python
        noise(3 * embedding_std, seed=0, at=substring("Golden Gate Bridge"))
        ```
    """
    if _number(std, "std") < 0:
        raise InvalidArgument(f"std is a standard deviation, at least 0; got {std}")
    return Intervention("noise", at, lambda a, rows: a + std * _draw_noise(a, rows, seed))


def apply(fn: Callable[[Float[Tensor, "n *d"]], Float[Tensor, "n *d"]], at: Position = everywhere) -> Intervention:
    """Make an intervention of any function of the selected tokens' values.

    Args:
        fn: from [n *d] to the same shape and dtype.
        at: which tokens.

    Examples:
        ```python
        apply(torch.relu)
        ```
    """
    return Intervention(getattr(fn, "__name__", "apply"), at, lambda a, _: fn(a))


def _like(vector: Tensor, a: Tensor) -> Tensor:
    return vector.to(device=a.device, dtype=a.dtype).reshape(a.shape[1:])


def _along(a: Tensor, unit: Tensor) -> Tensor:
    """The part of each row along a unit vector, in float32 or better."""
    flat = wide(a.flatten(1))
    direction = unit.to(flat).flatten()
    return torch.outer(flat @ direction, direction).view_as(a)


def _place_value(value: Tensor, a: Tensor, rows: Rows) -> Tensor:
    value = value.to(device=a.device, dtype=a.dtype)
    extra = value.ndim - (a.ndim - 1)
    if extra <= 0:
        return _like(value, a).expand_as(a)
    if extra == 1:
        if rows.start:
            raise InvalidArgument(
                f"replace holds {value.shape[0]} values, one per selected token of a whole text, and this pass reads "
                f"on from column {rows.start}: give one value for all, or a capture of [batch pos *d]"
            )
        if value.shape[0] != a.shape[0]:
            raise InvalidArgument(
                f"replace holds {value.shape[0]} values, and {a.shape[0]} tokens are selected: give one each"
            )
        return value
    holds = f"replace holds values for {value.shape[0]} texts of {value.shape[1]} columns"
    if tuple(value.shape[:2]) != rows.shape:
        raise InvalidArgument(
            f"{holds}, and {rows.shape[0]} texts of {rows.shape[1]} columns are read: capture the same texts, or "
            "others padded alike, and read them as one batch"
        )
    if int(rows.column.max()) >= rows.shape[1]:
        raise InvalidArgument(f"{holds}, and column {int(rows.column.max())} is to be replaced: use at=prompt")
    return value[rows.row, rows.column]


def _draw_noise(a: Tensor, rows: Rows, seed: int) -> Tensor:
    drawn = []
    for row, token in zip(rows.row.tolist(), rows.token.tolist(), strict=True):
        random = torch.Generator().manual_seed(hash((seed, row, token)) & 0x7FFFFFFFFFFFFFFF)
        drawn.append(torch.randn(a.shape[1:], generator=random))
    return torch.stack(drawn).to(device=a.device, dtype=a.dtype)


def _finite(value: Tensor, who: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise InvalidType(f"{who} needs a tensor or a Direction, got {type(value).__name__}")
    if not bool(torch.isfinite(value.detach()).all()):
        raise InvalidArgument(f"{who} was given values that are not finite (NaN or infinity)")
    return value


def _number(value: float | int, name: str) -> float:
    if isinstance(value, str):
        raise InvalidType(f"{name} is {value!r}, a str: give a number")
    if not math.isfinite(value):
        raise InvalidArgument(f"{name} must be a finite number, got {value}")
    return value


def _unit(direction: Direction | Tensor, who: str) -> Tensor:
    vector = wide(_finite(as_vector(direction), who))
    length = vector.norm()
    if float(length.detach()) == 0.0:
        raise InvalidArgument(f"{who} needs a vector of positive length, got zeros")
    return vector / length


def _model_of(direction: Direction | Tensor) -> str | None:
    return direction.fingerprint if isinstance(direction, Direction) else None
