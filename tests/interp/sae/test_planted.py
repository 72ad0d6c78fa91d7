"""Planted dictionaries, five seeds each: what every published objective should find, and where absorption shows."""

import pytest
import torch
from torch import Tensor

from interp.sae import (
    SAE,
    BatchTopK,
    Matching,
    MatryoshkaBatchTopK,
    Quality,
    Standard,
    TopK,
    absorption,
    evaluate,
    from_data,
    match_truth,
    tensor_source,
    tie,
    train,
)
from tests.interp.sae.planted import activations, features

pytestmark = pytest.mark.usefixtures("unchecked")

SEEDS = range(5)


def learnt(sae: SAE, x: Tensor, tokens: int, lr: float, seed: int) -> SAE:
    train(sae, tensor_source(x), tokens=tokens, batch_size=512, lr=lr, dead_after=20_000, seed=seed, progress=False)
    return sae


@pytest.mark.parametrize("seed", SEEDS)
def test_an_orthogonal_dictionary_is_recovered_whole_by_l1(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    truth = features(64, 64, g)
    x = activations(truth, 20_000, 0.05, g)
    sae = learnt(Standard(64, 64, coefficient=0.1, seed=seed), x, 300_000, 1e-2, seed)
    quality = evaluate(sae, tensor_source(x))
    assert match_truth(sae.W_dec.detach(), truth).mcc >= 0.99
    assert quality.explained_variance >= 0.99
    assert quality.dead_share < 0.05


def overcomplete(seed: int) -> tuple[Matching, Quality]:
    """What is recovered of four times more features than dimensions, at their mean number per row."""
    g = torch.Generator().manual_seed(seed)
    truth = features(128, 32, g)
    x = activations(truth, 60_000, 0.02, g)
    sae = learnt(TopK(32, 128, k=3, seed=seed), x, 300_000, 1e-2, seed)
    return match_truth(sae.W_dec.detach(), truth), evaluate(sae, tensor_source(x))


@pytest.mark.parametrize("seed", SEEDS)
def test_topk_recovers_four_times_more_features_than_dimensions(seed: int) -> None:
    match, quality = overcomplete(seed)
    assert match.mcc >= 0.90, str(match)
    assert match.floor <= 0.60
    assert quality.dead_share < 0.05


def test_batchtopk_recovers_them_from_data_with_its_dead_revived_early() -> None:
    """From random rows, with dead latents waiting for 20,000 tokens and 1/32 of the loss, it finds three in four."""
    g = torch.Generator().manual_seed(0)
    truth = features(128, 32, g)
    x = activations(truth, 60_000, 0.02, g)
    sae = BatchTopK(32, 128, k=3, aux_coefficient=1.0)
    from_data(sae, x[:4_000])
    tie(sae)
    train(sae, tensor_source(x), tokens=300_000, batch_size=512, lr=1e-2, dead_after=2_000, progress=False)
    match = match_truth(sae.W_dec.detach(), truth)
    assert match.mcc >= 0.90, str(match)
    assert evaluate(sae, tensor_source(x)).dead_share < 0.05


def test_at_the_truth_batchtopks_loss_is_lower_than_where_it_comes_from_elsewhere() -> None:
    """What it misses is the fault of where it begins and not of what it asks for: begun at the truth it stays there."""
    g = torch.Generator().manual_seed(0)
    truth = features(128, 32, g)
    x = activations(truth, 20_000, 0.02, g)
    begun, elsewhere = BatchTopK(32, 128, k=3), BatchTopK(32, 128, k=3)
    with torch.no_grad():
        begun.W_dec.copy_(truth)
        begun.W_enc.copy_(truth.T)
    qualities = [evaluate(learnt(sae, x, 20_000, 1e-2, 0), tensor_source(x)) for sae in (begun, elsewhere)]
    assert match_truth(begun.W_dec.detach(), truth).mcc >= 0.95
    assert qualities[0].explained_variance > qualities[1].explained_variance + 0.02


def hierarchy(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Six parents with two children each, a child on only where its parent is: truth, what is on, activations."""
    g = torch.Generator().manual_seed(seed)
    truth = features(18, 24, g)
    parents = torch.rand(20_000, 6, generator=g) < 0.15
    which = torch.randint(0, 3, (20_000, 6), generator=g)
    children = torch.cat([parents & (which == i) for i in (0, 1)], dim=1)
    on = torch.cat([parents, children], dim=1).float()
    return truth, on, on @ truth


def absorbed(sae: SAE, truth: Tensor, on: Tensor, x: Tensor) -> float:
    """The mean absorption of parents, each of which has one latent of its own by the best match."""
    latents = match_truth(sae.W_dec.detach(), truth[:6]).latents.tolist()
    rates = [absorption(sae, x, on[:, i] > 0, [latents[i]], truth[i]).rate for i in range(6)]
    return sum(rates) / 6


def test_a_matryoshka_absorbs_less_than_a_standard_autoencoder() -> None:
    rates = []
    for seed in SEEDS:
        truth, on, x = hierarchy(seed)
        nested = MatryoshkaBatchTopK(24, 18, k=1.5, widths=(6, 18), seed=seed)
        plain = Standard(24, 18, coefficient=0.3, seed=seed)
        pair = [learnt(sae, x, 60_000, 8e-3, seed) for sae in (plain, nested)]
        rates.append([absorbed(sae, truth, on, x) for sae in pair])
    standard, matryoshka = torch.tensor(rates).mean(0).tolist()
    assert standard > 0.1
    assert matryoshka < standard / 2
