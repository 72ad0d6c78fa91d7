"""BatchTopK and Matryoshka: the selection against one sort of the whole batch, the threshold, and nested prefixes."""

import pytest
import torch
from torch import Tensor

from interp.sae import BatchTopK, MatryoshkaBatchTopK
from interp.sae.architectures.batch_topk import batch_top_k
from interp.sae.numerics.ranking import Encoder, ExactRanking

NOBODY = torch.zeros(24, dtype=torch.bool)


def rows(seed: int = 0, n: int = 50) -> Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))


def by_one_sort(pre: Tensor, count: int) -> Tensor:
    flat = pre.relu().flatten()
    kept = flat.topk(count)
    return torch.zeros_like(flat).scatter(0, kept.indices, kept.values).view_as(pre)


def largest(pre: Tensor, k: float) -> Tensor:
    """The largest of a batch, dense: its rows through an encoder that changes nothing."""
    same = Encoder(torch.eye(pre.shape[1]), torch.zeros(pre.shape[1]))
    code = batch_top_k(pre, same, k, ExactRanking())
    return torch.zeros_like(pre).index_put((code.rows, code.latents), code.values)


@pytest.mark.parametrize("k", [1, 2.5, 7, 24])
@pytest.mark.parametrize("spread", [0.0, 3.0], ids=["even rows", "a few rows take nearly all"])
def test_the_largest_of_a_batch_are_those_of_one_sort(k: float, spread: float) -> None:
    g = torch.Generator().manual_seed(0)
    pre = torch.randn(40, 24, generator=g) + spread * torch.randn(40, 1, generator=g)
    f = largest(pre, k)
    assert torch.equal(f, by_one_sort(pre, int(40 * k)))
    assert int((f > 0).sum()) == min(int(40 * k), int((pre > 0).sum()))


@pytest.mark.parametrize("first", [5.0, -5.0], ids=["too high", "too low"])
def test_a_threshold_guessed_from_rows_unlike_the_others_is_corrected(first: float) -> None:
    pre = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    pre[:128] += first
    assert torch.equal(largest(pre, 3), by_one_sort(pre, 900))


def test_a_batch_with_too_few_positive_latents_keeps_those_alone() -> None:
    pre = torch.full((4, 6), -1.0)
    pre[2, 3] = 5.0
    f = largest(pre, 2)
    assert float(f[2, 3]) == 5.0 == float(f.sum())


def test_the_threshold_becomes_the_mean_of_the_smallest_latents_kept() -> None:
    sae, smallest = BatchTopK(8, 24, k=3), []
    for seed in range(200):
        sae.objective().gradients(rows(seed), NOBODY)
        f = largest(sae.pre(rows(seed)).detach(), 3)
        smallest.append(float(f[f > 0].min()))
    assert float(sae.threshold[0]) == pytest.approx(sum(smallest) / 200, rel=0.02)
    first = BatchTopK(8, 24, k=3)
    first.objective().gradients(rows(0), NOBODY)
    assert float(first.threshold[0]) == pytest.approx(smallest[0])
    assert float((sae.encode(rows(1000, n=2000)) > 0).sum(1).float().mean()) == pytest.approx(3, abs=0.3)


def test_a_matryoshka_of_one_width_is_batchtopk() -> None:
    one, other = BatchTopK(8, 24, k=3), MatryoshkaBatchTopK(8, 24, k=3, widths=())
    x = rows()
    assert float(one.objective().gradients(x, NOBODY).loss) == float(other.objective().gradients(x, NOBODY).loss)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad)


def test_a_matryoshkas_loss_is_the_sum_over_its_prefixes() -> None:
    sae, x = MatryoshkaBatchTopK(8, 24, k=3, widths=(4, 10)), rows()
    sae.objective().initialise(x)
    f = by_one_sort(sae.pre(x), 150)
    V = (x - x.mean(0)).pow(2).sum(1).mean()
    by_hand = sum((x - f[:, :m] @ sae.W_dec[:m] - sae.b_dec).pow(2).sum(1).mean() / V for m in (4, 10, 24))
    assert float(sae.objective().gradients(x, NOBODY).loss) == pytest.approx(
        float(torch.as_tensor(by_hand).detach()), rel=1e-5
    )


@pytest.mark.parametrize("widths", [(0, 24), (10, 10), (30,)])
def test_prefixes_that_do_not_nest_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="they must rise from at least 1 to at most d_sae = 24"):
        MatryoshkaBatchTopK(8, 24, k=3, widths=widths)
