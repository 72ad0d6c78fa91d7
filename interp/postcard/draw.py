"""Draw scenes: pixels, and for every pixel which object and which part of the landmark it shows.

1. Each scene is a list of stamps: a shape under an affine map, at a depth (`_stamps`).
2. The stamps' primitives are moved into pixels (`interp/postcard/primitives.py`).
3. Colours follow from time, weather and depth (`interp/postcard/paint.py`).
4. They are painted back to front (`interp/postcard/raster.py`), and signs are set on top.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from hooks import Images
from hooks.summary import summarise
from interp.postcard.chance import between, uniform
from interp.postcard.font import ink
from interp.postcard.paint import DEPTHS, palettes, skies
from interp.postcard.primitives import Primitives, move_shapes, together
from interp.postcard.raster import Canvas, PaintedPrimitives, paint
from interp.postcard.scene import THINGS, Scene
from interp.postcard.shapes import PARTS, SHADES, shapes, strokes

SIZE = 64
HORIZON = 47
OBJECTS = ("sky", "sun", "moon", "cloud", "ground", "water", "landmark", *THINGS, "sign")
HEIGHT = {"near": 45.0, "far": 31.0}
BASE = {"near": 55.0, "far": 51.0}
SQUEEZE = {"left": 0.84, "centre": 1.0, "right": 0.84}
SHEAR = {"left": 0.14, "centre": 0.0, "right": -0.14}
SLOTS = (8.0, 23.0, 41.0, 56.0)
CLOUDS = 3
DROPS = 16
SIGN_BOTTOM = 62
BLOCK = 256

FURNITURE = {
    "sun": "oval wall gold 0 0 1 1",
    "cloud": "oval wall white -.9 0 .9 .45; oval wall white .1 .3 .8 .6; oval wall white .9 0 .8 .42",
    "grass": "box wall grass -2 -1 2 0",
    "stone": "box wall stone -2 -1 2 0",
    "water": "box wall water -2 -1 2 0; line wall foam -.4 -.05 -.1 -.05 .008; line wall foam .1 -.13 .4 -.13 .008; "
    "line wall foam -.5 -.2 -.25 -.2 .008; line wall foam .2 -.24 .45 -.24 .008",
    "drop": "line wall foam 0 0 .25 1 .12",
    "tree": "line wall brown 0 0 0 .5 .12; oval wall leaf -.16 .55 .2 .2; oval wall leaf .16 .55 .2 .2; "
    "oval wall leaf 0 .76 .22 .24",
    "lamp": "line wall black 0 0 0 .82 .07; line wall black -.1 .02 .1 .02 .06; oval wall clock 0 .9 .12 .12",
    "person": "line wall blue -.05 0 -.03 .45 .09; line wall blue .05 0 .03 .45 .09; box wall red -.12 .42 .12 .78; "
    "oval wall skin 0 .9 .11 .12",
    "boat": "oval wall water 0 .03 .75 .12; poly wall wood -.42 .22 .42 .22 .28 .02 -.28 .02; "
    "line wall black 0 .2 0 1 .05; poly wall white .05 .3 .05 .98 .42 .3; poly wall white -.05 .3 -.05 .85 -.32 .3",
}
TALL = {"tree": 21.0, "lamp": 19.0, "person": 12.0, "boat": 15.0}


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures and what each of their pixels shows.

    Attributes:
        pixels: red, green and blue, 0 to 255.
        objects: of each pixel, the number in `OBJECTS`.
        parts: of each pixel of a landmark, one more than the number in `PARTS`; 0 elsewhere.
    """

    pixels: UInt8[np.ndarray, "batch channel height width"]
    objects: UInt8[np.ndarray, "batch height width"]
    parts: UInt8[np.ndarray, "batch height width"]

    __repr__ = summarise

    def __len__(self) -> int:
        return len(self.pixels)

    def masks(self) -> dict[str, Bool[np.ndarray, "batch height width"]]:
        """A mask for each object and part; the objects' partition each picture, the parts' the landmark.

        Examples:
            >>> masks = draw([Scene("Big Ben")]).masks()
            >>> bool((masks["landmark"] >= masks["roof"]).all()), "sky" in masks
            (True, True)
        """
        found = {name: self.objects == i for i, name in enumerate(OBJECTS)}
        for i, name in enumerate(PARTS):
            own = self.parts == i + 1
            found[name] = found[name] | own if name in found else own
        return found

    def images(self) -> Images:
        """The pictures with their masks, as a model reads them.

        Examples:
            >>> pictures = draw([Scene("Big Ben")]).images()
            >>> pictures.size, "landmark" in pictures.masks
            ((64, 64), True)
        """
        masks = {name: torch.from_numpy(mask) for name, mask in self.masks().items()}
        return Images(torch.from_numpy(self.pixels).float() / 255, masks)


