"""The bundled model and the little encyclopaedia it was trained on: entities, facts, phrasings, annotated documents."""

from hooks.border import guard
from interp.landmark.corpus import corpus
from interp.landmark.documents import Sentence, documents, sentences_about, sentences_about_others
from interp.landmark.entities import Entity, Mention, entities, entity
from interp.landmark.grammar import Phrasing, phrasings
from interp.landmark.relations import Triple, facts_of, neighbours, relation, triples
from interp.landmark.unseen import UNSEEN, unseen_phrasings, unseen_texts

__all__ = [
    "UNSEEN",
    "Entity",
    "Mention",
    "Phrasing",
    "Sentence",
    "Triple",
    "corpus",
    "documents",
    "entities",
    "entity",
    "facts_of",
    "neighbours",
    "phrasings",
    "relation",
    "sentences_about",
    "sentences_about_others",
    "triples",
    "unseen_phrasings",
    "unseen_texts",
]

guard(globals(), __all__)
