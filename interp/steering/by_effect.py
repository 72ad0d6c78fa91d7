"""Latents chosen for what the model says when they are turned up, not for what turns them on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from hooks import Direction, Intervention, Model, intervene
from hooks.interventions import Rows
from hooks.position import everywhere
from interp.estimate import Estimate
from interp.sae import SAE
from interp.steering.condition import Condition, Sampling, continued, measured, sample
from interp.steering.fluency import surprisal
from interp.steering.steering import adding

FLUENT: Final = 2.0  # a perplexity ratio with room to the 3 that a dose may cost on other prompts
WEIGHTS: Final = (0.4, 0.8)  # of a further latent, beside the length of those there are
NEARBY: Final = (0.8, 1.0, 1.25)  # of the best dose so far, at which a further latent is tried
ROUNDS: Final = ((1, 16), (4, 4))  # continuations of each prompt, and how many doses go on: not the luckiest is best


@final
@dataclass(frozen=True)
class Effect:
    """What the model says when a dose of a direction is added, and its perplexity over that of unsteered text."""

    direction: Direction
    condition: Condition
    ratio: Estimate

    @property
    def dose(self) -> float:
        """In units of the direction's scale."""
        return self.condition.dose

    def __str__(self) -> str:
        naming, ratio = self.condition.naming, self.ratio
        return (
            f"{self.direction.source}: dose {self.dose:.3g} names it {naming.value:.2f} [{naming.low:.2f}, "
            f"{naming.high:.2f}], perplexity ratio {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        )


def effects(
    model: Model,
    doses: Sequence[tuple[Direction, float]],
    prompts: Sequence[str],
    names: Callable[[str], bool],
    *,
    sampling: Sampling | None = None,
    progress: bool = False,
) -> tuple[Effect, ...]:
    """What each dose of each direction makes the model say: x' = x + dose s v/|v|, s the direction's scale.

    As `sample` with each in turn, but continuations of several directions share a batch, each row with its own vector,
    which is several times as fast. A dose whose continuations are all empty is left out.

    Errors: `ValueError` for no directions or no prompts, directions at several sites or of another model, a dose that
    is not finite. Cost: for `per_prompt` continuations of each prompt and dose `max_new_tokens` cached passes of a
    token and one pass of the whole; as many unsteered.

    ```python
    for effect in effects(model, [(sae.direction(i), 1.0) for i in (3, 17)], prompts, names):
        print(effect)
    ```
    """
    sampling = sampling or Sampling()
    sites = {direction.site for direction, _ in doses}
    if len(sites) != 1:
        raise ValueError(f"{len(doses)} doses at the sites {sorted(map(str, sites))}: give directions at one site")
    ways = [(adding(direction), dose) for direction, dose in doses]
    for way, dose in ways:
        way.dose(dose)  # refuses one that is not finite
    foreign = next((one.fingerprint for one, _ in doses if one.fingerprint not in (None, model.fingerprint)), None)
    plain = sample(model, prompts, names, sampling=sampling)
    repeated = [prompt for prompt in prompts for _ in range(sampling.per_prompt)]
    given = repeated * len(doses)
    vectors = torch.stack([dose * way.vector for way, dose in ways]).repeat_interleave(len(repeated), 0)
    texts, per_batch = [], max(1, sampling.batch_size)
    for start in tqdm(range(0, len(given), per_batch), "directions", disable=not progress, unit="batch"):
        part = slice(start, start + per_batch)
        with intervene(model, {doses[0][0].site: _each(vectors[part], foreign)}):
            texts += continued(model, given[part], replace(sampling, seed=sampling.seed + start))
    nats, lengths = surprisal(model, given, texts)
    found = []
    for i, (direction, dose) in enumerate(doses):
        own = slice(i * len(repeated), (i + 1) * len(repeated))
        if bool(lengths[own].any()):
            said = measured(dose, given[own], texts[own], names, nats[own], lengths[own])
            found.append(Effect(direction, said, said.perplexity_over(plain)))
    return tuple(found)


def by_effect(
    model: Model,
    sae: SAE,
    latents: Sequence[int],
    prompts: Sequence[str],
    names: Callable[[str], bool],
    *,
    doses: Sequence[float] = (0.4, 0.6, 0.8, 1.0, 1.3),
    most: int = 3,
    sampling: Sampling | None = None,
    progress: bool = True,
) -> Effect:
    """The latent that makes the model name a concept most often, and up to `most` - 1 that do more with it.

    A latent that tells a concept well need not make the model say it (Arad et al. 2025, arXiv:2505.20063): so each is
    turned up, x' = x + dose s u_i with u_i its unit decoder row and s the largest activation of any of them, and the
    best dose at a perplexity ratio of at most 2 is kept. To it a further latent is added, v = u + w u_j, as long as
    that names the concept more often. Every dose is tried with one continuation of each prompt, the best 16 with four,
    the best 4 of these with as many as `sampling` says, each time drawn anew. A choice made on these prompts flatters
    what is chosen: measure it on others.

    Errors: `ValueError` for no latents, or when no dose is that fluent; as `sae.direction`. Cost: `effects` of all
    latents at all doses, then of six for each latent left, at most `most` - 1 times.

    ```python
    found = by_effect(model, sae, [one.latent for one in result.latents], prompts[::2], Names(("Eiffel Tower",)))
    choose_dose(model, adding(found.direction), prompts, names, doses=(0.8 * found.dose, found.dose))
    ```
    """
    rows = [sae.direction(latent) for latent in dict.fromkeys(latents)]
    if not rows or most < 1:
        raise ValueError(f"the latents are {list(latents)}, up to {most} of them are wanted: give at least one of each")
    scale = max(row.scale for row in rows)
    rows = [replace(row, vector=row.unit, scale=scale) for row in rows]
    trial = _Trial(model, prompts, names, sampling or Sampling(), progress)
    best = trial.best([(row, dose) for row in rows for dose in doses])
    if best is None:
        raise ValueError(
            f"no dose of {len(rows)} latents has a perplexity ratio of at most {FLUENT:g}: try lower doses"
        )
    left = [row for row in rows if row is not best.direction]
    for _ in range(min(most, len(rows)) - 1):
        wider = [(_with(best.direction, row, w), row) for row in left for w in WEIGHTS]
        grown = trial.best([(wide, best.dose * times) for wide, _ in wider for times in NEARBY])
        if grown is None or grown.condition.naming.value <= best.condition.naming.value:
            break
        best = grown
        taken = next(row for wide, row in wider if wide is best.direction)
        left = [row for row in left if row is not taken]
    return best


@dataclass(frozen=True)
class _Trial:
    model: Model
    prompts: Sequence[str]
    names: Callable[[str], bool]
    sampling: Sampling
    progress: bool

    def best(self, doses: Sequence[tuple[Direction, float]]) -> Effect | None:
        """The fluent dose that names it most often, in rounds of fewer doses, more continuations; None if none is."""
        drawn, best = [*ROUNDS, (self.sampling.per_prompt, 1)], None
        for seed, (per_prompt, kept) in enumerate(drawn, self.sampling.seed):
            found = self._fluent(doses, replace(self.sampling, per_prompt=per_prompt, seed=seed)) if doses else []
            doses, best = [(one.direction, one.dose) for one in found[:kept]], next(iter(found), None)
        return best

    def _fluent(self, doses: Sequence[tuple[Direction, float]], sampling: Sampling) -> list[Effect]:
        found = effects(self.model, doses, self.prompts, self.names, sampling=sampling, progress=self.progress)
        return sorted(
            (one for one in found if one.ratio.value <= FLUENT),
            key=lambda one: (-one.condition.naming.value, one.ratio.value),
        )


def _with(v: Direction, row: Direction, weight: float) -> Direction:
    """u + w u_j, at length 1 and the same scale."""
    together = v.vector + weight * row.vector
    return replace(v, vector=together / together.norm(), source=f"{v.source} + {weight:g} * {row.source}")


def _each(vectors: Float[Tensor, "batch d_model"], fingerprint: str | None) -> Intervention:
    """Add to all tokens of each text of the batch its own vector."""

    def add(a: Float[Tensor, "n d_model"], rows: Rows) -> Float[Tensor, "n d_model"]:
        return a + vectors.to(a)[rows.row.to(a.device)]

    return Intervention("add to each text its own vector", everywhere, add, fingerprint=fingerprint)
