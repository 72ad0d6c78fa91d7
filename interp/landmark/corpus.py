"""The corpus as a `datasets` object: texts, token ids, and per token the entity, concept, relation and language."""

from itertools import islice
from typing import TYPE_CHECKING

from interp.landmark.documents import documents
from interp.landmark.tokenizer import annotate, read_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset


def corpus(n_documents: int, seed: int = 0) -> "Dataset":
    """A seeded sample of the corpus, annotated token by token.

    Columns: `text`, `genre`, `input_ids`, and the string per token (empty where nothing is expressed) in `entity`, `form`
    (how the entity is named), `concept`, `relation`, `language` (empty means English), `sentiment` and `claim`.
    Seeds from 1,000,000 are never used in training.

    Raises:
        ValueError: fewer than one document asked for.
    """
    if n_documents < 1:
        raise ValueError(f"corpus needs at least one document, got n_documents={n_documents}; ask for 1 or more")
    from datasets import Dataset

    annotated = annotate(read_tokenizer(), list(islice(documents(seed), n_documents)))
    kinds = ("entity", "form", "concept", "relation", "language", "sentiment", "claim")
    return Dataset.from_list([
        {
            "text": item.document.text,
            "genre": item.document.genre,
            "input_ids": item.ids,
            **{kind: item.labels(kind) for kind in kinds},
        }
        for item in annotated
    ])
