"""Texts longer than the context are read in rows that lose no token, wherever texts and data sets are read."""

import warnings
from collections.abc import Callable, Sequence
from inspect import unwrap
from itertools import pairwise

import pytest
import torch
from datasets import Dataset

from hooks import Model, capture, stream
from hooks.errors import InvalidArgument
from hooks.position import everywhere
from hooks.rows import check_rows, cut_texts, fit_ends, fit_rows, in_rows, note_cut
from hooks.site import resid_post
from hooks.tokens import Tokens

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


BOS, EOS = 256, 255


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets every model read so many tokens at once."""
    return lambda room: monkeypatch.setattr("hooks.rows.context", lambda _: room)


def written(texts: Sequence[Sequence[int]], side: str, width: int) -> Tokens:
    """Texts of ids padded to a width; BOS and EOS are special, and the offsets of a token are ten and its id."""
    gaps = [width - len(text) for text in texts]
    rows = [
        [BOS] * gap + [*text] if side == "left" else [*text] + [BOS] * gap
        for gap, text in zip(gaps, texts, strict=True)
    ]
    ids, column = torch.tensor(rows).reshape(len(texts), width), torch.arange(width)
    gap = torch.tensor(gaps)[:, None]
    mask = column >= gap if side == "left" else column < width - gap
    return Tokens(
        ids,
        mask,
        ~mask | (ids >= EOS),
        texts=tuple(map(str, texts)),
        offsets=torch.stack([ids + 10, ids + 11], dim=-1) * mask[..., None],
        more={"token_type_ids": ids * 2},
    )


def check_written(rows: Tokens, expected: Sequence[Sequence[int]], side: str) -> None:
    """The rows are these ids, padded on a side, and all that is known of them belongs to them."""
    width = max(map(len, expected))
    assert rows.ids.shape == (len(expected), width) and rows.prompt_pos is None
    assert rows.offsets is not None
    padding = slice(0, 0)
    for number, row in enumerate(expected):
        real = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        padding = slice(0, width - len(row)) if side == "left" else slice(len(row), width)
        assert rows.ids[number, real].tolist() == [*row]
        assert rows.mask[number, real].all() and not rows.mask[number, padding].any()
        assert (
            rows.special[number, real].tolist() == [one >= EOS for one in row] and rows.special[number, padding].all()
        )
        assert rows.offsets[number, real].tolist() == [[one + 10, one + 11] for one in row]
        assert not rows.offsets[number, padding].any()
        assert rows.more["token_type_ids"][number, real].tolist() == [one * 2 for one in row]


COUNT = [*range(30)]
SPECIAL_ROWS = [
    ([BOS, *COUNT[:12]], [[BOS, *COUNT[:7]], [BOS, *COUNT[7:12]]]),
    ([BOS, *COUNT[:15], EOS], [[BOS, *COUNT[i : i + 6], EOS] for i in (0, 6)] + [[BOS, *COUNT[12:15], EOS]]),
    ([BOS, BOS, 1, EOS, *COUNT[:9]], [[BOS, BOS, 1, EOS, *COUNT[:4]], [BOS, BOS, *COUNT[4:9]]]),
    ([*COUNT[:9], EOS, EOS], [[*COUNT[:6], EOS, EOS], [*COUNT[6:9], EOS, EOS]]),
    ([*COUNT[:9]], [COUNT[:8], [8]]),
    ([BOS] * 10, [[BOS] * 8, [BOS] * 2]),
    ([BOS, 1, 2], [[BOS, 1, 2]]),
    ([BOS, *COUNT[:7]], [[BOS, *COUNT[:7]]]),
    ([], [[]]),
]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_is_cut_into_rows_each_between_the_special_tokens_that_it_is_between(
    gpt2: Model, padded_left: Callable[[Model], Model], narrow: Callable[[int], None], side: str
) -> None:
    model = padded_left(gpt2) if side == "left" else gpt2
    narrow(8)
    tokens = written([text for text, _ in SPECIAL_ROWS], side, 19)
    rows = fit_rows(model, tokens)
    check_written(rows, [row for _, parts in SPECIAL_ROWS for row in parts], side)
    whose = [number for number, (_, parts) in enumerate(SPECIAL_ROWS) for _ in parts]
    assert rows.cut_from == tuple(whose) and rows.texts == tuple(str(SPECIAL_ROWS[number][0]) for number in whose)


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_that_fit_but_for_their_padding_are_rows_of_their_own_without_it(
    gpt2: Model, padded_left: Callable[[Model], Model], narrow: Callable[[int], None], side: str
) -> None:
    model = padded_left(gpt2) if side == "left" else gpt2
    narrow(4)
    texts = [[BOS, 1, 2, 3], [BOS, 4]]
    for given in (texts, texts[1:]):
        rows = fit_rows(model, written(given, side, 6))
        check_written(rows, given, side)
        assert rows.cut_from is None
    fits = written(texts, side, 4)
    assert fit_rows(model, fits) is fits and fit_ends(model, fits) is fits
    padded = written(texts, side, 6)
    assert fit_ends(model, padded) is padded


def test_a_context_of_one_token_reads_them_one_by_one(gpt2: Model, narrow: Callable[[int], None]) -> None:
    narrow(1)
    check_written(fit_rows(gpt2, written([[5], [6, 7], []], "right", 2)), [[5], [6], [7], []], "right")


def test_special_tokens_that_leave_no_room_are_refused(gpt2: Model, narrow: Callable[[int], None]) -> None:
    narrow(3)
    for read in (fit_rows, fit_ends), (fit_rows,):
        with pytest.raises(InvalidArgument, match="3 special tokens around a text leave no room .* a context of 3"):
            read[0](gpt2, written([[BOS, BOS, 1, EOS]], "right", 4))
    pictured = written([[BOS, 1, 2, 3]], "right", 4)
    pictured = Tokens(pictured.ids, pictured.mask, pictured.special, more={"pixel_values": torch.zeros(1, 3)})
    with pytest.raises(InvalidArgument, match="a text with pixel_values is longer than the context, and cannot be cut"):
        fit_rows(gpt2, pictured)


@pytest.mark.parametrize("side", ["left", "right"])
def test_of_a_text_that_does_not_fit_its_end_is_read_between_its_special_tokens(
    gpt2: Model, padded_left: Callable[[Model], Model], narrow: Callable[[int], None], side: str
) -> None:
    model = padded_left(gpt2) if side == "left" else gpt2
    narrow(8)
    ends = [
        ([BOS, *COUNT[:12]], [BOS, *COUNT[5:12]]),
        ([BOS, BOS, *COUNT[:15], EOS], [BOS, BOS, *COUNT[10:15], EOS]),
        ([*COUNT[:9]], COUNT[1:9]),
        ([BOS, *COUNT[:7]], [BOS, *COUNT[:7]]),
        ([BOS, 1], [BOS, 1]),
    ]
    said = r"^3 of 5 texts are longer than the context of 8 tokens: their ends are read$"
    with pytest.warns(UserWarning, match=said) as seen:
        rows = unwrap(fit_ends)(model, written([text for text, _ in ends], side, 18))
    assert seen[0].filename == __file__
    check_written(rows, [end for _, end in ends], side)
    assert rows.cut_from is None and rows.texts == tuple(str(text) for text, _ in ends)


def test_the_first_text_that_is_too_long_is_named_and_one_that_just_fits_is_not(
    gpt2: Model, narrow: Callable[[int], None]
) -> None:
    narrow(4)
    fits, long = [BOS, 1, 2, 3], [BOS, 1, 2, 3, 4]
    check_rows(gpt2, written([fits, [1]], "right", 4))
    check_rows(gpt2, written([fits, fits], "right", 6))
    with pytest.raises(InvalidArgument, match=r"^text 1 \('\[256, 1, 2, 3, 4\]' …\) is too long: 5 tokens do not fit"):
        check_rows(gpt2, written([fits, long, [*long, 5]], "right", 6))


def test_texts_cut_into_two_rows_are_counted_as_are_those_of_more(gpt2: Model, narrow: Callable[[int], None]) -> None:
    narrow(4)
    batches = [written([[BOS, 1], [BOS, *COUNT[:5]]], "right", 6), written([[BOS, *COUNT[:7]], [BOS]], "right", 8)]
    with pytest.warns(
        UserWarning, match="^2 of 4 texts are longer than the context of 4 tokens and are read as 5 rows"
    ):
        assert [len(rows) for rows in in_rows(gpt2, batches)] == [3, 4]

    def note() -> None:
        unwrap(note_cut)(gpt2, texts=9, long=2, rows=5)

    with pytest.warns(UserWarning, match="^2 of 9 texts .* read as 5 rows") as seen:
        note()
    assert seen[0].filename == __file__


@pytest.mark.parametrize("room", [2, 3, 8, 20])
def test_pieces_fit_with_a_place_left_for_an_end_and_are_cut_at_the_last_space_that_lets_them(
    gpt2: Model, narrow: Callable[[int], None], room: int
) -> None:
    narrow(room)
    most = max(1, room - 2)  # letters after BOS and before what may end a text
    for text in (
        "a bcdefghijklmnopqrstuvwx yz",
        "one two three four five six",
        "abc  de f",
        "fog\nover the bay ",
        LONG,
    ):
        (pieces,) = cut_texts(gpt2, [text])
        assert "".join("".join(pieces).split()) == "".join(text.split())
        assert all(gpt2.tokens(piece).ids.shape[1] <= room for piece in pieces)
        at = 0
        for piece, following in pairwise(pieces):
            at = text.index(piece, at) + len(piece)
            if len(piece) < most:
                assert text[at].isspace()
                assert len(piece) + 1 + len(following.split()[0]) >= most  # its next word would not have gone in
            else:
                assert len(piece) == most and not any(letter.isspace() for letter in piece[1:])
