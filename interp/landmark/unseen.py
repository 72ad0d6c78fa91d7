"""Texts that the bundled model never saw: documents that fit its context, and new phrasings of its facts."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from hooks import Model
from hooks.border import Count, Natural
from hooks.forward import context
from interp.landmark.documents import documents
from interp.landmark.entities import Entity, Kind, entities
from interp.landmark.grammar import held_out_phrasings
from interp.landmark.writing import keep_article

UNSEEN: Final = 1_000_000  # the bundled model read no document of this seed or a later one


def unseen_texts(model: Model, n: Count, seed: Natural = 0, *, about: Kind | None = None) -> list[str]:
    """`n` documents from seed `UNSEEN + seed` on, without those longer than the model's context, shortest first.

    Sorted by length, a batch holds little padding. With `about`, only documents are taken that mention entities of that
    kind twice or more: a dictionary splits what it reads often and merges what it reads seldom, so that on all
    documents together one latent can mean several bridges.

    Examples:
        ```python
        texts = landmark.unseen_texts(load("landmark"), 4000, about="landmark")
        ```
    """
    kinds = {entity.name: entity.kind for entity in entities()}
    texts = (
        document.text
        for document in documents(UNSEEN + seed)
        if about is None or sum(span.kind == "entity" and kinds[span.value] == about for span in document.spans) >= 2
    )
    return _keep_fitting(model, islice(texts, n))


def unseen_phrasings(subject: Entity, relation: str, seed: Natural = 0) -> list[str]:
    """Phrasings of a relation that no training text uses, each by itself and after four sentences on other things.

    `{}` is the subject's bare name; its article belongs to the phrasing.

    Raises:
        UnknownName: no relation is called that.

    Examples:
        >>> from interp.landmark.entities import entity
        >>> unseen_phrasings(entity("Golden Gate Bridge"), "located_in_city")[0]
        'The city of the {} is'
    """
    prose = (document.text for document in documents(UNSEEN + seed) if document.genre == "prose")
    contexts = ["", *(text.split(". ")[0] + ". " for text in islice(prose, 4))]
    asked = [keep_article(phrasing.template, subject) for phrasing in held_out_phrasings(relation)]
    return [context + template for context in contexts for template in asked]


def _keep_fitting(model: Model, texts: Iterable[str]) -> list[str]:
    texts = list(texts)
    lengths = model.tokens(texts).mask.sum(1).tolist()
    room = context(model.hf)
    return [text for length, text in sorted(zip(lengths, texts, strict=True)) if room is None or length <= room]
