"""A position selects the same characters whatever the padding, the batch or the cache."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks import Model, Position, Tokens
from hooks.position import (
    after,
    everywhere,
    first,
    generated,
    index,
    last,
    prompt,
    slice,
    special,
    substring,
    tokens,
)

TEXTS = ["The Golden Gate Bridge, the bridge", "Fog on the Bridge", "Bridge"]
POSITIONS = [
    everywhere,
    last,
    prompt,
    first(2),
    index(0),
    index(-3),
    slice(1, -1),
    slice(-9, None),
    substring("Bridge"),
    after("Bridge"),
    tokens([66, 103]),
    special,
    last | special,
    ~slice(None, 2) & ~last,
]
TEXTUAL = [at for at in POSITIONS if "special" not in at.name]


def selected(at: Position, tokens: Tokens) -> list[str]:
    """The characters a position selects, text by text."""
    assert tokens.offsets is not None and tokens.texts is not None
    mask = at.mask(tokens)
    return [
        "".join(text[start:end] for start, end in spans[row].tolist())
        for text, spans, row in zip(tokens.texts, tokens.offsets, mask, strict=True)
    ]


@pytest.mark.parametrize("at", POSITIONS, ids=str)
def test_a_position_selects_the_same_characters_under_any_padding_and_batch(
    at: Position, gpt2: Model, padded_left: Callable[[Model], Model]
) -> None:
    alone = [selected(at, gpt2.tokens(text))[0] for text in TEXTS]
    assert selected(at, gpt2.tokens(TEXTS)) == alone
    assert selected(at, padded_left(gpt2).tokens(TEXTS)) == alone


@pytest.mark.parametrize("at", [*TEXTUAL, ~last, ~everywhere | first(1), ~special, generated], ids=str)
def test_special_tokens_and_padding_are_never_selected_unasked(
    at: Position, gpt2: Model, padded_left: Callable[[Model], Model]
) -> None:
    for model in (gpt2, padded_left(gpt2)):
        tokens = model.tokens(TEXTS)
        assert not bool((at.mask(tokens) & ~tokens.content).any())


def test_each_position_selects_what_it_says(gpt2: Model) -> None:
    tokens = gpt2.tokens(TEXTS)
    assert selected(everywhere, tokens) == selected(prompt, tokens) == TEXTS
    assert selected(last, tokens) == ["e", "e", "e"]
    assert selected(first(3), tokens) == ["The", "Fog", "Bri"]
    assert selected(first(99), tokens) == TEXTS
    assert selected(index(4), tokens) == ["G", "o", "g"]
    assert selected(index(-2), tokens) == ["g", "g", "g"]
    assert selected(substring("ridge"), tokens) == ["ridgeridge", "ridge", "ridge"]
    assert selected(substring("ridge", 0), tokens) == ["ridge", "ridge", "ridge"]
    assert selected(after("Bridge"), tokens) == [", the bridge", "", ""]
    assert selected(after("ridge", -1), tokens) == ["", "", ""]
    assert selected(generated, tokens) == ["", "", ""]
    assert selected(slice(1, 3), tokens) == ["he", "og", "ri"]
    assert selected(slice(-3, None), tokens) == selected(slice(-3, 99), tokens) == ["dge", "dge", "dge"]
    assert selected(slice(8, -2), tokens)[1:] == ["he Brid", ""]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(-9, 9) | st.none(), st.integers(-9, 9) | st.none())
def test_a_slice_is_pythons_slice_of_the_tokens(start: int | None, stop: int | None) -> None:
    rows = [[7, 0, 1, 2, 3, 4], [0, 1, 2, 7, 9, 9]]
    ids = torch.tensor(rows)
    read = Tokens(ids=ids, mask=ids != 9, special=(ids == 9) | (ids == 7))
    try:
        mask = slice(start, stop).mask(read)
    except ValueError:
        assert not any(list(range(n))[start:stop] for n in range(30))
        return
    assert ids[0][mask[0]].tolist() == [0, 1, 2, 3, 4][start:stop]
    assert ids[1][mask[1]].tolist() == [0, 1, 2][start:stop]


def test_a_slice_is_refused_exactly_where_no_text_of_any_length_has_a_token_in_it() -> None:
    ids = torch.arange(1, 6)[None]
    read = Tokens(ids=ids, mask=torch.ones_like(ids).bool(), special=torch.zeros_like(ids).bool())
    ends = [None, *range(-3, 4)]
    for start, stop in ((start, stop) for start in ends for stop in ends):
        if any(range(n)[start:stop] for n in range(9)):
            assert ids[slice(start, stop).mask(read)].tolist() == [1, 2, 3, 4, 5][start:stop], (start, stop)
        else:
            with pytest.raises(ValueError, match="selects nothing"):
                slice(start, stop)


BY_TOKEN = [everywhere, prompt, special, tokens([2, 5]), everywhere | special, ~tokens(2), prompt & tokens([2, 5])]
BY_PLACE = [first(2), index(0), last, generated, slice(1, 3), everywhere & first(2), first(2) | special, ~last]


def test_what_is_said_to_be_selected_by_each_token_alone_moves_with_the_tokens_and_what_is_not_does_not() -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    read = Tokens(ids=ids, mask=torch.ones_like(ids).bool(), special=ids == 4)
    order = torch.tensor([3, 4, 2, 0, 1])
    moved = Tokens(ids=ids[:, order], mask=read.mask, special=read.special[:, order])
    for at in BY_TOKEN:
        assert at.by_token and torch.equal(at.mask(moved), at.mask(read)[:, order]), at
    for at in BY_PLACE:
        assert not at.by_token, at
        assert at is generated or not torch.equal(at.mask(moved), at.mask(read)[:, order]), at


def test_special_and_tokens_select_what_has_no_text_when_asked_and_never_padding(
    gpt2: Model, padded_left: Callable[[Model], Model]
) -> None:
    for model in (gpt2, padded_left(gpt2)):
        read = model.tokens(TEXTS)
        assert torch.equal(special.mask(read), read.special & read.mask)
        assert special.mask(read).sum(dim=1).tolist() == [1, 1, 1]
        assert torch.equal(tokens(256).mask(read), special.mask(read))
        assert torch.equal((everywhere | special).mask(read), read.mask)
        g, o = (model.tokens(letter).ids[0, 1] for letter in "go")
        assert selected(tokens([int(g), int(o)]), read) == ["ogg", "ogog", "g"]


def test_a_rule_that_gives_no_mask_is_refused(gpt2: Model) -> None:
    with pytest.raises(
        ValueError, match=r"mine must select by a bool mask of shape \(1, 4\), got torch.int64 \(1, 4\)"
    ):
        Position("mine", lambda read: read.ids).mask(gpt2.tokens("Fog"))
    with pytest.raises(ValueError, match=r"got torch.bool \(4,\)"):
        Position("mine", lambda read: read.mask[0]).mask(gpt2.tokens("Fog"))


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="abB ", min_size=1, max_size=12), st.data())
def test_a_substring_is_the_characters_between_its_ends(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    ids = torch.arange(len(text))[None]
    spans = torch.stack([torch.arange(len(text)), torch.arange(1, len(text) + 1)], dim=1)[None]
    real = torch.ones_like(ids, dtype=torch.bool)
    tokens = Tokens(ids=ids, mask=real, special=~real, texts=(text,), offsets=spans)
    word = text[start:end]
    mask = substring(word).mask(tokens)[0].tolist()
    inside = {i + j for i in range(len(text)) if text.startswith(word, i) for j in range(len(word))}
    assert mask == [i in inside for i in range(len(text))]


def test_a_token_that_spells_the_text_in_part_belongs_to_the_substring() -> None:
    spans = torch.tensor([[[0, 3], [3, 10], [10, 12]]])
    real = torch.ones(1, 3, dtype=torch.bool)
    tokens = Tokens(ids=torch.tensor([[1, 2, 3]]), mask=real, special=~real, texts=("The Bridge s",), offsets=spans)
    assert substring("ridge").mask(tokens).tolist() == [[False, True, False]]
    assert substring("e B").mask(tokens).tolist() == [[True, True, False]]
    assert after("The").mask(tokens).tolist() == [[False, True, True]]
    assert after("The ").mask(tokens).tolist() == [[False, False, True]]


def test_positions_of_the_prompt_stay_while_text_is_generated(gpt2: Model) -> None:
    read = gpt2.tokens(TEXTS[:1])
    new = torch.tensor([[5, 6, 256]])
    longer = read.extend(new, torch.ones_like(new).bool(), new == 256)
    for at in (last, prompt, first(2), first(99), index(3), index(-1), slice(-3, None), substring("Bridge")):
        mask = at.mask(longer)
        assert torch.equal(mask[:, :-3], at.mask(read))
        assert not bool(mask[:, -3:].any())
    for at in (everywhere, generated, after("Golden"), ~prompt):
        assert at.mask(longer)[0, -3:].tolist() == [True, True, False]
    assert special.mask(longer)[0, -3:].tolist() == [False, False, True]
    assert tokens([6, 256]).mask(longer)[0, -3:].tolist() == [False, True, True]


def test_positions_combine_as_sets(gpt2: Model) -> None:
    tokens = gpt2.tokens(TEXTS)
    assert selected(first(3) | last, tokens) == ["Thee", "Foge", "Brie"]
    assert selected(first(3) & substring("Bri"), gpt2.tokens("Bridge")) == ["Bri"]
    assert selected(~substring("Bridge"), gpt2.tokens("A Bridge.")) == ["A ."]


def test_positions_of_one_name_are_equal_and_print_as_they_are_written() -> None:
    assert substring("Fog", 1) == substring("Fog", 1) != substring("Fog")
    assert first(2) != first(3)
    assert Position("mine", lambda read: read.mask) == Position("mine", lambda read: read.content, by_token=True)
    assert [str(at) for at in (everywhere, first(2), after("x"), last | ~prompt)] == [
        "everywhere",
        "first(2)",
        "after('x')",
        "(last | ~prompt)",
    ]


def test_what_is_not_there_is_an_error_that_says_what_is(gpt2: Model) -> None:
    tokens = gpt2.tokens(TEXTS)
    with pytest.raises(ValueError, match=r"'Brigde' is not in text 0 \('The Golden.*nearest: 'Bridge,'"):
        substring("Brigde").mask(tokens)
    with pytest.raises(ValueError, match="occurrence 1 of 'Bridge' is not in text 0 .*: it occurs 1 times"):
        substring("Bridge", 1).mask(tokens)
    with pytest.raises(ValueError, match="'Fog' is not in text 0"):
        after("Fog").mask(tokens)
    with pytest.raises(
        ValueError, match=r"index\(6\) asks for a token that text 2 \('Bridge'\) does not have: it has 6"
    ):
        index(6).mask(tokens)
    with pytest.raises(ValueError, match=r"index\(-7\) asks for a token that text 2"):
        index(-7).mask(tokens)


def test_the_last_token_of_a_text_without_tokens_is_an_error(gpt2: Model) -> None:
    with pytest.raises(
        ValueError, match=r"asks for a token that text 0 does not have: it has 0 tokens besides special"
    ):
        last.mask(gpt2.tokens(torch.tensor([256])))


def test_a_position_that_needs_text_says_so_on_bare_ids(gpt2: Model) -> None:
    for at in (substring("a"), after("a")):
        with pytest.raises(ValueError, match=r"needs the text the tokens came from.*pass texts .* or use index\(i\)"):
            at.mask(gpt2.tokens(torch.tensor([1, 2])))


def test_senseless_positions_are_refused_when_made() -> None:
    with pytest.raises(ValueError, match=r"first\(n\) needs n of at least 1, got 0"):
        first(0)
    with pytest.raises(ValueError, match="selects nothing: name the text"):
        substring("")
    with pytest.raises(ValueError, match="is everywhere: name the text"):
        after("")
    for start, stop in ((3, 3), (3, 1), (-1, -2), (None, 0), (-2, 0)):
        with pytest.raises(ValueError, match=rf"slice\({start}, {stop}\) selects nothing: stop must come after start"):
            slice(start, stop)
    for ids in ([], [3, -1]):
        with pytest.raises(ValueError, match=r"tokens\(ids\) needs token ids, whole numbers from 0 on, got"):
            tokens(ids)
