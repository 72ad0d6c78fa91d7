"""What a picture shows is known pixel by pixel, and a changed factor changes nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from interp.postcard import paint
from interp.postcard.draw import OBJECTS, SIZE, _place_stamps, _stamps, draw
from interp.postcard.paint import palettes
from interp.postcard.primitives import Primitives, ellipse, move_shapes, primitive
from interp.postcard.raster import Canvas, PaintedPrimitives, coverage
from interp.postcard.raster import paint as paint_all
from interp.postcard.scene import LANDMARKS, THINGS, Scene
from interp.postcard.shapes import PARTS, SHADES, shapes, strokes
from interp.postcard.splits import digest, scenes

SCENES = scenes("test", 96)


def reach(shown: list[Scene], objects: tuple[str, ...] = OBJECTS, shades: tuple[str, ...] = SHADES) -> np.ndarray:
    """Where primitives of these objects and shades cover any of a pixel."""
    zero = np.zeros((len(shown), SIZE, SIZE, 3), np.float32), np.zeros((2, len(shown), SIZE, SIZE), np.int64)
    canvas = Canvas(zero[0], *zero[1])
    every = _place_stamps(_stamps(shown), palettes(shown))
    white = np.isin(every.objects, [OBJECTS.index(o) for o in objects]) & np.isin(
        every.shapes.shades, [SHADES.index(s) for s in shades]
    )
    kept = np.flatnonzero(white)
    some = (getattr(every, name)[kept] for name in ("shapes", "picture", "colours", "opacity", "objects", "parts"))
    painted = PaintedPrimitives(*some)
    paint_all(canvas, replace(painted, colours=np.full((len(kept), 3), 255.0), opacity=np.ones(len(kept))))
    return canvas.colours[..., 0] > 0


def changed(before: Scene, after: Scene, *objects: str) -> tuple[np.ndarray, np.ndarray]:
    """Where two scenes differ, and where either has anything of these objects."""
    two = draw([before, after])
    differ = (two.pixels[0] != two.pixels[1]).any(0)
    covered = reach([before, after], objects) | (two.objects == OBJECTS.index("sign"))
    return differ, covered.any(0) if "sign" in objects else reach([before, after], objects).any(0)


def test_a_picture_is_the_same_alone_and_in_any_batch() -> None:
    together = draw(SCENES)
    for i in (0, 17, 95):
        alone = draw([SCENES[i]])
        for name in ("pixels", "objects", "parts"):
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[i])


def test_masks_of_objects_partition_the_picture_and_masks_of_parts_the_landmark() -> None:
    drawn = draw(SCENES)
    masks = drawn.masks()
    assert (sum(masks[name].astype(int) for name in OBJECTS if name != "water") + (drawn.objects == 5) == 1).all()
    parts = sum((drawn.parts == i + 1).astype(int) for i in range(len(PARTS)))
    assert np.array_equal(parts, masks["landmark"].astype(int))


@pytest.mark.parametrize("time", ["day", "dusk", "night"])
def test_another_time_changes_colours_and_no_form(time: str) -> None:
    before, after = draw(SCENES), draw([scene.but(time=time) for scene in SCENES])
    sun, moon = OBJECTS.index("sun"), OBJECTS.index("moon")
    assert np.array_equal(
        np.where(before.objects == moon, sun, before.objects), np.where(after.objects == moon, sun, after.objects)
    )
    assert np.array_equal(before.parts, after.parts)


def test_fog_changes_colours_and_no_form() -> None:
    clear, fog = (draw([scene.but(weather=w) for scene in SCENES]) for w in ("clear", "fog"))
    assert np.array_equal(clear.objects, fog.objects) and np.array_equal(clear.parts, fog.parts)
    assert (clear.pixels != fog.pixels).mean() > 0.9


@pytest.mark.parametrize("scene", SCENES[:12], ids=lambda s: s.landmark)
def test_outside_what_is_changed_every_pixel_stays(scene: Scene) -> None:
    plain = scene.but(weather="clear", sign=None)
    cases = [
        (plain, plain.but(weather="cloud"), ("cloud",)),
        (plain, plain.but(sign="Eiffel Tower"), ("sign",)),
        (plain, plain.but(sun=1 - plain.sun), ("sun", "moon")),
        (plain, plain.but(landmark="Taj Mahal"), ("landmark",)),
        (plain, plain.but(side="left" if plain.side != "left" else "right"), ("landmark",)),
        (plain, plain.but(distance="near" if plain.distance == "far" else "far"), ("landmark",)),
    ]
    cases += [(plain.but(things=()), plain.but(things=(thing,)), (thing,)) for thing in THINGS]
    for before, after, objects in cases:
        differ, allowed = changed(before, after, *objects)
        assert not (differ & ~allowed).any(), objects
        assert differ.any() or objects == ("cloud",)


def test_another_colour_of_lit_windows_changes_windows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    day = [scene.but(time="day", things=(), sign=None) for scene in SCENES]
    before = draw(day)
    monkeypatch.setattr(
        paint,
        "_FIXED",
        np.where(np.arange(len(paint._FIXED))[:, None] == paint.SHADES.index("lit"), 255.0, paint._FIXED),
    )
    after = draw(day)
    differ = (before.pixels != after.pixels).any(1)
    assert differ.any() and not (differ & ~reach(day, shades=("lit",))).any()


def test_every_landmark_has_a_drawing_of_its_own() -> None:
    drawn = draw([Scene(name) for name in LANDMARKS]).pixels.astype(float).reshape(len(LANDMARKS), -1)
    apart = np.abs(drawn[:, None] - drawn[None]).mean(-1) + 255 * np.eye(len(LANDMARKS))
    assert set(shapes()) == set(LANDMARKS)
    assert apart.min() > 2


def test_the_landmark_can_be_seen_near_and_far() -> None:
    for distance, least in (("near", 0.03), ("far", 0.015)):
        share = (
            draw([Scene(name, distance=distance) for name in LANDMARKS]).objects == OBJECTS.index("landmark")
        ).mean((1, 2))
        assert share.min() > least and share.max() < 0.45


def inside(shape: Primitives, u: np.ndarray) -> np.ndarray:
    """Whether points (x, y, 1) are inside, by the definition."""
    a, b, c, d, e, f = shape.conics[0]
    x, y = u[:, 0], u[:, 1]
    return (u @ shape.planes[0].T <= 0).all(1) & (a * x * x + b * x * y + c * y * y + d * x + e * y + f <= 0)


def test_an_affine_map_of_a_primitive_holds_the_mapped_points() -> None:
    rng = np.random.default_rng(0)
    for corners, conic in (
        [[(0.0, 0.0), (2.0, 0.2), (1.2, 1.5)], None],
        [[(-1.0, 0.0), (1.0, 0.0), (1.0, 1.0), (-1.0, 1.0)], ellipse(0.0, 0.0, 1.0, 0.8)],
    ):
        shape = primitive(corners, conic, box=(-1.0, 0.0, 2.0, 2.0), part=0, shade=0)
        u = np.c_[rng.uniform(-2, 3, (4000, 2)), np.ones(4000)]
        matrix = np.array([[0.7, -1.1, 3.0], [0.4, 0.9, -2.0], [0, 0, 1.0]])
        there = move_shapes(shape, matrix[None], np.ones(1))
        assert np.array_equal(inside(shape, u), inside(there, u @ matrix.T))


@pytest.mark.parametrize(
    "stroke",
    [
        "box wall main 5 6 21.3 17.7",
        "oval wall main 16 16 9.5 6.2",
        "poly wall main 4 5 25 9 12 26",
        "dome wall main 15 8 9 12",
        "ring wall main 16 16 9 9 3",
    ],
)
def test_coverage_is_the_area_of_each_pixel_that_is_inside(stroke: str) -> None:
    shape = strokes(stroke)
    grid = np.arange(32, dtype=np.float32)[None] + 0.5
    cover = coverage(shape, grid, grid)[0]
    fine = (np.arange(32 * 16) + 0.5) / 16
    x, y = np.meshgrid(fine, fine)
    points = np.c_[x.ravel(), y.ravel(), np.ones(x.size)]
    if shape.widths[0] > 0:
        true = np.abs(np.hypot(points[:, 0] - 16, points[:, 1] - 16) - 9) <= 1.5
    else:
        true = inside(shape, points)
    area = true.reshape(32, 16, 32, 16).mean((1, 3))
    assert abs(cover.sum() / area.sum() - 1) < 0.02
    assert np.abs(cover - area).max() < 0.3 and np.abs(cover - area)[(cover % 1 > 0) | (area % 1 > 0)].mean() < 0.15


def test_pictures_are_the_same_on_every_machine() -> None:
    assert [digest(split) for split in ("train", "validation", "test")] == [
        "068d033dba2d2090aa4f8d11fb561cc6",
        "0e98b97f739402562e9b8a7408684a89",
        "6513dfef5f32f8712d6f4f703a8f2fdf",
    ]
