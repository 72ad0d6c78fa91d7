"""The k-sparse probe: logistic regression on the k coordinates that rank highest."""

from typing import ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.errors import InvalidArgument
from probes.affine import CrossEntropy, fit_affine
from probes.checks import check_number, check_positive
from probes.labelled_rows import Batches
from probes.lbfgs import each
from probes.linear import LinearProbe
from probes.log_odds import LogOdds
from probes.rankings import Ranking, by_mean_difference


@final
class KSparse(LinearProbe, LogOdds):
    """Logistic regression on the k highest-ranked coordinates, all other weights 0 (Gurnee et al. 2023, section 4).

    On neurons (`mlp_act`) or SAE latents it says whether few of them hold a feature. The ranking is chosen on the
    rows it is fitted to, and `support_` holds the coordinates, best first. Needs its rows in memory.

    Examples:
        ```python
        KSparse(k=1, ranking=by_f_statistic).fit(acts.flat(mlp_act[3]), y).support_
        ```
    """

    name: ClassVar[str] = "k-sparse probe"
    support_: Int[Tensor, "_"]
    n_iter_: int

    def __init__(self, k: int = 1, ranking: Ranking = by_mean_difference, C: float = 1.0, max_iter: int = 1000) -> None:
        self.k, self.ranking, self.C, self.max_iter = k, ranking, C, max_iter

    def _solve(self, rows: Batches, weight: Float[Tensor, "n"] | None) -> tuple[Float[Tensor, "d_model"], float]:
        """The regression on the chosen coordinates; weights count in it, and not in the ranking.

        Raises:
            InvalidArgument: k is not between 1 and the width, or C is not positive.
            NotConverged: not converged after `max_iter` steps.
        """
        parts = list(rows)
        x, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
        check_number("k", self.k)
        if not 1 <= self.k <= x.shape[1]:
            raise InvalidArgument(f"k is {self.k}; it must be between 1 and the width of the rows, {x.shape[1]}")
        check_positive(self.C)
        self.support_ = self.ranking(x, y).argsort(descending=True, stable=True)[: self.k]
        u = None if weight is None else weight[:, None]
        w, b, steps = fit_affine([x[:, self.support_]], CrossEntropy(y[:, None], u, self.C), each, 1, self.max_iter)
        self.n_iter_ = max(1, steps)
        return torch.zeros_like(x[0]).index_copy(0, self.support_, w[:, 0]), float(b)
