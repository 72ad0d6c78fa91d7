"""k-sparse probes and their rankings: the planted coordinates, and scikit-learn's statistics."""

import pytest
import torch
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score

from probes import KSparse, Logistic, by_f_statistic, by_l1, by_logistic, by_mean_difference, by_mutual_information
from probes.l1 import _solve, find_entrances, fit_l1_logistic
from probes.rankings import Ranking

RANKINGS = [by_mean_difference, by_f_statistic, by_mutual_information, by_logistic, by_l1]


def sparse(n: int = 600, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """20 coordinates of various widths; 3, 11 and 17 know the label, the last two less."""
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(n, generator=g) < 0.5
    x = torch.randn(n, 20, generator=g)
    x[:, [3, 11, 17]] += y[:, None] * torch.tensor([3.0, 2.0, 1.5])
    return (x * torch.logspace(-1, 1, 20)).double(), y


@pytest.mark.parametrize("ranking", RANKINGS, ids=lambda r: r.__name__)
def test_every_ranking_finds_the_planted_coordinates_in_their_order(ranking: Ranking) -> None:
    x, y = sparse()
    probe = KSparse(k=3, ranking=ranking).fit(x, y)
    assert probe.support_.tolist() == [3, 11, 17]
    assert probe.coef_.nonzero().flatten().tolist() == [3, 11, 17]


def test_with_all_coordinates_it_is_logistic_regression() -> None:
    x, y = sparse()
    assert torch.allclose(KSparse(k=20, C=0.3).fit(x, y).coef_, Logistic(C=0.3).fit(x, y).coef_, atol=1e-5)


def test_the_weights_are_those_of_logistic_regression_on_the_chosen_coordinates() -> None:
    x, y = sparse()
    alone = Logistic(C=0.3).fit(x[:, [3, 11]].contiguous(), y)
    assert torch.allclose(KSparse(k=2, C=0.3).fit(x, y).coef_[[3, 11]], alone.coef_, atol=1e-6)


def test_the_f_statistic_is_scikit_learns() -> None:
    x, y = sparse()
    theirs = torch.from_numpy(f_classif(x.numpy(), y.numpy())[0])
    assert torch.allclose(by_f_statistic(x, y), theirs)


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 3000.1])
@pytest.mark.parametrize("double", [False, True])
def test_a_constant_coordinate_ranks_at_0(constant: float, double: bool) -> None:
    x, y = sparse(150)
    x = x if double else x.float()
    x[:, 3] = constant
    for ranking in (by_mean_difference, by_f_statistic, by_mutual_information):
        assert float(ranking(x, y)[3]) == pytest.approx(0, abs=1e-12), ranking
    for ranking in (by_logistic, by_l1):
        assert float(ranking(x, y)[3]) < 1e-6, ranking


def test_an_f_statistic_of_two_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="2 rows leave no degree of freedom within two classes: give at least 3"):
        by_f_statistic(torch.randn(2, 3), torch.tensor([True, False]))


def test_mutual_information_is_scikit_learns_of_the_same_octiles() -> None:
    x, y = sparse()
    for column in (0, 3, 17):
        octile = (x[:, column].argsort().argsort() * 8) // len(x)
        assert float(by_mutual_information(x, y)[column]) == pytest.approx(
            mutual_info_score(octile.numpy(), y.numpy()), abs=5e-3
        )


def test_mutual_information_sees_a_coordinate_that_is_large_both_ways() -> None:
    g = torch.Generator().manual_seed(5)
    y = torch.rand(800, generator=g) < 0.5
    x = torch.randn(800, 4, generator=g)
    x[:, 2] = torch.where(y, 3.0, 0.3) * x[:, 2]
    assert int(by_mutual_information(x, y).argmax()) == 2