@functools.cache
def _library() -> tuple[Primitives, dict[str, tuple[int, int]]]:
    """All shapes in one, and of each name where it begins and how many primitives it has."""
    named = {**shapes(), **{name: strokes(text) for name, text in FURNITURE.items()}}
    starts, at = {}, 0
    for name, drawn in named.items():
        starts[name] = (at, len(drawn))
        at += len(drawn)
    return together(list(named.values())), starts


@dataclass(frozen=True, eq=False)
class _Stamps:
    """One shape for each of some scenes, all of them at one place in the painter's order."""

    rows: Int[np.ndarray, "n"]
    names: list[str]
    matrix: Float[np.ndarray, "n 3 3"]
    scale: Float[np.ndarray, "n"]
    depth: str
    objects: list[str]
    opacity: float = 1.0


def draw(scenes: Sequence[Scene]) -> Pictures:
    """Draw scenes.

    Cost: about a millisecond a picture on one core.

    Examples:
        >>> draw([Scene("Eiffel Tower"), Scene("Taj Mahal", time="night")]).pixels.shape
        (2, 3, 64, 64)
    """
    blocks = [_draw_block(scenes[i : i + BLOCK]) for i in range(0, len(scenes), BLOCK)]
    return Pictures(*(np.concatenate([getattr(b, name) for b in blocks]) for name in ("pixels", "objects", "parts")))


def _draw_block(scenes: Sequence[Scene]) -> Pictures:
    colours = np.repeat(skies(scenes, SIZE, HORIZON)[:, :, None], SIZE, 2).astype(np.float32)
    empty = np.zeros((len(scenes), SIZE, SIZE), np.int64)
    canvas = Canvas(colours, empty, empty.copy())
    palette = palettes(scenes)
    paint(canvas, _place_stamps(_stamps(scenes), palette))
    for i, scene in enumerate(scenes):
        if scene.sign is not None:
            _set_sign(canvas, i, scene.sign, palette[i, DEPTHS.index("front")])
    pixels = np.clip(np.round(canvas.colours), 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return Pictures(np.ascontiguousarray(pixels), canvas.objects.astype(np.uint8), canvas.parts.astype(np.uint8))


def _set_sign(canvas: Canvas, i: int, name: str, palette: Float[np.ndarray, "shade 3"]) -> None:
    letters = ink(name)
    height, width = letters.shape
    top, left = SIGN_BOTTOM - height, (SIZE - width) // 2
    at = (i, slice(top, top + height), slice(left, left + width))
    canvas.colours[at] = np.where(letters[..., None], palette[SHADES.index("ink")], palette[SHADES.index("sign")])
    canvas.objects[at] = OBJECTS.index("sign")
    canvas.parts[at] = 0


def _place_stamps(stamps: Sequence[_Stamps], palette: Float[np.ndarray, "batch depth shade 3"]) -> PaintedPrimitives:
    """The primitives of all stamps in pixels, those of one scene together and in order."""
    library, starts = _library()
    rows = np.concatenate([s.rows for s in stamps])
    first, many = np.array([starts[name] for s in stamps for name in s.names]).T
    layer = np.repeat(np.arange(len(stamps)), [len(s.rows) for s in stamps])
    order = np.lexsort((layer, rows))
    depth = np.array([DEPTHS.index(s.depth) for s in stamps])[layer][order]
    objects = np.array([OBJECTS.index(name) for s in stamps for name in s.objects])[order]
    opacity = np.array([s.opacity for s in stamps])[layer][order]
    matrix, scale = (np.concatenate([getattr(s, name) for s in stamps])[order] for name in ("matrix", "scale"))
    rows, first, many = rows[order], first[order], many[order]
    of = np.repeat(np.arange(len(rows)), many)
    picked = library[np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many) + first[of]]
    parts = np.where(objects[of] == OBJECTS.index("landmark"), picked.parts + 1, 0)
    colours = palette[rows[of], depth[of], picked.shades]
    shapes_ = move_shapes(picked, matrix[of], scale[of])
    return PaintedPrimitives(shapes_, rows[of], colours, opacity[of], objects[of], parts)


