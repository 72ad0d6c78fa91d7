"""Metrics against scikit-learn and by counting."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_fscore_support, roc_auc_score

from probes import auroc, best_threshold, detection
from probes.labels import convert_truth


def noisy(seed: int, n: int = 60, ties: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(n, generator=g) < 0.3
    y[:2] = torch.tensor([True, False])
    scores = torch.randn(n, generator=g) + y
    return (scores * 3).round() if ties else scores, y


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_auroc_equals_scikit_learns_with_ties(seed: int) -> None:
    scores, y = noisy(seed)
    assert float(auroc(scores, y)) == pytest.approx(roc_auc_score(y.numpy(), scores.numpy()), abs=1e-6)


def test_auroc_of_many_columns_is_the_auroc_of_each() -> None:
    _, y = noisy(0)
    columns = torch.randn(60, 5, generator=torch.Generator().manual_seed(1)).round()
    together = auroc(columns, y)
    assert torch.allclose(together, torch.stack([auroc(columns[:, i].contiguous(), y) for i in range(5)]))


@given(st.integers(0, 10_000), st.floats(-2, 2))
@settings(max_examples=40, deadline=None)
def test_precision_recall_and_f1_equal_scikit_learns(seed: int, threshold: float) -> None:
    scores, y = noisy(seed, ties=False)
    ours = detection(scores, y, threshold)
    p, r, f, _ = precision_recall_fscore_support(
        y.numpy(), (scores > threshold).numpy(), average="binary", zero_division=0.0
    )
    assert (ours.precision, ours.recall, ours.f1) == pytest.approx((p, r, f))


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_no_threshold_has_a_higher_f1_than_the_best(seed: int) -> None:
    scores, y = noisy(seed)
    best = detection(scores, y, best_threshold(scores, y)).f1
    tried = [f1_score(y.numpy(), (scores > t).numpy(), zero_division=0.0) for t in (scores.unique() - 0.01).tolist()]
    assert best == pytest.approx(max(tried))


def test_the_best_threshold_is_halfway_to_the_next_score() -> None:
    assert best_threshold(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0, 0, 1, 1]).bool()) == 1.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_best_threshold_reaches_its_f1_in_every_precision(dtype: torch.dtype) -> None:
    """Scores so near to each other that their middle is one of them, and scores that are best all detected."""
    tiny, true = torch.finfo(dtype).eps, torch.tensor([False, False, True, True])
    cases = [
        (1 + tiny * torch.arange(4, dtype=torch.float64), true, 1.0),
        (tiny * torch.arange(4, dtype=torch.float64) - 3, true, None),
        (torch.tensor([0.1, 0.2, 0.3]), torch.tensor([True, False, True]), 0.8),
        (torch.zeros(4), true, 2 / 3),
        (torch.full((4,), -0.1), true, 2 / 3),
    ]
    for exact, y, best in cases:
        scores = exact.to(dtype)
        reached = detection(scores, y, best_threshold(scores, y)).f1
        all_of_them = [f1_score(y.numpy(), (scores >= s).numpy()) for s in scores.unique()]
        assert reached == pytest.approx(max(all_of_them))
        assert best is None or reached == pytest.approx(best)


def test_whole_numbers_and_half_precision_have_the_auroc_and_the_threshold_of_their_ranks() -> None:
    y = torch.tensor([False, True, False, True])
    for scores in (torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 4]).bfloat16()):
        assert float(auroc(scores, y)) == 0.75
        assert auroc(scores, y).dtype in (torch.float32, torch.float64)
        assert best_threshold(scores, y) == 1.5
        assert detection(scores, y, 1.5).f1 == 0.8
    assert float(auroc((torch.arange(2000) % 128).bfloat16(), torch.arange(2000) % 3 == 0)) == pytest.approx(
        roc_auc_score((torch.arange(2000) % 3 == 0).numpy(), (torch.arange(2000) % 128).numpy()), abs=1e-6
    )


def test_arrays_are_scored_as_tensors_are() -> None:
    scores, y = noisy(1)
    assert torch.equal(auroc(scores.numpy(), y.numpy()), auroc(scores, y))
    assert best_threshold(scores.numpy(), y.numpy()) == best_threshold(scores, y)
    assert detection(scores.numpy(), y.numpy(), 0.5) == detection(scores, y, 0.5)


def test_nan_scores_give_no_number() -> None:
    with pytest.raises(ValueError, match="row 1 holds NaN or infinity"):
        auroc(torch.tensor([0.0, torch.nan]), torch.tensor([True, False]))


@pytest.mark.parametrize(
    ("labels", "truth"),
    [
        ([0, 1, 1], [False, True, True]), ([-1, 1], [False, True]), ([1, 1], [True, True]), ([0, 0], [False, False]),
        ([-1.0, -1.0], [False, False]), ([2, 2], [False, False]), (["no", "yes", "no"], [False, True, False]),
    ],
)  # fmt: skip
def test_of_two_classes_the_greater_is_true_and_of_one_number_only_1(labels: list[Any], truth: list[bool]) -> None:
    assert convert_truth(labels).tolist() == truth


@pytest.mark.parametrize("pair", [(0, 1), (-1, 1), (0, 2), (0.0, 1.0)])
def test_numbers_in_a_tensor_are_labels_as_in_a_list(pair: tuple[float, float]) -> None:
    truth = torch.tensor([False, True, True, False, True])
    labels = torch.tensor(pair)[truth.long()]
    scores = torch.tensor([0.1, 0.3, 0.2, 0.5, 0.9])
    assert torch.equal(convert_truth(labels), truth) and torch.equal(convert_truth(truth), truth)
    assert torch.equal(convert_truth(torch.tensor([True, True])), torch.tensor([True, True]))
    assert auroc(scores, labels) == auroc(scores, truth)
