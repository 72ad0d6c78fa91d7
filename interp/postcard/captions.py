"""Captions: what can truly be said of a scene, in the corpus' four languages, with a record of what is said."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
from jaxtyping import Bool

from interp.landmark.entities import entity, find
from interp.postcard.scene import THINGS, Scene

Language = Literal["english", "spanish", "french", "german"]
LANGUAGES: tuple[Language, ...] = ("english", "spanish", "french", "german")
SHARES = (55, 15, 15, 15)

# fmt: off
WORDS: dict[str, dict[str, dict[str, str]]] = {
    "english": {
        "time": {"day": "by day", "dusk": "at dusk", "night": "at night"},
        "weather": {"clear": "under a clear sky", "cloud": "under clouds", "fog": "in fog", "rain": "in the rain"},
        "side": {"left": "seen from the left", "centre": "seen from the front", "right": "seen from the right"},
        "distance": {"near": "close up", "far": "far away"},
        "ground": {"grass": "on grass", "stone": "on stone", "water": "on the water"},
        "thing": {"tree": "a tree", "boat": "a boat", "person": "a person", "lamp": "a lamp"},
    },
    "spanish": {
        "time": {"day": "de día", "dusk": "al atardecer", "night": "de noche"},
        "weather": {"clear": "con cielo despejado", "cloud": "con nubes", "fog": "con niebla",
                    "rain": "bajo la lluvia"},
        "side": {"left": "desde la izquierda", "centre": "de frente", "right": "desde la derecha"},
        "distance": {"near": "de cerca", "far": "de lejos"},
        "ground": {"grass": "sobre hierba", "stone": "sobre piedra", "water": "sobre el agua"},
        "thing": {"tree": "un árbol", "boat": "un barco", "person": "una persona", "lamp": "una farola"},
        "kind": {
            "bridge": "un puente", "skyscraper": "un rascacielos", "tower": "una torre", "statue": "una estatua",
            "museum": "un museo", "cathedral": "una catedral", "monument": "un monumento", "church": "una iglesia",
            "opera house": "una ópera", "theatre": "un teatro", "fountain": "una fuente", "gate": "una puerta",
            "mosque": "una mezquita", "stadium": "un estadio", "palace": "un palacio", "temple": "un templo",
            "dam": "una presa", "castle": "un castillo", "library": "una biblioteca",
        },
    },
    "french": {
        "time": {"day": "de jour", "dusk": "au crépuscule", "night": "de nuit"},
        "weather": {"clear": "par ciel clair", "cloud": "sous les nuages", "fog": "dans le brouillard",
                    "rain": "sous la pluie"},
        "side": {"left": "vu de gauche", "centre": "vu de face", "right": "vu de droite"},
        "distance": {"near": "de près", "far": "de loin"},
        "ground": {"grass": "sur l'herbe", "stone": "sur la pierre", "water": "sur l'eau"},
        "thing": {"tree": "un arbre", "boat": "un bateau", "person": "une personne", "lamp": "un lampadaire"},
        "kind": {
            "bridge": "un pont", "skyscraper": "un gratte-ciel", "tower": "une tour", "statue": "une statue",
            "museum": "un musée", "cathedral": "une cathédrale", "monument": "un monument", "church": "une église",
            "opera house": "un opéra", "theatre": "un théâtre", "fountain": "une fontaine", "gate": "une porte",
            "mosque": "une mosquée", "stadium": "un stade", "palace": "un palais", "temple": "un temple",
            "dam": "un barrage", "castle": "un château", "library": "une bibliothèque",
        },
    },
    "german": {
        "time": {"day": "am Tag", "dusk": "in der Dämmerung", "night": "bei Nacht"},
        "weather": {"clear": "bei klarem Himmel", "cloud": "unter Wolken", "fog": "im Nebel", "rain": "im Regen"},
        "side": {"left": "von links", "centre": "von vorn", "right": "von rechts"},
        "distance": {"near": "aus der Nähe", "far": "aus der Ferne"},
        "ground": {"grass": "auf Gras", "stone": "auf Stein", "water": "auf dem Wasser"},
        "thing": {"tree": "einem Baum", "boat": "einem Boot", "person": "einem Menschen", "lamp": "einer Laterne"},
        "kind": {
            "bridge": "eine Brücke", "skyscraper": "ein Wolkenkratzer", "tower": "ein Turm", "statue": "eine Statue",
            "museum": "ein Museum", "cathedral": "eine Kathedrale", "monument": "ein Denkmal",
            "church": "eine Kirche", "opera house": "ein Opernhaus", "theatre": "ein Theater",
            "fountain": "ein Brunnen", "gate": "ein Tor", "mosque": "eine Moschee", "stadium": "ein Stadion",
            "palace": "ein Palast", "temple": "ein Tempel", "dam": "ein Damm", "castle": "ein Schloss",
            "library": "eine Bibliothek",
        },
    },
}
TEMPLATES: dict[str, tuple[str, ...]] = {
    "english": (
        "{name}", "{name} {time}", "{name} {weather}", "{name} in {city}, {time}",
        "a picture of {name} {time} {weather}",
        "{name}, {distance}", "{name} {side}", "{name} with {thing}", "{kind} {time}", "{kind} {weather}",
        "{kind} in {city}", "a postcard of {name} {ground}, {weather}",
    ),
    "spanish": ("{name}", "{name} {time}", "{name} {weather}", "{kind} {time}", "{name} con {thing}",
                "{name} en {city}, {weather}", "{name} {distance}, {side}", "una postal: {name} {ground}"),
    "french": ("{name}", "{name} {time}", "{name} {weather}", "{kind} {time}", "{name} avec {thing}",
               "{name} à {city}, {weather}", "{name} {distance}, {side}", "une carte postale : {name} {ground}"),
    "german": ("{name}", "{name} {time}", "{name} {weather}", "{kind} {time}", "{name} mit {thing}",
               "{name} in {city}, {weather}", "{name} {distance}, {side}", "eine Postkarte: {name} {ground}"),
}
HELD_OUT: dict[str, tuple[str, ...]] = {
    "english": ("{time}, {weather}: {name}", "here is {name} {weather}", "{kind} with {thing} {time}"),
    "spanish": ("aquí está {name} {time}",), "french": ("voici {name} {time}",), "german": ("hier ist {name} {time}",),
}
# fmt: on


@dataclass(frozen=True)
class Caption:
    """A true sentence about a scene.

    Attributes:
        text: the caption.
        language: that it is in.
        factors: of the scene, those it names: "landmark", "kind", "colour", "city", "time", …
        template: that it was made from.
    """

    text: str
    language: Language
    factors: frozenset[str]
    template: str


def caption(scene: Scene, seed: int = 0, *, language: Language | None = None, held_out: bool = False) -> Caption:
    """One caption of a scene, drawn by the scene's seed and this one; every factor it names is in the scene.

    Args:
        scene: what the picture shows.
        seed: another one gives another caption.
        language: to write in; drawn where it is None, more than half of them English.
        held_out: use a template that is never trained on.

    Examples:
        >>> caption(Scene("Golden Gate Bridge", time="dusk"), 2, language="spanish").text
        'el puente Golden Gate al atardecer'
    """
    rng = Random(f"{scene.seed} {seed}")
    chosen = language or rng.choices(LANGUAGES, SHARES)[0]
    fitting = [t for t in (HELD_OUT if held_out else TEMPLATES)[chosen] if "{thing}" not in t or scene.things]
    template = rng.choice(fitting)
    factors: set[str] = set()
    text = re.sub(r"\{(\w+)\}", lambda found: _words(rng, scene, chosen, found[1], factors), template)
    return Caption(text, chosen, frozenset(factors), template)


def captions(scenes: Sequence[Scene], seed: int = 0, *, held_out: bool = False) -> tuple[Caption, ...]:
    """One caption for each scene.

    Examples:
        >>> [c.language for c in captions([Scene("Big Ben"), Scene("Big Ben", seed=1)])]
        ['english', 'german']
    """
    return tuple(caption(scene, seed, held_out=held_out) for scene in scenes)


def _words(rng: Random, scene: Scene, language: str, slot: str, factors: set[str]) -> str:
    """What a slot of a template says of the scene; the factors it names are added."""
    if slot == "name":
        factors.add("landmark")
        return _name(rng, scene, language)
    if slot == "kind":
        return _kind(rng, scene, language, factors)
    if slot == "city":
        factors.add("city")
        city = find(scene["city"])
        local = city.forms("foreign", language) if city and city.kind == "city" and language != "english" else ()
        return local[0].text if local else scene["city"]
    if slot == "thing":
        thing = rng.choice([t for t in THINGS if scene.shows(t)])
        factors.add(thing)
        return WORDS[language]["thing"][thing]
    factors.add(slot)
    return WORDS[language][slot][getattr(scene, slot)]


def _name(rng: Random, scene: Scene, language: str) -> str:
    subject = entity(scene.landmark)
    if language != "english":
        return subject.forms("foreign", language)[0].text
    return subject.text if rng.random() < 0.75 else rng.choice(subject.forms("alias")).text


def _kind(rng: Random, scene: Scene, language: str, factors: set[str]) -> str:
    factors.add("kind")
    if language != "english":
        return WORDS[language]["kind"][scene["kind"]]
    words = scene["kind"]
    if rng.random() < 0.7:
        factors.add("colour")
        words = f"{scene['colour']} {words}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def is_true_of(said: Caption, scene: Scene, other: Scene) -> bool:
    """Whether a caption of `scene` is also true of `other`: every factor it names is the same in both.

    Examples:
        >>> dusk = Scene("Big Ben", time="dusk")
        >>> said = caption(dusk, 5)
        >>> said.text, is_true_of(said, dusk, dusk.but(time="day"))
        ('a gold tower at dusk', False)
    """
    return all(_value(scene, factor) == _value(other, factor) for factor in said.factors)


def truths(said: Sequence[Caption], scenes: Sequence[Scene]) -> Bool[np.ndarray, "batch batch"]:
    """Whether the caption j of scene j is also true of scene i.

    Examples:
        >>> dusk = Scene("Big Ben", time="dusk")
        >>> shown = (dusk, dusk.but(time="day"))
        >>> truths([caption(dusk, 5), caption(shown[1], 0, language="german")], shown)[0].tolist()
        [True, True]
    """
    numbers: dict[str, np.ndarray] = {}
    for factor in sorted({factor for one in said for factor in one.factors}):
        values = [_value(scene, factor) for scene in scenes]
        known = {value: i for i, value in enumerate(dict.fromkeys(values))}
        codes = np.array([known[value] for value in values])
        numbers[factor] = codes[:, None] == codes
    true = np.ones((len(scenes), len(said)), bool)
    for j, one in enumerate(said):
        for factor in one.factors:
            true[:, j] &= numbers[factor][:, j]
    return true


def _value(scene: Scene, factor: str) -> object:
    if factor in THINGS:
        return scene.shows(factor)
    return getattr(scene, factor) if hasattr(scene, factor) else scene[factor]
