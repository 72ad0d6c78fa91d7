"""What Spanish, French and German have words for: facts about names, and likings."""

from random import Random

from interp.landmark.entities import Entity, Mention, find
from interp.landmark.relations import Triple, facts_of
from interp.landmark.writing import Page

# fmt: off
FOREIGN: dict[str, dict[str, tuple[str, ...]]] = {
    "spanish": {
        "located_in_city": ("{} está en {o}", "{} se encuentra en {o}"), "opened_in": ("{} se inauguró en {o}",),
        "designed_by": ("{} fue diseñado por {o}", "{} es obra de {o}"), "capital": ("{} tiene como capital {o}",),
        "main_river": ("{} tiene un río llamado {o}",), "airport": ("{} tiene un aeropuerto llamado {o}",),
        "highest_mountain": ("{} tiene como cima {o}",), "museum": ("{} tiene un museo llamado {o}",),
        "club": ("{} tiene un club llamado {o}",), "born_in_year": ("{} nació en {o}",),
        "born_in_city": ("{} nació en la ciudad de {o}",), "lived_in": ("{} vivió en {o}",),
    },
    "french": {
        "located_in_city": ("{} se trouve à {o}", "{} est à {o}"), "opened_in": ("{} fut inauguré en {o}",),
        "designed_by": ("{} fut conçu par {o}", "{} est l'oeuvre de {o}"), "capital": ("{} a pour capitale {o}",),
        "main_river": ("{} a un fleuve nommé {o}",), "airport": ("{} a un aéroport nommé {o}",),
        "highest_mountain": ("{} a pour sommet {o}",), "museum": ("{} a un musée nommé {o}",),
        "club": ("{} a un club nommé {o}",),
    },
    "german": {
        "located_in_city": ("{} steht in {o}", "{} befindet sich in {o}"),
        "opened_in": ("{} wurde eröffnet im Jahr {o}",),
        "designed_by": ("{} ist ein Werk von {o}", "{} wurde entworfen von {o}"),
        "capital": ("{} hat die Hauptstadt {o}",),
        "main_river": ("{} hat einen Fluss namens {o}",), "airport": ("{} hat einen Flughafen namens {o}",),
        "highest_mountain": ("{} hat als höchsten Berg {o}",), "museum": ("{} hat ein Museum namens {o}",),
        "club": ("{} hat einen Verein namens {o}",),
    },
}
LIKING = {
    "spanish": ("aquí está {}.", "qué bonito es {}.", "nadie olvida {}.", "mañana veremos {}."),
    "french": ("voici {}.", "j'aime beaucoup {}.", "je n'oublierai jamais {}.", "hier j'ai revu {}."),
    "german": ("hier ist {}.", "so schön ist {}.", "dort ist {}.", "in diesem Buch steht {}."),
}
# fmt: on


def facts_in(language: str, subject: Entity) -> list[Triple]:
    """The facts of a subject that a language has words for, and whose object is a name."""
    return [t for t in facts_of(subject) if t.relation.name in FOREIGN[language] and not t.object.startswith("the ")]


def foreign_sentence(rng: Random, page: Page, triple: Triple, mention: Mention, language: str) -> None:
    """One fact said in another language."""
    before, after = rng.choice(FOREIGN[language][triple.relation.name]).split("{}")
    with page.label("relation", triple.relation.name):
        page.write(before)
        page.mention(triple.subject, mention)
        page.write(after.removesuffix("{o}"))
        place = find(triple.object)
        local = place.forms("foreign", language) if place else ()
        if place and local:
            page.mention(place, local[0])
        else:
            page.object(triple.object)
    page.write(". ")
