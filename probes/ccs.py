"""Contrast-consistent search: a truth-like direction from statements and their negations, without labels."""

from typing import Any, ClassVar, final

import torch
from einops import einsum
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.arrays import Array, Table, floats, like, tensor
from probes.checks import check_finite, check_width
from probes.classifier import TwoClasses
from probes.estimator import Estimator, check_fitted
from probes.linear import Linear
from probes.training import train


@final
class CCS(TwoClasses, Linear):
    """min over w, b of E (p_+ - (1 - p_-))^2 + E min(p_+, p_-)^2, p = sigmoid(w.x + b) (Burns et al. 2022).

    A row is a pair: a statement and its negation, each side centred by the mean it had in `fit`. The restart with the
    lowest loss is kept. Without labels the sign of w means nothing: `orient` sets it from labelled pairs, once, and
    nothing later takes the better of an accuracy and its complement. Compare with `Logistic` on the differences of
    the pairs: any salient difference between them satisfies this loss as well as truth does.

    `scale_` is, along the direction, the distance from the mean of a side to the farthest side of a pair, and
    `reach_back_` the distance against it.

    Cost:
        `steps` passes over the pairs for all restarts together.

    Examples:
        ```python
        probe = CCS(seed=1).fit(torch.stack([statements, negations], 1)).orient(labelled_pairs, y)
        probe.predict(new_pairs)
        ```
    """

    name: ClassVar[str] = "contrast-consistent search"
    _estimator_type: ClassVar[str | None] = None
    loss_: float
    mean_: Float[Tensor, "2 d_model"]
    reach_back_: float

    def __init__(
        self, restarts: int = 10, steps: int = 500, lr: float = 1e-2, weight_decay: float = 1e-2, seed: int = 0
    ) -> None:
        self.restarts, self.steps, self.lr, self.weight_decay, self.seed = restarts, steps, lr, weight_decay, seed

    def fit(self, x: Float[Array, "n 2 d_model"] | Table, y: object = None) -> "CCS":  # noqa: ARG002 scikit-learn's
        """Learn from pairs, without labels, and return self.

        Raises:
            InvalidArgument: NaN or infinity, fewer than two pairs, or pairs that are all alike.
            WrongState: the loss is not finite.
        """
        pairs = _pairs(x)
        if len(pairs) < 2:
            raise InvalidArgument(f"CCS needs at least 2 pairs of finite numbers, got {len(pairs)}")
        self._forget()
        self.classes_, self.n_features_in_ = torch.tensor([False, True]), pairs.shape[-1]
        self.mean_ = pairs.mean(0)
        rows = pairs.float() - self.mean_.float()
        size = rows.square().mean().sqrt()
        if float(size) == 0:
            raise InvalidArgument(f"all {len(pairs)} pairs are alike, so there is nothing to search")
        losses, w, b = self._search(rows / size)
        best = int(losses.argmin())
        self.loss_, self.coef_ = float(losses[best]), (w[best] / size).to(pairs.dtype)
        self.intercept_ = float(b[best])
        along = rows.flatten(0, 1) @ w[best] / w[best].norm()
        self.scale_, self.reach_back_ = float(along.max()), float(-along.min())
        return self

    def orient(self, x: Float[Array, "n 2 d_model"] | Table, y: Shaped[Array, "n"] | Table) -> "CCS":
        """Turn the probe so that it is right on most of some labelled pairs, and return self: one bit of supervision.

        Raises:
            InvalidArgument: lengths that differ, labels that are all alike.
            NotFitted: the probe is not fitted.
        """
        check_fitted(self, "coef_")
        rows, labels, _ = self._two(x, _pairs(x), y)
        if float(((tensor(self.decision_function(rows)) > 0) == labels).double().mean()) < 0.5:
            self.coef_, self.intercept_ = -self.coef_, -self.intercept_
            self.scale_, self.reach_back_ = self.reach_back_, self.scale_
        return self

    def decision_function(self, x: Float[Array, "n 2 d_model"] | Table) -> Float[Array, "n"]:
        """(p_+ + 1 - p_-) / 2 - 1/2: above 0 where the statement is the likelier of the pair.

        Raises:
            NotFitted: the probe is not fitted.
        """
        check_fitted(self, "coef_")
        pairs = _pairs(x)
        check_width(pairs, self.n_features_in_)
        score = self._scores((pairs - self.mean_.to(pairs)).flatten(0, 1)).reshape(len(pairs), 2)
        return like(x, (score[:, 0].sigmoid() - score[:, 1].sigmoid()) / 2)

    def _search(self, rows: Float[Tensor, "n 2 d_model"]) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, w and b of every restart."""
        g = torch.Generator().manual_seed(self.seed)
        w = torch.randn(self.restarts, rows.shape[-1], generator=g)
        w = (w / w.norm(dim=1, keepdim=True)).to(rows.device).requires_grad_()
        b = torch.zeros(self.restarts, device=rows.device).requires_grad_()

        def losses() -> Float[Tensor, "_"]:
            p = (einsum(rows, w, "n side d_model, restart d_model -> side restart n") + b[:, None]).sigmoid()
            consistent = (p[0] - (1 - p[1])).square().mean(1)
            return consistent + p.amin(0).square().mean(1)

        train([w, b], lambda: [losses().sum()], steps=self.steps, lr=self.lr, weight_decay=self.weight_decay)
        with torch.no_grad():
            return losses(), w, b

    def __sklearn_tags__(self) -> Any:
        tags = Estimator.__sklearn_tags__(self)
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.target_tags.required = False
        return tags


def _pairs(x: Any) -> Float[Tensor, "n 2 d_model"]:
    """Pairs as finite floating numbers."""
    pairs = floats(x)
    if pairs.ndim != 3 or pairs.shape[1] != 2:
        raise InvalidArgument(
            f"pairs have the shape [n, 2, width], got {list(pairs.shape)}: give torch.stack([a, b], 1)"
        )
    check_finite(pairs)
    return pairs
