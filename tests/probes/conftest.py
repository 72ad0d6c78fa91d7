"""Two Gaussian classes whose direction, covariance and best accuracy are known."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch


@dataclass(frozen=True)
class Planted:
    """Rows x = +-u + Sigma^(1/2) noise, their labels, u, and Sigma."""

    x: torch.Tensor
    y: torch.Tensor
    u: torch.Tensor
    Sigma: torch.Tensor

    @property
    def discriminant(self) -> torch.Tensor:
        return torch.linalg.solve(self.Sigma, self.u)

    @property
    def bayes(self) -> float:
        """The best accuracy any rule has: Phi(sqrt(u^T Sigma^-1 u))."""
        return float(torch.special.ndtr((self.u @ self.discriminant).sqrt()))


@pytest.fixture(scope="session")
def planted() -> Callable[..., Planted]:
    """Makes such rows: `planted(n, seed=0, d=12)`; the noise is between 0.5 and 2.5 wide."""

    def make(n: int, seed: int = 0, d: int = 12) -> Planted:
        g = torch.Generator().manual_seed(seed)
        u = torch.randn(d, generator=g, dtype=torch.float64)
        u /= u.norm()
        basis = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
        root = basis * torch.linspace(0.5, 2.5, d, dtype=torch.float64)
        y = torch.rand(n, generator=g) < 0.5
        noise = torch.randn(n, d, generator=g, dtype=torch.float64) @ root.T
        return Planted((torch.where(y, 1.0, -1.0)[:, None] * u + noise).float(), y, u.float(), (root @ root.T).float())

    return make


@pytest.fixture(scope="session")
def cosine() -> Callable[[torch.Tensor, torch.Tensor], float]:
    return lambda a, b: float(torch.cosine_similarity(a, b, dim=0))
