"""The corpus as a `datasets` object: texts, token ids, and per token the entity, concept, relation and language."""

from itertools import islice
from typing import TYPE_CHECKING

from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from interp.landmark.documents import documents
from interp.landmark.tokenizer import AnnotatedTokens, annotate, read_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset

CONTEXT = 256


def corpus(n_documents: Count, seed: Natural = 0) -> "Dataset":
    """A seeded sample of the corpus, annotated token by token.

    Columns: `text`, `genre`, `input_ids`, and a string per token (empty where it expresses nothing) in `entity`, `form`
    (how the entity is named), `concept`, `relation`, `language` (empty means English), `sentiment` and `claim`.
    Documents are cut to the 256 tokens of the bundled model's context. The default training run reads seeds 0 to 999.

    Raises:
        InvalidArgument: fewer than one document asked for.
    """
    if n_documents < 1:
        raise InvalidArgument(f"corpus needs at least one document, got n_documents={n_documents}; ask for 1 or more")
    from datasets import Dataset

    annotated = annotate(read_tokenizer(), list(islice(documents(seed), n_documents)))
    kinds = ("entity", "form", "concept", "relation", "language", "sentiment", "claim")
    return Dataset.from_list(
        [
            {
                "text": _cut_text(item),
                "genre": item.document.genre,
                "input_ids": item.ids[:CONTEXT],
                **{kind: item.labels(kind)[:CONTEXT] for kind in kinds},
            }
            for item in annotated
        ]
    )


def _cut_text(item: AnnotatedTokens) -> str:
    """The text of the tokens that fit into the context."""
    return item.document.text[: max(end for _, end in item.offsets[:CONTEXT])]
