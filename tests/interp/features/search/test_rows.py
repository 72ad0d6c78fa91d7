"""Which tokens and texts are positive, and which labels may be exchanged."""

import pytest
import torch

from hooks import Model
from interp.features import Concept, Mention, by_text, by_token
from interp.features.reading import encode_texts
from interp.features.search.rows import draw_exchanges, label_tokens
from interp.sae import TopK

TEXTS = ["a cab", "déjà", "op op", "fog"]
MENTIONS = [[Mention(2, 5, "name")], [Mention(0, 2, "foreign")], [], []]
LABELS = [True, True, False, False]


def test_the_last_token_of_a_mention_is_positive_and_its_earlier_ones_are_left_out(gpt2: Model, letters: TopK) -> None:
    concept = Concept("c", TEXTS, LABELS, MENTIONS)
    reading = encode_texts(letters, gpt2, TEXTS)
    labels = label_tokens(reading, concept)
    # one token per byte: "a cab" has 5, "déjà" 6 of which the mention "dé" covers 3
    assert labels.y[reading.text == 0].tolist() == [False, False, False, False, True]
    assert labels.counts[reading.text == 0].tolist() == [True, True, False, False, True]
    assert labels.y[reading.text == 1].tolist() == [False, False, True, False, False, False]
    assert labels.counts[reading.text == 1].tolist() == [False, False, True, True, True, True]
    assert not bool(labels.y[reading.text >= 2].any()) and bool(labels.counts[reading.text >= 2].all())


def test_rows_of_tokens_know_their_text_and_form(gpt2: Model, letters: TopK) -> None:
    reading = encode_texts(letters, gpt2, TEXTS)
    rows = by_token(reading, Concept("c", TEXTS, LABELS, MENTIONS, apart=["foreign"]))
    assert len(rows.y) == len(reading.text) - 4 and int(rows.y.sum()) == 2
    assert rows.text[rows.forms["name"]].tolist() == [0] and rows.text[rows.forms["foreign"]].tolist() == [1]
    assert rows.apart.nonzero().tolist() == rows.forms["foreign"][:, None].tolist()


def test_without_mentions_tokens_have_their_texts_label_and_rows_of_tokens_are_refused(
    gpt2: Model, letters: TopK
) -> None:
    reading, concept = encode_texts(letters, gpt2, TEXTS), Concept("c", TEXTS, LABELS)
    assert torch.equal(label_tokens(reading, concept).y, torch.tensor(LABELS)[reading.text])
    with pytest.raises(ValueError, match="concept 'c' has no mentions, so its tokens have no labels"):
        by_token(reading, concept)


def test_a_text_scores_as_its_highest_token(gpt2: Model, letters: TopK) -> None:
    reading = encode_texts(letters, gpt2, TEXTS)
    scores = torch.randn(len(reading.text), generator=torch.Generator().manual_seed(0))
    pooled = by_text(reading, Concept("c", TEXTS, LABELS)).pool(scores)
    assert pooled.tolist() == [float(scores[reading.text == i].max()) for i in range(4)]


def test_labels_move_between_groups_of_one_label_and_within_groups_of_both(gpt2: Model, letters: TopK) -> None:
    texts = [f"{a}{b}" for a in "abcd" for b in "efghij"]
    groups = ["mixed"] * 6 + [f"g{i // 2}" for i in range(18)]
    labels = [i < 2 for i in range(6)] + [i % 4 < 2 for i in range(18)]
    rows = by_text(encode_texts(letters, gpt2, texts), Concept("c", texts, labels, groups=groups))
    half, moved = torch.tensor([g in ("mixed", "g0", "g1", "g2", "g3") for g in groups]), set()
    for y in draw_exchanges(rows, half, 30, torch.Generator().manual_seed(0)):
        assert int(y[:6].sum()) == 2
        assert torch.equal(y[6::2], y[7::2])
        assert int(y[half].sum()) == int(rows.y[half].sum()) and int(y.sum()) == int(rows.y.sum())
        moved.add(tuple(y.tolist()))
    assert len(moved) > 20


def test_labels_of_tokens_stay_in_their_text(gpt2: Model, letters: TopK) -> None:
    concept = Concept("c", TEXTS, LABELS, MENTIONS, apart=["foreign"])
    rows = by_token(encode_texts(letters, gpt2, TEXTS), concept)
    half = torch.ones_like(rows.y)
    for y in draw_exchanges(rows, half, 10, torch.Generator().manual_seed(0)):
        assert int(y[rows.text == 0].sum()) == 1 and int(y[rows.text >= 2].sum()) == 0
        assert torch.equal(y[rows.apart], rows.y[rows.apart])
