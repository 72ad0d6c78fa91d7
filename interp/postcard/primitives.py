"""Primitives: a conic and up to six half-planes, in numbers, so that any move of the viewer is a product of matrices.

A point is inside where it is inside the conic and on the inner side of each half-plane. With homogeneous points
`u = (x, y, 1)`, a half-plane is `h·u ≤ 0` and a conic `uᵀ Q u ≤ 0`. A map `u' = M u` takes them to `h M⁻¹` and
`M⁻ᵀ Q M⁻¹`. The signed distance to a half-plane is `h·u / ‖(h₀, h₁)‖`; to a conic, to first order, `f / ‖∇f‖`
(Sampson 1982); to a band of width w along a conic, `|f| / ‖∇f‖ − w/2`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

PLANES = 6
FAR = -1e3

Point = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Primitives:
    """Primitives in painter's order, those at the back first.

    Attributes:
        planes: rows `h` of half-planes; one that holds everywhere where there are fewer than six.
        conics: `(a, b, c, d, e, f)` of `a x² + b xy + c y² + d x + e y + f`; constant where there is none.
        widths: of a band along the conic; 0 for the inside.
        boxes: left, bottom, right, top of what can be covered.
        parts: number of the part's name.
        shades: number of the shade's name.
    """

    planes: Float[np.ndarray, "n 6 3"]
    conics: Float[np.ndarray, "n 6"]
    widths: Float[np.ndarray, "n"]
    boxes: Float[np.ndarray, "n 4"]
    parts: Int[np.ndarray, "n"]
    shades: Int[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, rows: Int[np.ndarray, "_"] | slice) -> "Primitives":
        """Some of them."""
        return Primitives(*(getattr(self, field.name)[rows] for field in fields(self)))


def together(several: Sequence[Primitives]) -> Primitives:
    """All of several, one after the other."""
    return Primitives(*(np.concatenate([getattr(one, f.name) for one in several]) for f in fields(Primitives)))


def primitive(
    corners: Sequence[Point] = (),
    conic: Sequence[float] | None = None,
    *,
    width: float = 0.0,
    box: tuple[float, float, float, float],
    part: int,
    shade: int,
) -> Primitives:
    """One primitive: the inside of a convex polygon, in either order of its corners, and of a conic."""
    planes = np.tile(np.array([0.0, 0.0, FAR]), (PLANES, 1))
    for i, (h, _) in enumerate(_edges(corners)):
        planes[i] = h
    given = (0.0, 0.0, 0.0, 0.0, 0.0, FAR) if conic is None else conic
    return Primitives(
        planes[None], np.array([given], float), np.array([width]), np.array([box]), np.array([part]), np.array([shade])
    )


def _edges(corners: Sequence[Point]) -> list[tuple[tuple[float, float, float], Point]]:
    """The half-planes of a convex polygon that its inside keeps to."""
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], *corners[:1]], strict=True))
    way = list(corners) if area > 0 else list(reversed(corners))
    found = []
    for (x0, y0), (x1, y1) in zip(way, [*way[1:], *way[:1]], strict=True):
        length = np.hypot(x1 - x0, y1 - y0)
        nx, ny = (y1 - y0) / length, (x0 - x1) / length
        found.append(((nx, ny, -(nx * x0 + ny * y0)), (x0, y0)))
    return found


def ellipse(cx: float, cy: float, rx: float, ry: float) -> tuple[float, ...]:
    """The conic of an ellipse along the axes: negative inside."""
    a, c = 1 / rx**2, 1 / ry**2
    return a, 0.0, c, -2 * a * cx, -2 * c * cy, a * cx**2 + c * cy**2 - 1


def move_shapes(shapes: Primitives, matrix: Float[np.ndarray, "n 3 3"], scale: Float[np.ndarray, "n"]) -> Primitives:
    """Each under its own affine map; widths grow by `scale`."""
    back = _inverse(matrix)
    planes = _product(shapes.planes, back)
    used = np.abs(planes[..., :2]).max(-1) > 0
    planes = planes / np.where(used, np.hypot(planes[..., 0], planes[..., 1]), 1.0)[..., None]
    a, b, c, d, e, f = np.moveaxis(shapes.conics, -1, 0)
    q = np.stack([np.stack([a, b / 2, d / 2], -1), np.stack([b / 2, c, e / 2], -1), np.stack([d / 2, e / 2, f], -1)], 1)
    q = _product(np.swapaxes(back, 1, 2), _product(q, back))
    conics = np.stack([q[:, 0, 0], 2 * q[:, 0, 1], q[:, 1, 1], 2 * q[:, 0, 2], 2 * q[:, 1, 2], q[:, 2, 2]], -1)
    return Primitives(planes, conics, shapes.widths * scale, _boxes(shapes.boxes, matrix), shapes.parts, shapes.shades)


def _product(left: Float[np.ndarray, "n _ 3"], right: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n _ 3"]:
    # written out, so that every machine adds in the same order
    return left[..., :1] * right[:, :1] + left[..., 1:2] * right[:, 1:2] + left[..., 2:] * right[:, 2:]


def _inverse(matrix: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 3 3"]:
    a, b, tx = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2]
    c, d, ty = matrix[:, 1, 0], matrix[:, 1, 1], matrix[:, 1, 2]
    det, zero = a * d - b * c, np.zeros_like(a)
    rows = [[d, -b, b * ty - d * tx], [-c, a, c * tx - a * ty], [zero, zero, det]]
    return np.stack([np.stack(row, -1) for row in rows], 1) / det[:, None, None]


def _boxes(boxes: Float[np.ndarray, "n 4"], matrix: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 4"]:
    xs, ys = boxes[:, [0, 2, 0, 2]], boxes[:, [1, 1, 3, 3]]
    x = matrix[:, 0, :1] * xs + matrix[:, 0, 1:2] * ys + matrix[:, 0, 2:]
    y = matrix[:, 1, :1] * xs + matrix[:, 1, 1:2] * ys + matrix[:, 1, 2:]
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], -1)
