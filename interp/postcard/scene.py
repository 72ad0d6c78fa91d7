"""A scene: what a picture shows, as data. One factor can be changed and everything else kept, pixel for pixel."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.summary import summarise
from interp.landmark.entities import entities, entity

Time = Literal["day", "dusk", "night"]
Weather = Literal["clear", "cloud", "fog", "rain"]
Side = Literal["left", "centre", "right"]
Distance = Literal["near", "far"]
Ground = Literal["grass", "stone", "water"]

LANDMARKS = tuple(item.name for item in entities() if item.kind == "landmark")
FACTORS: dict[str, tuple[str, ...]] = {
    "landmark": LANDMARKS,
    "time": get_args(Time),
    "weather": get_args(Weather),
    "side": get_args(Side),
    "distance": get_args(Distance),
    "ground": get_args(Ground),
}
THINGS = ("tree", "boat", "person", "lamp")
TILT = 6.0


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes:
        landmark: one of the 72 landmarks of the encyclopaedia, by its name.
        time: of the day; at night windows are lit and the disc in the sky is the moon.
        weather: clouds are drawn with "cloud" and "rain".
        side: that the landmark is seen from.
        distance: of the viewer from the landmark.
        ground: what is under the landmark.
        tilt: of the camera, in degrees; at most 6 either way.
        sun: where the sun or moon is, from 0 at the left to 1 at the right.
        things: of trees, boats, persons and lamps, those that are in front.
        sign: a name on a sign in front, or None.
        seed: of what has no name: where things are, the clouds' forms, the exact hue.

    Raises:
        UnknownName: a landmark, time, … that is not there.
        InvalidArgument: a tilt or sun outside its range, or a seed below 0.

    Examples:
        >>> scene = Scene("Golden Gate Bridge", time="dusk", things=("boat",))
        >>> scene.but(time="night").time, scene["kind"]
        ('night', 'bridge')
    """

    landmark: str
    time: Time = "day"
    weather: Weather = "clear"
    side: Side = "centre"
    distance: Distance = "near"
    ground: Ground = "grass"
    tilt: float = 0.0
    sun: float = 0.8
    things: tuple[str, ...] = ()
    sign: str | None = None
    seed: int = 0

    __repr__ = summarise

    def __post_init__(self) -> None:
        for factor, values in FACTORS.items():
            if (given := getattr(self, factor)) not in values:
                raise UnknownName(f"no {factor} is called {given!r}; did you mean {nearest(str(given), values)}?")
        for thing in self.things:
            if thing not in THINGS:
                raise UnknownName(f"no thing is called {thing!r}; did you mean {nearest(str(thing), THINGS)}?")
        if not -TILT <= self.tilt <= TILT or not 0 <= self.sun <= 1 or self.seed < 0:
            raise InvalidArgument(
                f"tilt={self.tilt}, sun={self.sun}, seed={self.seed}: a tilt is from -{TILT} to {TILT} degrees, a sun "
                "from 0 to 1, and a seed at least 0"
            )
        if self.sign is not None and not any(letter.isascii() and letter.isalnum() for letter in self.sign):
            raise InvalidArgument(
                f"sign={self.sign!r} has no letter that can be drawn: give a name, or None for no sign"
            )

    def but(self, **changes: Any) -> "Scene":
        """The same scene with some factors changed.

        Raises:
            UnknownName: no such factor, or no such value of it.

        Examples:
            >>> Scene("Big Ben").but(weather="fog").weather
            'fog'
        """
        known = asdict(self)
        for name in changes:
            if name not in known:
                raise UnknownName(f"a scene has no factor {name!r}; did you mean {nearest(name, known)}?")
        return replace(self, **changes)

    def __getitem__(self, column: str) -> str:
        """What the encyclopaedia says of the landmark: its kind, colour, style, city or country.

        Raises:
            UnknownName: no such column; the nearest are named.
        """
        return entity(self.landmark)[column]

    def shows(self, thing: str) -> bool:
        """Whether a tree, boat, person or lamp is in front."""
        return thing in self.things
