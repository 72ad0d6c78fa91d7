"""Intervals agree with independent implementations and closed forms."""

import re
from collections.abc import Callable
from math import inf, isnan, nan
from pathlib import Path

import pytest
import torch

from hooks.errors import InvalidArgument
from hooks.statistics import auroc_over_groups, balanced_accuracy_over_groups, share_over_groups, shares_over_groups
from interp.common.statistics import (
    Estimate,
    bootstrap,
    draw_groups,
    mean_over_groups,
    mean_share,
    mean_with_interval,
    percentile_ends,
    share,
    student,
    wilson,
)
from interp.tuning.persona import correlate
from probes import detection
from probes.folds import exchange_labels, grouped_folds


def test_a_value_and_its_interval_have_the_same_digits_and_where_there_is_no_interval_it_says_so() -> None:
    assert f"{Estimate(1.004, 1.002, 1.0049, 8):.4g}" == "1.004 (1.002 to 1.005)"
    assert f"{Estimate(0.5, 0.25, 0.75, 8):+.0%}" == "+50% (+25% to +75%)"
    assert str(Estimate(0.5, 0.25, 0.75, 8)) == f"{Estimate(0.5, 0.25, 0.75, 8)}" == "0.500 (0.250 to 0.750, n = 8)"
    one = mean_with_interval(torch.tensor([1.114]))
    assert str(one) == "1.114 (no interval: n = 1)" and f"{one:.1f}" == "1.1 (no interval: n = 1)"


@pytest.mark.parametrize("ends", [(-inf, 2.0), (0.5, inf), (nan, nan)])
def test_an_interval_without_an_end_is_said_to_be_none(ends: tuple[float, float]) -> None:
    one = Estimate(1.0, *ends, 7)
    assert not one.is_bounded and one.ends() == "no interval: n = 7" and str(one) == "1.000 (no interval: n = 7)"


def test_no_package_writes_the_ends_of_an_interval_by_itself() -> None:
    by_hand = re.compile(r"\.(low|high):[^}\]]+\}")
    for file in (Path(__file__).parents[3] / "interp").rglob("*.py"):
        assert not by_hand.search(file.read_text("utf-8")), f"{file.name}: an estimate writes its ends with its digits"


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (3, 50), (49, 50), (20, 20)])
def test_the_interval_of_a_share_is_wilsons(hits: int, n: int) -> None:
    from scipy.stats import binomtest

    found = share(torch.arange(n) < hits)
    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high, found.n) == pytest.approx((hits / n, low, high, n))


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a share of 0 outcomes"):
        share(torch.zeros(0, dtype=torch.bool))


def test_the_bootstrap_of_a_mean_is_two_standard_errors_either_way() -> None:
    x = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    found = bootstrap(lambda samples: float(samples[0].mean()), [x], draws=2000)
    error = float(x.std()) / 20
    assert found.value == pytest.approx(float(x.mean()))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_the_bootstrap_of_a_constant_has_no_width() -> None:
    found = bootstrap(lambda samples: float(samples[0].mean()), [torch.full((30,), 2.0)])
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


def test_the_bootstrap_of_an_empty_sample_is_refused() -> None:
    with pytest.raises(ValueError, match=r"samples of \[0\] rows were given: none may be empty"):
        bootstrap(lambda samples: 0.0, [torch.zeros(0)])


def test_the_interval_of_mean_shares_is_wilsons_and_has_a_width_where_all_are_alike() -> None:
    assert mean_share(torch.ones(20)) == share(torch.ones(20, dtype=torch.bool))
    assert mean_share(torch.full((20,), 0.25)) == mean_share(torch.tensor([1.0] * 5 + [0.0] * 15))
    for wrong in (torch.zeros(0), torch.tensor([0.5, 1.1]), torch.tensor([torch.nan])):
        with pytest.raises(ValueError, match="give at least one, all from 0 to 1"):
            mean_share(wrong)


def test_a_share_is_of_outcomes_that_are_true_or_false() -> None:
    for wrong in (torch.tensor([1.0, torch.nan]), torch.tensor([0.5, 2.0])):
        with pytest.raises(Exception, match=r"a share is of outcomes that are True or False|Type-check"):
            share(wrong)


def test_the_bootstrap_of_one_row_knows_no_interval() -> None:
    found = bootstrap(lambda samples: float(samples[0].mean()), [torch.tensor([3.0])])
    assert (found.value, found.n) == (3.0, 1)
    assert isnan(found.low) and isnan(found.high)


