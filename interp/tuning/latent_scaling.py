"""Which latents of a crosscoder are the tuned model's own: latent scaling, next to the norms of decoder rows.

An L1 penalty on norms shrinks the base's row of a weakly shared latent to 0, and splits shared ones: by norms alone
both look exclusive (Minder et al. 2025, arXiv:2504.02922). Scaling asks the activations instead.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.border import Count, Natural, Positive
from hooks.errors import InvalidArgument
from interp.common.statistics import draw_groups, percentile_ends
from interp.sae import Crosscoder

if TYPE_CHECKING:
    from pandas import DataFrame

TARGETS: Final = ("activation", "reconstruction", "error")


@final
@dataclass(frozen=True, eq=False, repr=False)
class LatentScaling:
    """ν = β_base / β_tuned of every latent: 1 where both models have it alike, 0 where only the tuned one does.

    Attributes:
        nu: of each target: the activations, the reconstructions of other latents and its own, the errors.
        low, high: the ends of 95 % intervals over blocks of rows.
        by_norm: the base row's norm over the tuned row's, the criterion that L1 misleads; infinite where the base alone
            has a row, NaN where neither has: there is no such latent, and it is counted as nobody's.
        fired: on how many rows each latent was above 0.
        by_chance: the 97.5 % quantile over latents of |ν| on activations when latents are shuffled over rows.
    """

    nu: dict[str, Float[Tensor, "latent"]]
    low: dict[str, Float[Tensor, "latent"]]
    high: dict[str, Float[Tensor, "latent"]]
    by_norm: Float[Tensor, "latent"]
    fired: Float[Tensor, "latent"]
    by_chance: float

    def exclusive(self, below: Positive = 0.3) -> Bool[Tensor, "latent"]:
        """The latents that are the tuned model's own: the upper ends of ν on reconstruction and on error are below.

        Both are asked: a base that has the concept in its error, or in other latents, has it.
        """
        ends = [self.high[target] for target in ("reconstruction", "error")]
        return torch.stack([end < below for end in ends]).all(0) & (self.fired > 0)

    def __repr__(self) -> str:
        live = int((self.fired > 0).sum())
        by_norm = int(((self.by_norm < 0.1) & (self.fired > 0)).sum())
        return (
            f"LatentScaling({live} of {len(self.fired)} latents fired; {int(self.exclusive().sum())} exclusive to the "
            f"tuned model by scaling, {by_norm} by norms; by chance |ν| up to {self.by_chance:.2f})"
        )

    def to_pandas(self) -> "DataFrame":
        """A row for each latent that fired."""
        from pandas import DataFrame

        kept = (self.fired > 0).nonzero()[:, 0].tolist()
        columns = {f"nu_{target}": self.nu[target] for target in TARGETS} | {
            "by_norm": self.by_norm, "fired": self.fired, "exclusive": self.exclusive(),
        }  # fmt: skip
        return DataFrame({"latent": i, **{name: column[i].item() for name, column in columns.items()}} for i in kept)


@torch.no_grad()
def measure_latent_scaling(
    crosscoder: Crosscoder,
    rows: Float[Tensor, "n 2 d_model"],
    *,
    blocks: Count = 20,
    draws: Count = 200,
    seed: Natural = 0,
) -> LatentScaling:
    """Measure β = argmin_β Σ_i ‖β f_i d − y_i‖² = dᵀ(Yᵀf)/(‖f‖²‖d‖²) for each latent and model; ν is base over tuned.

    d is the latent's row in the tuned model. y is, in turn: the activation less its mean; the reconstruction less its
    bias; and the error, to which in the tuned model the latent's own part is added back. A latent that the base has in
    its error shows in the third, one that the base writes by other latents in the second.

    Args:
        crosscoder: of two models, the base first.
        rows: activations of both at the same tokens, in the order of the data.
        blocks: of consecutive rows, which the intervals redraw.
        draws: of blocks.
        seed: of the draws.

    Raises:
        InvalidArgument: a crosscoder of other than two models, rows of another shape, or fewer rows than blocks.

    Cost: one encoding of the rows, and for each block a product of latents by d_model.

    Examples:
        ```python
        measure_latent_scaling(crosscoder, torch.cat([*across([(base, site), (tuned, site)], texts)]))
        ```
    """
    if crosscoder.n_layers != 2 or rows.shape[1:] != (2, crosscoder.d_in):
        raise InvalidArgument(
            f"rows of shape {list(rows.shape)} for a crosscoder of {crosscoder.n_layers} places of width "
            f"{crosscoder.d_in}: give one of two models, and rows [n, 2, {crosscoder.d_in}]"
        )
    if len(rows) < blocks or blocks < 2:
        raise InvalidArgument(f"{len(rows)} rows and {blocks} blocks: give at least two blocks, and a row for each")
    f = crosscoder.encode(rows)
    mean, d = rows.mean(0), crosscoder.W_dec[:, 1]
    parts = [
        _products(crosscoder, d, mean, x, g)
        for x, g in zip(rows.tensor_split(blocks), f.tensor_split(blocks), strict=True)
    ]
    held = {target: torch.stack([part[target] for part in parts]).double() for target in TARGETS}
    times = draw_groups(blocks, draws, seed).to(rows.device)
    nu, low, high = {}, {}, {}
    for target, products in held.items():
        nu[target] = _ratio(products.sum(0))
        low[target], high[target] = percentile_ends(_ratio(torch.einsum("nb,bml->nml", times, products)))
    shuffled = f[torch.randperm(len(f), generator=torch.Generator().manual_seed(seed))]
    norms = crosscoder.norms()
    return LatentScaling(
        nu,
        low,
        high,
        norms[:, 0] / norms[:, 1],
        (f > 0).sum(0).float(),
        _by_chance(d, mean, rows, f, shuffled),
    )


def _products(
    crosscoder: Crosscoder, d: Tensor, mean: Tensor, x: Tensor, f: Tensor
) -> dict[str, Float[Tensor, "2 latent"]]:
    """dᵀ(Yᵀf) of base and tuned for each target; the denominators of β are the same in both and cancel in ν."""
    said = crosscoder.decode(f)
    own = (f * f).sum(0) * (d * d).sum(1)
    error = _along(f, x - said, d)
    error[1] += own
    return {
        "activation": _along(f, x - mean, d),
        "reconstruction": _along(f, said - crosscoder.b_dec, d),
        "error": error,
    }


def _along(f: Float[Tensor, "n latent"], y: Float[Tensor, "n 2 d_model"], d: Float[Tensor, "latent d_model"]) -> Tensor:
    return torch.einsum("fmd,fd->mf", torch.einsum("nf,nmd->fmd", f, y), d)


def _ratio(products: Float[Tensor, "*n 2 latent"]) -> Float[Tensor, "*n latent"]:
    base, tuned = products.unbind(-2)
    return (base / tuned.where(tuned != 0, torch.nan)).float()


def _by_chance(d: Tensor, mean: Tensor, x: Tensor, f: Tensor, shuffled: Tensor) -> float:
    """How large β_base is over the true β_tuned when each row has the latents of another."""
    true, none = _along(f, x - mean, d)[1], _along(shuffled, x - mean, d)[0]
    ratio = (none / true.where(true != 0, torch.nan)).abs()
    return float(ratio[~ratio.isnan()].quantile(0.975)) if bool((~ratio.isnan()).any()) else float("nan")
