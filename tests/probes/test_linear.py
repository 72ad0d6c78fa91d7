"""Linear probes of two classes against planted truth and scikit-learn."""

from collections.abc import Callable

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from hooks import Site
from probes import LDA, DifferenceOfMeans, Logistic, MassMean
from probes.labelled_rows import class_means, within_covariance


def test_difference_of_means_finds_the_planted_direction_whatever_the_noise(
    planted: Callable, cosine: Callable
) -> None:
    data = planted(40_000)
    assert cosine(DifferenceOfMeans().fit(data.x, data.y).coef_, data.u) > 0.995


@pytest.mark.parametrize("probe", [Logistic(), LDA(), MassMean()], ids=lambda p: type(p).__name__)
def test_logistic_regression_finds_the_discriminant_direction_and_not_the_planted_one(
    probe: Logistic, planted: Callable, cosine: Callable
) -> None:
    data = planted(40_000)
    w = probe.fit(data.x, data.y).coef_
    assert cosine(w, data.discriminant) > 0.99
    assert cosine(w, data.u) < 0.9


@pytest.mark.parametrize("probe", [Logistic(), LDA(), MassMean()], ids=lambda p: type(p).__name__)
def test_logistic_regression_reaches_the_bayes_accuracy_of_the_planted_problem(
    probe: Logistic, planted: Callable
) -> None:
    data = planted(12_000)
    right = probe.fit(data.x[:8000], data.y[:8000]).score(data.x[8000:], data.y[8000:])
    assert abs(right - data.bayes) < 3 * (data.bayes * (1 - data.bayes) / 4000) ** 0.5 + 0.002


def test_difference_of_means_stays_below_it_because_it_ignores_the_noise(planted: Callable) -> None:
    data = planted(12_000)
    right = DifferenceOfMeans().fit(data.x[:8000], data.y[:8000]).score(data.x[8000:], data.y[8000:])
    tilted = float(torch.special.ndtr(data.u @ data.u / (data.u @ data.Sigma @ data.u).sqrt()))
    assert right == pytest.approx(tilted, abs=0.02)
    assert right < data.bayes - 0.03


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_logistic_regression_agrees_with_scikit_learn(C: float, planted: Callable) -> None:
    data = planted(600, seed=3)
    x = (data.x * torch.logspace(-1, 2, 12) + 5).double()  # badly scaled on purpose
    theirs = LogisticRegression(C=C, tol=1e-12, max_iter=100_000, solver="newton-cholesky").fit(
        x.numpy(), data.y.numpy()
    )
    ours = Logistic(C=C).fit(x, data.y)
    coef = torch.from_numpy(theirs.coef_[0])
    assert float((ours.coef_ - coef).norm() / coef.norm()) < 1e-4
    assert ours.intercept_ == pytest.approx(theirs.intercept_[0], rel=1e-4)
    assert torch.allclose(ours.decision_function(x), torch.from_numpy(theirs.decision_function(x.numpy())), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_it_agrees_on_few_wide_rows_of_any_scale(scale: float, planted: Callable) -> None:
    data = planted(30, seed=4, d=80)
    x = scale * data.x.double()
    theirs = LogisticRegression(C=1 / scale**2, tol=1e-12, max_iter=100_000, solver="newton-cholesky")
    coef = torch.from_numpy(theirs.fit(x.numpy(), data.y.numpy()).coef_[0])
    ours = Logistic(C=1 / scale**2).fit(x, data.y)
    assert float((ours.coef_ - coef).norm() / coef.norm()) < 1e-4


def test_the_gradient_at_the_solution_is_zero_by_autograd(planted: Callable) -> None:
    data = planted(300, seed=5)
    x, s = data.x.double(), torch.where(data.y, 1.0, -1.0).double()
    probe = Logistic(C=3.0).fit(x, data.y)
    w, b = probe.coef_.clone().requires_grad_(), torch.tensor(probe.intercept_, dtype=torch.float64, requires_grad=True)
    (w @ w / 2 + 3.0 * torch.log1p(torch.exp(-s * (x @ w + b))).sum()).backward()
    assert float(w.grad.norm()) < 1e-5
    assert abs(float(b.grad)) < 1e-5


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_the_discriminant_agrees_with_scikit_learn(shrinkage: float, planted: Callable) -> None:
    data = planted(400, seed=6)
    x, y = data.x[20:].double(), data.y[20:]
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage or None).fit(x.numpy(), y.numpy())
    ours = LDA(shrinkage=shrinkage).fit(x, y)
    assert torch.allclose(ours.coef_, torch.from_numpy(theirs.coef_[0]), rtol=1e-6)
    assert ours.intercept_ == pytest.approx(theirs.intercept_[0], rel=1e-6)