def _stamps(scenes: Sequence[Scene]) -> list[_Stamps]:
    """Every stamp, back to front."""
    seeds, everyone = np.array([s.seed for s in scenes]), np.arange(len(scenes))
    tilt = np.deg2rad([s.tilt for s in scenes])
    found = [_sun(scenes)]
    cloudy = np.flatnonzero([s.weather in ("cloud", "rain") for s in scenes])
    for k in range(CLOUDS):
        x, y = between(seeds, "cloud-x", 20.0 * k - 2, 20.0 * k + 26, k), between(seeds, "cloud-y", 4.0, 20.0, k)
        sizes = between(seeds, "cloud-s", 4.0, 9.0, k)
        found.append(_same("cloud", cloudy, x, y, sizes, "cloud", "cloud", 0 * tilt))
    level = np.full(len(scenes), float(HORIZON))
    middle = np.full(len(scenes), SIZE / 2)
    matrix = _affine(middle, level, np.full(len(scenes), 64.0), tilt)
    kinds = ["water" if s.ground == "water" else "ground" for s in scenes]
    found.append(_Stamps(everyone, [s.ground for s in scenes], matrix, np.full(len(scenes), 64.0), "ground", kinds))
    found.append(_landmarks(scenes, seeds, tilt))
    found += _things(scenes, seeds, tilt)
    wet = np.flatnonzero([s.weather == "rain" for s in scenes])
    for k in range(DROPS):
        x, y = between(seeds, "drop-x", 0.0, float(SIZE), k), between(seeds, "drop-y", 4.0, SIZE + 4.0, k)
        drops = _same("drop", wet, x, y, np.full(len(scenes), 6.0), "front", "sky", 0 * tilt)
        found.append(_Stamps(drops.rows, drops.names, drops.matrix, drops.scale, "front", drops.objects, 0.45))
    return found


def _affine(
    x: Float[np.ndarray, "n"],
    y: Float[np.ndarray, "n"],
    scale: Float[np.ndarray, "n"],
    tilt: Float[np.ndarray, "n"],
    squeeze: float | Float[np.ndarray, "n"] = 1.0,
    shear: float | Float[np.ndarray, "n"] = 0.0,
) -> Float[np.ndarray, "n 3 3"]:
    """From a shape's units, y up, to pixels, y down: the origin goes to (x, y). Rounded, so that machines agree."""
    cos, sin, one = np.cos(tilt), np.sin(tilt), np.ones_like(x)
    a, c = scale * squeeze, scale * shear
    rows = [[cos * a - sin * c, sin * scale, x], [sin * a + cos * c, -cos * scale, y], [0 * one, 0 * one, one]]
    return np.round(np.stack([np.stack(row, -1) for row in rows], 1) * 2**16) / 2**16


def _same(
    name: str,
    rows: Int[np.ndarray, "n"],
    x: Float[np.ndarray, "batch"],
    y: Float[np.ndarray, "batch"],
    scale: Float[np.ndarray, "batch"],
    depth: str,
    label: str,
    tilt: Float[np.ndarray, "batch"],
) -> _Stamps:
    """One shape in some of the scenes."""
    matrix = _affine(x[rows], y[rows], scale[rows], tilt[rows])
    return _Stamps(rows, [name] * len(rows), matrix, scale[rows], depth, [label] * len(rows))


def _sun(scenes: Sequence[Scene]) -> _Stamps:
    at = np.array([s.sun for s in scenes])
    x, y, rows = 6 + 52 * at, 7 + 8 * np.abs(2 * at - 1), np.arange(len(scenes))
    size = np.full(len(scenes), 4.0)
    labels = ["moon" if s.time == "night" else "sun" for s in scenes]
    return _Stamps(rows, ["sun"] * len(rows), _affine(x, y, size, 0 * x), size, "sun", labels)


def _landmarks(scenes: Sequence[Scene], seeds: Int[np.ndarray, "n"], tilt: Float[np.ndarray, "n"]) -> _Stamps:
    scale = np.array([HEIGHT[s.distance] for s in scenes]) * between(seeds, "scale", 0.93, 1.05)
    x = SIZE / 2 + between(seeds, "place", -4.0, 4.0)
    y = np.array([BASE[s.distance] for s in scenes])
    squeeze, shear = (np.array([table[s.side] for s in scenes]) for table in (SQUEEZE, SHEAR))
    matrix = _affine(x, y, scale, tilt, squeeze, shear)
    names = [s.landmark for s in scenes]
    return _Stamps(np.arange(len(scenes)), names, matrix, scale, "landmark", ["landmark"] * len(names))


def _things(scenes: Sequence[Scene], seeds: Int[np.ndarray, "n"], tilt: Float[np.ndarray, "n"]) -> list[_Stamps]:
    """Trees, boats, persons and lamps, each in a slot of its own that the seed deals."""
    order = np.argsort(np.stack([uniform(seeds, "slot", k) for k in range(len(SLOTS))], -1), axis=1, kind="stable")
    found = []
    for k, thing in enumerate(THINGS):
        rows = np.flatnonzero([s.shows(thing) for s in scenes])
        x = np.array(SLOTS)[order[:, k]] + between(seeds, "x", -3.0, 3.0, k)
        size = TALL[thing] * between(seeds, "size", 0.9, 1.1, k)
        found.append(_same(thing, rows, x, between(seeds, "y", 60.0, 63.0, k), size, "front", thing, tilt))
    return found
