"""Examples, folds and intervals: what must not be split is not, and what cannot be measured is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from hooks.statistics import share_over_groups, shares_over_groups
from probes import Examples
from probes.folds import draw_exchanges, exchange_labels, grouped_folds, row_folds

TEXTS = ["a1", "a2", "b1", "b2"]


def grouped(n_groups: int = 30, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups of 1 to 6 rows with labels of both kinds."""
    g = torch.Generator().manual_seed(seed)
    group = torch.arange(n_groups).repeat_interleave(torch.randint(1, 7, (n_groups,), generator=g))
    return group, torch.rand(len(group), generator=g) < 0.4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": [True, False]}, "there are 4 texts and 2 labels"),
        ({"groups": []}, "4 texts and 0 groups; give one per text .groups say which texts share an entity"),
        ({"groups": ["a", "a", "", "b"]}, r"text 2 \('b1'\) has no group"),
        ({"labels": [True] * 4}, "all 4 labels are"),
        ({"texts": ["a1", "a2", "a1", "b2"]}, "the text 'a1' is in groups 'a' and 'b'"),
        ({"entities": [["Rome"], [], [], ["Rome"]]}, "the entity 'Rome' is in groups 'a' and 'b'"),
        ({"entities": ["Rome", "Oslo", "Oslo", "Bonn"]}, "the entity 'Oslo' is in groups 'a' and 'b'"),
    ],
)
def test_examples_that_cannot_be_measured_are_refused(change: dict, said: str) -> None:
    whole = {"texts": TEXTS, "labels": [True, False, True, False], "groups": ["a", "a", "b", "b"], "entities": ()}
    with pytest.raises(ValueError, match=said):
        Examples(**(whole | change))


def test_labels_that_are_not_bool_are_refused_by_examples() -> None:
    with pytest.raises(TypeError, match="labels of two classes are bool, got 2: give True and False, or 1 and 0"):
        Examples(TEXTS, [1, 2, 1, 2], ["a", "a", "b", "b"])


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_folds_and_every_fold_has_its_share(seed: int) -> None:
    group, y = grouped(seed=seed)
    fold = grouped_folds(group, y, 5, seed)
    assert all(len(fold[group == g].unique()) == 1 for g in group.unique())
    sizes, positives = torch.bincount(fold).double(), torch.bincount(fold[y]).double()
    assert float(sizes.max() / sizes.min()) < 1.5
    assert float((positives / sizes - y.double().mean()).abs().max()) < 0.15


def test_another_seed_gives_other_folds_and_the_same_seed_the_same() -> None:
    group, y = grouped()
    assert torch.equal(grouped_folds(group, y, 5, 1), grouped_folds(group, y, 5, 1))
    assert not torch.equal(grouped_folds(group, y, 5, 1), grouped_folds(group, y, 5, 2))


def test_folds_that_could_not_be_learnt_from_are_refused() -> None:
    group, y = torch.arange(6), torch.tensor([True, False, False, False, False, False])
    with pytest.raises(ValueError, match="2 of them hold all positive rows"):
        grouped_folds(group, y, 3, 0)
    with pytest.raises(ValueError, match="7 folds of 6 groups were asked for: give between 2 and 6"):
        grouped_folds(group, y, 7, 0)


def test_row_folds_split_every_group_as_evenly_as_they_can() -> None:
    group, _ = grouped()
    fold = row_folds(group, 3, 0)
    for g in group.unique():
        counts = torch.bincount(fold[group == g], minlength=3)
        assert int(counts.max() - counts.min()) <= 1


def test_labels_are_exchanged_within_groups_where_groups_are_mixed() -> None:
    group, y = grouped()
    new = exchange_labels(y, group, 3)
    mixed = [g for g in group.unique() if len(y[group == g].unique()) == 2]
    assert any(not torch.equal(new[group == g], y[group == g]) for g in mixed)
    assert all(int(new[group == g].sum()) == int(y[group == g].sum()) for g in mixed)


def test_one_group_of_both_labels_does_not_keep_the_others_from_trading_theirs() -> None:
    group = torch.cat([torch.arange(40), torch.tensor([0])])
    y = group % 2 == 1
    y[-1] = True
    columns = torch.stack([exchange_labels(y, group, seed) for seed in range(200)], 1)
    alone = columns[1:-1].double()
    assert float((alone.mean(1) - 20 / 39).abs().max()) < 4 * 0.5 / 200**0.5
    assert bool((alone.sum(0) == 20).all()) and bool((columns[[0, -1]].sum(0) == 1).all())


def test_whole_groups_exchange_labels_where_each_has_one() -> None:
    group, _ = grouped()
    y = (torch.arange(30) % 3 == 0)[group]
    new = exchange_labels(y, group, 3)
    assert all(len(new[group == g].unique()) == 1 for g in group.unique())
    assert len({int(new[group == g][0]) for g in group.unique()}) == 2
    firsts = torch.stack([new[group == g][0] for g in group.unique()])
    assert int(firsts.sum()) == 10


