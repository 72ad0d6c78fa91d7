"""Activations made of known features, so that what an autoencoder should find is known."""

import torch
from torch import Tensor


def features(n_features: int, d: int, generator: torch.Generator) -> Tensor:
    """Unit vectors: orthogonal where they fit, random where there are more than dimensions.

    Drawn in another order than an autoencoder draws its first decoder, which of equal seeds would else be the truth.
    """
    rows = torch.randn(d, n_features, generator=generator).T.flip(0)
    if n_features <= d:
        rows = torch.linalg.qr(rows.T).Q.T
    return rows / rows.norm(dim=1, keepdim=True)


def activations(truth: Tensor, n: int, p: float, generator: torch.Generator) -> Tensor:
    """Rows sum_i b_i m_i truth_i, each feature on independently with chance p, with magnitude |N(1, 0.25)|."""
    on = torch.rand(n, len(truth), generator=generator) < p
    size = (1 + 0.25 * torch.randn(n, len(truth), generator=generator)).abs()
    return (on * size) @ truth


def matched_cosine(decoder: Tensor, truth: Tensor) -> float:
    """Mean |cosine| between true features and the latents matched to them one to one (Hungarian): the MCC."""
    from scipy.optimize import linear_sum_assignment

    rows = decoder / decoder.norm(dim=1, keepdim=True)
    cosines = (truth @ rows.T).abs()
    left, right = linear_sum_assignment(-cosines.numpy())
    return float(cosines[left, right].mean())
