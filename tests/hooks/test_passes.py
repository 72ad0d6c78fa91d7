"""What a pass knows of a text that is read in pieces, repeated or gone on with, worked out column by column."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.passes import Pass, asked_mask, continue_tokens, fresh, prompt_width, spread
from hooks.position import Position, everywhere, special
from hooks.tokens import Tokens

MARKS = frozenset({0, 9})  # special ids


def drawn(seed: int, texts: int = 2, width: int = 5, prompt_pos: int | None = None) -> Tokens:
    """Texts of random ids with padding at either end."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 10, (texts, width), generator=random)
    ends = torch.randint(0, 2, (2, texts), generator=random)
    column = torch.arange(width)
    mask = (column >= ends[0][:, None]) & (column < width - ends[1][:, None])
    starts = torch.arange(width).expand(texts, width)
    return Tokens(
        ids=ids,
        mask=mask,
        special=~mask | torch.isin(ids, torch.tensor([*MARKS])),
        texts=tuple(f"text {number}" for number in range(texts)),
        offsets=torch.stack([starts, starts + 1], dim=-1),
        prompt_pos=prompt_pos,
    )


def test_a_pass_is_of_the_prompt_where_it_begins_with_it_or_within_it() -> None:
    def prefill(start: int, prompt_pos: int | None) -> bool:
        return Pass(drawn(0, prompt_pos=prompt_pos), start, 5).prefill

    assert [prefill(start, 3) for start in range(5)] == [True, True, True, False, False]
    assert [prefill(start, None) for start in range(5)] == [True] * 5
    assert [prefill(start, 0) for start in range(3)] == [True, False, False]


def test_the_prompt_ends_where_generated_columns_begin_or_with_the_last_column_there_is() -> None:
    assert prompt_width(drawn(0)) == 5 and prompt_width(drawn(0, prompt_pos=3)) == 3
    assert prompt_width(drawn(0, prompt_pos=3).cut(2)) == 2


def test_a_site_of_other_places_is_computed_whole_and_one_of_a_text_is_the_pass_itself() -> None:
    text = Pass(drawn(0), 1, 4)
    assert text.places(7) is text
    ids = torch.arange(4).expand(2, 4)
    real = torch.ones_like(ids, dtype=torch.bool)
    places = Pass(Tokens(ids, real, ~real, inputs={0: torch.zeros(2, 3)}), 0, 4).places(9)
    assert (places.start, places.end, tuple(places.tokens.ids.shape)) == (0, 9, (2, 9))


@pytest.mark.parametrize("at", [everywhere, special, everywhere | special], ids=repr)
@pytest.mark.parametrize(("start", "end"), [(0, 5), (1, 4), (3, 5)])
def test_rows_of_a_pass_are_the_selected_tokens_of_its_columns_numbered_in_their_text(
    at: Position, start: int, end: int
) -> None:
    for seed in range(4):
        tokens = drawn(seed, texts=3, prompt_pos=4)
        chosen, rows = at.mask(tokens), Pass(tokens, start, end).rows(at)
        expected = [
            (row, column, sum(tokens.mask[row, :column].tolist()))
            for row in range(3)
            for column in range(start, end)
            if bool(chosen[row, column])
        ]
        assert [*zip(rows.row.tolist(), rows.column.tolist(), rows.token.tolist(), strict=True)] == expected
        assert (rows.start, rows.shape) == (start, (3, 4))


def test_ids_alone_are_real_where_no_mask_hides_them_and_special_by_their_number() -> None:
    ids, mask = torch.tensor([[0, 3, 9, 4]]), torch.tensor([[False, True, True, False]])
    assert fresh(ids, None, MARKS).mask.tolist() == [[True] * 4]
    assert fresh(ids, None, MARKS).special.tolist() == [[True, False, True, False]]
    hidden = fresh(ids, mask, MARKS)
    assert hidden.mask.equal(mask) and hidden.special.tolist() == [[True, False, True, True]]


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("columns", [-1, 0, 2], ids=["a piece", "all", "more than all"])
def test_a_prompt_is_repeated_for_every_beam_of_it_as_far_as_it_was_read(width: int, times: int, columns: int) -> None:
    prompt = drawn(1, width=width)
    ids = prompt.ids.repeat_interleave(times, dim=0)
    ids = torch.cat([ids, torch.full((2 * times, 2), 7)], dim=1)[:, : max(1, width + columns)]
    found = spread(prompt, ids)
    assert found is not None
    for name in ("ids", "mask", "special", "offsets"):
        expected = torch.stack([one for one in getattr(prompt, name) for _ in range(times)])
        assert torch.equal(getattr(found, name), expected), name
    assert found.texts == tuple(text for text in ("text 0", "text 1") for _ in range(times))