def test_the_interval_of_a_mean_of_a_few_values_is_students() -> None:
    from scipy import stats

    for values in ([1.0, 2.5, 2.0, 4.0, 3.0], [i**0.5 for i in range(40)]):
        found = student(values)
        ends = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values))
        assert (found.low, found.high, found.n) == pytest.approx((*ends, len(values)))
    assert isnan(student([1.0]).low) and isnan(student([1.0]).high)
    with pytest.raises(ValueError, match="an interval of no values"):
        student([])


def test_percentile_ends_are_numpys_of_what_is_not_nan() -> None:
    import numpy

    drawn = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
    drawn[::7, 1] = torch.nan
    expected = numpy.nanpercentile(drawn.numpy(), [2.5, 97.5], axis=0)
    assert percentile_ends(drawn).numpy() == pytest.approx(expected)


def test_every_draw_of_groups_holds_as_many_as_there_are_and_each_comes_once_on_average() -> None:
    times = draw_groups(7, 4000, seed=0)
    assert torch.equal(times.sum(1), torch.full((4000,), 7.0).double())
    assert times.mean(0).tolist() == pytest.approx([1.0] * 7, abs=0.06)
    assert times.var(0).tolist() == pytest.approx([6 / 7] * 7, rel=0.1)


def test_an_estimate_is_printed_with_its_interval_and_its_number_of_cases() -> None:
    assert str(share(torch.arange(20) < 5)) == "0.250 (0.112 to 0.469, n = 20)"


