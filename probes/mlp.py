"""A probe with one hidden layer: what is in the activations but not along a line."""

from collections.abc import Iterable, Iterator
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from probes.arrays import Array, classes, floats
from probes.checks import check_width
from probes.estimator import Estimator, check_fitted
from probes.labelled import Batches, Labelled, checked, stored
from probes.log_odds import LogOdds
from probes.training import train
from probes.two_classes import TwoClasses


@final
class MLP(Estimator, TwoClasses, LogOdds):
    """f(x) = w_2.ReLU(W_1 x' + b_1) + b_2 with x' the standardised row; cross-entropy by full-batch AdamW.

    The mean and deviation are those of the rows it was fitted to. Compare its selectivity, not its accuracy, with a
    linear probe's: it can learn labels that mean nothing. Costs `steps` passes over x; the same seed gives the same
    probe.

    Example:
        ```python
        MLP(width=64, seed=1).fit(x, y).predict(new_x)
        ```
    """

    name: ClassVar[str] = "one-hidden-layer probe"
    _estimator_type: ClassVar[str] = "classifier"
    classes_: Bool[Tensor, "2"]
    net_: nn.Sequential
    mean_: Float[Tensor, "d_model"]
    std_: Float[Tensor, "d_model"]

    def __init__(
        self, width: int = 64, steps: int = 300, lr: float = 1e-2, weight_decay: float = 1e-2, seed: int = 0
    ) -> None:
        self.width, self.steps, self.lr, self.weight_decay, self.seed = width, steps, lr, weight_decay, seed

    def fit(self, x: Float[Array, "n d_model"], y: Bool[Array, "n"]) -> "MLP":
        """Learn from labelled rows and return self.

        Raises:
            ValueError: NaN or infinity, lengths that differ, labels that are all alike.
            TypeError: labels that are not bool.
            RuntimeError: the loss is not finite.
        """
        return self._learn([checked(floats(x), classes(y))])

    def fit_batches(self, batches: Iterable[Labelled]) -> "MLP":
        """Learn from batches of labelled rows, read anew in every step, and return self; equals `fit` of all together.

        Raises:
            ValueError: as `fit`, or batches that cannot be read again.
        """
        rows, _ = stored(batches)
        return self._learn(rows)

    def _learn(self, rows: Batches) -> "MLP":
        n, self.mean_, self.std_ = _spread(rows)
        self.classes_ = torch.tensor([False, True])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = nn.Sequential(nn.Linear(len(self.mean_), self.width), nn.ReLU(), nn.Linear(self.width, 1))
        self.net_ = net.to(self.mean_.device)

        def losses() -> Iterator[Float[Tensor, ""]]:
            for x, y in rows:
                score = self.net_((x.float() - self.mean_) / self.std_)[:, 0]
                yield nn.functional.binary_cross_entropy_with_logits(score, y.float(), reduction="sum") / n

        train(list(self.net_.parameters()), losses, steps=self.steps, lr=self.lr, weight_decay=self.weight_decay)
        return self

    def decision_function(self, x: Float[Array, "n d_model"]) -> Float[Tensor, "n"]:
        """The log-odds f(x).

        Raises:
            RuntimeError: the probe is not fitted.
        """
        check_fitted(self, "net_")
        rows = floats(x)
        check_width(rows, len(self.mean_))
        with torch.no_grad():
            return self.net_((rows.float() - self.mean_) / self.std_)[:, 0].to(rows.dtype)

    def predict(self, x: Float[Array, "n d_model"]) -> Bool[Tensor, "n"]:
        """The labels f(x) > 0."""
        return self.decision_function(x) > 0


def _spread(rows: Batches) -> tuple[int, Tensor, Tensor]:
    """How many rows there are, their mean and their standard deviation, 1 where they do not vary."""
    sums = [(len(x), x.sum(0)) for x, _ in rows]
    n, mean = sum(m for m, _ in sums), torch.stack([total for _, total in sums]).sum(0)
    mean = mean / n
    std = (torch.stack([(x - mean).square().sum(0) for x, _ in rows]).sum(0) / n).sqrt()
    return n, mean.float(), torch.where(std > 0, std, 1.0).float()
