"""What tuning changed of the weights: how much of each matrix, in how few directions, and what those would say."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Model, Site
from hooks.border import Count
from hooks.errors import UnknownName, nearest
from hooks.fingerprint import fingerprint
from hooks.pieces import piece
from hooks.progress import progress_bar
from hooks.site import mlp_act, resid_post, z
from hooks.weights import matrix_of
from interp.tuning.naming import lens_scores
from interp.tuning.pair import ModelPair

if TYPE_CHECKING:
    from pandas import DataFrame


@final
@dataclass(frozen=True, eq=False, repr=False)
class MatrixChange:
    """The change of one matrix that writes to the stream.

    Attributes:
        name: `mlp.3` or `attention.3`.
        layer: whose it is.
        relative: ‖ΔW‖ / ‖W‖.
        singular: the singular values of ΔW.
        writes: the directions it writes, a row for each of the largest singular values.
        rank: the effective rank, (Σ s²)² / Σ s⁴.
        random_rank: that of a matrix of normal numbers of the same shape.
    """

    name: str
    layer: int
    relative: float
    singular: Float[Tensor, "n"]
    writes: Float[Tensor, "_ d_model"]
    rank: float
    random_rank: float


@final
@dataclass(frozen=True, eq=False, repr=False)
class WeightDifference:
    """The changes of all matrices that write to the stream, tuned less base."""

    changes: tuple[MatrixChange, ...]
    fingerprint: str

    def __repr__(self) -> str:
        moved = [one for one in self.changes if one.relative > 0]
        if not moved:
            return f"tuned less base: none of the {len(self.changes)} matrices that write to the stream differs"
        top = sorted(moved, key=lambda one: -one.relative)[:6]
        lines = [
            f"tuned less base: matrix, ‖ΔW‖/‖W‖, effective rank (of a random matrix); {len(moved)} of "
            f"{len(self.changes)} differ, the {len(top)} that moved most:"
        ]
        lines += [f"  {one.name}: {one.relative:.4f}, {one.rank:.1f} ({one.random_rank:.0f})" for one in top]
        return "\n".join(lines)

    def __getitem__(self, name: str) -> MatrixChange:
        found = {one.name: one for one in self.changes}
        if name not in found:
            raise UnknownName(f"no matrix is called {name!r}; the nearest is {nearest(name, found)}")
        return found[name]

    def direction(self, name: str, k: int = 0) -> Direction:
        """The direction of the k-th largest singular value, at the stream after the matrix's block.

        Raises:
            UnknownName: no such matrix.
        """
        one = self[name]
        return Direction(one.writes[k], resid_post[one.layer], f"ΔW of {name}", 1.0, self.fingerprint)

    def to_pandas(self) -> "DataFrame":
        """A row for each matrix."""
        from pandas import DataFrame

        return DataFrame(
            {"matrix": one.name, "relative": one.relative, "rank": one.rank, "random_rank": one.random_rank,
             "largest": float(one.singular[0])}
            for one in self.changes
        )  # fmt: skip


@torch.no_grad()
def measure_weight_difference(pair: ModelPair, *, k: Count = 4, progress: bool = True) -> WeightDifference:
    """Decompose ΔW = Σ_i s_i x_i y_iᵀ of every output projection; y_i is what the change writes to the stream.

    Adapters that are active count as part of the weights. Singular vectors have no sign: each has that of its largest
    entry.

    Args:
        pair: the two models.
        k: how many directions of each matrix are kept.
        progress: show a bar.

    Cost: a singular value decomposition of each matrix; no pass.

    Examples:
        ```python
        measure_weight_difference(pair)["mlp.3"].singular
        ```
    """
    changes = []
    for layer in progress_bar(range(pair.base.n_layers), desc="weights", progress=progress):
        for kind, site in (("attention", z[layer]), ("mlp", mlp_act[layer])):
            if _has(pair.base, site):
                changes.append(_change(pair, f"{kind}.{layer}", layer, site, k))
    return WeightDifference(tuple(changes), fingerprint(pair.base.hf))


def _has(model: Model, site: Site) -> bool:
    return any(one == site for one in model.taps)


def _change(pair: ModelPair, name: str, layer: int, site: Site, k: int) -> MatrixChange:
    base, tuned = (matrix_of(model.module(site)).double().cpu() for model in (pair.base, pair.tuned))
    delta = tuned - base
    _, s, Y = torch.linalg.svd(delta, full_matrices=False)
    rows = Y[:k]
    rows = rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    drawn = torch.linalg.svdvals(torch.randn(delta.shape, generator=torch.Generator().manual_seed(0)).double())
    return MatrixChange(name, layer, float(delta.norm() / base.norm()), s.float(), rows.float(), _rank(s), _rank(drawn))


def _rank(s: Float[Tensor, "n"]) -> float:
    """(Σ s²)² / Σ s⁴: the number of equal singular values that would be as spread out; 0 where all are 0."""
    return float((s**2).sum() ** 2 / (s**4).sum()) if bool(s.any()) else 0.0


@torch.no_grad()
def find_written_words(model: Model, difference: WeightDifference, name: str, k: Count = 10) -> tuple[str, ...]:
    """The tokens that the strongest direction of a change raises, or lowers: those of the end that reaches further.

    Examples:
        ```python
        find_written_words(pair.base, measure_weight_difference(pair), "mlp.6")
        ```
    """
    scores = lens_scores(model, difference[name].writes[0])
    scores = scores if scores.topk(k).values.mean() >= (-scores).topk(k).values.mean() else -scores
    return tuple(piece(model.tokenizer, i) for i in scores.topk(k).indices.tolist())
