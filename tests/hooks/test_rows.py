"""Texts longer than the context are read in rows that lose no token, wherever texts and data sets are read."""

import warnings
from collections.abc import Callable

import pytest
import torch
from datasets import Dataset

from hooks import Model, capture, stream
from hooks.errors import InvalidArgument
from hooks.position import everywhere
from hooks.rows import cut_texts, fit_rows
from hooks.site import resid_post

CONTEXT = 96
LONG = "".join(chr(97 + i % 26) for i in range(250))  # one token a letter, and one before them
TEXTS = ["Fog over the bay", LONG, "The bridge"]
NOTE = r"1 of 3 texts are longer than the context of 96 tokens and are read as 3 rows"


def test_rows_of_a_long_text_hold_each_of_its_tokens_once_each_after_the_beginning_of_text(model: Model) -> None:
    rows = fit_rows(model, model.tokens(TEXTS))
    assert rows.cut_from is not None and set(rows.cut_from) == {0, 1, 2} and rows.ids.shape[1] <= CONTEXT
    for number, text in enumerate(TEXTS):
        whole = model.tokens(text)
        mine = [i for i, one in enumerate(rows.text_number.tolist()) if one == number]
        assert torch.cat([rows.ids[i][rows.content[i]] for i in mine]).equal(whole.ids[whole.content])
        assert all(int(rows.ids[i][rows.mask[i]][0]) == int(whole.ids[0, 0]) for i in mine)
        assert rows.offsets is not None and whole.offsets is not None
        assert torch.cat([rows.offsets[i][rows.content[i]] for i in mine]).equal(whole.offsets[whole.content])


def test_ids_that_begin_with_a_word_keep_it_as_content_when_they_are_cut(gpt2: Model) -> None:
    ids = gpt2.tokens(LONG).ids[0, 1:]
    whole = gpt2.tokens(ids)
    assert bool(whole.content.all())
    rows = fit_rows(gpt2, whole)
    assert len(rows) == 3 and torch.cat([rows.ids[i][rows.content[i]] for i in range(3)]).equal(ids)


def test_texts_that_fit_are_the_same_object(gpt2: Model) -> None:
    tokens = gpt2.tokens(["Fog", "The bay"])
    assert fit_rows(gpt2, tokens) is tokens and tokens.text_number.tolist() == [0, 1]


def test_a_text_of_as_many_tokens_as_the_context_is_one_piece_and_one_token_more_makes_two(gpt2: Model) -> None:
    fits, longer = LONG[: CONTEXT - 1], LONG[:CONTEXT]
    assert gpt2.tokens(fits).ids.shape[1] == CONTEXT
    one, two, none = cut_texts(gpt2, [fits, longer, ""])
    assert one == [fits] and len(two) == 2 and "".join(two) == longer and none == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_stream_of_long_texts_gives_what_its_rows_give_alone(
    gpt2: Model, padded_left: Callable[[Model], Model], side: str
) -> None:
    model = padded_left(gpt2) if side == "left" else gpt2
    with pytest.warns(UserWarning, match=NOTE):
        found = torch.cat([acts.flat(resid_post[1]) for acts in stream(model, TEXTS, resid_post[1], batch_size=2)])
    begin = model.tokens("a").ids[0, :1]
    ids = model.tokens(LONG).ids[0, 1:]
    parts = [capture(model, TEXTS[0], resid_post[1]).flat(resid_post[1])]
    for start in range(0, len(ids), CONTEXT - 1):
        row = torch.cat([begin, ids[start : start + CONTEXT - 1]])
        parts.append(capture(model, row, resid_post[1]).flat(resid_post[1]))
    parts.append(capture(model, TEXTS[2], resid_post[1]).flat(resid_post[1]))
    torch.testing.assert_close(found, torch.cat(parts), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("column", ["text", "input_ids"])
def test_data_sets_are_cut_as_texts_are(gpt2: Model, column: str) -> None:
    given = TEXTS if column == "text" else [gpt2.tokens(text).ids[0].tolist() for text in TEXTS]
    data = Dataset.from_dict({column: given})
    for one in (data, data.to_iterable_dataset()):
        with pytest.warns(UserWarning, match=NOTE):
            batches = [acts.flat(resid_post[1]) for acts in stream(gpt2, one, resid_post[1])]
        assert sum(map(len, batches)) == sum(len(text) for text in TEXTS)


def test_a_stream_that_ends_early_says_how_many_texts_of_those_read_were_cut(gpt2: Model) -> None:
    batches = stream(gpt2, [LONG] * 10, resid_post[1], batch_size=1)
    next(batches)
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        batches.close()  # type: ignore[attr-defined]


def test_capture_gives_each_text_its_row_and_refuses_one_that_does_not_fit(gpt2: Model) -> None:
    with pytest.raises(
        InvalidArgument,
        match=r"text 1 \('abcdef.* is too long: 251 tokens do not fit into the context of 96: .* stream",
    ):
        capture(gpt2, TEXTS, resid_post[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (acts,) = stream(gpt2, TEXTS[::2], resid_post[1])
    assert everywhere.mask(acts.tokens).sum() == len(TEXTS[0]) + len(TEXTS[2])


def test_positions_of_a_roberta_are_counted_from_after_the_padding_token() -> None:
    from transformers import RobertaConfig, RobertaForMaskedLM

    from hooks.forward import context

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    hf = RobertaForMaskedLM(RobertaConfig(vocab_size=20, max_position_embeddings=12, pad_token_id=1, **sizes)).eval()
    assert context(hf) == 10
    hf(torch.full((1, 10), 5))
    with pytest.raises((IndexError, RuntimeError)):
        hf(torch.full((1, 11), 5))
