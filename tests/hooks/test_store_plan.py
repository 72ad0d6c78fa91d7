"""What a plan of a harvest says follows from its numbers, in units one can read."""

import pytest

from hooks.errors import StorageFailed
from hooks.store.plan import Plan, check_disk_space


def plan_of(**changes: object) -> Plan:
    """100 documents of 50 tokens each of 10 bytes, at 25 tokens a second, with 1,000,000 bytes free."""
    numbers: dict[str, object] = {
        "url": "store",
        "documents": 100,
        "tokens_per_document": 50.0,
        "bytes_per_token": 10,
        "tokens_per_second": 25.0,
        "processes": 1,
        "tokens_done": 0,
        "free": 1_000_000,
    }
    return Plan(**(numbers | changes))  # type: ignore[arg-type]


def test_bytes_and_seconds_are_those_of_the_tokens_that_are_not_there_yet() -> None:
    whole, half = plan_of(), plan_of(tokens_done=2_000, processes=2)
    assert (whole.tokens, whole.bytes, whole.bytes_to_write, whole.seconds) == (5_000, 50_800, 50_800, 200.0)
    assert (half.bytes, half.bytes_to_write, half.seconds) == (50_800, 30_800, 60.0)
    assert (plan_of(tokens_done=9_000).bytes_to_write, plan_of(tokens_done=9_000).seconds) == (0, 0.0)
    assert plan_of(tokens_per_document=0.004).tokens == 0 and plan_of(tokens_per_document=0.016).tokens == 2
    assert plan_of(tokens_per_second=0.0).seconds is None
    stream = plan_of(documents=None)
    assert (stream.tokens, stream.bytes, stream.bytes_to_write, stream.seconds) == (None, None, None, None)


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (1_500, "1.5 kB"),
        (999_000, "999 kB"),
        (1_000_000, "1 MB"),
        (999_000_000, "999 MB"),
        (10**9, "1 GB"),
        (10**12, "1 TB"),
        (5 * 10**15, "5e+03 TB"),
        (None, "unknown"),
    ],
)
def test_bytes_are_said_in_the_largest_unit_of_which_there_is_one(free: int | None, said: str) -> None:
    assert str(plan_of(free=free)).endswith(f"; free on the disk: {said}")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2.0 minutes"),
        (150, "2.5 minutes"),
        (7_140, "119.0 minutes"),
        (7_200, "2.0 hours"),
        (9_000, "2.5 hours"),
        (86_400, "24.0 hours"),
        (172_800, "2.0 days"),
        (864_000, "10.0 days"),
    ],
)
def test_time_is_said_in_the_largest_unit_of_which_there_are_two(seconds: int, said: str) -> None:
    text = str(plan_of(documents=seconds, tokens_per_document=1.0, tokens_per_second=1.0, free=None))
    assert f", {said} at 1 tokens/s;" in text


def test_a_plan_says_how_many_tokens_documents_processes_and_what_is_there_already() -> None:
    assert str(plan_of()) == (
        "to store: about 5,000 tokens of 100 documents, 50.8 kB, 3.3 minutes at 25 tokens/s; free on the disk: 1 MB"
    )
    again = str(plan_of(tokens_done=2_000, processes=2))
    assert again == (
        "to store: about 5,000 tokens (2,000 of them there already) of 100 documents, 50.8 kB, 60 s at 25 tokens/s in "
        "each of 2; free on the disk: 1 MB"
    )
    assert ", an unknown time at 0 tokens/s;" in str(plan_of(tokens_per_second=0.0))
    assert str(plan_of(documents=None)) == (
        "to store: a stream of unknown length, about 50 tokens a document, 10 bytes per token, 25 tokens/s; free on "
        "the disk: 1 MB"
    )


def test_what_fits_to_the_last_byte_fits_and_one_more_does_not() -> None:
    plan_of(free=50_800).check_room()
    plan_of(free=None).check_room()
    plan_of(documents=None, free=0).check_room()
    plan_of(free=30_800, tokens_done=2_000).check_room()
    with pytest.raises(StorageFailed, match=r"50\.8 kB do not fit on the disk of store, which has 50\.8 kB free"):
        plan_of(free=50_799).check_room()
    check_disk_space("store", 10, 10)
    check_disk_space("store", 10, None)
    with pytest.raises(StorageFailed, match="11 B do not fit on the disk of store, which has 10 B free"):
        check_disk_space("store", 11, 10)