NONE, ROWS, GROUPS = torch.zeros(0), torch.tensor([True, False, True, False]), torch.tensor([0, 0, 1, 1])
ALL, ODD = torch.ones(4, dtype=torch.bool), torch.tensor([0.1, torch.nan, 0.3, 0.4])
SCORES, FOLD = torch.tensor([0.9, 0.2, 0.8, 0.4]), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("estimate", "message"),
    [
        (lambda: wilson(1.2, 10), r"a share of 1\.2 of 10 cases was given: give a share from 0 to 1"),
        (lambda: wilson(-0.1, 10), "a share of -0.1 of 10 cases"),
        (lambda: wilson(nan, 10), "a share of nan of 10 cases"),
        (lambda: wilson(12 / 10, 10), "of at least one case"),
        (lambda: wilson(0.5, 0), "a share of 0.5 of 0 cases"),
        (lambda: wilson(0.5, -3), "a share of 0.5 of -3 cases"),
        (lambda: student([]), "an interval of no values"),
        (lambda: student([1.0, nan]), "are not all finite"),
        (lambda: percentile_ends(NONE), "the interval of no draws"),
        (lambda: bootstrap(lambda drawn: 0.0, []), "none may be empty"),
        (lambda: bootstrap(lambda drawn: 0.0, [SCORES], draws=0), "draws is 0"),
        (lambda: mean_with_interval(NONE), "none may be empty"),
        (lambda: draw_groups(0, 10, 0), "0 groups were given to draw from"),
        (lambda: draw_groups(2, -1, 0), "draws is -1"),
        (lambda: share_over_groups(ROWS[:0], GROUPS[:0]), "0 rows and 0 groups were given"),
        (lambda: share_over_groups(ROWS, GROUPS - 1), "group -1 was given: groups are numbered from 0"),
        (lambda: share_over_groups(ROWS, GROUPS, draws=0), "draws is 0"),
        (lambda: shares_over_groups(ROWS[:0, None], GROUPS[:0]), "0 rows and 0 groups were given"),
        (lambda: shares_over_groups(ROWS[:, None], GROUPS - 2), "group -2 was given"),
        (lambda: balanced_accuracy_over_groups(ROWS, ALL, GROUPS), "labels are all True: give rows of both classes"),
        (lambda: balanced_accuracy_over_groups(ROWS, ~ALL, GROUPS), "labels are all False"),
        (lambda: balanced_accuracy_over_groups(ROWS[:0], ROWS[:0], GROUPS[:0]), "0 rows and 0 groups were given"),
        (lambda: auroc_over_groups(ODD, ROWS, GROUPS, FOLD), "1 of 4 scores are NaN"),
        (lambda: auroc_over_groups(SCORES, ALL, GROUPS, FOLD), "no fold has rows of both classes"),
        (lambda: auroc_over_groups(SCORES, GROUPS == 1, GROUPS, FOLD), "no fold has rows of both classes"),
        (lambda: auroc_over_groups(SCORES, ROWS, GROUPS, FOLD, draws=0), "draws is 0"),
        (lambda: auroc_over_groups(SCORES[:0], ROWS[:0], GROUPS[:0], FOLD[:0]), "0 rows and 0 groups were given"),
        (lambda: correlate(ODD, SCORES), "1 of 4 rows are not finite: leave them out"),
        (lambda: detection(SCORES, ROWS, nan), "the threshold is NaN"),
    ],
)
def test_what_is_no_sample_gives_no_estimate(estimate: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        estimate()


def test_an_estimate_over_groups_is_that_of_its_rows() -> None:
    assert share_over_groups(ROWS, GROUPS).value == 0.5
    assert balanced_accuracy_over_groups(ROWS, ROWS, GROUPS).value == 0.5
    assert auroc_over_groups(SCORES, ROWS, GROUPS, FOLD).value == 1.0
    assert shares_over_groups(torch.stack([ROWS, ALL], 1), GROUPS)[0].tolist() == [0.5, 1.0]


def test_group_numbers_with_gaps_give_what_numbers_without_give() -> None:
    g = torch.Generator().manual_seed(0)
    group = torch.arange(12).repeat_interleave(3)
    y, right, score = torch.rand(36, generator=g) < 0.5, torch.rand(36, generator=g) < 0.7, torch.rand(36, generator=g)
    fold, apart = group % 2, 50 * group + 7
    assert share_over_groups(right, apart) == share_over_groups(right, group)
    assert share_over_groups(torch.ones_like(y), apart).n == 12
    assert balanced_accuracy_over_groups(right, y, apart) == balanced_accuracy_over_groups(right, y, group)
    assert auroc_over_groups(score, y, apart, fold) == auroc_over_groups(score, y, group, fold)
    pairs = zip(shares_over_groups(right[:, None], apart), shares_over_groups(right[:, None], group), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert torch.equal(grouped_folds(apart, y, 3, 0), grouped_folds(group, y, 3, 0))
    whole = (group % 2).bool()
    assert torch.equal(exchange_labels(whole, apart, 3), exchange_labels(whole, group, 3))


def test_the_interval_of_a_mean_over_groups_is_that_of_the_means_of_groups_that_are_drawn_again() -> None:
    g = torch.Generator().manual_seed(0)
    mean, group = torch.randn(200, generator=g), torch.arange(200).repeat_interleave(4)
    found = mean_over_groups(mean.repeat_interleave(4).double(), group)
    half = 1.96 * float(mean.std()) / 200**0.5
    assert found.value == pytest.approx(float(mean.mean()), abs=1e-6) and found.n == 200
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.15 * half)
    alone = mean_over_groups(torch.randn(9, generator=g).double(), torch.full((9,), 5))
    assert alone.n == 1 and isnan(alone.low) and isnan(alone.high)
    with pytest.raises(InvalidArgument, match="0 rows and 0 groups"):
        mean_over_groups(SCORES[:0], GROUPS[:0])


def test_a_share_of_none_or_of_all_ends_exactly_there() -> None:
    for n in range(1, 60):
        assert wilson(0.0, n).low == 0.0 < wilson(0.0, n).high < 1.0
        assert wilson(1.0, n).high == 1.0 > wilson(1.0, n).low > 0.0


def test_two_values_two_rows_and_two_groups_have_an_interval() -> None:
    from scipy import stats

    assert (student([1.0, 3.0]).low, student([1.0, 3.0]).high) == pytest.approx(stats.t.interval(0.95, 1, 2.0, 1.0))
    two = torch.tensor([0.0, 1.0]).double()
    rows, groups = mean_with_interval(two), mean_over_groups(two, torch.tensor([0, 4]))
    assert (
        (rows.low, rows.value, rows.high, rows.n) == (groups.low, groups.value, groups.high, groups.n) == (0, 0.5, 1, 2)
    )


def test_where_any_of_several_samples_is_one_row_no_interval_is_known_and_the_first_is_counted() -> None:
    def gap(samples: list[torch.Tensor]) -> float:
        return float(samples[0].mean() - samples[1].mean())

    one, some, more = (torch.arange(n).double() for n in (1, 4, 6))
    for samples, n in (([one, some], 1), ([some, one], 4)):
        found = bootstrap(gap, samples)
        assert isnan(found.low) and isnan(found.high) and found.n == n
    found = bootstrap(gap, [more, some])
    assert found.low < found.value == 1.0 < found.high and found.n == 6


G = torch.Generator().manual_seed(5)
OF_GROUP = torch.tensor([3, 3, 3, 0, 9, 9, 5, 5, 5, 5, 7, 0, 12, 12])
NUMBER = OF_GROUP.unique(return_inverse=True)[1]
RIGHT, LABEL = torch.rand(14, generator=G) < 0.6, torch.rand(14, generator=G) < 0.3
SCORE, IN_FOLD = torch.rand(14, generator=G).round(decimals=1), NUMBER % 2
EVERY = torch.ones(14, dtype=torch.bool)


def share_of(rows: torch.Tensor) -> float:
    return float(RIGHT[rows].double().mean())


def balanced_of(rows: torch.Tensor) -> float:
    return sum(float(RIGHT[rows][LABEL[rows] == one].double().mean()) for one in (True, False)) / 2


def auroc_of(rows: torch.Tensor) -> float:
    won, pairs = 0.0, 0
    for fold in (0, 1):
        held = [row for row in rows.tolist() if int(IN_FOLD[row]) == fold]
        for a in (row for row in held if LABEL[row]):
            for b in (row for row in held if not LABEL[row]):
                won, pairs = won + float(SCORE[a] > SCORE[b]) + 0.5 * float(SCORE[a] == SCORE[b]), pairs + 1
    return won / pairs if pairs else nan


@pytest.mark.parametrize(
    ("of_rows", "found"),
    [
        (share_of, lambda draws, seed: share_over_groups(RIGHT, OF_GROUP, draws, seed)),
        (share_of, lambda draws, seed: mean_over_groups(RIGHT.double(), OF_GROUP, draws, seed)),
        (balanced_of, lambda draws, seed: balanced_accuracy_over_groups(RIGHT, LABEL, OF_GROUP, draws, seed)),
        (auroc_of, lambda draws, seed: auroc_over_groups(SCORE, LABEL, OF_GROUP, IN_FOLD, draws, seed)),
    ],
)
def test_an_interval_over_groups_is_the_percentiles_of_what_the_rows_of_the_groups_drawn_give(
    of_rows: Callable[[torch.Tensor], float], found: Callable[[int, int], Estimate]
) -> None:
    """Rows are put together group by group, as often as a group is drawn; draws without a class are left out."""
    import numpy

    draws, seed = 80, 3
    times = draw_groups(6, draws, seed).long()
    drawn = [of_rows(torch.arange(14).repeat_interleave(one[NUMBER])) for one in times]
    low, high = numpy.nanpercentile(drawn, [2.5, 97.5])
    said = found(draws, seed)
    assert (said.value, said.low, said.high) == pytest.approx((of_rows(torch.arange(14)), low, high), abs=1e-12)
    assert said.n == 6 and low < high


def test_where_nothing_varies_over_groups_every_interval_is_wilsons_of_as_many_groups() -> None:
    group, y = torch.arange(12).repeat_interleave(2), torch.tensor([True, False]).repeat(12)
    for value, found in (
        (0.5, balanced_accuracy_over_groups(y, y, group)),
        (1.0, auroc_over_groups(y.double(), y, group, torch.zeros(24).long())),
        (0.0, auroc_over_groups(-y.double(), y, group, torch.zeros(24).long())),
    ):
        assert found == wilson(value, 12)


def columns(*shares: float, n: int = 100, rows: int = 5, seed: int = 0) -> torch.Tensor:
    """Columns of n groups, each of them right in a fifth or in four fifths of its rows, a share of them the former."""
    g, found = torch.Generator().manual_seed(seed), []
    for share_of_low in shares:
        few = torch.rand(n, generator=g) < share_of_low
        found.append((torch.arange(rows) < torch.where(few, 1, rows - 1)[:, None]).flatten())
    return torch.stack(found, 1)


@pytest.mark.parametrize("kind", ["varying", "alike", "tight"])
def test_intervals_at_once_are_as_wide_as_the_largest_deviation_and_as_wilsons_where_nothing_varies(kind: str) -> None:
    if kind == "varying":
        right, n = columns(0.5, 0.4, 0.5, 0.6, 0.5, 0.5), 100
    elif kind == "alike":
        right, n = columns(1.0, 0.0, n=10).repeat(1, 3), 10
    else:
        right, n = columns(*[0.0] * 6, n=40), 40
        for column in range(6):
            right[5 * column + 1 : 5 * column + 5, column] = False
    group = torch.arange(n).repeat_interleave(5)
    times = draw_groups(n, 400, 2)
    by_group = right.unflatten(0, (n, 5)).double().mean(1)
    share = by_group.mean(0)
    deviation = (times @ by_group / n - share).abs()
    width = max(float(deviation.max(1).values.quantile(0.95)), wilson(0.0, n).high)
    if kind == "alike":
        width = max(max(p - wilson(p, n).low, wilson(p, n).high - p) for p in (0.2, 0.8))
        assert width > wilson(0.0, n).high
    else:
        assert (width == wilson(0.0, n).high) == (kind == "tight")
    found = shares_over_groups(right.unflatten(1, (2, 3)), group, 400, 2)
    wanted = share, (share - width).clamp(0, 1), (share + width).clamp(0, 1)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == (2, 3)
        torch.testing.assert_close(one.flatten(), other, atol=1e-9, rtol=0)