def test_exchanges_leave_both_classes_to_learn_from() -> None:
    group = torch.arange(9)
    y = group < 2
    fold = group % 3
    columns = draw_exchanges(y, group, fold, 30, 0)
    assert columns.shape == (9, 30)
    assert all(int(columns[fold != i].sum(0).min()) > 0 for i in range(3))


def test_an_entity_is_a_name_and_not_its_letters() -> None:
    found = Examples(["a1", "b1"], [True, False], ["a", "b"], ["Rome", "Oslo"])
    assert found.entities == (("Rome",), ("Oslo",))


def test_the_interval_over_groups_covers_the_truth_95_times_in_100() -> None:
    """Groups of 8 rows whose accuracy varies: an interval over rows would be three times too narrow."""
    covered = 0
    for seed in range(200):
        g = torch.Generator().manual_seed(seed)
        chance = torch.rand(40, generator=g) * 0.8 + 0.1
        group = torch.arange(40).repeat_interleave(8)
        found = share_over_groups(torch.rand(320, generator=g) < chance[group], group, draws=300, seed=seed)
        covered += found.low <= 0.5 <= found.high
    assert 180 <= covered <= 198


def test_where_all_groups_agree_the_interval_is_wilsons_and_not_a_point() -> None:
    group = torch.arange(20).repeat_interleave(2)
    assert share_over_groups(torch.ones(40, dtype=torch.bool), group).low == pytest.approx(20 / (20 + 1.959964**2))
    assert share_over_groups(torch.zeros(40, dtype=torch.bool), group).high == pytest.approx(
        1 - 20 / (20 + 1.959964**2)
    )


def test_where_every_group_has_one_share_the_interval_is_wilsons_of_as_many_groups() -> None:
    from scipy.stats import binomtest

    low, high = binomtest(15, 30).proportion_ci(method="wilson")
    pairs = torch.tensor([True, False]).repeat(30)
    found = share_over_groups(pairs, torch.arange(30).repeat_interleave(2))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, low, high))
    _, all_low, all_high = shares_over_groups(pairs[:, None], torch.arange(30).repeat_interleave(2))
    assert (float(all_low), float(all_high)) == pytest.approx((low, high))


def test_the_interval_of_one_group_says_next_to_nothing() -> None:
    found = share_over_groups(torch.tensor([True, True, True, False]), torch.zeros(4, dtype=torch.long))
    assert found.value == 0.75
    assert found.high - found.low > 0.75


def test_the_interval_over_groups_is_the_basic_normal_one_of_many_equal_groups() -> None:
    """1.96 standard errors of the mean of the groups' shares, either way."""
    g = torch.Generator().manual_seed(3)
    right = torch.rand(400, 5, generator=g) < torch.rand(400, 1, generator=g)
    shares = right.double().mean(1)
    found = share_over_groups(right.flatten(), torch.arange(400).repeat_interleave(5), draws=4000)
    error = 1.959964 * float(shares.std()) / 20
    assert found.low == pytest.approx(float(shares.mean()) - error, abs=0.1 * error)
    assert found.high == pytest.approx(float(shares.mean()) + error, abs=0.1 * error)
    _, low, high = shares_over_groups(right.flatten()[:, None], torch.arange(400).repeat_interleave(5), draws=4000)
    assert float(high - low) / 2 == pytest.approx(error, rel=0.06)


def test_intervals_for_all_cells_at_once_hold_all_of_them_95_times_in_100() -> None:
    inside = 0
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        right = torch.rand(120, 4, 5, generator=g) < 0.6
        _, low, high = shares_over_groups(right, torch.arange(120), draws=300, seed=seed)
        inside += bool(((low <= 0.6) & (high >= 0.6)).all())
    assert inside >= 89


def test_intervals_for_all_cells_are_wider_than_for_one() -> None:
    g = torch.Generator().manual_seed(0)
    right = torch.rand(100, 3, 4, generator=g) < 0.6
    value, low, high = shares_over_groups(right, torch.arange(100))
    alone = share_over_groups(right[:, 0, 0], torch.arange(100))
    assert value.shape == low.shape == high.shape == (3, 4)
    assert float((high - low).min()) > 1.2 * (alone.high - alone.low)


def test_groups_may_be_numbers_from_0_and_labels_0_and_1_in_whatever_holds_them() -> None:
    texts = ["a", "b", "c", "d"]
    plain = Examples(texts, [True, False, True, False], ["x", "x", "y", "y"])
    for wrap in (list, np.array, torch.tensor, pd.Series):
        found = Examples(texts, wrap([1, 0, 1, 0]), wrap([0, 0, 1, 1]))
        assert found.labels == plain.labels
        assert torch.equal(found.group, plain.group)
    for missing in (None, "", float("nan")):
        with pytest.raises(ValueError, match="text 1 .* has no group"):
            Examples(texts, plain.labels, [0, missing, 1, 1])
    with pytest.raises(TypeError, match="got 2: give True and False, or 1 and 0"):
        Examples(texts, [1, 2, 1, 2], [0, 0, 1, 1])
