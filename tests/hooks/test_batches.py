"""Batches of ids: what of them is padding, known by their values or a mask, and what goes with some of their rows."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Tokens
from hooks.encoding import from_encoding, from_ids, join, looks_like_a_file, pad, special_ids, strip_padding, tokenize
from hooks.errors import InvalidArgument
from hooks.grid import Grid
from hooks.images import Images
from hooks.site import resid_post
from tests import shapes
from tests.conftest import tiny_tokenizer


@pytest.fixture(autouse=True)
def _as_for_users() -> Any:
    with shapes.unchecked():
        yield


def special(pad: int | None, bos: int | None = None, eos: int | None = None, **more: Any) -> Any:
    """A tokenizer of which only these are known."""
    names = {"pad_token_id": pad, "bos_token_id": bos, "eos_token_id": eos, "unk_token_id": None}
    every = [one for one in (pad, bos, eos) if one is not None]
    return SimpleNamespace(**(names | {"mask_token_id": None, "all_special_ids": every, "pad_token": "<p>"} | more))


OWN, AS_END = special(0, 8, 9), special(9, 8, 9)


def test_special_ids_are_the_ends_and_what_the_tokenizer_says_but_not_what_takes_the_place_of_text() -> None:
    assert special_ids(None) == frozenset()
    assert special_ids(special(None, 1, 2, unk_token_id=3, mask_token_id=4, all_special_ids=[1, 2, 3, 4, 5])) == {
        1,
        2,
        5,
    }
    assert special_ids(special(7, 1, 1, unk_token_id=1, all_special_ids=[1])) == {1, 7}, "an end of text is special"


def test_padding_of_its_own_is_taken_from_both_ends_of_a_row() -> None:
    rows = [[5, 6], [0, 5, 6], [5, 6, 0, 0, 0], [0, 0, 0, 5, 0, 0], [0], [0, 0, 0], []]
    assert strip_padding(OWN, rows) == [[5, 6], [5, 6], [5, 6], [5], [], [], []]
    assert strip_padding(special(None), rows) == rows
    masks = [[1, 1], [1, 0, 1], [0, 0, 0, 0, 1], [1] * 6, [1], [0, 1, 0], []]
    assert strip_padding(OWN, rows, masks) == [[5, 6], [0, 6], [0], rows[3], [0], [0], []]
    with pytest.raises(InvalidArgument, match="text 1 has the padding token '<p>' inside it, at 3, so whether it is"):
        strip_padding(OWN, [[5], [0, 5, 6, 0, 7, 0]])


def test_the_end_of_text_as_padding_is_kept_where_it_comes_once_at_most_and_else_refused() -> None:
    rows = [[8, 5, 9], [5, 6], [9, 5, 9], [9]]
    assert strip_padding(AS_END, rows) == rows
    for row, n in (([8, 5, 9, 9], 2), ([9, 9, 9, 5], 3), ([9, 9, 5, 9], 2)):
        with pytest.raises(InvalidArgument, match=f"text 1 has {n} of the token '<p>' at its end, and it is both"):
            strip_padding(AS_END, [[5], row])


@pytest.mark.parametrize("side", ["left", "right"])
def test_of_ids_that_end_in_more_ends_of_text_than_others_the_first_text_is_named(side: str) -> None:
    rows = [[8, 5, 6, 7, 9], [8, 5, 6, 7, 9], [8, 5, 9, 9, 9], [8, 5, 6, 9, 9]]
    ids = torch.tensor(rows if side == "right" else [row[::-1] for row in rows])
    with pytest.raises(InvalidArgument, match="text 2 has 3 of the token '<p>' at its end where another has 1, and it"):
        from_ids(AS_END, ids, 10)
    assert bool(from_ids(AS_END, ids[:2], 10).mask.all())


def test_ids_with_padding_of_its_own_are_real_between_their_first_and_last_token() -> None:
    ids = torch.tensor([[0, 8, 5, 0], [0, 0, 5, 6], [8, 0, 0, 0]])
    wanted = [[False, True, True, False], [False, False, True, True], [True, False, False, False]]
    found = from_ids(OWN, ids, 10)
    assert found.mask.tolist() == wanted
    assert found.content.tolist() == [[False, False, True, False], [False, False, True, True], [False] * 4]
    with pytest.raises(InvalidArgument, match="text 1 has the padding token '<p>' inside it, at 2"):
        from_ids(OWN, torch.tensor([[5, 6, 7, 0], [0, 5, 0, 6]]), 10)


def test_what_a_tokenizer_returned_of_one_text_is_one_row_with_or_without_a_list_around_it() -> None:
    for encoding in ({"input_ids": [8, 5, 0]}, {"input_ids": [[8, 5, 0]]}, {"input_ids": [[8, 5, 0]], "labels": None}):
        assert from_encoding(OWN, encoding, 10, "right").ids.tolist() == [[8, 5]]
    for mask in ([1, 0, 1], [[1, 0, 1]]):
        ids = [8, 5, 0] if isinstance(mask[0], int) else [[8, 5, 0]]
        assert from_encoding(OWN, {"input_ids": ids, "attention_mask": mask}, 10, "right").ids.tolist() == [[8, 0]]
    flat = {"input_ids": torch.tensor([8, 5, 6]), "kinds": torch.tensor([0, 1, 1]), "all": torch.ones(1, 2), "no": None}
    found = from_encoding(OWN, flat, 10, "right")
    assert {name: tuple(one.shape) for name, one in found.more.items()} == {"kinds": (1, 3), "all": (1, 2)}


def test_rows_are_padded_with_the_padding_token_or_the_end_or_zero_and_joined_so() -> None:
    for tokenizer, fill in ((OWN, 0), (special(3), 3), (special(None, eos=4), 4), (None, 0)):
        right, left = (pad(tokenizer, [[5, 6, 7], [5]], side) for side in ("right", "left"))
        assert right.ids.tolist() == [[5, 6, 7], [5, fill, fill]] and left.ids.tolist() == [[5, 6, 7], [fill, fill, 5]]
        assert right.special.tolist() == (~right.mask).tolist() and right.offsets is None
        both = join(tokenizer, [pad(tokenizer, [[5]], "left"), left], "left")
        assert both.ids.tolist() == [[fill, fill, 5], [5, 6, 7], [fill, fill, 5]]
        assert both.mask.tolist() == [[False, False, True], [True] * 3, [False, False, True]]


def test_batches_of_which_one_has_no_text_have_none_when_they_are_joined() -> None:
    with_text = pad(OWN, [[5, 6]], "right", texts=("ab",), offsets=[[(0, 1), (1, 2)]])
    for batches in ([with_text, pad(OWN, [[5]], "right")], [pad(OWN, [[5]], "right"), with_text]):
        assert join(OWN, batches, "right").texts is None and join(OWN, batches, "right").offsets is None
    both = join(OWN, [with_text, pad(OWN, [[5, 6, 7]], "right", texts=("abc",), offsets=[[(0, 1)] * 3])], "right")
    assert both.texts == ("ab", "abc") and both.offsets is not None
    assert both.offsets.tolist() == [[[0, 1], [1, 2], [0, 0]], [[0, 1]] * 3]


def test_a_name_of_a_file_has_at_most_1024_characters_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("fog.txt", "fog.t", "a\nb.txt"):
        (tmp_path / name).write_text("fog")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "fog").write_text("fog")
    (tmp_path / "plain").write_text("fog")
    longest, longer = "./" * 509 + "fog.t", "./" * 509 + "fog.txt"
    assert (len(longest + "x"), len(longer)) == (1024, 1025)
    (tmp_path / "fog.tx").write_text("fog")
    assert looks_like_a_file(longest + "x") and not looks_like_a_file(longer)
    assert looks_like_a_file("deep/fog") and looks_like_a_file("fog.t")
    for text in ("plain", "a\nb.txt", "deep", "deep/", ".", "", "  ", "/", "x" * 300 + ".txt", "fog.txt\0"):
        assert not looks_like_a_file(text), text


def test_a_text_longer_than_its_tokenizer_was_made_for_is_read_without_a_word() -> None:
    tokenizer: Any = tiny_tokenizer("right")
    tokenizer.model_max_length = 4
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        tokens = tokenize(tokenizer, ["Fog over the bay"], "right")
    finally:
        logger.removeHandler(handler)
    assert tokens.ids.shape[1] > 4 and said == []


def batch(side: str) -> Tokens:
    """Three texts with all that tokens may know."""
    rows = [[5, 6, 7, 4], [5], [6, 7]]
    spans = [[(i, i + 1) for i in range(len(row))] for row in rows]
    made = pad(OWN, rows, side, texts=("abcd", "a", "ab"), offsets=spans)
    more = {"kinds": made.ids + 1, "rows": torch.arange(3), "all": torch.ones(1, 2)}
    return replace(made, cut_from=(0, 0, 1), more={**more, "many": torch.ones(5, 2)}, prompt_pos=3)


def known(tokens: Tokens) -> dict[str, Any]:
    offsets = None if tokens.offsets is None else tokens.offsets.tolist()
    lists = {name: getattr(tokens, name).tolist() for name in ("ids", "mask", "special")}
    return {**lists, "offsets": offsets, "texts": tokens.texts, "cut_from": tokens.cut_from}


@pytest.mark.parametrize("side", ["left", "right"])
def test_some_rows_of_a_batch_are_those_texts_alone_without_the_columns_that_pad_all_of_them(side: str) -> None:
    whole = replace(batch(side), more={"kinds": batch(side).ids + 1, "rows": torch.arange(3)})
    first = {"left": 2, "right": 0}[side]
    for rows, wide in ((slice(1, 3), 2), (slice(0, 2), 4), (slice(2, None), 2), (slice(1, 2), 1)):
        part, number = whole[rows], range(3)[rows]
        columns = slice(4 - wide, None) if side == "left" else slice(0, wide)
        assert part.ids.tolist() == whole.ids[rows, columns].tolist()
        assert part.mask.tolist() == whole.mask[rows, columns].tolist()
        assert part.special.tolist() == whole.special[rows, columns].tolist()
        assert part.offsets is not None and whole.offsets is not None
        assert part.offsets.tolist() == whole.offsets[rows, columns].tolist()
        assert part.cut_from == tuple((0, 0, 1)[i] for i in number) and part.text_number.tolist() == [
            *(part.cut_from or ())
        ]
        assert part.texts == tuple(("abcd", "a", "ab")[i] for i in number)
        assert part.prompt_pos == 3 - (4 - wide if side == "left" else 0)
        assert part.more["kinds"].tolist() == (part.ids + 1).tolist() and part.more["rows"].tolist() == [*number]
    assert known(whole[-1]) == known(whole[2]) and known(whole[-3]) == known(whole[0])
    assert whole[1:3].ids.shape == (2, 2) and first in (0, 2)
    none = whole[:0]
    assert none.ids.shape == none.mask.shape == (0, 0) and none.prompt_pos == 3


def test_what_is_no_row_of_a_text_goes_with_all_of_them_and_with_no_part() -> None:
    whole = batch("right")
    assert whole[:].more["many"].shape == (5, 2) and whole[0:3].more["all"].shape == (1, 2)
    with pytest.raises(InvalidArgument, match="all has 1 rows for 3 texts, so which of them"):
        whole[:2]


def test_columns_cut_off_are_cut_off_of_all_that_has_columns() -> None:
    whole = batch("left")
    found = whole.cut(2)
    for name in ("ids", "mask", "special", "offsets"):
        assert getattr(found, name).tolist() == getattr(whole, name)[:, :2].tolist(), name
    shapes_of = {name: tuple(one.shape) for name, one in found.more.items()}
    assert shapes_of == {"kinds": (3, 2), "rows": (3,), "all": (1, 2), "many": (5, 2)}


def test_a_token_is_predicted_where_a_real_one_comes_before_it_and_it_is_text() -> None:
    mask = torch.tensor([[False, False, True, True], [True, True, True, False]])
    bare = Tokens(torch.ones(2, 4).long(), mask, ~mask)
    assert bare.predicted.tolist() == [[False, False, False, True], [False, True, True, False]]
    begun = replace(bare, special=~mask | torch.tensor([[False, False, True, False], [True, False, False, False]]))
    assert begun.predicted.tolist() == bare.predicted.tolist() and bare.content.tolist() == mask.tolist()


def test_tokens_are_moved_with_all_that_they_hold_whichever_part_is_elsewhere() -> None:
    away, mask = torch.device("meta"), torch.ones(1, 2).bool()
    bare = Tokens(torch.ones(1, 2).long(), mask, ~mask)
    assert bare.to(away).ids.device == away and bare.to(torch.device("cpu")) is bare
    there = bare.to(away)
    others: list[Tokens] = [
        replace(there, offsets=torch.zeros(1, 2, 2).long()),
        replace(there, inputs={0: torch.zeros(1, 3)}),
        replace(there, more={"kinds": torch.zeros(1, 2)}),
        replace(there, decoder=bare),
    ]
    for one in others:
        moved = one.to(away)
        held: list[Tensor | None] = [moved.offsets, *(moved.inputs or {}).values(), *moved.more.values()]
        held += [moved.decoder.ids if moved.decoder else None]
        assert {part.device for part in held if part is not None} == {away}


def test_generated_tokens_are_put_after_what_was_given_and_have_no_place_in_the_text() -> None:
    given = replace(batch("left"), prompt_pos=None)
    new = torch.tensor([[7, 8, 9]] * 3)
    longer = given.extend(new, new > 7, new == 9)
    assert longer.prompt_pos == 4 and longer.extend(new, new > 7, new == 9).prompt_pos == 4
    assert longer.ids[:, 4:].tolist() == new.tolist() and longer.mask[:, 4:].tolist() == (new > 7).tolist()
    assert longer.special[:, 4:].tolist() == (new == 9).tolist() and longer.ids[:, :4].tolist() == given.ids.tolist()
    assert longer.offsets is not None and longer.offsets.shape == (3, 7, 2) and not bool(longer.offsets[:, 4:].any())


def test_pictures_are_places_and_so_is_whatever_else_is_no_text() -> None:
    mask = torch.ones(1, 1).bool()
    bare = Tokens(torch.zeros(1, 1).long(), mask, ~mask)
    assert not bare.are_places
    assert replace(bare, inputs={0: torch.zeros(1, 3)}).are_places
    assert replace(bare, images=Images(torch.zeros(1, 3, 4, 4))).are_places
    grid = Grid((1, 1), (4.0, 4.0), (2.0, 2.0), (4.0, 4.0), (4, 4))
    assert bare.grid is None and replace(bare, grids={None: grid, resid_post[0]: grid}).grid == grid
