"""The buffer that mixes rows serves each row of a pass once, and reads no more of its source than will be served."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hooks.errors import InvalidArgument
from interp.sae.data.shuffle_buffer import ShuffleBuffer
from interp.sae.data.source import Source


class Numbers:
    """Chunks of consecutive numbers, as rows of one column; how many chunks were asked for."""

    def __init__(self, chunks: int, rows: int = 4) -> None:
        self.chunks, self.rows, self.read, self.begun = chunks, rows, 0, 0

    def __call__(self) -> Iterator[Tensor]:
        self.begun += 1
        for number in range(self.chunks):
            self.read += 1
            yield torch.arange(number * self.rows, (number + 1) * self.rows).float()[:, None]


def buffer_of(numbers: Numbers, size: int, batch: int, **ends: float) -> ShuffleBuffer:
    generator = torch.Generator().manual_seed(0)
    return ShuffleBuffer(Source(numbers, "numbers"), buffer=size, batch_size=batch, generator=generator, **ends)


def served(buffer: ShuffleBuffer, batches: int) -> list[int]:
    return torch.cat([next(buffer) for _ in range(batches)])[:, 0].int().tolist()


@pytest.mark.parametrize(("size", "batch", "ends"), [(16, 8, 64), (24, 4, 96), (32, 8, 80), (16, 8, 16), (40, 4, 120)])
def test_up_to_its_end_each_row_is_served_once_and_none_is_read_that_is_not_served(
    size: int, batch: int, ends: int
) -> None:
    numbers = Numbers(1000)
    rows = served(buffer_of(numbers, size, batch, ends=ends), ends // batch)
    assert sorted(rows) == list(range(ends))
    assert numbers.read == ends // numbers.rows


def test_beyond_the_end_it_goes_on() -> None:
    numbers = Numbers(1000)
    rows = served(buffer_of(numbers, 16, 8, ends=32), 8)
    assert len(set(rows)) == 64 and set(range(32)) <= set(rows)


def test_without_an_end_half_of_the_buffer_is_served_before_it_is_filled_again() -> None:
    numbers = Numbers(1000)
    buffer = buffer_of(numbers, 16, 4)
    assert buffer.fills == 0
    first = served(buffer, 1)
    assert buffer.fills == 1 and numbers.read == 4 and set(first) <= set(range(16))
    again = served(buffer, 2)
    assert buffer.fills == 2 and numbers.read == 6 and set(again) - set(first)
    assert not set(again[:4]) & set(first)


def test_a_source_that_fits_is_read_once_and_served_in_another_order_each_time() -> None:
    numbers = Numbers(3)
    buffer = buffer_of(numbers, 100, 4)
    passes = [served(buffer, 3) for _ in range(3)]
    assert all(sorted(rows) == list(range(12)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) == 3
    assert (numbers.begun, buffer.fills) == (1, 1)


def test_a_source_larger_than_the_buffer_begins_again_after_its_last_chunk() -> None:
    numbers = Numbers(10)
    rows = served(buffer_of(numbers, 8, 4), 30)
    assert numbers.begun > 1 and set(rows) == set(range(40))


def test_a_buffer_holds_two_batches_at_least_and_a_small_source_makes_the_batch_smaller() -> None:
    assert buffer_of(Numbers(9), 1, 4).rows == 8
    small = buffer_of(Numbers(1), 100, 64)
    assert sorted(served(small, 1)) == [0, 1, 2, 3] and small.batch_size == 4


def test_a_sample_is_of_different_rows_that_stay() -> None:
    buffer = buffer_of(Numbers(4), 16, 4)
    next(buffer)
    sampled = buffer.sample(10, torch.Generator().manual_seed(1))[:, 0].int().tolist()
    assert len(set(sampled)) == 10 and len(buffer.sample(99, torch.Generator())) == 16


def test_one_that_goes_on_serves_what_the_other_would_have() -> None:
    for batches in (1, 3, 4, 9):
        one, other = buffer_of(Numbers(30), 16, 4, ends=100), buffer_of(Numbers(30), 16, 4, ends=100)
        served(one, batches)
        state, held = one.state(), one.held.clone()
        served(other, 1)
        other.restore(state, held)
        assert served(other, 12) == served(one, 12), batches
        assert other.taken == one.taken


def test_a_source_that_gives_nothing_is_named() -> None:
    with pytest.raises(InvalidArgument, match="the source gives no activations: numbers"):
        next(buffer_of(Numbers(0), 8, 4))
    once = iter(Numbers(6)())
    again = ShuffleBuffer(Source(lambda: once, "numbers"), buffer=8, batch_size=4, generator=torch.Generator())
    with pytest.raises(InvalidArgument, match="the source gives nothing when read again: numbers"):
        served(again, 30)
