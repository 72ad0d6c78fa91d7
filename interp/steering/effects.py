"""What doses of many directions make the model say, sampled in shared batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Intervention, Model, intervene
from hooks.errors import InvalidArgument
from hooks.fingerprint import is_of
from hooks.interventions import Rows
from hooks.position import everywhere
from hooks.progress import progress_bar
from interp.common.statistics import Estimate
from interp.steering.fluency import measure_surprisal
from interp.steering.samples import Samples, Sampling, measure_samples, sample, sample_continuations
from interp.steering.steering import add_direction


@final
@dataclass(frozen=True)
class Effect:
    """What the model says when a dose of a direction is added, and its perplexity over that of unsteered text."""

    direction: Direction
    samples: Samples
    ratio: Estimate

    @property
    def dose(self) -> float:
        """In units of the direction's scale."""
        return self.samples.dose

    def __str__(self) -> str:
        naming, ratio = self.samples.naming, self.ratio
        return f"{self.direction.source}: dose {self.dose:.3g} names it {naming:.2f}, perplexity ratio {ratio:.2f}"


def measure_effects(
    model: Model,
    doses: Sequence[tuple[Direction, float]],
    prompts: Sequence[str],
    names: Callable[[str], bool],
    *,
    sampling: Sampling | None = None,
    progress: bool = True,
) -> tuple[Effect, ...]:
    """What each dose of each direction makes the model say: x' = x + dose s v/|v|, s the direction's scale.

    As `sample` with each in turn, but continuations of several directions share a batch, each row with its own vector,
    which is several times as fast. A dose whose continuations are all empty is left out.

    Raises:
        InvalidArgument: no directions or no prompts, directions at several sites or of another model, a dose that is
            not finite.

    Cost: for `per_prompt` continuations of each prompt and dose `max_new_tokens` cached passes of a token and one pass
    of the whole; as many unsteered.

    Examples:
        ```python
        for effect in measure_effects(model, [(sae.direction(i), 1.0) for i in (3, 17)], prompts, names):
            print(effect)
        ```
    """
    sampling = sampling or Sampling()
    sites = {direction.site for direction, _ in doses}
    if len(sites) != 1:
        raise InvalidArgument(f"{len(doses)} doses at the sites {sorted(map(str, sites))}: give directions at one site")
    ways = [(add_direction(direction), dose) for direction, dose in doses]
    for way, dose in ways:
        way.dose(dose)  # refuses one that is not finite
    foreign = next((one.fingerprint for one, _ in doses if not is_of(model, one.fingerprint)), None)
    plain = sample(model, prompts, names, sampling=sampling, progress=progress)
    repeated = sampling.each(prompts)
    given = repeated * len(doses)
    vectors = torch.stack([dose * way.vector for way, dose in ways]).repeat_interleave(len(repeated), 0)
    texts, per_batch = [], sampling.batch_size
    for start in progress_bar(range(0, len(given), per_batch), "directions", progress=progress, unit="batch"):
        part = slice(start, start + per_batch)
        with intervene(model, {doses[0][0].site: _each(vectors[part], foreign)}):
            texts += sample_continuations(
                model, given[part], replace(sampling, seed=sampling.seed + start), progress=False
            )
    nats, lengths = measure_surprisal(model, given, texts)
    found = []
    for i, (direction, dose) in enumerate(doses):
        own = slice(i * len(repeated), (i + 1) * len(repeated))
        if bool(lengths[own].any()):
            said = measure_samples(dose, given[own], texts[own], names, nats[own], lengths[own])
            found.append(Effect(direction, said, said.perplexity_over(plain)))
    return tuple(found)


def _each(vectors: Float[Tensor, "batch d_model"], fingerprint: str | None) -> Intervention:
    """Add to all tokens of each text of the batch its own vector."""

    def add(a: Float[Tensor, "n d_model"], rows: Rows) -> Float[Tensor, "n d_model"]:
        return a + vectors.to(a)[rows.row.to(a.device)]

    return Intervention("add to each text its own vector", everywhere, add, fingerprint=fingerprint)
