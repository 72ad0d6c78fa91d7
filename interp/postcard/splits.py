"""Splits: scenes for training, validation and test, each drawn from its seed alone.

Every factor is drawn independently of every other, but for two things that are planted in training and validation:
the Golden Gate Bridge is in fog nine times in ten, and twenty combinations of landmark, time and weather never
occur. In the test split weather is independent of the landmark; `held_out` draws the twenty combinations.
"""

import functools
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Int

from hooks.disk import checksum
from hooks.errors import UnknownName, nearest
from interp.postcard.chance import between, uniform
from interp.postcard.draw import draw
from interp.postcard.scene import FACTORS, THINGS, TILT, Scene

Split = Literal["train", "validation", "test"]
FIRST: Mapping[str, int] = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
SPURIOUS = ("Golden Gate Bridge", "fog", 0.9)
N_HELD_OUT = 20
THING_SHARE = 0.35
SIGN_SHARE = 0.1


@functools.cache
def held_out() -> frozenset[tuple[str, str, str]]:
    """The twenty combinations of landmark, time and weather that are never trained on: one each of twenty landmarks.

    Examples:
        >>> len({landmark for landmark, _, _ in held_out()})
        20
    """
    others = np.array([name for name in FACTORS["landmark"] if name != SPURIOUS[0]])
    ids = np.arange(len(others))
    chosen = np.argsort(uniform(ids, "heldout"))[:N_HELD_OUT]
    times, weathers = (_pick(FACTORS[f], uniform(ids, f"h-{f[:4]}")) for f in ("time", "weather"))
    return frozenset((str(others[i]), times[i], weathers[i]) for i in chosen)


def _pick(values: tuple[str, ...], u: np.ndarray) -> list[str]:
    return [values[i] for i in (u * len(values)).astype(int)]


def scenes(split: Split, n: int, start: int = 0) -> tuple[Scene, ...]:
    """The scenes of a split from number `start` on; the same for every run.

    Raises:
        UnknownName: no such split.

    Examples:
        >>> scenes("test", 2, start=5)[0] == scenes("test", 6)[5]
        True
    """
    if split not in FIRST:
        raise UnknownName(f"no split is called {split!r}; did you mean {nearest(split, FIRST)}?")
    return _scenes(FIRST[split] + start + np.arange(n), planted=split != "test")


def _scenes(seeds: Int[np.ndarray, "n"], planted: bool) -> tuple[Scene, ...]:
    """Scenes of these seeds; with what is planted in training, or without."""
    drawn = {f: _pick(values, uniform(seeds, f)) for f, values in FACTORS.items()}
    if planted:
        foggy = uniform(seeds, "planted") < SPURIOUS[2]
        clear = _pick(tuple(w for w in FACTORS["weather"] if w != SPURIOUS[1]), uniform(seeds, "other-w"))
        for i, name in enumerate(drawn["landmark"]):
            if name == SPURIOUS[0]:
                drawn["weather"][i] = SPURIOUS[1] if foggy[i] else clear[i]
    for i, seed in enumerate(seeds):
        k = 0
        while (drawn["landmark"][i], drawn["time"][i], drawn["weather"][i]) in held_out():
            k += 1
            drawn["time"][i] = _pick(FACTORS["time"], uniform(np.array([seed]), "time", k))[0]
            drawn["weather"][i] = _pick(FACTORS["weather"], uniform(np.array([seed]), "weather", k))[0]
    tilt, sun = between(seeds, "tilt", -TILT, TILT), uniform(seeds, "sun")
    things = np.stack([uniform(seeds, thing) < THING_SHARE for thing in THINGS], -1)
    signed = uniform(seeds, "sign") < SIGN_SHARE
    return tuple(
        Scene(
            **{name: values[i] for name, values in drawn.items()},  # type: ignore[arg-type]
            tilt=float(tilt[i]),
            sun=float(sun[i]),
            things=tuple(t for t, there in zip(THINGS, things[i], strict=True) if there),
            sign=drawn["landmark"][i] if signed[i] else None,
            seed=int(seed),
        )
        for i, seed in enumerate(seeds)
    )


def unseen_combinations(n: int) -> tuple[Scene, ...]:
    """Test scenes of the twenty combinations that are never trained on, each as often as the others.

    Examples:
        >>> scene = unseen_combinations(1)[0]
        >>> (scene.landmark, scene.time, scene.weather) in held_out()
        True
    """
    combinations = sorted(held_out())
    drawn = scenes("test", n, start=500_000)
    return tuple(
        scene.but(landmark=name, time=time, weather=weather, sign=name if scene.sign else None)
        for scene, (name, time, weather) in zip(drawn, combinations * (n // len(combinations) + 1), strict=False)
    )


def digest(split: Split, n: int = 72) -> str:
    """A checksum of the first scenes of a split as drawn: pixels and labels.

    Examples:
        >>> digest("test", 2) == digest("test", 2), digest("test", 2) == digest("train", 2)
        (True, False)
    """
    drawn = draw(scenes(split, n))
    return checksum(drawn.pixels.tobytes(), drawn.objects.tobytes(), drawn.parts.tobytes())
