"""Factors are independent but for what is planted, and what is held out never occurs in training."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from hooks.errors import UnknownName
from interp.postcard import held_out, scenes, unseen_combinations
from interp.postcard.chance import uniform
from interp.postcard.scene import FACTORS, THINGS

TRAIN, TEST = scenes("train", 20_000), scenes("test", 20_000)


def independence(drawn: tuple, first: str, second: str) -> float:
    value = {name: [s.shows(name) if name in THINGS else getattr(s, name) for s in drawn] for name in (first, second)}
    table = Counter(zip(value[first], value[second], strict=True))
    rows, columns = (sorted(set(value[name]), key=str) for name in (first, second))
    return float(chi2_contingency([[table[r, c] for c in columns] for r in rows]).pvalue)


@pytest.mark.parametrize("drawn", [TRAIN, TEST], ids=["train", "test"])
def test_every_pair_of_factors_is_independent_away_from_what_is_planted(drawn: tuple) -> None:
    rest = tuple(
        s for s in drawn if s.landmark != "Golden Gate Bridge" and s.landmark not in {c[0] for c in held_out()}
    )
    pairs = list(combinations([*FACTORS, *THINGS], 2))
    assert min(independence(rest, a, b) for a, b in pairs) > 0.001 / len(pairs)


def test_the_spurious_pair_is_in_training_and_not_in_test() -> None:
    for drawn, low, high in ((TRAIN, 0.85, 0.95), (TEST, 0.17, 0.33)):
        bridge = [s.weather == "fog" for s in drawn if s.landmark == "Golden Gate Bridge"]
        others = [s.weather == "fog" for s in drawn if s.landmark != "Golden Gate Bridge"]
        assert low < np.mean(bridge) < high and 0.23 < np.mean(others) < 0.27


def test_held_out_combinations_are_never_trained_on_and_are_all_of_their_own_set() -> None:
    assert not held_out() & {(s.landmark, s.time, s.weather) for s in TRAIN}
    assert Counter((s.landmark, s.time, s.weather) for s in unseen_combinations(200)) == {c: 10 for c in held_out()}


def test_no_scene_is_in_two_splits_and_a_split_can_be_entered_anywhere() -> None:
    assert not {s.seed for s in TRAIN} & {s.seed for s in TEST}
    assert scenes("train", 10, start=1000) == TRAIN[1000:1010]
    with pytest.raises(UnknownName, match="validation"):
        scenes("valid", 1)  # type: ignore[arg-type]


def test_chance_is_uniform_and_independent_between_purposes_and_seeds() -> None:
    seeds = np.arange(20_000)
    u, v = uniform(seeds, "sun"), uniform(seeds, "tilt")
    assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(u, v)[0, 1]) < 0.03 and abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 0.03
