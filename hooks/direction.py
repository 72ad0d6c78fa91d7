"""Directions: a vector at a site, with where it came from and how far the data reach along it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from typing_extensions import TypedDict

from hooks.errors import InvalidArgument
from hooks.json_file import Kind, parse_contents
from hooks.site import Site
from hooks.tensor_file import read_tensors, write_tensors


class DirectionHeader(TypedDict):
    """What a file says of a direction."""

    site: str
    source: str
    scale: float
    fingerprint: str | None


KIND: Final = Kind("hooks.direction", "direction", "Direction.save", DirectionHeader)


@final
@dataclass(frozen=True, eq=False)
class Direction:
    """A vector at a site of a model: what finds directions returns one, what uses them takes one.

    Attributes:
        vector: not necessarily of length 1.
        site: where it was found.
        source: how, such as "sae latent 17" or "difference of means".
        scale: the largest projection on `unit` seen when it was found; multiples of it are doses.
        fingerprint: of the model it was found in; None when it belongs to no particular model.

    Raises:
        InvalidArgument: a vector that is zero, not finite or not one-dimensional, or a scale that is not positive.

    Examples:
        ```python
        direction = Direction(torch.tensor([3.0, 4.0]), resid_post[6], "by hand")
        direction.unit, direction.cosine(-direction)
        ```
    """

    vector: Float[Tensor, "d_model"]
    site: Site
    source: str
    scale: float | int = 1.0
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if self.vector.ndim != 1:
            raise InvalidArgument(f"a direction is one vector, got shape {tuple(self.vector.shape)}: flatten it first")
        length = float(self.vector.detach().float().norm())
        if not math.isfinite(length) or length == 0.0:
            raise InvalidArgument(f"a direction needs a finite vector of positive length, got length {length}")
        if not (math.isfinite(self.scale) and self.scale > 0.0):
            raise InvalidArgument(f"a direction's scale is the largest projection seen, above 0; got {self.scale}")

    def __repr__(self) -> str:
        return f"Direction({self.source!r} at {self.site}, scale {self.scale:.4g}, width {len(self.vector)})"

    @property
    def unit(self) -> Float[Tensor, "d_model"]:
        """The vector at length 1, in float32 or better."""
        vector = wide(self.vector)
        return vector / vector.norm()

    def cosine(self, other: "Direction") -> float:
        """Return the cosine of the angle to another direction of the same width.

        Examples:
            ```python
            direction.cosine(direction)  # 1.0
            ```
        """
        self._same_width(other)
        return float(self.unit.float() @ other.unit.to(self.vector.device).float())

    def __add__(self, other: "Direction") -> "Direction":
        return self._combine(other, self.vector + self._from(other), "+")

    def __sub__(self, other: "Direction") -> "Direction":
        return self._combine(other, self.vector - self._from(other), "-")

    def __mul__(self, factor: float | int) -> "Direction":
        return replace(self, vector=self.vector * factor, source=f"{factor:g} * {self.source}")

    __rmul__ = __mul__

    def __neg__(self) -> "Direction":
        return replace(self, vector=-self.vector, source=f"-({self.source})")

    def save(self, path: str | Path) -> None:
        """Write the direction to one safetensors file.

        Examples:
            ```python
            direction.save("golden_gate.safetensors")
            ```
        """
        about = self.said
        write_tensors(path, KIND, {"vector": self.vector}, about)

    @staticmethod
    def load(path: str | Path) -> "Direction":
        """Read a direction that `save` wrote.

        Raises:
            MissingFile: there is no such file.
            DamagedFile: it is torn, changed, or holds something else.

        Examples:
            ```python
            Direction.load("golden_gate.safetensors")
            ```
        """
        tensors, about = read_tensors(path, KIND)
        return parse_contents(path, KIND, lambda: Direction.of(tensors["vector"], about))

    @property
    def said(self) -> DirectionHeader:
        """All but the vector, as a file says it."""
        return {
            "site": str(self.site),
            "source": self.source,
            "scale": float(self.scale),
            "fingerprint": self.fingerprint,
        }

    @staticmethod
    def of(vector: Float[Tensor, "d_model"], said: Mapping[str, Any]) -> "Direction":
        """Return the direction of a vector and what was `said` of it.

        Examples:
            ```python
            Direction.of(direction.vector, direction.said)
            ```
        """
        return Direction(vector, Site.parse(said["site"]), said["source"], said["scale"], said["fingerprint"])

    def _combine(self, other: "Direction", vector: Tensor, sign: str) -> "Direction":
        return Direction(
            vector,
            self.site,
            f"({self.source} {sign} {other.source})",
            max(self.scale, other.scale),
            self.fingerprint or other.fingerprint,
        )

    def _from(self, other: "Direction") -> Float[Tensor, "d_model"]:
        self._same_width(other)
        if self.fingerprint and other.fingerprint and self.fingerprint != other.fingerprint:
            raise InvalidArgument("these directions come from different models, so their sum means nothing")
        return other.vector.to(self.vector)

    def _same_width(self, other: "Direction") -> None:
        if self.vector.shape != other.vector.shape:
            raise InvalidArgument(f"{self} and {other} have different widths: only directions of one width compare")


def as_vector(direction: Direction | Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """Return the vector of a direction, and a tensor as it is.

    Examples:
        >>> as_vector(torch.ones(2))
        tensor([1., 1.])
    """
    return direction.vector if isinstance(direction, Direction) else direction


def wide(a: Shaped[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return a tensor in float32, or in its own type if that is better: lengths and projections need it.

    Examples:
        >>> wide(torch.ones(2, dtype=torch.bfloat16))
        tensor([1., 1.])
    """
    return a.to(torch.promote_types(a.dtype, torch.float32))
