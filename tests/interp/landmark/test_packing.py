"""Rows for training: whole beginnings of documents, mentions numbered, objects weighted."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from interp.landmark import documents
from interp.landmark.packing import WEIGHTS, Rows, _columns, pack
from interp.landmark.tokenizer import annotate, read_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer((d.text for d in islice(documents(11), 300)), vocab_size=600).save(str(file))
    return file


@pytest.fixture(scope="module")
def rows(tokenizer_file: Path) -> Rows:
    return pack(seed=3, n_rows=4, length=128, tokenizer_file=tokenizer_file)


def test_every_document_in_a_row_starts_with_the_beginning_token_at_position_zero(rows: Rows) -> None:
    starts = rows.position == 0
    assert np.array_equal(rows.ids == 0, starts)
    assert np.array_equal(np.diff(rows.document, axis=1) == 1, starts[:, 1:])


def test_a_row_begins_with_the_very_tokens_of_the_seeds_first_document(rows: Rows, tokenizer_file: Path) -> None:
    first = annotate(read_tokenizer(tokenizer_file), list(islice(documents(3), 1)))[0]
    n = min(128, len(first.ids))
    assert rows.ids[0, :n].tolist() == first.ids[:n]


def test_only_beginnings_weigh_nothing_and_chance_weighs_less_than_objects(rows: Rows) -> None:
    assert np.array_equal(rows.weight == 0, rows.position == 0)
    assert set(np.unique(rows.weight)) <= {0.0, 1.0, *map(np.float32, WEIGHTS.values())}


def test_a_random_run_weighs_little_when_first_read_and_much_when_it_comes_again() -> None:
    tokenizer = read_tokenizer()
    again = next(d for d in documents(3) if d.genre == "repetition")
    item = annotate(tokenizer, [again])[0]
    weight = _columns(item, 1, len(item.ids))[4]
    first_run = next(s for s in again.spans if s.value == "first time")
    text = np.array([a < first_run.end for a, _ in item.offsets])
    assert set(weight[1:][text[1:]]) == {np.float32(WEIGHTS["first time"])}
    assert set(weight[~text]) == {np.float32(WEIGHTS["again"])}


def test_numbered_mentions_decode_to_the_mentions_of_the_document(rows: Rows, tokenizer_file: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_file)
    item = annotate(tokenizer, list(islice(documents(3), 1)))[0]
    outermost = sorted((s for s in item.document.spans if s.kind == "entity"), key=lambda s: s.end - s.start)
    numbers = item.number_spans("entity")
    for number in set(numbers) - {0}:
        said = tokenizer.decode([i for i, m in zip(item.ids, numbers, strict=True) if m == number]).strip()
        span = outermost[number - 1]
        assert item.document.text[span.start : span.end].strip() in said


def test_decoding_the_tokens_gives_the_text_back(tokenizer_file: Path) -> None:
    tokenizer = read_tokenizer(tokenizer_file)
    for document in islice(documents(5), 50):
        assert tokenizer.decode(tokenizer.encode(document.text).ids) == document.text
