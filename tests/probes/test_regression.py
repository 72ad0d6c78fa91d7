"""Regressions and softmax regression against scikit-learn, and against what they were planted with."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.linear_model import Ridge as TheirRidge

from hooks import Site
from hooks.errors import NotConverged
from probes import KSparse, LeastSquares, Logistic, Multinomial, Ridge
from probes.lbfgs import _inverse


@pytest.mark.parametrize("shape", [(200, 8), (15, 40)])
@pytest.mark.parametrize(
    ("ours", "theirs"), [(Ridge(alpha=2.5), TheirRidge(alpha=2.5)), (LeastSquares(), LinearRegression())]
)
def test_regressions_agree_with_scikit_learn(ours: Ridge, theirs: TheirRidge, shape: tuple[int, int]) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=g, dtype=torch.float64) + 3
    y = x[:, 0] - 2 * x[:, 1] + torch.randn(len(x), generator=g, dtype=torch.float64) + 100
    theirs.fit(x.numpy(), y.numpy())
    ours.fit(x, y)
    assert torch.allclose(ours.coef_, torch.from_numpy(theirs.coef_), atol=1e-6)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, rel=1e-6)
    assert ours.score(x, y) == pytest.approx(theirs.score(x.numpy(), y.numpy()))


def test_regression_finds_the_planted_direction_and_its_scale_reaches_the_farthest_row() -> None:
    g = torch.Generator().manual_seed(1)
    x, w = torch.randn(3000, 5, generator=g), torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    probe = LeastSquares().fit(x, x @ w + 0.1 * torch.randn(3000, generator=g))
    direction = probe.direction(Site("resid_post", 1))
    assert torch.allclose(probe.coef_, w, atol=0.02)
    assert direction.scale == pytest.approx(float(((x - x.mean(0)) @ direction.unit).max()), rel=1e-5)


def test_a_constant_or_infinite_target_is_refused() -> None:
    with pytest.raises(ValueError, match="all 4 targets are 2; a constant cannot be regressed on"):
        Ridge().fit(torch.randn(4, 3), torch.full((4,), 2.0))
    with pytest.raises(ValueError, match="target 1 is NaN or infinity"):
        Ridge().fit(torch.randn(3, 3), torch.tensor([0.0, torch.inf, 1.0]))
    with pytest.raises(ValueError, match=r"alpha is 0\.0; it must be above 0"):
        Ridge(alpha=0.0).fit(torch.randn(3, 3), torch.tensor([0.0, 2.0, 1.0]))


def classes(n: int = 300, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.tensor([2, 5, 9, 11])[torch.randint(4, (n,), generator=g)]
    centre = torch.randn(12, 6, generator=g, dtype=torch.float64)
    return centre[y] + torch.randn(n, 6, generator=g, dtype=torch.float64), y


@pytest.mark.parametrize("C", [0.05, 5.0])
def test_softmax_regression_agrees_with_scikit_learn(C: float) -> None:
    x, y = classes()
    theirs = LogisticRegression(C=C, tol=1e-12, max_iter=100_000, solver="lbfgs").fit(x.numpy(), y.numpy())
    ours = Multinomial(C=C).fit(x, y)
    assert ours.classes_.tolist() == [2, 5, 9, 11]
    assert torch.allclose(ours.coef_, torch.from_numpy(theirs.coef_), atol=1e-4)
    assert torch.allclose(ours.predict_proba(x), torch.from_numpy(theirs.predict_proba(x.numpy())), atol=1e-4)
    assert torch.equal(ours.predict(x), torch.from_numpy(theirs.predict(x.numpy())))


def test_softmax_regression_of_two_classes_is_logistic_regression_with_half_the_penalty() -> None:
    """w_1 - w_0 = w with ||w_0||^2 + ||w_1||^2 = ||w||^2 / 2."""
    x, y = classes()
    x, y = x[y < 9], y[y < 9]
    both = Multinomial(C=1.0).fit(x, y)
    assert torch.allclose(both.coef_[1] - both.coef_[0], Logistic(C=2.0).fit(x, y == 5).coef_, atol=1e-5)


def test_each_class_has_a_direction_that_reaches_from_the_others_to_its_farthest_row() -> None:
    x, y = classes()
    directions = Multinomial().fit(x, y).directions(Site("resid_post", 1), "abc")
    assert list(directions) == [2, 5, 9, 11]
    along = x @ directions[9].unit
    assert directions[9].scale == pytest.approx(float(along.max() - along[y != 9].mean()))


def test_labels_of_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"all 3 labels are \[7\]; rows of several classes are needed"):
        Multinomial().fit(torch.randn(3, 2), torch.tensor([7, 7, 7]))


def test_planted_classes_are_separated_by_their_own_directions(cosine: Callable) -> None:
    g = torch.Generator().manual_seed(3)
    y = torch.randint(3, (6000,), generator=g)
    x = 2 * torch.nn.functional.one_hot(y, 5).float() + torch.randn(6000, 5, generator=g)
    W = Multinomial().fit(x, y).coef_
    for c in range(3):
        truth = torch.zeros(5)
        truth[:3] = -1 / 3
        truth[c] += 1
        assert cosine(W[c], truth) > 0.98


def test_a_hessian_without_curvature_in_a_direction_is_inverted_next_to_its_largest_entry() -> None:
    """(X^T D X + P + 1e-10 max I)^-1, in whatever unit: all rows are saturated and the intercept has no penalty."""
    for size in (1e-6, 1.0, 1e6):
        found = _inverse(
            [torch.ones(4, 2, dtype=torch.float64)], torch.zeros(4).double(), torch.tensor([size, 0.0]).double()
        )
        torch.testing.assert_close(found * size, torch.tensor([[1.0, 0.0], [0.0, 1e10]]).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("probe", [Logistic(), Multinomial(), KSparse(2)], ids=lambda probe: type(probe).__name__)
def test_the_number_of_steps_is_the_fewest_with_which_it_converges(probe: Any) -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    x = torch.randn(60, 4, generator=g) + y[:, None] * torch.tensor([1.0, 0.5, 0.0, 0.0])
    steps = probe.fit(x, y).n_iter_
    assert steps > 1 and probe.set_params(max_iter=steps).fit(x, y).n_iter_ == steps
    with pytest.raises(NotConverged):
        probe.set_params(max_iter=steps - 1).fit(x, y)
