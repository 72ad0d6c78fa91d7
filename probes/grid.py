"""What a sweep found, and the controls that say whether to believe it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Position, Site
from hooks.errors import InvalidType
from hooks.statistics import Estimate
from probes.cells import Cell
from probes.linear import Linear
from probes.probe import Probe

if TYPE_CHECKING:
    from pandas import DataFrame


FEW = 20  # exchanges of the labels, below which nothing is said of 95 % of them


@final
@dataclass(frozen=True, eq=False)
class Controls:
    """What a probe's accuracy is compared with.

    Attributes:
        majority: always the commoner label.
        embedding: the same search over token embeddings at the same positions: what the token itself says.
        untrained: the same search over an untrained model: what the architecture passes on without training.
        shuffled: the best cell's accuracy under each exchange of the labels.
        memorised: accuracy on labels drawn at random per group, learnt and tested on other rows of the same groups
            (Hewitt and Liang 2019); None where every group is one row.
        same_rows: accuracy on the labels, learnt and tested on those rows.
        elsewhere: accuracy of the final probe on other data sets.
        embedding_same: whether all texts have the same tokens at the positions, so that `embedding` controls nothing.
    """

    majority: float
    embedding: Estimate
    untrained: Estimate
    shuffled: Float[Tensor, "n"]
    memorised: Estimate | None
    same_rows: Estimate | None
    elsewhere: Mapping[str, Estimate]
    embedding_same: bool = False

    @property
    def selectivity(self) -> float | None:
        """Accuracy on the labels minus accuracy on random labels per group, on the same rows."""
        if self.memorised is None or self.same_rows is None:
            return None
        return self.same_rows.value - self.memorised.value

    def __str__(self) -> str:
        mean, n = self.shuffled.mean().item(), len(self.shuffled)
        most = (self.shuffled.max() if n < FEW else self.shuffled.quantile(0.95)).item()
        among = f"at most {most:.3f} in {n}" if n < FEW else f"below {most:.3f} in 95% of {n}"
        same = "; all texts have the same token there, so this controls nothing" if self.embedding_same else ""
        lines = [
            f"  majority label            {self.majority:.3f}",
            f"  token embeddings          {self.embedding}{same}",
            f"  untrained model           {self.untrained}",
            f"  shuffled labels           {mean:.3f}, {among}",
        ]
        if self.memorised is None:
            lines.append("  control task              none: every group is one row, so there is nothing to memorise")
        else:
            lines.append(f"  control task              {self.memorised}, selectivity {self.selectivity:+.3f}")
        lines += [f"  on {name:<22} {interval}" for name, interval in self.elsewhere.items()]
        if not self.elsewhere:
            lines.append("  elsewhere                 not measured: give examples from elsewhere")
        return "\n".join(lines)


@final
@dataclass(frozen=True, eq=False)
class ProbeGrid:
    """Accuracy of a probe at each site and position, and of the search that picks one.

    Attributes:
        sites, positions: the axes.
        accuracy: on held-out groups.
        bounds: of the intervals that hold all cells at once with 95 %, the lower ends, then the upper.
        nested: of the search itself: each fold is scored by the cell that was best on inner folds of the others.
        balanced: of the search too, the mean of its accuracies on each class, for which 1/2 is chance.
        auroc: of the search too, the share of pairs of rows of both classes that its scores put in order.
        chosen: that cell, for each fold.
        p_value: the chance of a best cell as good as the best here, were the labels exchanged and all cells searched.
        controls: what to compare it with.
        probe: fitted at the best cell to all texts.
        fingerprint: of the model.

    Examples:
        ```python
        grid = sweep(model, examples, [resid_post[i] for i in range(model.n_layers)])
        print(grid)
        grid.direction
        ```
    """

    sites: tuple[Site, ...]
    positions: tuple[Position, ...]
    accuracy: Float[Tensor, "site pos"]
    bounds: Float[Tensor, "2 site pos"]
    nested: Estimate
    balanced: Estimate
    auroc: Estimate
    chosen: tuple[Cell, ...]
    p_value: float
    controls: Controls
    probe: Probe
    fingerprint: str | None

    @property
    def low(self) -> Float[Tensor, "site pos"]:
        """The lower ends of the intervals."""
        return self.bounds[0]

    @property
    def high(self) -> Float[Tensor, "site pos"]:
        """The upper ends of the intervals."""
        return self.bounds[1]

    @property
    def best(self) -> Cell:
        """The site and position with the highest accuracy; its own accuracy is flattered by the choice."""
        return best_cell(self.sites, self.positions, self.accuracy)

    @property
    def least_p_value(self) -> float:
        """The least p-value that so many exchanges of the labels can give, 1/(n + 1)."""
        return 1 / (1 + len(self.controls.shuffled))

    def _p(self) -> str:
        n = len(self.controls.shuffled)
        least = f" or less: 1/{n + 1} is the least that {n} permutations can give"
        return f"p = {self.p_value:.3f}" + (least if self.p_value < 1.5 * self.least_p_value else "")

    @property
    def direction(self) -> Direction:
        """The direction of the probe at the best cell.

        Raises:
            InvalidType: the probe has none.
        """
        if not isinstance(self.probe, Linear):
            raise InvalidType(f"a {self.probe.name} has no direction: sweep with a linear probe such as Logistic()")
        return self.probe.direction_

    def __repr__(self) -> str:
        site, position = self.best
        places = f"{len(self.sites)} sites and {len(self.positions)} positions"
        found = f"best at {site}, {position}; the search {self.nested}, {self._p()}"
        return f"ProbeGrid({self.probe.name}, {places}; {found})"

    def to_pandas(self) -> "DataFrame":
        """A row for each site and position: accuracy, and the interval that holds all cells at once with 95 %."""
        from pandas import DataFrame

        return DataFrame(
            {
                "site": [str(site) for site in self.sites for _ in self.positions],
                "position": [str(position) for _ in self.sites for position in self.positions],
                "accuracy": self.accuracy.flatten().tolist(),
                "low": self.low.flatten().tolist(),
                "high": self.high.flatten().tolist(),
            }
        )

    def __str__(self) -> str:
        width = max(len(str(site)) for site in self.sites)
        columns = [f"{position!s:>9}" for position in self.positions]
        head = f"{self.probe.name}, accuracy on held-out groups; all cells at once within {self._widest():.3f}"
        cells = [
            f"  {site!s:<{width}}" + "".join(f"  {float(v):>{len(c)}.3f}" for v, c in zip(row, columns, strict=True))
            for site, row in zip(self.sites, self.accuracy, strict=True)
        ]
        picks = ", ".join(f"{site} {position}" for site, position in dict.fromkeys(self.chosen))
        return "\n".join(
            [
                head,
                "  " + " " * width + "".join(f"  {c}" for c in columns),
                *cells,
                f"the search as a whole       {self.nested}, choosing {picks}; {self._p()}",
                f"  balanced accuracy         {self.balanced}",
                f"  AUROC                     {self.auroc}",
                str(self.controls),
            ]
        )

    def _widest(self) -> float:
        return float((self.high - self.accuracy).maximum(self.accuracy - self.low).max())


def best_cell(sites: tuple[Site, ...], positions: tuple[Position, ...], accuracy: Float[Tensor, "site pos"]) -> Cell:
    """The first cell with the highest accuracy.

    Examples:
        ```python
        best_cell(grid.sites, grid.positions, grid.accuracy)
        ```
    """
    number = int(accuracy.flatten().argmax())
    return sites[number // len(positions)], positions[number % len(positions)]
