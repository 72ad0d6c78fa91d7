"""Architectures compared at the same sparsity, with several seeds each and an interval for each figure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.common.statistics import student
from interp.sae.architectures.sae import SAE
from interp.sae.data.source import Source
from interp.sae.evaluation.evaluate import Quality, evaluate

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, with half the width of its 95 % confidence interval: NaN where there is one seed."""

    mean: float
    half_width: float
    values: tuple[float, ...]

    __repr__ = summarise

    @staticmethod
    def of(values: Sequence[float]) -> "Interval":
        """Student's interval: t s / sqrt(n), with n - 1 degrees of freedom.

        Raises:
            InvalidArgument: no values, or one that is not finite.

        Examples:
            >>> Interval.of([1.0, 3.0]).mean
            2.0
        """
        mean = student(values)
        return Interval(mean.value, (mean.high - mean.low) / 2, tuple(values))

    def __str__(self) -> str:
        if math.isnan(self.half_width):
            return f"{self.mean:.3f} (one seed, no interval)"
        return f"{self.mean:.3f} ± {self.half_width:.3f} ({len(self.values)} seeds)"


@dataclass(frozen=True)
class Comparison:
    """For each name, the qualities of its seeds on the same tokens."""

    qualities: Mapping[str, tuple[Quality, ...]]

    __repr__ = summarise

    def explained_variance(self, name: str) -> Interval:
        """Explained variance of one name, over its seeds."""
        return Interval.of([q.explained_variance for q in self.qualities[name]])

    def l0(self, name: str) -> Interval:
        """L0 of one name, over its seeds."""
        return Interval.of([q.l0 for q in self.qualities[name]])

    def dead_share(self, name: str) -> Interval:
        """The share of dead latents of one name, over its seeds."""
        return Interval.of([q.dead_share for q in self.qualities[name]])

    def __str__(self) -> str:
        lines = [
            f"{name}: explained variance {self.explained_variance(name)}, L0 {self.l0(name)}, "
            f"dead {self.dead_share(name)}"
            for name in self.qualities
        ]
        return "\n".join(lines)

    def to_pandas(self) -> "DataFrame":
        """A row for each autoencoder: its name, the number of its seed, and its figures."""
        from pandas import DataFrame

        rows = [
            (name, seed, one.explained_variance, one.l0, one.dead_share)
            for name, each in self.qualities.items()
            for seed, one in enumerate(each)
        ]
        return DataFrame(rows, columns=["name", "seed", "explained variance", "L0", "dead share"])


def compare(
    saes: Mapping[str, Sequence[SAE]], source: Iterable[Float[Tensor, "n *d"]], *, l0_tolerance: float | int = 0.1
) -> Comparison:
    """Evaluate several autoencoders, each trained from several seeds, on the same activations.

    Explained variance rises with L0 whatever the architecture, so means of L0 that differ by more than
    `l0_tolerance`, a share of the smallest, are refused. `l0_tolerance=math.inf` compares all the same.

    Raises:
        InvalidArgument: fewer than two names, a name without autoencoders, or L0 that does not match.

    Examples:
        ```python
        print(compare({"TopK": topks, "BatchTopK": batch_topks}, held_out))
        ```
    """
    if len(saes) < 2 or not all(saes.values()):
        counts = ", ".join(f"{name}: {len(each)}" for name, each in saes.items())
        raise InvalidArgument(
            f"compare needs at least two names with an autoencoder each; it was given {counts or 'none'}"
        )
    batches = source if isinstance(source, Source) else list(source)
    done = Comparison({name: tuple(evaluate(sae, batches) for sae in each) for name, each in saes.items()})
    means = {name: done.l0(name).mean for name in saes}
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    if means[high] > (1 + l0_tolerance) * means[low]:
        raise InvalidArgument(
            f"L0 is {means[low]:.1f} for {low} and {means[high]:.1f} for {high}: at unequal sparsity the denser one "
            "reconstructs better whatever it is. Train them to the same L0, or pass l0_tolerance=math.inf"
        )
    return done
