"""Documents packed into rows of fixed length: ids, document and mention numbers, and the weight of each target."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from interp.landmark.documents import documents
from interp.landmark.tokenizer import AnnotatedTokens, annotate, read_tokenizer

WEIGHTS = {"object": 4.0, "again": 4.0, "first time": 0.1}


@dataclass(frozen=True)
class Rows:
    """Packed rows, each array `[example, pos]`: ids, document number, position in the document, mention number, weight.

    `mention` is 0 outside mentions of entities. `weight[t]` weighs the prediction of token t: 0 where a document
    begins, more in the object of a fact and where a random run comes again, little where it comes first.
    """

    ids: np.ndarray
    document: np.ndarray
    position: np.ndarray
    mention: np.ndarray
    weight: np.ndarray


def _columns(item: AnnotatedTokens, number: int, length: int) -> np.ndarray:
    labels = zip(item.labels("object"), item.labels("repeat"), strict=True)
    weight = np.array([WEIGHTS["object"] if named else WEIGHTS.get(repeat, 1.0) for named, repeat in labels])
    weight[0] = 0.0
    n = len(item.ids)
    columns = (item.ids, np.full(n, number), np.arange(n), item.number_spans("entity"), weight)
    return np.stack([np.asarray(column, dtype=np.float32) for column in columns])[:, :length]


def _annotate(seed: int, tokenizer_file: Path) -> Iterator[AnnotatedTokens]:
    tokenizer, stream = read_tokenizer(tokenizer_file), documents(seed)
    while True:
        yield from annotate(tokenizer, list(islice(stream, 64)))


def pack(seed: int, n_rows: int, length: int, tokenizer_file: Path) -> Rows:
    """Fill `n_rows` rows with the documents of a seed; a document that would cross the end of a row is cut there.

    Cut remainders are dropped, so that every document in a row begins at its own beginning.
    """
    rows = np.zeros((n_rows, 5, length), dtype=np.float32)
    stream = _annotate(seed, tokenizer_file)
    for row in rows:
        filled, number = 0, 1
        while filled < length:
            columns = _columns(next(stream), number, length - filled)
            row[:, filled : filled + columns.shape[1]] = columns
            filled, number = filled + columns.shape[1], number + 1
    ids, document, position, mention = (rows[:, i].astype(np.int64) for i in range(4))
    return Rows(ids, document, position, mention, rows[:, 4])
