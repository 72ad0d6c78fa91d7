"""What patching did: the metric with each place patched, between that of the base run and that of the donor."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site, Tokens


@dataclass(frozen=True, eq=False)
class PatchEffect:
    """The metric m of every patched run, beside its two ends.

    Attributes:
        kind: "denoising" or "noising", and how it was found where not by patching.
        sites: the first axis behind the texts, called layer.
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

    @property
    def difference(self) -> Float[Tensor, "example layer *d"]:
        """How much each patch moved the metric: m(patched) - m(base), in the metric's units."""
        return self.patched - self.base.view(-1, *(1 for _ in self.patched.shape[1:]))

    @property
    def effect(self) -> Float[Tensor, "layer *d"]:
        """The share of the way from base to donor: E[m(patched) - m(base)] / E[m(donor) - m(base)], means over texts.

        0 is the base run, 1 the donor. Denoising, it is what is brought back; noising, what is lost.

        Raises:
            ValueError: the two runs do not differ in the metric, so there is no way to go a share of.
        """
        return self._share(self.difference, self.donor - self.base)

    def interval(self, draws: int = 1000, seed: int = 0) -> Float[Tensor, "2 layer *d"]:
        """The 95 % bootstrap interval of the effect, over texts.

        Raises:
            ValueError: a single text, or runs that do not differ in the metric.
        """
        n = len(self.base)
        if n < 2:
            raise ValueError("an interval over 1 text says nothing: patch several pairs of texts")
        random = torch.Generator().manual_seed(seed)
        rows = [torch.randint(n, (n,), generator=random).to(self.base.device) for _ in range(draws)]
        gap = self.donor - self.base
        drawn = torch.stack([self._share(self.difference[row], gap[row]) for row in rows])
        ends = torch.tensor([0.025, 0.975], dtype=drawn.dtype, device=drawn.device)
        return drawn.quantile(ends, dim=0)

    def _share(self, difference: Tensor, gap: Tensor) -> Tensor:
        way = gap.mean()
        if float(way.abs()) <= 1e-6 * float(self.base.abs().mean() + self.donor.abs().mean()):
            raise ValueError(
                f"the metric is {float(self.base.mean()):.4g} in both runs, so no share of the way between them can be "
                "taken: read `difference`, or choose a pair of texts that the metric tells apart"
            )
        return difference.mean(0) / way
