"""Several detectors compared with one on the same texts: what may be said of the one that did best."""

from dataclasses import replace

import pytest
import torch

from hooks.errors import InvalidArgument
from interp.features.search.score import Score, compare_all_scores, compare_scores
from probes import detection

Y = torch.arange(80) % 2 == 0


def scores(n: int, g: torch.Generator) -> list[Score]:
    """Detectors that each err on one text in five of their own, every text a group."""
    made = []
    for i in range(n):
        found = Y ^ (torch.rand(len(Y), generator=g) < 0.2)
        plain = Score(f"detector {i}", None, None, 0.8, detection(found.double(), Y, 0.5), (0.0, 1.0), {})
        made.append(replace(plain, by_group=torch.stack([Y & found, found, Y], 1).double()))
    return made


def test_of_baselines_as_good_as_the_latent_one_is_called_better_in_one_search_of_forty() -> None:
    """By intervals of each alone, one of the four is called better in more than one of 20."""
    g, alone, together = torch.Generator().manual_seed(0), 0, 0
    for seed in range(250):
        latent, *baselines = scores(5, g)
        alone += any(compare_scores(one, latent, seed=seed).low > 0 for one in baselines)
        together += any(e.low > 0 for e in compare_all_scores(baselines, latent, seed=seed))
    assert alone > 0.05 * 250 and together <= 0.035 * 250


def test_one_comparison_of_several_is_less_sure_than_it_is_alone() -> None:
    latent, *baselines = scores(5, torch.Generator().manual_seed(1))
    for one, found in zip(baselines, compare_all_scores(baselines, latent), strict=True):
        alone = compare_scores(one, latent)
        assert found.value == alone.value and found.low < alone.low and alone.high < found.high


def test_what_is_not_there_is_compared_with_nothing() -> None:
    one = scores(1, torch.Generator().manual_seed(2))[0]
    with pytest.raises(InvalidArgument, match="no scores were given"):
        compare_all_scores([], one)
    three = replace(one, by_group=torch.ones(1, 3).double())
    assert not compare_scores(three, replace(three, by_group=torch.tensor([[0.0, 0.0, 1.0]]).double())).is_bounded
