"""A probe with one hidden layer: what is in the activations but not along a line."""

from collections.abc import Iterable, Iterator
from typing import ClassVar, final

import torch
from jaxtyping import Float, Real, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from probes.arrays import Array, Table, like
from probes.classifier import TwoClasses
from probes.estimator import check_fitted
from probes.labelled_rows import Batches, Labelled, iterate_weighted, reread_batches
from probes.labels import ClassWeight
from probes.log_odds import LogOdds
from probes.training import train


@final
class MLP(TwoClasses, LogOdds):
    """f(x) = w_2.ReLU(W_1 x' + b_1) + b_2 with x' the standardised row; cross-entropy by full-batch AdamW.

    The mean and deviation are those of the rows it was fitted to. Compare its selectivity, not its accuracy, with a
    linear probe's: it can learn labels that mean nothing. The same seed gives the same probe.

    Cost:
        `steps` passes over x.

    Examples:
        ```python
        MLP(width=64, seed=1).fit(x, y).predict(new_x)
        ```
    """

    name: ClassVar[str] = "one-hidden-layer probe"
    net_: nn.Sequential
    mean_: Float[Tensor, "d_model"]
    std_: Float[Tensor, "d_model"]

    def __init__(
        self,
        width: int = 64,
        steps: int = 300,
        lr: float = 1e-2,
        weight_decay: float = 1e-2,
        seed: int = 0,
        class_weight: ClassWeight = None,
    ) -> None:
        self.width, self.steps, self.lr, self.weight_decay, self.seed = width, steps, lr, weight_decay, seed
        self.class_weight = class_weight

    def fit(
        self,
        x: Float[Array, "n d_model"] | Table,
        y: Shaped[Array, "n"] | Table,
        sample_weight: Real[Array, "n"] | Table | None = None,
    ) -> "MLP":
        """Learn from rows with labels of two kinds, and return self; a weight counts a row so many times.

        Raises:
            InvalidArgument: NaN or infinity, lengths that differ, labels that are all alike or of more than two kinds.
            WrongState: the loss is not finite.
        """
        rows = self._table(x, learn=True)
        rows, labels, weight = self._two(x, rows, y, sample_weight)
        self._learn([(rows.double(), labels)], weight)
        return self

    def fit_batches(self, batches: Iterable[Labelled]) -> "MLP":
        """Learn from batches of labelled rows, read again in every step, and return self; equals `fit` of all together.

        Raises:
            InvalidArgument: as `fit`, or batches that cannot be read again.
            InvalidType: labels that are not bool.
        """
        rows, _ = reread_batches(batches)
        self.classes_ = torch.tensor([False, True])
        self._learn(rows, None)
        self.n_features_in_ = len(self.mean_)
        return self

    def _learn(self, rows: Batches, weight: Tensor | None) -> None:
        n, self.mean_, self.std_ = _spread(rows, weight)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = nn.Sequential(nn.Linear(len(self.mean_), self.width), nn.ReLU(), nn.Linear(self.width, 1))
        self.net_ = net.to(self.mean_.device)

        def losses() -> Iterator[Float[Tensor, ""]]:
            for x, y, w in iterate_weighted(rows, weight):
                score = self.net_((x.float() - self.mean_) / self.std_)[:, 0]
                loss = nn.functional.binary_cross_entropy_with_logits(score, y.float(), reduction="none")
                yield (w.float() * loss).sum() / n

        train(list(self.net_.parameters()), losses, steps=self.steps, lr=self.lr, weight_decay=self.weight_decay)

    def decision_function(self, x: Float[Array, "n d_model"] | Table) -> Float[Array, "n"]:
        """The log-odds f(x).

        Raises:
            NotFitted: the probe is not fitted.
        """
        check_fitted(self, "net_")
        rows = self._table(x, learn=False)
        z = ((rows if rows.dtype == torch.float64 else rows.float()) - self.mean_) / self.std_
        weights = {name: weight.to(z) for name, weight in self.net_.named_parameters()}
        with torch.no_grad():
            return like(x, functional_call(self.net_, weights, (z,))[:, 0].to(rows.dtype))


def _spread(rows: Batches, weight: Tensor | None) -> tuple[float, Tensor, Tensor]:
    """How many rows there are, their mean and their standard deviation, 1 where they do not vary."""
    sums = [(float(w.expand(len(x)).sum()), (w[..., None] * x).sum(0)) for x, _, w in iterate_weighted(rows, weight)]
    n, mean = sum(m for m, _ in sums), torch.stack([total for _, total in sums]).sum(0)
    mean = mean / n
    squares = [(w[..., None] * (x - mean).square()).sum(0) for x, _, w in iterate_weighted(rows, weight)]
    std = (torch.stack(squares).sum(0) / n).sqrt()
    return n, mean.float(), torch.where(std > 0, std, 1.0).float()