def test_the_pooled_covariance_is_the_mean_of_the_class_covariances_by_their_shares(planted: Callable) -> None:
    data = planted(300, seed=7)
    rows = [(data.x.double(), data.y)]
    parts = [
        torch.cov(data.x[data.y == c].double().T, correction=0) * (data.y == c).double().mean() for c in (True, False)
    ]
    assert torch.allclose(within_covariance(rows, class_means(rows)[1]), sum(parts))


def test_without_an_inverse_covariance_the_discriminant_is_refused(planted: Callable) -> None:
    data = planted(10)
    with pytest.raises(ValueError, match=r"of 10 rows of width 12 has no inverse: give more rows, or LDA"):
        LDA().fit(data.x, data.y)
    with pytest.raises(ValueError, match=r"shrinkage is 2\.0; it must be between 0 and 1"):
        LDA(shrinkage=2.0).fit(data.x, data.y)


def test_mass_mean_scores_by_the_tilted_direction_and_points_along_the_plain_one(planted: Callable) -> None:
    data = planted(500)
    probe, plain = MassMean().fit(data.x, data.y), DifferenceOfMeans().fit(data.x, data.y)
    site = Site("resid_post", 0)
    assert probe.direction(site).cosine(plain.direction(site)) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(probe.coef_, LDA().fit(data.x, data.y).coef_, rtol=1e-3)


def test_one_wide_coordinate_leaves_the_mass_mean_probe_its_directions() -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(4000) % 2 == 0
    x = torch.randn(4000, 8, generator=g)
    x[:, 0] += 2 * y
    narrow, wide = MassMean().fit(x, y), MassMean().fit(x * torch.tensor([1.0] * 7 + [1e4]), y)
    assert wide.score(x * torch.tensor([1.0] * 7 + [1e4]), y) == narrow.score(x, y) > 0.83
    assert torch.allclose(wide.coef_[:7], narrow.coef_[:7], atol=1e-5)


@pytest.mark.parametrize("probe", [DifferenceOfMeans(), MassMean()], ids=lambda p: type(p).__name__)
def test_difference_of_means_puts_its_boundary_halfway_between_the_means(probe: MassMean, planted: Callable) -> None:
    data = planted(500)
    middle = (data.x[data.y].mean(0) + data.x[~data.y].mean(0)) / 2
    assert float(probe.fit(data.x, data.y).decision_function(middle[None])) == pytest.approx(0, abs=1e-5)


def test_a_penalty_of_no_meaning_is_refused(planted: Callable) -> None:
    data = planted(20)
    with pytest.raises(ValueError, match=r"C is 0\.0; the inverse strength"):
        Logistic(C=0.0).fit(data.x, data.y)


def test_rows_that_are_in_both_classes_alike_have_the_weights_zero() -> None:
    x = torch.randn(100, 256, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    y = (torch.arange(200) < 100)[:, None]
    w, b = Logistic(C=0.1).columns(x, y, torch.ones_like(y))
    assert float(w.abs().max()) < 1e-12 and float(b.abs().max()) < 1e-12


def test_a_fit_that_has_not_converged_is_refused(planted: Callable) -> None:
    data = planted(200)
    with pytest.raises(RuntimeError, match="not converged after 2 steps"):
        Logistic(max_iter=2).fit(data.x, data.y)


def test_a_column_without_both_classes_among_its_training_rows_is_refused(planted: Callable) -> None:
    data = planted(20)
    y = torch.stack([data.y, data.y], 1)
    train = torch.stack([torch.ones(20).bool(), data.y], 1)
    with pytest.raises(ValueError, match="training labels of column 1 are True"):
        Logistic().columns(data.x, y, train)