@pytest.mark.parametrize("penalty", [0.1, 0.01])
def test_logistic_regression_with_an_l1_penalty_is_scikit_learns(penalty: float) -> None:
    x, y = sparse()
    x = x / x.std(0)
    theirs = LogisticRegression(l1_ratio=1.0, solver="saga", C=1 / (len(x) * penalty), tol=1e-8, max_iter=10_000)
    theirs.fit(x.numpy(), y.numpy())
    found = fit_l1_logistic(x, y, penalty)
    coef = torch.from_numpy(theirs.coef_[0])
    assert float((found[:-1] - coef).norm() / coef.norm()) < 1e-4
    assert torch.allclose(found[-1:], torch.from_numpy(theirs.intercept_), atol=1e-4)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_gradient_of_the_loss_balances_the_l1_penalty_whatever_the_scale_of_the_rows(scale: float) -> None:
    """-gradient_j = penalty sign(w_j) of a weight that is not 0, at most the penalty of others, and 0 of the bias."""
    x, y = sparse()
    x, penalty = (x - x.mean(0)) / x.std(0) * scale, 0.02 * scale
    found = fit_l1_logistic(x, y, penalty)
    w, error = found[:-1], (x @ found[:-1] + found[-1]).sigmoid() - y.double()
    gradient, on = x.T @ error / len(x), w != 0
    assert 3 <= int(on.sum()) < 20
    assert float((gradient + penalty * w.sign())[on].abs().max()) < 1e-5 * penalty
    assert float(gradient[~on].abs().max()) < (1 + 1e-5) * penalty
    assert abs(float(error.mean())) < 1e-5 * max(penalty, 1)


def test_every_entrance_above_a_twentieth_is_found_to_within_one_of_forty_stops_and_the_rest_are_below() -> None:
    """The entrance itself is found by halving; the lowest part of the path is not followed."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 12, generator=g, dtype=torch.float64)
    y = x @ torch.linspace(0, 1, 12).double().square() + 2 * torch.randn(1500, generator=g) > 0
    x = (x - x.mean(0)) / x.std(0)
    score = find_entrances(x, y)
    top = float(((y.double() - y.double().mean()) @ x).abs().max() / len(x))
    assert float(score.max()) == pytest.approx(top, rel=1e-9)
    stop, ends = 0.05 ** (1 / 40), 0.05 * top
    last = fit_l1_logistic(x, y, ends)
    left_out = (last[:-1] == 0) & (score <= ends)
    gradient = (x.T @ ((x @ last[:-1] + last[-1]).sigmoid() - y.double())).abs() / len(x)
    assert 2 <= int(left_out.sum()) <= 7
    torch.testing.assert_close(score[left_out], gradient[left_out], rtol=1e-3, atol=1e-6)
    for j in (~left_out).nonzero().flatten().tolist():
        low, high = ends, top
        while high / low > 1.005:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if float(fit_l1_logistic(x, y, middle)[j]) else (low, middle)
        assert stop < float(score[j]) / high < 1.001 / stop, j


def test_a_weight_is_zero_above_the_penalty_at_which_it_enters_and_not_below() -> None:
    x, y = sparse()
    x = (x - x.mean(0)) / x.std(0)
    score = find_entrances(x, y)
    for coordinate in (3, 11, 17):
        above, below = (fit_l1_logistic(x, y, factor * float(score[coordinate])) for factor in (1.02, 0.92))
        assert float(above[coordinate]) == 0 != float(below[coordinate])


@pytest.mark.parametrize(("share", "count"), [(0.1, 2), (0.7, 1), (0.95, 1)])
def test_what_is_left_out_of_a_solution_at_first_is_found_by_its_gradient(share: float, count: int) -> None:
    """With gradients said to be 0 but for one that says nothing of the label, those that do are left out.

    The penalty is a share of the largest gradient where all weights are 0.
    """
    x, y = sparse()
    x = (x - x.mean(0)) / x.std(0)
    penalty = share * float(((y.double() - y.double().mean()) @ x).abs().max() / len(x))
    nothing = torch.zeros(x.shape[1] + 1, dtype=x.dtype)
    nothing[-1] = y.to(x).mean().logit()
    found = _solve(x, y, nothing, torch.eye(x.shape[1], dtype=x.dtype)[0], penalty, penalty)
    whole = fit_l1_logistic(x, y, penalty, nothing)
    assert int((whole[:-1] != 0).sum()) >= count
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-3)


def test_of_two_coordinates_that_say_the_same_the_l1_path_takes_one_first_and_then_another() -> None:
    x, y = sparse()
    x[:, 5] = x[:, 3] + 0.1 * x[:, 5]
    assert set(by_mean_difference(x, y).topk(2).indices.tolist()) == {3, 5}
    assert set(by_l1(x, y).topk(2).indices.tolist()) in ({3, 11}, {5, 11})


def test_a_constant_coordinate_ranks_last() -> None:
    x, y = sparse()
    x[:, 3] = 4.0
    for ranking in RANKINGS:
        assert float(ranking(x, y)[3]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("k", [0, 21])
def test_a_k_that_does_not_fit_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}; it must be between 1 and the width of the rows, 20"):
        KSparse(k=k).fit(*sparse())
