"""The least change of a feed-forward weight that writes given values at given keys, in factors and in float64."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument

RIDGE = 0.1
"""Of `balance_weights`: ρ as a share of the mean k C⁻¹ k."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """ΔW = key ⊗ value for one layer, in the orientation mlp_act @ W: ΔW[i, j] = Σ_r key[r, i] value[r, j].

    Attributes:
        layer: whose output projection is changed.
        key: the left factor; of an edit of given keys k it is (K C⁻¹ Kᵀ)⁻¹ K C⁻¹ or its like.
        value: the right factor.
        at: the keys k at which the values are to be written, where there are such: what conflicts are measured at.

    Raises:
        InvalidArgument: a factor that is not finite.
    """

    layer: int
    key: Float[Tensor, "n d_mlp"]
    value: Float[Tensor, "n d_model"]
    at: Float[Tensor, "example d_mlp"] | None = None

    def __post_init__(self) -> None:
        if not bool(self.key.isfinite().all() and self.value.isfinite().all()):
            raise InvalidArgument(f"the change of layer {self.layer} holds NaN or infinity, so it is no edit")

    @property
    def delta(self) -> Float[Tensor, "d_mlp d_model"]:
        """ΔW in float64."""
        return torch.einsum("ni,nj->ij", self.key.double(), self.value.double())

    def control(self, random: torch.Generator) -> "LowRank":
        """The same keys with the values turned together to random directions, so that ‖ΔW‖ and each norm are the same.

        Values drawn one by one would not do. Where keys are alike, what is written at one is written at the others
        too; values that are alike cancel in ΔW, and independent ones do not, so that control would be several times
        larger.
        """
        held, parts = torch.linalg.qr(self.value.double().cpu().T)
        turned, signs = torch.linalg.qr(torch.randn(held.shape, generator=random, dtype=torch.float64))
        return LowRank(self.layer, self.key, parts.T @ (turned * signs.diagonal().sign()).T, self.at)


def join_changes(updates: Sequence[LowRank]) -> LowRank:
    """Changes of one layer as one; the keys they write at are known where each says its own."""
    at = [update.at for update in updates if update.at is not None]
    return LowRank(
        updates[0].layer,
        torch.cat([update.key for update in updates]),
        torch.cat([update.value for update in updates]),
        torch.cat(at) if len(at) == len(updates) else None,
    )


def group_by_layer(updates: Sequence[LowRank]) -> dict[int, LowRank]:
    """The change of each layer, from the first one."""
    layers = sorted({update.layer for update in updates})
    return {layer: join_changes([update for update in updates if update.layer == layer]) for layer in layers}


def solve_least_change(
    k: Float[Tensor, "n d_mlp"], inverse: Float[Tensor, "n d_mlp"], ridge: float = 0.0
) -> Float[Tensor, "n d_mlp"]:
    """The left factor U = (K C⁻¹ Kᵀ + ρ I)⁻¹ K C⁻¹ of the change ΔW = Uᵀ R that writes R at the keys K.

    With ρ = 0, of all ΔW with K ΔW = R it is the one of least tr(ΔWᵀ C ΔW): for one key it is ROME's (Meng et al.
    2022, equation 2), for several EMMET's (Gupta et al. 2024, arXiv:2403.14236). With ρ > 0 it is the least of
    ‖K ΔW − R‖² + ρ tr(ΔWᵀ C ΔW), which is MEMIT's, (ρ C + KᵀK)⁻¹ Kᵀ R (Meng et al. 2023, arXiv:2210.07229, equation
    14), by the identity of Woodbury.

    Args:
        k: the keys K.
        inverse: K C⁻¹, as `Covariance.solve(k)` gives it.
        ridge: ρ.

    Raises:
        InvalidArgument: keys that depend on each other, with ρ = 0.
    """
    k, inverse = k.double().cpu(), inverse.double().cpu()
    gram = k @ inverse.T
    if ridge == 0.0 and len(k) > 1 and float(torch.linalg.cond(gram)) > 1e10:
        raise InvalidArgument(
            f"the {len(k)} keys depend on each other, so not every value can be written exactly: "
            "leave out facts of one subject, or give a ridge above 0"
        )
    return torch.linalg.solve(gram + ridge * torch.eye(len(k), dtype=torch.float64), inverse)


def balance_weights(k: Float[Tensor, "n d_mlp"], inverse: Float[Tensor, "n d_mlp"]) -> Float[Tensor, "n"]:
    """Weights w ∝ (K C⁻¹ Kᵀ + ρ I)⁻¹ 1 of sum 1: what is written at the mean Σᵢ wᵢ kᵢ is then read at every kᵢ alike.

    The least change that writes at that mean is, but for its size, the u with the least Σᵢ (kᵢ u − 1)² + ρ uᵀ C u. With
    equal weights a key unlike the others, a subject's at the beginning of a text say, would hardly read it. ρ is a
    tenth of the mean k C⁻¹ k.

    Args:
        k: the keys K of one subject in several texts.
        inverse: K C⁻¹, as `Covariance.solve(k)` gives it, or K P of a change confined to the space of P.
    """
    gram = k.double().cpu() @ inverse.double().cpu().T
    ridge = RIDGE * float(gram.diagonal().mean()) * torch.eye(len(gram), dtype=torch.float64)
    w = torch.linalg.solve(gram + ridge, torch.ones(len(gram), dtype=torch.float64))
    return w / w.sum()


def measure_leverage(k: Float[Tensor, "n d_mlp"], inverse: Float[Tensor, "n d_mlp"]) -> float:
    """The mean of kᵀ C⁻¹ k, given K C⁻¹: what a ridge ρ has to be compared with."""
    return float((k.double().cpu() * inverse.double().cpu()).sum(1).mean())
