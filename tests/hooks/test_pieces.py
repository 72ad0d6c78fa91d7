"""Pieces of tokens, put together, are the text."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hooks.pieces import is_blank, piece, pieces
from tests.conftest import tiny_tokenizer


def metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer of the kind that Llama has: the beginning of a word is marked, and dropped in decoding."""
    words = ["▁the", "▁fo", "g", "▁", "?"]
    inner = Tokenizer(models.BPE({**{w: i for i, w in enumerate(words)}, "t": 5, "h": 6, "e": 7, "f": 8, "o": 9}, []))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_a_marked_beginning_of_a_word_keeps_its_space() -> None:
    tokenizer = metaspace()
    assert tokenizer.decode([1]) == "fo"
    assert "".join(piece(tokenizer, i) for i in (0, 1, 2)) == " the fog"
    assert piece(tokenizer, 3) == " "


def test_pieces_join_to_the_text() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(" the fog\n", add_special_tokens=False)["input_ids"]
    assert "".join(piece(tokenizer, i) for i in ids) == " the fog\n"


def test_without_a_tokenizer_a_token_is_its_number() -> None:
    assert piece(None, 7) == "[7]"


@pytest.mark.parametrize("text", ["陈静住在巴黎 🐶 café", "กรุงเทพ", "दिल्ली में", " the fog\n", "e\u0301"])
def test_a_character_of_several_tokens_is_whole_in_the_first_and_pieces_join_to_the_text(text: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids) > 1
    assert "".join(found) == text
    assert [p for p in found if p] == list(text)


def test_part_of_a_character_at_an_end_is_one_broken_piece_and_spoils_no_other() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("巴a", add_special_tokens=False)["input_ids"]
    assert pieces(tokenizer, ids[1:])[-1] == "a"
    assert pieces(tokenizer, ids[:2]) == ("\ufffd", "\ufffd")
    assert pieces(tokenizer, ids[1:]) == ("\ufffd", "\ufffd", "a")


def test_a_token_that_is_part_of_a_character_is_shown_as_its_bytes() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("巴", add_special_tokens=False)["input_ids"]
    assert len(ids) > 1
    assert "".join(piece(tokenizer, i) for i in ids) == "<0xE5><0xB7><0xB4>"
    assert "".join(pieces(tokenizer, ids)) == "巴"
    whole = tokenizer("\ufffd", add_special_tokens=False)["input_ids"]
    assert len(whole) > 1 or piece(tokenizer, whole[0]) == "\ufffd"


def test_pieces_of_marked_words_keep_their_spaces() -> None:
    assert pieces(metaspace(), (0, 1, 2)) == (" the", " fo", "g")
    assert pieces(None, [7, 8]) == ("[7]", "[8]")


class OfOne:
    """A tokenizer of one token that decodes to half of a character."""

    def __init__(self, token: str) -> None:
        self.token = token

    def decode(self, _: list[int]) -> str:
        return "a\ufffd"

    def convert_ids_to_tokens(self, _: int) -> str:
        return self.token


def test_a_token_that_is_not_written_in_letters_of_bytes_is_what_it_decodes_to() -> None:
    for token, said in (("", "a\ufffd"), ("陈a", "a\ufffd"), ("陈", "a\ufffd"), ("aå", "<0x61><0xE5>"), ("Ġa", " a")):
        tokenizer: Any = OfOne(token)
        assert piece(tokenizer, 0) == said


def test_a_blank_token_spells_white_space_alone() -> None:
    tokenizer = metaspace()
    assert is_blank(tokenizer, 3) and not any(is_blank(tokenizer, i) for i in (0, 1, 2, 4))
    of_bytes = tiny_tokenizer()
    assert [is_blank(of_bytes, i) for i in of_bytes(" a\n", add_special_tokens=False)["input_ids"]] == [
        True,
        False,
        True,
    ]
    assert not is_blank(None, 3)
