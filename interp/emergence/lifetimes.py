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
        splits: latents that two or more others come from, born at one step, each like what the latent was one step
            before, and on mostly where it is on.
        splits_by_chance: how many there would be if each latent had been like another one, a mean over draws.
    """

    steps: tuple[int, ...]
    rows: Float[Tensor, "latent layer d_model"]
    strength: Float[Tensor, "latent layer"]
    by_chance: Float[Tensor, "latent"]
    fired: Float[Tensor, "latent"]
    alive: float
    splits: dict[int, tuple[int, ...]]
    splits_by_chance: float

    __repr__ = summarise

    def __str__(self) -> str:
        born, gone = self.born(), self.gone()
        lines = [f"{int((self.fired > 0).sum())} of {len(self.fired)} latents fire"]
        for step in self.steps:
            counts = [sum(at == step for at in of.values()) for of in (born, gone)]
            lines.append(f"  step {step:>6}: {counts[0]:>4} born, {counts[1]:>4} gone")
        return "\n".join([*lines, f"{len(self.splits)} split, {self.splits_by_chance:.1f} by chance"])

    def born(self) -> dict[int, int]:
        """The first step at which each latent that fires is there.

        Examples:
            ```python
            lifetimes.born()[17]
            ```
        """
        there = self._there()
        return {i: self.steps[int(there[i].int().argmax())] for i in _seen(there)}

    def gone(self) -> dict[int, int]:
        """The first step after which each latent that is not there at the last one is not there again.

        Examples:
            ```python
            lifetimes.gone().get(17)
            ```
        """
        there, n = self._there(), len(self.steps)
        last = {i: n - 1 - int(there[i].flip(0).int().argmax()) for i in _seen(there)}
        return {i: self.steps[at + 1] for i, at in last.items() if at < n - 1}

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

        born, gone = self.born(), self.gone()
        return DataFrame(
            {
                "latent": i,
                "fired": int(self.fired[i]),
                "born": at,
                "gone": gone.get(i),
                "split": [*self.splits.get(i, ())],
            }
            for i, at in born.items()
        )

    def _there(self) -> Tensor:
        return _where(self.strength, self.by_chance, self.alive)


def _where(strength: Tensor, by_chance: Tensor, alive: float) -> Tensor:
    return (strength >= alive) & (strength > by_chance[:, None])


def _seen(there: Tensor) -> list[int]:
    return there.any(1).nonzero()[:, 0].tolist()


@torch.no_grad()
def measure_lifetimes(
    crosscoder: Crosscoder,
    rows: Float[Tensor, "n layer d_model"],
    steps: Sequence[int],
    *,
    alive: Share = 0.5,
    alike: Share = 0.6,
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
        alike: the cosine from which on a young latent is like an older one; two orthogonal halves of one length have
            .71 with their sum.
        draws: of other rows, and of other latents.
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
    error, power = rows - crosscoder.decode(f), f.square().sum(0).clamp_min(1e-12)[:, None, None]
    refitted = (crosscoder.W_dec + torch.einsum("nf,ntd->ftd", f, error) / power).detach()
    longest, fired = refitted.norm(dim=2).amax(1).clamp_min(1e-12), (f > 0).sum(0).float()
    random = torch.Generator().manual_seed(seed)
    others = [f[torch.randperm(len(f), generator=random)] for _ in range(draws)]
    noise = [(torch.einsum("nf,ntd->ftd", g, error) / power).norm(dim=2).amax(1) for g in others]
    strength = (refitted.norm(dim=2) / longest[:, None]) * (fired > 0)[:, None]
    by_chance = torch.stack(noise).amax(0) / longest
    there, on = _where(strength, by_chance, alive), (f > 0).float()
    orders = [torch.randperm(len(refitted), generator=random) for _ in range(draws)]
    splits = _find_splits(refitted, there, on, alike)
    chance = [len(_find_splits(refitted, there, on, alike, order)) for order in orders]
    return Lifetimes(
        tuple(steps), refitted, strength, by_chance, fired, float(alive), splits, sum(chance) / len(chance)
    )


def _find_splits(
    rows: Float[Tensor, "latent layer d_model"],
    there: Tensor,
    on: Float[Tensor, "n latent"],
    alike: float,
    order: Tensor | None = None,
) -> dict[int, tuple[int, ...]]:
    """By older latent, the young ones that come from it; with an order, as if each had been like another of its age."""
    found: dict[int, tuple[int, ...]] = {}
    unit = torch.nn.functional.normalize(rows, dim=2)
    for t in range(1, there.shape[1]):
        young, old = (there[:, t] & ~there[:, :t].any(1)).nonzero()[:, 0], there[:, t - 1].nonzero()[:, 0]
        source = old if order is None else old[order[old].argsort()]
        near = unit[young, t] @ unit[source, t - 1].T >= alike
        inside = on[:, young].T @ on[:, old] >= 0.5 * on[:, young].sum(0)[:, None]
        for i, children in zip(old.tolist(), (near & inside).T, strict=True):
            if int(children.sum()) > 1:
                found[i] = tuple(young[children].tolist())
    return found
