"""What patching did: the metric with each place patched, next to that of the base run and that of the donor."""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site, Tokens
from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.statistics import percentile_ends

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class PatchEffect:
    """The metric m of every patched run, of the base run and of the donor.

    Attributes:
        kind: "denoising" or "noising", and how it was found where not by patching.
        sites: the first axis after the texts, called layer.
        axes: the further axes, of "head" and "pos".
        tokens: of the base run.
        base: m of the run that was changed.
        donor: m of the run whose values were put in.
        patched: m with each place patched.
    """

    kind: str
    sites: tuple[Site, ...]
    axes: tuple[str, ...]
    tokens: Tokens
    base: Float[Tensor, "example"]
    donor: Float[Tensor, "example"]
    patched: Float[Tensor, "example layer *d"]

    def __repr__(self) -> str:
        moved = self.difference.mean(0)
        best = int(moved.abs().argmax())
        place = " ".join(map(str, self._places()[best]))
        places, texts = " by ".join(("site", *self.axes)), len(self.base)
        most = f"most at {place}: {float(moved.flatten()[best]):+.3f}"
        return f"PatchEffect({self.kind} of {texts} texts, each {places}; {most})"

    def to_pandas(self) -> "DataFrame":
        """A row for each text and place: its site (head, position), the metric in each run, and its change."""
        from pandas import DataFrame

        columns = ("site", *("position" if axis == "pos" else axis for axis in self.axes))
        places = self._places()
        rows = [(text, *place) for text in range(len(self.base)) for place in places]
        frame = DataFrame(rows, columns=["text", *columns])
        for name, values in (("base", self.base), ("donor", self.donor)):
            frame[name] = values.repeat_interleave(len(places)).tolist()
        frame["patched"], frame["difference"] = self.patched.flatten().tolist(), self.difference.flatten().tolist()
        return frame

    def _places(self) -> list[tuple[str | int, ...]]:
        """The site, and the head and position, of each patch, in order."""
        return [*product(map(str, self.sites), *map(range, self.patched.shape[2:]))]

    @property
    def difference(self) -> Float[Tensor, "example layer *d"]:
        """How much each patch moved the metric: m(patched) - m(base), in the metric's units."""
        return self.patched - self.base.view(-1, *(1 for _ in self.patched.shape[1:]))

    @property
    def effect(self) -> Float[Tensor, "layer *d"]:
        """The share of the way from base to donor: E[m(patched) - m(base)] / E[m(donor) - m(base)], means over texts.

        0 is the base run, 1 the donor. Denoising, it is what is brought back; noising, what is lost.

        Raises:
            InvalidArgument: the two runs do not differ in the metric, so no share of their difference can be taken.
        """
        return self.difference.mean(0) / self._way(self.donor - self.base)

    def interval(self, draws: int = 1000, seed: Natural = 0) -> Float[Tensor, "2 layer *d"]:
        """The 95 % bootstrap interval of the effect, over texts; draws in which the runs do not differ are left out.

        Raises:
            InvalidArgument: a single text, no draws, or runs that do not differ in the metric.
        """
        n, gap = len(self.base), self.donor - self.base
        if n < 2:
            raise InvalidArgument("an interval over 1 text says nothing: patch several pairs of texts")
        if draws < 1:
            raise InvalidArgument(f"draws is {draws}: draw the texts at least once")
        self._way(gap)
        random = torch.Generator().manual_seed(seed)
        rows = [torch.randint(n, (n,), generator=random).to(gap.device) for _ in range(draws)]
        drawn = [self.difference[row].mean(0) / gap[row].mean() for row in rows if self._apart(gap[row])]
        if not drawn:
            raise InvalidArgument(f"the runs differ in none of {draws} draws of the texts: draw them more often")
        return percentile_ends(torch.stack(drawn))

    def _way(self, gap: Float[Tensor, "example"]) -> Float[Tensor, ""]:
        if not self._apart(gap):
            raise InvalidArgument(
                f"the metric is {float(self.base.mean()):.4g} in both runs, so no share of the way between them can be "
                "taken: choose a pair of texts in which the metric differs (`difference` has it without shares)"
            )
        return gap.mean()

    def _apart(self, gap: Float[Tensor, "example"]) -> bool:
        """Whether runs with these gaps differ in the metric, by more than it is rounded."""
        return float(gap.mean().abs()) > 1e-6 * float(self.base.abs().mean() + self.donor.abs().mean())
