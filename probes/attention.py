"""The attention probe: it learns which tokens of a text to read, and what to read from them."""

from typing import Any, ClassVar, TypeAlias, final

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from hooks.errors import InvalidArgument, InvalidType
from probes.arrays import Array, Table, floats, like, tensor
from probes.checks import check_finite, check_width
from probes.classifier import TwoClasses
from probes.estimator import check_fitted
from probes.labels import select_classes
from probes.training import train

Mask: TypeAlias = Bool[Array, "n pos"] | Int[Array, "n pos"]


@final
class AttentionProbe(TwoClasses):
    """f(x) = sum_h sum_t a_ht (v_h.x_t) + b, a_h = softmax over t of (q_h.x_t + m_h r_t); r_t counts back from the end.

    Padding, which `mask` marks, gets no attention, and changes nothing by its content or amount. Rows are centred and
    scaled by the mean and the root mean square deviation of the tokens it was fitted to. The same seed gives the same
    probe.

    Cost:
        `steps` passes over x.

    Examples:
        ```python
        probe = AttentionProbe(heads=2).fit(acts[site], y, acts.tokens.content)
        probe.attention(acts[site], acts.tokens.content)
        ```
    """

    name: ClassVar[str] = "attention probe"
    q_: Float[Tensor, "head d_model"]
    v_: Float[Tensor, "head d_model"]
    m_: Float[Tensor, "head"]
    b_: Float[Tensor, ""]
    mean_: Float[Tensor, "d_model"]
    std_: Float[Tensor, ""]

    def __init__(
        self, heads: int = 1, steps: int = 300, lr: float = 3e-2, weight_decay: float = 1e-2, seed: int = 0
    ) -> None:
        self.heads, self.steps, self.lr, self.weight_decay, self.seed = heads, steps, lr, weight_decay, seed

    def fit(
        self, x: Float[Array, "n pos d_model"] | Table, y: Shaped[Array, "n"] | Table, mask: Mask | None = None
    ) -> "AttentionProbe":
        """Learn from labelled sequences and return self; `mask` is True or 1 on tokens that count, all unless given.

        Raises:
            InvalidArgument: NaN or infinity, lengths that differ, labels that are all alike or of more than two kinds,
                a text without tokens.
            InvalidType: a mask of other numbers than 0 and 1.
            WrongState: the loss is not finite.
        """
        rows, kept = _mask_rows(x, mask)
        rows, labels, _ = self._two(x, rows, y)
        self.n_features_in_ = rows.shape[-1]
        self.mean_ = rows[kept].mean(0)
        self.std_ = (rows[kept] - self.mean_).square().mean().sqrt().clamp_min(1e-30)
        d = rows.shape[-1]
        g = torch.Generator().manual_seed(self.seed)
        self.q_ = (torch.randn(self.heads, d, generator=g) / d).to(rows.device).requires_grad_()
        self.v_ = (torch.randn(self.heads, d, generator=g) / d).to(rows.device).requires_grad_()
        self.m_ = torch.zeros(self.heads, device=rows.device).requires_grad_()
        self.b_ = torch.zeros((), device=rows.device).requires_grad_()
        target = labels.float()

        def losses() -> list[Float[Tensor, ""]]:
            return [nn.functional.binary_cross_entropy_with_logits(self._score(rows, kept), target)]

        learnt = [self.q_, self.v_, self.m_, self.b_]
        train(learnt, losses, steps=self.steps, lr=self.lr, weight_decay=self.weight_decay)
        return self

    def decision_function(
        self, x: Float[Array, "n pos d_model"] | Table, mask: Mask | None = None
    ) -> Float[Array, "n"]:
        """The log-odds f(x).

        Raises:
            NotFitted: the probe is not fitted.
        """
        check_fitted(self, "q_")
        rows, kept = self._rows(x, mask)
        with torch.no_grad():
            return like(x, self._score(rows, kept))

    def predict(self, x: Float[Array, "n pos d_model"] | Table, mask: Mask | None = None) -> Shaped[Array, "n"]:
        """The second class where f(x) > 0, and the first elsewhere."""
        score = self.decision_function(x, mask)
        return select_classes(self.classes_, torch.as_tensor(score > 0).long(), x)

    def attention(
        self, x: Float[Array, "n pos d_model"] | Table, mask: Mask | None = None
    ) -> Float[Array, "n head pos"]:
        """How much each head reads from each token; sums to 1 over the tokens that count.

        Raises:
            NotFitted: the probe is not fitted.
        """
        check_fitted(self, "q_")
        rows, kept = self._rows(x, mask)
        with torch.no_grad():
            return like(x, self._attention(self._standard(rows, kept), kept))

    def _rows(self, x: Any, mask: Any) -> tuple[Tensor, Tensor]:
        rows, kept = _mask_rows(x, mask)
        check_width(rows, self.n_features_in_)
        return rows, kept

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def _standard(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask[..., None], (x - self.mean_) / self.std_, 0.0)

    def _attention(self, x: Tensor, mask: Tensor) -> Tensor:
        back = mask.flip(1).cumsum(1).flip(1) - 1.0
        scores = einsum(self.q_, x, "head d_model, n pos d_model -> n head pos")
        scores = scores + self.m_[:, None] * back[:, None]
        return scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)

    def _score(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self._standard(x, mask)
        values = einsum(self.v_, x, "head d_model, n pos d_model -> n head pos")
        return (self._attention(x, mask) * values).sum((1, 2)) + self.b_


def _mask_rows(x: Any, mask: Any) -> tuple[Tensor, Tensor]:
    """Sequences, finite, with zeros where nothing counts; and the mask."""
    rows = floats(x).float()
    if rows.ndim != 3:
        raise InvalidArgument(f"sequences have the shape [n, pos, width], got {list(rows.shape)}: give x[:, None]")
    kept = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device) if mask is None else _bool(tensor(mask))
    if kept.shape != rows.shape[:2]:
        raise InvalidArgument(f"the mask has shape {tuple(kept.shape)} and the sequences {tuple(rows.shape[:2])}")
    empty = (~kept.any(1)).nonzero().flatten().tolist()
    if empty:
        raise InvalidArgument(f"text {empty[0]} has no token that counts: leave it out, or look at the mask")
    rows = torch.where(kept[..., None], rows, 0.0)
    check_finite(rows)
    return rows, kept


def _bool(mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return mask
    if mask.is_floating_point() or not bool(((mask == 0) | (mask == 1)).all()):
        raise InvalidType(
            f"a mask is True or 1 where a token counts, got {mask.dtype} up to {mask.max()}: give mask > 0"
        )
    return mask.bool()
