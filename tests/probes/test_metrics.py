"""Metrics against scikit-learn and by counting."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_fscore_support, roc_auc_score

from probes import auroc, best_threshold, detection


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


def test_the_best_threshold_lies_halfway_to_the_next_score() -> None:
    assert best_threshold(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0, 0, 1, 1]).bool()) == 1.5


def test_nan_scores_give_no_number() -> None:
    with pytest.raises(ValueError, match="Row 1 holds NaN or infinity"):
        auroc(torch.tensor([0.0, torch.nan]), torch.tensor([True, False]))