def test_a_prompt_is_that_of_ids_that_begin_with_it_and_of_no_others() -> None:
    prompt = drawn(2, width=4)
    assert spread(prompt, prompt.ids) is prompt
    assert spread(prompt, torch.cat([prompt.ids, prompt.ids], dim=1)) is prompt
    other = prompt.ids.clone()
    other[1, 3] = 10
    said_by_hand = replace(prompt, prompt_pos=3)
    assert spread(prompt, other) is None and spread(said_by_hand, other) is said_by_hand
    assert spread(prompt, prompt.ids[:1]) is None and spread(prompt, prompt.ids[[0, 0, 1]]) is None
    assert spread(prompt, prompt.ids[:0]) is None and spread(prompt, prompt.ids[:, :0]) is None
    assert spread(replace(prompt, prompt_pos=0), prompt.ids) is None
    bare = spread(replace(prompt, texts=None, offsets=None), prompt.ids[[0, 0, 1, 1]])
    assert bare is not None and bare.texts is None and bare.offsets is None


def gone_on(known: Tokens, ids: Tensor, start: int, mask: Tensor | None) -> dict[str, Any]:
    """Column by column, what is known after `ids` were read from a column on."""
    columns = [[known.ids[:, c], known.mask[:, c], known.special[:, c]] for c in range(known.ids.shape[1])]
    end, texts, prompt_pos = start + ids.shape[1], known.texts, known.prompt_pos
    there = range(start, min(end, len(columns)))
    if any(not torch.equal(columns[c][0], ids[:, c - start]) for c in there):
        texts = None if start < prompt_width(known) else texts
        columns = columns[:start]
    prompt_pos = len(columns) if prompt_pos is None and end > len(columns) else prompt_pos
    for c in range(len(columns), end):
        new = ids[:, c - start]
        real = torch.ones_like(new, dtype=torch.bool) if mask is None else mask[:, c]
        columns.append([new, real, ~real | torch.isin(new, torch.tensor([*MARKS]))])
    for c in range(0 if mask is None else end):
        assert mask is not None
        columns[c] = [columns[c][0], mask[:, c], columns[c][2] | ~mask[:, c]]
    stacked = [torch.stack(one, dim=1) for one in zip(*columns, strict=True)]
    return {"ids": stacked[0], "mask": stacked[1], "special": stacked[2], "texts": texts, "prompt_pos": prompt_pos}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("prompt_pos", [None, 3])
def test_what_is_known_once_more_is_read_is_what_was_known_up_to_the_first_column_that_differs(
    masked: bool, prompt_pos: int | None
) -> None:
    random = torch.Generator().manual_seed(5)
    for seed in range(60):
        known = drawn(seed, prompt_pos=prompt_pos)
        start, n = int(torch.randint(0, 6, (), generator=random)), int(torch.randint(1, 4, (), generator=random))
        ids = torch.randint(0, 10, (2, n), generator=random)
        if seed % 3:  # what is known is read again
            both = known.ids[:, start : start + n]
            ids[:, : both.shape[1]] = both
        if seed % 3 == 2 and both.shape[1]:  # but for its last column
            ids[1, both.shape[1] - 1] += 1
        mask = torch.randint(0, 4, (2, start + n), generator=random) > 0 if masked else None
        found, expected = continue_tokens(known, ids, start, mask, MARKS), gone_on(known, ids, start, mask)
        for name in ("ids", "mask", "special"):
            assert torch.equal(getattr(found, name), expected[name]), (seed, name)
        assert (found.texts, found.prompt_pos) == (expected["texts"], expected["prompt_pos"]), seed
        assert (found.offsets is None) == (expected["texts"] is None)
        if found.offsets is not None and known.offsets is not None:
            assert found.offsets.shape[1] == found.ids.shape[1]
            kept = min(start, 5)
            assert torch.equal(found.offsets[:, :kept], known.offsets[:, :kept])


def test_what_is_read_again_as_it_was_is_the_same_object() -> None:
    known = drawn(4)
    for start, end in ((0, 5), (1, 3), (2, 5)):
        read = known.ids[:, start:end]
        assert continue_tokens(known, read, start, None, MARKS) is known
        assert continue_tokens(known, read, start, known.mask[:, :end], MARKS) is known
    shown = continue_tokens(known, known.ids, 0, torch.ones(2, 5, dtype=torch.bool), MARKS)
    assert bool(shown.mask.all()) and shown.special.equal(known.special)
    with pytest.raises(InvalidArgument, match="the KV cache holds 2 texts, and 1 are continued"):
        continue_tokens(known, known.ids[:1], 5, None, MARKS)


def test_a_mask_says_something_of_the_columns_so_far_where_it_has_one_number_for_each() -> None:
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 1]])
    assert torch.equal(asked_mask(mask, 2, 3), torch.tensor([[False, True, True], [True, True, False]]))  # type: ignore[arg-type]
    assert torch.equal(asked_mask(mask, 2, 4), mask.bool())  # type: ignore[arg-type]
    assert asked_mask(None, 2, 3) is None and asked_mask(mask[:, None, None], 2, 3) is None
    assert asked_mask(mask[None], 1, 2) is None and asked_mask({"full_attention": mask}, 2, 3) is None
    for batch, end in ((3, 4), (2, 5)):
        with pytest.raises(InvalidArgument, match=rf"shape \(2, 4\) does not cover {batch} texts of {end} tokens"):
            asked_mask(mask, batch, end)
