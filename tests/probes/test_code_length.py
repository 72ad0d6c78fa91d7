"""Online code length: closed forms, and that it sees effort where accuracy does not."""

from collections.abc import Callable
from math import log2

import pytest
import torch

from probes import DifferenceOfMeans, Logistic, online_code


class Constant:
    """Says the same log-odds whatever it is given."""

    name = "constant"

    def __init__(self, odds: float) -> None:
        self.odds = odds

    def fit(self, x: torch.Tensor, y: torch.Tensor) -> "Constant":
        return self

    def decision_function(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x),), self.odds)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return self.decision_function(x) > 0


def test_a_probe_that_knows_nothing_costs_one_bit_per_label(planted: Callable) -> None:
    data = planted(500)
    code = online_code(Constant(0.0), data.x, data.y)
    assert code.bits == pytest.approx(500)
    assert code.compression == pytest.approx(1)


def test_a_constant_guess_costs_the_cross_entropy_of_the_labels(planted: Callable) -> None:
    data = planted(2000)
    y = torch.arange(2000) % 4 == 0
    code = online_code(Constant(float(torch.tensor(1 / 3).log())), data.x, y)
    entropy = -(0.25 * log2(0.25) + 0.75 * log2(0.75))
    assert sum(code.bits_per_portion[-3:]) == pytest.approx(1750 * entropy, rel=0.03)


def test_a_readable_label_compresses_and_a_shuffled_one_does_not(planted: Callable) -> None:
    data = planted(1500)
    code = online_code(Logistic(C=0.1), data.x, data.y)
    assert code.compression > 1.3
    assert code.shuffled_bits > 0.98 * code.uniform
    assert code.ends[-1] == 1500
    assert sum(code.bits_per_portion) == pytest.approx(code.bits)


def test_a_label_that_takes_more_rows_to_learn_takes_more_bits() -> None:
    g = torch.Generator().manual_seed(0)
    easy = torch.randn(400, 3, generator=g)
    y = easy[:, 0] > 0
    hard = torch.cat([easy, 3 * torch.randn(400, 60, generator=g)], 1)
    assert online_code(Logistic(), hard, y).bits > 1.5 * online_code(Logistic(), easy, y).bits


def test_by_default_labels_are_sent_in_the_portions_of_voita_and_titov() -> None:
    """0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25, 50 and 100 per cent (their section 2)."""
    code = online_code(Constant(0.0), torch.zeros(10_000, 1), torch.arange(10_000) % 2 == 0)
    assert code.ends == (10, 20, 40, 80, 160, 320, 625, 1250, 2500, 5000, 10_000)


def test_the_probe_given_stays_as_it_was_and_the_same_seed_gives_the_same_code(planted: Callable) -> None:
    data = planted(200)
    probe = Logistic()
    assert online_code(probe, data.x, data.y, seed=3) == online_code(probe, data.x, data.y, seed=3)
    assert not hasattr(probe, "coef_")


@pytest.mark.parametrize("portions", [(), (0.5, 0.2, 1.0), (0.1, 0.5)])
def test_portions_that_do_not_rise_to_all_are_refused(portions: tuple[float, ...], planted: Callable) -> None:
    data = planted(20)
    with pytest.raises(ValueError, match="they must rise from above 0 to 1"):
        online_code(Logistic(), data.x, data.y, portions)


def test_scores_that_are_no_log_odds_are_refused(planted: Callable) -> None:
    data = planted(40)
    with pytest.raises(TypeError, match="the scores of a difference of means are no log-odds"):
        online_code(DifferenceOfMeans(), data.x, data.y)


def test_arrays_cost_what_tensors_cost(planted: Callable) -> None:
    data = planted(60)
    assert online_code(Logistic(), data.x.numpy(), data.y.numpy()) == online_code(Logistic(), data.x, data.y)


def test_rows_are_sent_in_a_random_order_whatever_order_they_are_given_in(planted: Callable) -> None:
    """Sorted by label, all portions but the last would cost a bit per label; shuffled, they are learnt from."""
    data = planted(400)
    order = data.y.long().argsort()
    ordered = online_code(Logistic(C=0.1), data.x[order], data.y[order])
    assert ordered.bits == pytest.approx(online_code(Logistic(C=0.1), data.x, data.y).bits, rel=0.1)


def test_a_label_of_a_group_is_not_learnt_from_another_row_of_it() -> None:
    """40 sentences of 10 tokens, each with a direction and a label of its own, say nothing of another sentence."""
    g = torch.Generator().manual_seed(0)
    sentence = torch.arange(40).repeat_interleave(10)
    x = 4 * torch.randn(40, 64, generator=g)[sentence] + torch.randn(400, 64, generator=g)
    y = (torch.arange(40) % 2 == 0)[sentence]
    assert online_code(Logistic(C=0.1), x, y).compression > 1.5
    code = online_code(Logistic(C=0.1), x, y, groups=sentence)
    assert code.compression < 1.0 and code.shuffled_bits == pytest.approx(code.bits, rel=0.4)
    assert code.ends == (10, 20, 30, 50, 100, 200, 400)


def test_each_row_is_its_own_group_by_default_and_groups_are_names_or_numbers(planted: Callable) -> None:
    data = planted(120)
    alone = online_code(Logistic(), data.x, data.y)
    own = online_code(Logistic(), data.x, data.y, groups=range(120))
    assert (own.bits, own.ends) == (alone.bits, alone.ends)
    names = [f"sentence {i // 3}" for i in range(120)]
    numbers = torch.arange(120) // 3
    both = (online_code(Logistic(), data.x, data.y, groups=of) for of in (names, numbers.numpy()))
    assert len({*both}) == 1
    with pytest.raises(ValueError, match="120 rows and 3 groups; give one per row"):
        online_code(Logistic(), data.x, data.y, groups=["a", "b", "c"])
    with pytest.raises(ValueError, match="row 1 has no group"):
        online_code(Logistic(), data.x, data.y, groups=["a", None, *names[2:]])
