"""A histogram of positive numbers whose range need not be known beforehand."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.errors import InvalidArgument


class Histogram:
    """Counts in equal bins from 0; where a number lies beyond the last bin, bins merge in pairs and the range doubles.

    Example:
        >>> h = Histogram(bins=4)
        >>> h.add(torch.tensor([1.0, 3.5]))
        >>> h.add(torch.tensor([5.0]))
        >>> h.counts.tolist(), h.edges.tolist()
        ([1, 0, 2, 0], [0.0, 1.75, 3.5, 5.25, 7.0])
    """

    def __init__(self, bins: int = 40) -> None:
        if bins < 2 or bins % 2:
            raise InvalidArgument(f"A histogram needs an even number of bins to merge in pairs, not {bins}.")
        self.counts = torch.zeros(bins, dtype=torch.long)
        self.top = 0.0

    def add(self, values: Float[Tensor, "..."]) -> None:
        """Count numbers; `ValueError` for one that is not finite or not above 0."""
        if not values.numel():
            return
        values = values.flatten().double().cpu()
        if not bool((values.isfinite() & (values > 0)).all()):
            raise InvalidArgument("A histogram of activations counts finite numbers above 0 only.")
        largest, bins = float(values.max()), len(self.counts)
        self.top = self.top or largest
        while largest > self.top:
            self.counts = torch.cat([self.counts.view(-1, 2).sum(1), self.counts.new_zeros(bins // 2)])
            self.top *= 2
        place = (values / self.top * bins).long().clamp(max=bins - 1)
        self.counts = self.counts + torch.bincount(place, minlength=bins)

    @property
    def edges(self) -> Float[Tensor, "..."]:
        """The bins' edges, one more than there are bins."""
        return torch.linspace(0, self.top, len(self.counts) + 1)
