"""How much rounding is allowed, and by how much two tensors differ, on numbers that can be worked out by hand."""

from math import inf, nan

import pytest
import torch

from hooks.contract.rounding import SLACK, change, miss, unit

pytestmark = pytest.mark.usefixtures("unchecked")


def test_a_unit_of_rounding_is_one_of_the_type_and_the_root_of_the_products_in_float32() -> None:
    small = 2.0**-23  # of float32
    assert unit(torch.float32) == 2 * small
    assert unit(torch.bfloat16) == 2.0**-7 + small
    assert unit(torch.float16, 16) == 2.0**-10 + 4 * small
    assert SLACK == 4.0


def test_what_is_missed_is_relative_to_all_that_is_added_at_its_token() -> None:
    """Features of a token are taken together, however many axes they have: 3 and 4 in two heads are of size 5."""
    left = torch.tensor([[[[3.0], [4.0]], [[0.0], [2.0]]]])  # [batch pos head d]
    right, rest = torch.zeros_like(left), torch.zeros_like(left)
    right[0, 0, 0], right[0, 1], rest[0, 1, 1] = 3.0, left[0, 1], 6.0
    assert miss(left, right) == pytest.approx(4 / (5 + 3))
    assert miss(left, left, rest) == pytest.approx(6 / (2 + 2 + 6))
    assert miss(left[:, :1], right[:, :1] / 2, right[:, :1] / 2) == pytest.approx(4 / (5 + 1.5 + 1.5))


def test_a_change_is_relative_to_what_was_there_in_its_row() -> None:
    clean = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert change(clean, clean + torch.tensor([[0.0, 1.0], [0.5, 0.0]])) == pytest.approx(0.5 / 2)
    assert change(clean, clean + torch.tensor([[0.0, 3.0], [0.5, 0.0]])) == pytest.approx(3 / 5)


def test_nothing_is_missed_and_nothing_changed_where_all_is_zero() -> None:
    zero = torch.zeros(2, 3)
    assert miss(zero[None], zero[None]) == change(zero, zero) == 0.0


@pytest.mark.parametrize("bad", [inf, nan])
def test_one_value_that_is_not_finite_is_infinitely_far(bad: float) -> None:
    clean = torch.ones(3, 4)
    other = clean.clone()
    other[1, 2] = bad
    assert miss(clean[None], other[None]) == change(clean, other) == inf
    assert change(clean, clean[:2]) == change(clean, clean[:, :2]) == inf
