"""Raster: painter's algorithm over many pictures at once, with coverage at edges and exact label maps.

Coverage of a pixel is `clip(½ − d, 0, 1)`, d the signed distance of its centre to the primitive in pixels. The r-th
primitives of all pictures are painted together, in groups whose windows of pixels have one size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.postcard.primitives import PLANES, Primitives

SIZES = np.array([4, 8, 16, 32, 64])
LEAST = 1 / 512


@dataclass(frozen=True, eq=False)
class PaintedPrimitives:
    """Primitives in pixels, each with its picture, colour, opacity and labels; painter's order within a picture."""

    shapes: Primitives
    picture: Int[np.ndarray, "n"]
    colours: Float[np.ndarray, "n 3"]
    opacity: Float[np.ndarray, "n"]
    objects: Int[np.ndarray, "n"]
    parts: Int[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class Canvas:
    """Pictures in the making: colours from 0 to 255, and the label of each pixel's object and part."""

    colours: Float[np.ndarray, "batch height width 3"]
    objects: Int[np.ndarray, "batch height width"]
    parts: Int[np.ndarray, "batch height width"]


def paint(canvas: Canvas, what: PaintedPrimitives) -> None:
    """Paint primitives onto a canvas, in place."""
    size = canvas.colours.shape[1]
    low = np.clip(np.floor(what.shapes.boxes[:, :2] - 1), 0, size).astype(int)
    high = np.clip(np.ceil(what.shapes.boxes[:, 2:] + 1), 0, size).astype(int)
    seen = np.flatnonzero((high > low).all(1))
    window = SIZES[np.searchsorted(SIZES, (high - low)[seen])]
    corner = np.minimum(low[seen], size - window)
    for rows in _groups(_ranks(what.picture)[seen], window):
        _paint_group(canvas, what, seen[rows], corner[rows], (int(window[rows[0], 0]), int(window[rows[0], 1])))


def _ranks(picture: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The number of each primitive within its picture; those of one picture are next to each other."""
    first = np.flatnonzero(np.r_[True, picture[1:] != picture[:-1]])
    return np.arange(len(picture)) - np.repeat(first, np.diff(np.r_[first, len(picture)]))


def _groups(rank: Int[np.ndarray, "n"], window: Int[np.ndarray, "n 2"]) -> Iterator[Int[np.ndarray, "_"]]:
    """Rows of one rank and one size of window, lower ranks first."""
    if not len(rank):
        return
    key = (rank * 128 + window[:, 0]) * 128 + window[:, 1]
    order = np.argsort(key, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(key[order])) + 1)


def _paint_group(
    canvas: Canvas,
    what: PaintedPrimitives,
    rows: Int[np.ndarray, "n"],
    corner: Int[np.ndarray, "n 2"],
    window: tuple[int, int],
) -> None:
    size = canvas.colours.shape[1]
    columns, lines = corner[:, :1] + np.arange(window[0]), corner[:, 1:] + np.arange(window[1])
    cover = coverage(what.shapes[rows], columns.astype(np.float32) + 0.5, lines.astype(np.float32) + 0.5)
    cover *= what.opacity[rows].astype(np.float32)[:, None, None]
    n, y, x = np.nonzero(cover > LEAST)
    a = cover[n, y, x]
    at = (what.picture[rows][n] * size + lines[n, y]) * size + columns[n, x]
    below = canvas.colours.reshape(-1, 3)
    below[at] += a[:, None] * (what.colours[rows].astype(np.float32)[n] - below[at])
    own = a >= 0.5
    canvas.objects.reshape(-1)[at[own]] = what.objects[rows][n[own]]
    canvas.parts.reshape(-1)[at[own]] = what.parts[rows][n[own]]


def coverage(
    shapes: Primitives, x: Float[np.ndarray, "n width"], y: Float[np.ndarray, "n height"]
) -> Float[np.ndarray, "n height width"]:
    """How much of each pixel of a window each primitive covers."""
    planes, conics = shapes.planes.astype(np.float32), shapes.conics.astype(np.float32)
    distance = np.full((len(x), y.shape[1], x.shape[1]), -1e3, np.float32)
    for i in range(PLANES):
        h = planes[:, i]
        if (h[:, :2] != 0).any():
            np.maximum(distance, (h[:, :1] * x)[:, None] + (h[:, 1:2] * y + h[:, 2:])[..., None], out=distance)
    if (round_ := np.flatnonzero(np.abs(conics[:, :5]).max(1) > 0)).size:
        curved = _to_conic(shapes.conics[round_], shapes.widths[round_], x[round_], y[round_])
        distance[round_] = np.maximum(distance[round_], curved)
    return np.clip(0.5 - distance, 0, 1)


def _to_conic(
    conics: Float[np.ndarray, "n 6"],
    widths: Float[np.ndarray, "n"],
    x: Float[np.ndarray, "n width"],
    y: Float[np.ndarray, "n height"],
) -> Float[np.ndarray, "n height width"]:
    # about the window's corner, where single precision is enough
    x0, y0 = x[:, 0].astype(float), y[:, 0].astype(float)
    a, b, c, d, e, f = conics.T
    f = a * x0 * x0 + b * x0 * y0 + c * y0 * y0 + d * x0 + e * y0 + f
    d, e = d + 2 * a * x0 + b * y0, e + 2 * c * y0 + b * x0
    a, b, c, d, e, f = (k.astype(np.float32)[:, None] for k in (a, b, c, d, e, f))
    x, y = x - x[:, :1], y - y[:, :1]
    across = (b * x)[:, None] * y[..., None]
    value = ((a * x + d) * x)[:, None] + ((c * y + e) * y + f)[..., None] + across
    gx = (2 * a * x + d)[:, None] + (b * y)[..., None]
    gy = (2 * c * y + e)[..., None] + (b * x)[:, None]
    distance = value / np.sqrt(gx * gx + gy * gy + np.float32(1e-12))
    band = widths.astype(np.float32)[:, None, None]
    return np.where(band > 0, np.abs(distance) - band / 2, distance)
