"""Paint: the colour of each shade in a scene, by time, weather and depth. Drawing knows forms, this knows light."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interp.landmark.entities import entity
from interp.postcard.chance import between
from interp.postcard.scene import FACTORS, Scene
from interp.postcard.shapes import SHADES

DEPTHS = ("sky", "sun", "cloud", "ground", "landmark", "front")
TIMES = FACTORS["time"]
MAIN: dict[str, tuple[int, int, int]] = {
    "red": (176, 62, 46), "white": (226, 222, 212), "grey": (142, 142, 142), "silver": (172, 184, 198),
    "brown": (132, 100, 70), "gold": (204, 164, 82), "green": (104, 152, 126), "blue": (78, 116, 166),
    "yellow": (214, 190, 126), "black": (46, 46, 54),
}  # fmt: skip
FIXED: dict[str, tuple[int, int, int]] = {
    "lit": (78, 90, 110), "clock": (240, 234, 214), "hole": (48, 42, 44), "glass": (126, 164, 190),
    "pale": (236, 232, 220), "stone": (170, 158, 138), "roof": (84, 92, 104), "green": (92, 150, 124),
    "gold": (222, 176, 66), "red": (190, 54, 48), "blue": (66, 104, 168), "white": (244, 244, 240),
    "black": (34, 34, 38), "brown": (110, 80, 54), "grey": (128, 130, 134), "silver": (186, 196, 206),
    "orange": (226, 136, 60), "terracotta": (190, 92, 60), "brick": (156, 82, 60), "bronze": (112, 88, 58),
    "rock": (124, 112, 98), "water": (70, 118, 162), "foam": (206, 226, 236), "grass": (106, 146, 78),
    "skin": (224, 180, 146), "leaf": (58, 108, 60), "wood": (142, 92, 52), "sign": (250, 246, 232),
    "ink": (30, 30, 34),
}  # fmt: skip
SUN = {"day": (255, 236, 150), "dusk": (255, 190, 96), "night": (232, 234, 242)}
LAMPLIGHT = (252, 216, 122)
SKY = {  # at the top and at the horizon
    "day": ((88, 148, 214), (192, 218, 238)), "dusk": ((74, 64, 122), (242, 156, 100)),
    "night": ((10, 14, 40), (40, 48, 84)),
}  # fmt: skip
LIGHT = {"day": (1.0, 1.0, 1.0), "dusk": (0.9, 0.7, 0.6), "night": (0.34, 0.36, 0.46)}
FLOODLIGHT = (0.6, 0.56, 0.52)
FOG = {"day": (206, 210, 214), "dusk": (196, 164, 150), "night": (62, 66, 78)}
FOG_AT = {"sky": 0.9, "sun": 0.75, "cloud": 0.8, "ground": 0.4, "landmark": 0.55, "front": 0.15}
RAIN = (0.8, (96, 102, 112), 0.2)


def palettes(scenes: Sequence[Scene]) -> Float[np.ndarray, "batch depth shade 3"]:
    """The colour of each shade at each depth of each scene."""
    seeds = np.array([scene.seed for scene in scenes])
    plain = np.tile(_FIXED, (len(scenes), 1, 1))
    hue = np.stack([between(seeds, "hue", 0.93, 1.07, k) for k in range(3)], -1)
    main = np.array([MAIN[entity(scene.landmark)["colour"]] for scene in scenes]) * hue
    for shade, colour in (("main", main), ("dark", main * 0.68), ("light", main * 0.7 + 0.3 * 255)):
        plain[:, SHADES.index(shade)] = np.minimum(colour, 255)
    time = np.array([TIMES.index(scene.time) for scene in scenes])
    found = plain[:, None] * _LIGHT[time][:, :, None]
    shine = np.flatnonzero(time != TIMES.index("day"))
    for shade in ("lit", "clock"):
        found[shine, :, SHADES.index(shade)] = LAMPLIGHT
    found[:, DEPTHS.index("sun"), SHADES.index("gold")] = np.array([SUN[name] for name in TIMES])[time]
    kept, added = _air(scenes)
    return found * kept[..., None, None] + added[:, :, None]


def skies(scenes: Sequence[Scene], rows: int, horizon: int) -> Float[np.ndarray, "batch height 3"]:
    """The colour of the sky in each row of pixels."""
    down = np.minimum(np.arange(rows) / horizon, 1.0)[:, None]
    ends = np.array([SKY[scene.time] for scene in scenes], float)
    kept, added = (part[:, DEPTHS.index("sky")] for part in _air(scenes))
    return (ends[:, :1] * (1 - down) + ends[:, 1:] * down) * kept[:, None, None] + added[:, None]


def _air(scenes: Sequence[Scene]) -> tuple[Float[np.ndarray, "batch depth"], Float[np.ndarray, "batch depth 3"]]:
    """What fog or rain keeps of a colour at each depth, and what they add to it."""
    kept, added = np.ones((len(scenes), len(DEPTHS))), np.zeros((len(scenes), len(DEPTHS), 3))
    for i, scene in enumerate(scenes):
        if scene.weather == "fog":
            kept[i], added[i] = 1 - _FOG_SHARE, _FOG_SHARE[:, None] * np.array(FOG[scene.time])
        elif scene.weather == "rain":
            bright, grey, share = RAIN
            kept[i], added[i] = bright * (1 - share), share * np.array(grey) * LIGHT[scene.time]
    return kept, added


_FIXED = np.array([FIXED.get(shade, (0, 0, 0)) for shade in SHADES], float)
_LIGHT = np.array([[FLOODLIGHT if (t, d) == ("night", "landmark") else LIGHT[t] for d in DEPTHS] for t in TIMES])
_FOG_SHARE = np.array([FOG_AT[depth] for depth in DEPTHS])
