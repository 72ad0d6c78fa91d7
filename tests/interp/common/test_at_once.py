"""Several figures of the same cases: what may be said of any of them, after it was chosen."""

from math import isnan

import pytest
import torch
from scipy.stats import t

from interp.common.at_once import estimates_at_once, means_at_once, shares_apart
from interp.common.statistics import mean_over_groups


def test_intervals_of_many_figures_hold_all_of_them_95_times_in_100_and_those_of_each_do_not() -> None:
    g = torch.Generator().manual_seed(0)
    held, alone = 0, 0
    for seed in range(200):
        x = torch.randn(30, 8, generator=g) + torch.randn(30, 1, generator=g)
        held += all(e.low <= 0 <= e.high for e in means_at_once(x, seed=seed))
        alone += all(e.low <= 0 <= e.high for column in x.T for e in means_at_once(column[:, None], seed=seed))
    assert held >= 0.92 * 200 and alone < 0.88 * 200


def test_the_interval_of_one_figure_is_students() -> None:
    x = torch.randn(12, 1, generator=torch.Generator().manual_seed(1)).double()
    (found,) = means_at_once(x)
    half = float(t.ppf(0.975, 11) * x.std() / 12**0.5)
    assert found.value == pytest.approx(float(x.mean())) and found.n == 12
    assert found.high - found.value == pytest.approx(half, rel=0.05) == found.value - found.low


def test_figures_that_are_one_and_the_same_have_the_interval_of_one() -> None:
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(2))
    assert means_at_once(x.expand(-1, 20))[7] == means_at_once(x)[0]


def test_rows_of_one_group_are_one_case() -> None:
    x = torch.randn(10, 1, generator=torch.Generator().manual_seed(3))
    group = torch.arange(10).repeat_interleave(5)
    found = means_at_once(x.repeat_interleave(5, 0), 3 * group + 4)[0]
    assert found == means_at_once(x)[0] and found.n == mean_over_groups(x[:, 0], torch.arange(10)).n
    assert isnan(means_at_once(x, torch.zeros(10, dtype=torch.long))[0].low)


@pytest.mark.parametrize(("n", "columns", "sure"), [(3, 1, False), (4, 1, True), (8, 12, False), (9, 12, True)])
def test_what_differs_in_every_case_is_sure_from_as_many_cases_as_its_columns_need(
    n: int, columns: int, sure: bool
) -> None:
    yes = torch.ones(n, columns, dtype=torch.bool)
    found = shares_apart(yes, ~yes)
    assert all(e.value == 1.0 and (e.low > 0) is sure for e in found) and len(found) == columns
    none = shares_apart(yes, yes)[0]
    assert none.value == 0.0 and not none.low > 0


def test_shares_that_overlap_alone_differ_where_one_fails_on_cases_of_the_other() -> None:
    at = torch.arange(20)
    assert shares_apart(at < 10, at < 4)[0].low > 0
    assert not shares_apart(at < 10, (at >= 6) & (at < 16))[0].low > 0


def test_a_figure_of_one_case_has_no_interval() -> None:
    (found,) = estimates_at_once(torch.ones(1).double(), torch.ones(9, 1).double(), 1)
    assert found.value == 1.0 and not found.is_bounded
