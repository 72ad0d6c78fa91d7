"""A crosscoder over checkpoints: in which of them each latent is, when it is born, turns, splits and goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.border import Count, Natural, Share
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.sae import Crosscoder

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """What becomes of the latents of a crosscoder whose layers are checkpoints.

    Attributes:
        steps: of the checkpoints.
        rows: the direction of each latent at each checkpoint, refitted.
        strength: its length over that of the latent's longest; 0 for a latent that never fires.
        by_chance: the strength that is left at most checkpoints when each row of states has the latents of another.
        fired: on how many rows each latent was above 0.
        alive: the strength from which on a latent is there.
    """

    steps: tuple[int, ...]
    rows: Float[Tensor, "latent layer d_model"]
    strength: Float[Tensor, "latent layer"]
    by_chance: Float[Tensor, "latent"]
    fired: Float[Tensor, "latent"]
    alive: float

    __repr__ = summarise

    def __str__(self) -> str:
        born, gone = self.born(), self.gone()
        lines = [f"{int((self.fired > 0).sum())} of {len(self.fired)} latents fire"]
        for step in self.steps:
            counts = [sum(at == step for at in of.values()) for of in (born, gone)]
            lines.append(f"  step {step:>6}: {counts[0]:>4} born, {counts[1]:>4} gone")
        return "\n".join([*lines, f"{len(self.splits())} split"])

    def born(self) -> dict[int, int]:
        """The first step at which each latent that fires is there.

        Examples:
            ```python
            lifetimes.born()[17]
            ```
        """
        there = self._there()
        return {i: self.steps[int(there[i].int().argmax())] for i in self._seen()}

    def gone(self) -> dict[int, int]:
        """The first step after which each latent that is not there at the last one is not there again.

        Examples:
            ```python
            lifetimes.gone().get(17)
            ```
        """
        there, n = self._there(), len(self.steps)
        last = {i: n - 1 - int(there[i].flip(0).int().argmax()) for i in self._seen()}
        return {i: self.steps[at + 1] for i, at in last.items() if at < n - 1}

    def splits(self, alike: Share = 0.6) -> dict[int, tuple[int, ...]]:
        """Latents that two or more others come from: born at one step, each like what the latent was one step before.

        Two halves that are orthogonal and of one length have a cosine of .71 with their sum.

        Args:
            alike: the cosine from which on a latent is like another.

        Examples:
            ```python
            lifetimes.splits()
            ```
        """
        born, found = self.born(), {}
        unit = torch.nn.functional.normalize(self.rows, dim=2)
        for t, step in enumerate(self.steps[1:], 1):
            young = [i for i, at in born.items() if at == step]
            for parent in (i for i in born if bool(self._there()[i, t - 1])):
                near = [i for i in young if float(unit[i, t] @ unit[parent, t - 1]) >= alike]
                if len(near) > 1:
                    found[parent] = tuple(near)
        return found

    def turned(self) -> Float[Tensor, "latent _"]:
        """The cosine of each latent's direction with that at the checkpoint before; NaN where it is not at both.

        Examples:
            ```python
            lifetimes.turned().nanmean(0)
            ```
        """
        there = self._there()
        cosines = torch.nn.functional.cosine_similarity(self.rows[:, 1:], self.rows[:, :-1], dim=2)
        return cosines.where(there[:, 1:] & there[:, :-1], torch.nan)

    def to_pandas(self) -> "DataFrame":
        """A row for each latent that fires."""
        from pandas import DataFrame

        born, gone, splits = self.born(), self.gone(), self.splits()
        return DataFrame(
            {"latent": i, "fired": int(self.fired[i]), "born": at, "gone": gone.get(i), "split": [*splits.get(i, ())]}
            for i, at in born.items()
        )

    def _there(self) -> Tensor:
        return (self.strength >= self.alive) & (self.strength > self.by_chance[:, None])

    def _seen(self) -> list[int]:
        return self._there().any(1).nonzero()[:, 0].tolist()


@torch.no_grad()
def measure_lifetimes(
    crosscoder: Crosscoder,
    rows: Float[Tensor, "n layer d_model"],
    steps: Sequence[int],
    *,
    alive: Share = 0.5,
    draws: Count = 8,
    seed: Natural = 0,
) -> Lifetimes:
    """Measure in which checkpoints each latent of a crosscoder over them is, by rows refitted with the error.

    The row of latent i at checkpoint t is d_it = W_dec[i, t] + Σ_n f_ni ε_nt / Σ_n f_ni², where f are the latents and
    ε = x − x̂ is the error: what a penalty on norms has shrunk of a latent is in the error, and comes back (the error
    term of latent scaling, Minder et al. 2025, arXiv:2504.02922, for whole rows). Its length over the longest one of
    the latent says where it is there (Ge et al. 2025, arXiv:2509.17196, take the norms as they are). By chance: the
    same sum with the latents of other rows.

    Args:
        crosscoder: whose layers are checkpoints, trained on `across` the models of these steps.
        rows: states of all checkpoints at the same tokens.
        steps: of the checkpoints, in the order of the layers.
        alive: the strength from which on a latent is there.
        draws: of other rows.
        seed: of the draws.

    Raises:
        InvalidArgument: fewer than two steps, steps out of order, or rows of another shape.

    Cost: one encoding of the rows, and a product of latents by states for each checkpoint and draw.

    Examples:
        ```python
        places = [(load(folder), resid_post[2]) for folder in checkpoints(run).values()]
        measure_lifetimes(crosscoder, torch.cat([*across(places, texts)]), [*checkpoints(run)]).born()
        ```
    """
    if len(steps) < 2 or list(steps) != sorted({*steps}):
        raise InvalidArgument(f"steps {list(steps)}: give two or more, each later than the one before")
    if tuple(rows.shape[1:]) != (len(steps), crosscoder.d_in) or crosscoder.n_layers != len(steps):
        raise InvalidArgument(
            f"{len(steps)} steps, a crosscoder of {crosscoder.n_layers} layers of width {crosscoder.d_in} and rows of "
            f"shape {list(rows.shape)}: give one layer for each step, and rows [n, {len(steps)}, {crosscoder.d_in}]"
        )
    f = crosscoder.encode(rows)
    error, power = rows - crosscoder.decode(f), f.square().sum(0).clamp_min(1e-12)
    left = torch.einsum("nf,ntd->ftd", f, error) / power[:, None, None]
    refitted = crosscoder.W_dec + left
    longest = refitted.norm(dim=2).amax(1).clamp_min(1e-12)
    fired = (f > 0).sum(0).float()
    random = torch.Generator().manual_seed(seed)
    noise = torch.stack(
        [
            (torch.einsum("nf,ntd->ftd", f[torch.randperm(len(f), generator=random)], error) / power[:, None, None])
            .norm(dim=2)
            .amax(1)
            for _ in range(draws)
        ]
    ).amax(0)
    strength = (refitted.norm(dim=2) / longest[:, None]) * (fired > 0)[:, None]
    return Lifetimes(tuple(steps), refitted.detach(), strength, noise / longest, fired, float(alive))
