"""Latents ranked in half precision first: what is kept, next to a ranking in full precision."""

import pytest
import torch

from interp.sae import BatchTopK, PreselectedRanking, TopK
from interp.sae.numerics.ranking import BLOCK, Encoder, ExactRanking, Ranking
from interp.sae.numerics.sparse import Code

N, D, LATENTS, K = 600, 64, 512, 16


def case() -> tuple[torch.Tensor, Encoder]:
    """Rows with a large mean and unequal variances, and an encoder a fifth of whose latents are hardly ever on."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=g) * torch.linspace(0.2, 3, D) + 2
    b = torch.randn(LATENTS, generator=g)
    b[::5] -= 30
    return x, Encoder(torch.nn.functional.normalize(torch.randn(LATENTS, D, generator=g)), b)


def dense(code: Code) -> torch.Tensor:
    return torch.zeros(N, LATENTS).index_put((code.rows, code.latents), code.values)


def test_candidates_in_half_precision_hold_999_in_1000_of_the_largest_of_each_row() -> None:
    x, by = case()
    exact, rough = (dense(ranking.of_rows(x, by, K)) for ranking in (ExactRanking(), PreselectedRanking()))
    both = (exact != 0) & (rough != 0)
    assert float(both.sum()) >= 0.999 * N * K == 0.999 * float((rough != 0).sum())
    assert torch.allclose(rough[both], exact[both], atol=1e-5)  # values are those of full precision


def test_candidates_in_half_precision_hold_999_in_1000_of_what_is_above_a_threshold() -> None:
    x, by = case()
    threshold, values, places = PreselectedRanking().above(x, by, 1.25 * K)
    pre = (x @ by.W.T + by.b).flatten()
    assert bool((pre[places] > threshold - 1e-5).all()) and bool((places.diff() > 0).all())
    assert len(places) >= 0.999 * float((pre > threshold).sum())
    assert torch.allclose(values, pre[places], atol=1e-5)


@pytest.mark.parametrize("ranking", [ExactRanking(), PreselectedRanking()], ids=["exact", "preselected"])
def test_what_is_above_a_threshold_has_its_own_place_in_every_block_of_rows(ranking: Ranking) -> None:
    x, by = case()
    x = torch.cat([x, 0.5 * x, 2 * x, -x])
    threshold, values, places = ranking.above(x, by, 1.25 * K)
    pre = (x @ by.W.T + by.b).flatten()
    assert len(x) > 2 * BLOCK and bool((places.diff() > 0).all())
    assert torch.allclose(values, pre[places], atol=1e-4)
    assert len(places) >= 0.999 * float((pre > threshold).sum())


@pytest.mark.parametrize("sae", [TopK(D, LATENTS, K), BatchTopK(D, LATENTS, K)], ids=["topk", "batchtopk"])
def test_gradients_by_candidates_are_those_of_the_exact_selection(sae: TopK | BatchTopK) -> None:
    x, dead = case()[0], torch.arange(LATENTS) % 7 == 0
    sae.objective().initialise(x)
    found = []
    for ranking in (ExactRanking(), PreselectedRanking()):
        sae.ranking = ranking
        sae.objective().gradients(x, dead)
        found.append(torch.cat([p.grad.flatten() for p in sae.parameters() if p.grad is not None]))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-3
