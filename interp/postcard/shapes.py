"""Shapes: the drawing of each landmark, read from `tables/shapes.txt` into primitives."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hooks.errors import UnknownName, nearest
from interp.postcard.primitives import Point, Primitives, ellipse, move_shapes, primitive, together

TABLE = Path(__file__).parent / "tables" / "shapes.txt"
PARTS = (
    "wall", "tower", "roof", "dome", "spire", "window", "door", "column", "arch", "deck", "cable", "figure", "water",
)  # fmt: skip
SHADES = (
    "main", "dark", "light", "lit", "clock", "hole", "glass", "pale", "stone", "roof", "green", "gold", "red", "blue",
    "white", "black", "brown", "grey", "silver", "orange", "terracotta", "brick", "bronze", "rock", "water", "foam",
    "grass", "skin", "leaf", "wood", "sign", "ink",
)  # fmt: skip

Outline = tuple[list[Point], tuple[float, ...] | None, float]


def _box(x0: float, y0: float, x1: float, y1: float) -> Outline:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], None, 0.0


def _poly(*numbers: float) -> Outline:
    return list(zip(numbers[::2], numbers[1::2], strict=True)), None, 0.0


def _oval(cx: float, cy: float, rx: float, ry: float) -> Outline:
    return _box(cx - rx, cy - ry, cx + rx, cy + ry)[0], ellipse(cx, cy, rx, ry), 0.0


def _dome(cx: float, y: float, rx: float, ry: float) -> Outline:
    return _box(cx - rx, y, cx + rx, y + ry)[0], ellipse(cx, y, rx, ry), 0.0


def _bowl(cx: float, y: float, rx: float, ry: float) -> Outline:
    return _box(cx - rx, y - ry, cx + rx, y)[0], ellipse(cx, y, rx, ry), 0.0


def _ring(cx: float, cy: float, rx: float, ry: float, width: float) -> Outline:
    return _box(cx - rx - width, cy - ry - width, cx + rx + width, cy + ry + width)[0], ellipse(cx, cy, rx, ry), width


def _arch(cx: float, y: float, rx: float, ry: float, width: float) -> Outline:
    return _box(cx - rx - width, y, cx + rx + width, y + ry + width)[0], ellipse(cx, y, rx, ry), width


def _cable(x0: float, y0: float, x1: float, sag: float, width: float) -> Outline:
    """A parabola that hangs by `sag` between two points of one height; a negative sag makes an arch."""
    middle, half = (x0 + x1) / 2, (x1 - x0) / 2
    a = sag / half**2
    low, high = sorted((y0, y0 - sag))
    corners = _box(x0, low - (sag > 0) * width, x1, high + (sag < 0) * width)[0]
    return corners, (a, 0.0, 0.0, -2 * a * middle, -1.0, a * middle**2 + (y0 - sag)), width


def _line(x0: float, y0: float, x1: float, y1: float, width: float) -> Outline:
    length = float(np.hypot(x1 - x0, y1 - y0))
    px, py = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
    return [(x0 + px, y0 + py), (x1 + px, y1 + py), (x1 - px, y1 - py), (x0 - px, y0 - py)], None, 0.0


def _vault(x0: float, y0: float, x1: float, y1: float, cx: float, cy: float, rx: float, ry: float) -> Outline:
    return _box(x0, y0, x1, y1)[0], tuple(-k for k in ellipse(cx, cy, rx, ry)), 0.0


OUTLINES: dict[str, Callable[..., Outline]] = {
    "box": _box, "poly": _poly, "oval": _oval, "dome": _dome, "bowl": _bowl, "ring": _ring, "arch": _arch,
    "cable": _cable, "line": _line, "vault": _vault,
}  # fmt: skip


def strokes(text: str) -> Primitives:
    """Read strokes, separated by semicolons or lines, into primitives in painter's order.

    Raises:
        UnknownName: a shape, part or shade of another name; the nearest are named.

    Examples:
        >>> len(strokes("box wall main 0 0 .5 1 ~; oval window lit 0 .5 .1 .1 *3 .2 0"))
        5
    """
    lines = text.replace("\n", ";").split(";")
    return together([one for line in lines if line.strip() for one in _stroke(line.split())])


def _stroke(words: list[str]) -> Iterator[Primitives]:
    (shape, part, shade), rest = words[:3], words[3:]
    for word, known in ((shape, tuple(OUTLINES)), (part, PARTS), (shade, SHADES)):
        if word not in known:
            raise UnknownName(f"no shape, part or shade is called {word!r}; did you mean {nearest(word, known)}?")
    times, dx, dy = 1, 0.0, 0.0
    if (star := next((i for i, word in enumerate(rest) if word.startswith("*")), None)) is not None:
        times, dx, dy = int(rest[star][1:]), float(rest[star + 1]), float(rest[star + 2])
        rest = rest[:star]
    mirrored = "~" in rest
    corners, conic, width = OUTLINES[shape](*(float(word) for word in rest if word != "~"))
    for i in range(times):
        yield _place(corners, conic, width, (i * dx, i * dy), 1.0, PARTS.index(part), SHADES.index(shade))
        if mirrored:
            yield _place(corners, conic, width, (i * dx, i * dy), -1.0, PARTS.index(part), SHADES.index(shade))


def _place(
    corners: list[Point],
    conic: tuple[float, ...] | None,
    width: float,
    shift: Point,
    side: float,
    part: int,
    shade: int,
) -> Primitives:
    """One primitive moved by `shift` and then, with a side of −1, mirrored at x = 0."""
    dx, dy = shift
    at = [(side * (x + dx), y + dy) for x, y in corners]
    xs, ys = [x for x, _ in at], [y for _, y in at]
    if conic is not None:
        a, b, c, d, e, f = conic
        f = a * dx * dx + b * dx * dy + c * dy * dy - d * dx - e * dy + f
        conic = (a, side * b, c, side * (d - 2 * a * dx - b * dy), e - 2 * c * dy - b * dx, f)
    return primitive(at, conic, width=width, box=(min(xs), min(ys), max(xs), max(ys)), part=part, shade=shade)


@functools.cache
def shapes() -> dict[str, Primitives]:
    """The drawing of each landmark by its name, in a box 1 high or 1.1 wide, its base around the origin."""
    blocks = TABLE.read_text(encoding="utf-8").split("\n\n")[1:]
    return {name: _fit(strokes(text)) for name, text in (block.strip().split("\n", 1) for block in blocks)}


def _fit(drawn: Primitives) -> Primitives:
    left, right, top = drawn.boxes[:, 0].min(), drawn.boxes[:, 2].max(), drawn.boxes[:, 3].max()
    scale = min(1.0 / top, 1.12 / (right - left))
    matrix = np.array([[scale, 0, -scale * (left + right) / 2], [0, scale, 0], [0, 0, 1]])
    return move_shapes(drawn, np.tile(matrix, (len(drawn), 1, 1)), np.full(len(drawn), scale))
