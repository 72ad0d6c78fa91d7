"""What is watched while training: the curve, which latents are silent, and the report at the end."""

import math
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.sae.architectures.objective import Step
from interp.sae.evaluation.evaluate import Quality

if TYPE_CHECKING:
    from pandas import DataFrame


@final
@dataclass(frozen=True)
class Point:
    """One place on a training curve, each figure a mean over the batches since the last."""

    tokens: int
    loss: float
    explained_variance: float
    l0: float
    dead_share: float

    def __str__(self) -> str:
        return f"loss {self.loss:.3f}, L0 {self.l0:.1f}, EV {self.explained_variance:.3f}, dead {self.dead_share:.1%}"


@final
@dataclass(frozen=True)
class TrainReport:
    """What training did: the curve, the final weights' quality, and the latents silent over `silent_over` tokens.

    `quality` is measured with the final weights on `quality.tokens` training tokens.
    """

    quality: Quality
    curve: tuple[Point, ...]
    tokens: int
    dead_share: float
    dead_after: int

    __repr__ = summarise

    @property
    def silent_over(self) -> int:
        """In how many of the last training tokens the silent latents were silent: all of a run shorter than that."""
        return min(self.dead_after, self.tokens)

    @property
    def explained_variance(self) -> float:
        """1 - E||x - x_hat||^2 / (E||x||^2 - ||E x||^2), final weights."""
        return self.quality.explained_variance

    @property
    def l0(self) -> float:
        """The mean number of latents above 0, final weights."""
        return self.quality.l0

    def __str__(self) -> str:
        return (
            f"trained on {self.tokens:,} tokens: explained variance {self.explained_variance:.3f}, L0 {self.l0:.1f} "
            f"(final weights, on {self.quality.tokens:,} of the training tokens, not held out); "
            f"{self.dead_share:.1%} of latents silent in {'all' if self.silent_over == self.tokens else 'the last'} "
            f"{self.silent_over:,} tokens"
        )

    def to_pandas(self) -> "DataFrame":
        """A row for each point of the curve: tokens seen, loss, explained variance, L0, share of dead latents."""
        from pandas import DataFrame

        return DataFrame([vars(point) for point in self.curve])


@final
class History:
    """Sums over the batches since the last point of the curve, and for every latent how long it has been silent."""

    def __init__(self, d_sae: int, variance: Float[Tensor, ""], dead_after: int, every: int) -> None:
        self.variance, self.dead_after, self.every = variance, dead_after, every
        self.silent = torch.zeros(d_sae, dtype=torch.long, device=variance.device)
        self.largest = torch.zeros(d_sae, device=variance.device)
        self.sums = torch.zeros(3, device=variance.device)  # of loss, squared error and L0 since the last point
        self.curve: list[Point] = []
        self.tokens = self.steps = 0

    @property
    def dead(self) -> Bool[Tensor, "latent"]:
        """The latents that have been silent for `dead_after` tokens."""
        return self.silent >= self.dead_after

    @property
    def dead_share(self) -> float:
        """Their share, or that of latents that never fired in a run shorter than that."""
        return float((self.silent >= min(self.dead_after, self.tokens)).double().mean())

    def add(self, step: Step, n: int, settled: bool) -> Point | None:
        """Take in one step of n rows; a point of the curve where one is due.

        Once the weights have settled, its activations count towards the largest.

        Raises:
            InvalidArgument: the loss is not finite.
        """
        self.silent = torch.where(step.largest > 0, 0, self.silent + n)
        if settled:
            self.largest = torch.maximum(self.largest, step.largest)
        self.sums += torch.stack([step.loss, step.squared_error / self.variance, step.l0])
        self.tokens += n
        self.steps += 1
        if self.steps % self.every:
            return None
        loss, unexplained, l0 = (self.sums / self.every).tolist()
        if not math.isfinite(loss):
            raise InvalidArgument(
                f"the loss is {loss} after {self.tokens:,} tokens: training diverged; take a lower lr"
            )
        self.sums.zero_()
        self.curve.append(Point(self.tokens, loss, 1 - unexplained, l0, float(self.dead.double().mean())))
        return self.curve[-1]

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on from here."""
        names = ("variance", "silent", "largest", "sums", "tokens", "steps")
        return {name: getattr(self, name) for name in names} | {"curve": [astuple(point) for point in self.curve]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another run was."""
        state = dict(state)
        self.curve = [Point(*figures) for figures in state.pop("curve")]
        for name, value in state.items():
            setattr(self, name, value)
