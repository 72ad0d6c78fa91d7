"""Probes against planted truth and scikit-learn."""

import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from hooks import Site
from probes import DifferenceOfMeans, Logistic

PROBES = [DifferenceOfMeans(), Logistic()]


def planted(n: int, seed: int = 0, d: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows x = +-u + Sigma^(1/2) noise, noise between 0.5 and 2.5 wide: the rows, their labels, u, and Sigma."""
    g = torch.Generator().manual_seed(seed)
    u = torch.randn(d, generator=g, dtype=torch.float64)
    u /= u.norm()
    basis = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
    root = basis * torch.linspace(0.5, 2.5, d, dtype=torch.float64)
    y = torch.rand(n, generator=g) < 0.5
    noise = torch.randn(n, d, generator=g, dtype=torch.float64) @ root.T
    return (torch.where(y, 1.0, -1.0)[:, None] * u + noise).float(), y, u.float(), (root @ root.T).float()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))


def test_difference_of_means_finds_the_planted_direction_whatever_the_noise() -> None:
    x, y, u, _ = planted(40_000)
    assert cosine(DifferenceOfMeans().fit(x, y).coef_, u) > 0.995


def test_logistic_regression_finds_the_discriminant_direction_and_not_the_planted_one() -> None:
    x, y, u, sigma = planted(40_000)
    w = Logistic().fit(x, y).coef_
    assert cosine(w, torch.linalg.solve(sigma, u)) > 0.99
    assert cosine(w, u) < 0.9


def test_logistic_regression_reaches_the_bayes_accuracy_of_the_planted_problem() -> None:
    x, y, u, sigma = planted(8_000)
    bayes = float(torch.special.ndtr((u @ torch.linalg.solve(sigma, u)).sqrt()))
    fresh, truth, _, _ = planted(8_000)
    right = float((Logistic().fit(x[:4000], y[:4000]).predict(fresh[4000:]) == truth[4000:]).float().mean())
    assert abs(right - bayes) < 3 * (bayes * (1 - bayes) / 4000) ** 0.5 + 0.002


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_logistic_regression_agrees_with_scikit_learn(C: float) -> None:
    x, y, _, _ = planted(600, seed=3)
    x = x * torch.logspace(-1, 2, 12) + 5  # badly scaled on purpose
    theirs = LogisticRegression(C=C, tol=1e-12, max_iter=100_000, solver="newton-cholesky")
    theirs.fit(x.double().numpy(), y.numpy())
    ours = Logistic(C=C).fit(x.double(), y)
    coef = torch.from_numpy(theirs.coef_[0])
    assert float((ours.coef_ - coef).norm() / coef.norm()) < 1e-4
    assert ours.intercept_ == pytest.approx(theirs.intercept_[0], rel=1e-4)
    assert torch.allclose(
        ours.decision_function(x.double()), torch.from_numpy(theirs.decision_function(x.double().numpy())), atol=1e-4
    )


def test_difference_of_means_puts_its_boundary_halfway_between_the_means() -> None:
    x, y, _, _ = planted(500)
    probe = DifferenceOfMeans().fit(x, y)
    middle = (x[y].mean(0) + x[~y].mean(0)) / 2
    assert float(probe.decision_function(middle[None])) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: type(p).__name__)
class TestEveryProbe:
    def test_fit_forgets_what_it_learnt_before(self, probe: Logistic) -> None:
        (x, y, _, _), (other, labels, _, _) = planted(300, seed=1), planted(300, seed=2)
        fresh = clone(probe).fit(x, y).coef_
        assert torch.equal(clone(probe).fit(other, labels).fit(x, y).coef_, fresh)

    def test_shifting_the_data_changes_no_score(self, probe: Logistic) -> None:
        x, y, _, _ = planted(300)
        moved = clone(probe).fit(x + 7, y).decision_function(x + 7)
        assert torch.allclose(moved, clone(probe).fit(x, y).decision_function(x), atol=1e-3)

    def test_swapping_the_labels_turns_the_direction_around(self, probe: Logistic) -> None:
        x, y, _, _ = planted(300)
        assert torch.allclose(clone(probe).fit(x, ~y).coef_, -clone(probe).fit(x, y).coef_, atol=1e-5)

    def test_its_direction_reaches_from_the_negative_mean_to_the_farthest_row(self, probe: Logistic) -> None:
        x, y, _, _ = planted(300)
        direction = clone(probe).fit(x, y).direction(Site("resid_post", 2), "abc")
        along = (x - x[~y].mean(0)) @ direction.unit
        assert direction.scale == pytest.approx(float(along.max()), rel=1e-5)
        assert (str(direction.site), direction.source, direction.fingerprint) == ("resid_post.2", probe.name, "abc")

    def test_a_constant_label_is_refused(self, probe: Logistic) -> None:
        with pytest.raises(ValueError, match="All 4 labels are True; rows of both classes are needed"):
            clone(probe).fit(torch.randn(4, 3), torch.ones(4, dtype=torch.bool))

    def test_nan_is_refused_with_its_row(self, probe: Logistic) -> None:
        x, y, _, _ = planted(10)
        x[6, 1] = torch.nan
        with pytest.raises(ValueError, match="Row 6 holds NaN or infinity"):
            clone(probe).fit(x, y)

    def test_another_number_of_labels_is_refused(self, probe: Logistic) -> None:
        with pytest.raises(Exception, match=r"5|shape|type-check"):
            clone(probe).fit(torch.randn(5, 3), torch.tensor([True, False]))

    def test_classes_that_do_not_differ_are_refused(self, probe: Logistic) -> None:
        with pytest.raises(ValueError, match="found no difference between the classes"):
            clone(probe).fit(torch.ones(4, 3), torch.tensor([True, False, True, False]))

    def test_an_unfitted_probe_does_not_score(self, probe: Logistic) -> None:
        with pytest.raises(RuntimeError, match=r"is not fitted: call fit\(x, y\) first"):
            clone(probe).decision_function(torch.zeros(1, 3))

    def test_an_unknown_parameter_is_refused(self, probe: Logistic) -> None:
        with pytest.raises(ValueError, match=f"{type(probe).__name__} has no parameter 'c'"):
            clone(probe).set_params(c=2.0)


def test_a_misspelt_parameter_is_told_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'max_iter'"):
        Logistic().set_params(max_itre=3)


def test_a_penalty_of_no_meaning_is_refused() -> None:
    x, y, _, _ = planted(20)
    with pytest.raises(ValueError, match=r"C is 0\.0; the inverse strength"):
        Logistic(C=0.0).fit(x, y)


def test_a_fit_that_has_not_converged_is_refused() -> None:
    x, y, _, _ = planted(200)
    with pytest.raises(RuntimeError, match="Not converged after 2 steps"):
        Logistic(max_iter=2).fit(x, y)
