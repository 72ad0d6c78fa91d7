"""Latents chosen for what the model says when they are turned up, not for what turns them on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from hooks import Direction, Model, Tokens, capture_gradients
from hooks.border import Count, Finite, NotNegative, Share
from hooks.errors import InvalidArgument, NoFluentDose
from interp.common.completion import token_log_probs
from interp.sae import SAE
from interp.steering.effects import Effect, measure_effects
from interp.steering.fluency import select_continuation
from interp.steering.samples import Sampling
from interp.steering.steer import steer

FLUENT: Final = 2.0  # a perplexity ratio with room to the 3 that a dose may cost on other prompts
WEIGHTS: Final = (0.4, 0.8)  # of a further latent, where what there is has length 1
NEARBY: Final = (0.8, 1.0, 1.25)  # of the best dose so far, at which a further latent is tried
ROUNDS: Final = ((1, 16), (4, 4))  # continuations of each prompt, and how many doses go on: not the luckiest is best
GROWN, STEEPEST = 2, 8  # how many of the best are grown, and by how many latents each


def choose_by_effect(
    model: Model,
    sae: SAE,
    latents: Sequence[int],
    prompts: Sequence[str],
    names: Callable[[str], bool],
    *,
    doses: Sequence[Finite] = (0.4, 0.6, 0.8, 1.0, 1.3),
    most: int = 3,
    enough: Share = 1.0,
    sampling: Sampling | None = None,
    progress: bool = True,
) -> Effect:
    """The latent that makes the model name a concept most often, and up to `most` - 1 that do more with it.

    A latent that detects a concept well need not make the model say it (Arad et al. 2025, arXiv:2505.20063): so each is
    turned up, x' = x + dose s u_i with u_i its unit decoder row and s the largest activation of any of them, and the
    best doses at a perplexity ratio of at most 2 are kept. To the best two a further latent of the dictionary is added
    or taken away, v = u ± w u_j, one along which naming grows or falls most steeply (`estimate_naming_slope`), as long
    as that names the concept more often; where nothing is named yet, or all is drawn greedily, each of the other
    latents given. Every dose is tried with one continuation of each prompt, the best 16 with four, the best 4 of these
    with as many as `sampling` says, each time drawn again. A choice made on these prompts flatters what is chosen:
    measure it on others.

    Raises:
        InvalidArgument: no latents; as `sae.direction`.
        NoFluentDose: no dose is that fluent.

    Cost: `measure_effects` of all latents at all doses, then at most `most` - 1 times two of `estimate_naming_slope`
    and `measure_effects` of 96 doses.

    Examples:
        ```python
        latents, names = choose_candidates(sae, result), Names(("Eiffel Tower",))
        found = choose_by_effect(model, sae, latents, prompts[::2], names)
        choose_dose(model, add_direction(found.direction), prompts, names, doses=(0.8 * found.dose, found.dose))
        ```
    """
    rows = [sae.direction(latent) for latent in dict.fromkeys(latents)]
    if not rows or most < 1:
        raise InvalidArgument(
            f"the latents are {list(latents)}, up to {most} of them are wanted: give at least one of each"
        )
    scale, sampling = max(row.scale for row in rows), sampling or Sampling()
    rows = [replace(row, vector=row.unit, scale=scale) for row in rows]
    trial = _Trial(model, prompts, names, sampling, progress)
    best = trial.best([(row, dose) for row in rows for dose in doses])
    if not best:
        raise NoFluentDose(
            f"no dose of {len(rows)} latents has a perplexity ratio of at most {FLUENT:g}: try lower doses"
        )
    for _ in range(most - 1):
        if best[0].samples.naming.value >= enough:
            break
        slopes = [(one, _slope(model, one, sampling)) for one in best[:GROWN]]
        wider = [
            (wide, one.dose * times) for one, s in slopes for wide in _wider(sae, one, s, rows) for times in NEARBY
        ]
        grown = trial.best(wider)
        if not grown or grown[0].samples.naming.value <= best[0].samples.naming.value:
            break
        best = grown
    return best[0]


def estimate_naming_slope(
    model: Model, effect: Effect, *, temperature: NotNegative, batch_size: Count = 64
) -> Float[Tensor, "d_model"]:
    """∇P = E[(named − P) ∇_v log p_v(text | prompt)], P the naming rate where v is added to every token.

    The score-function estimate (Williams 1992) over the effect's own continuations, so that a little more of a
    direction u, ε u, changes P by ε u·∇P: one backward pass ranks all latents. Its noise falls with the square root of
    their number. That a continuation ended is left out.

    Raises:
        InvalidArgument: a temperature that is not above 0, or that of another model.

    Cost: a forward and a backward pass over the continuations, down to the effect's site.

    Examples:
        ```python
        (sae.W_dec @ estimate_naming_slope(model, effect, temperature=1.0)).abs().topk(10)
        ```
    """
    if not temperature > 0:
        raise InvalidArgument(f"temperature={temperature}: give the one, above 0, that the continuations were drawn at")
    said = effect.samples
    above = (said.named.float() - said.named.float().mean()) / len(said.texts)
    slope = torch.zeros(model.d_model)
    for start in range(0, len(said.texts), batch_size):
        part = slice(start, start + batch_size)
        prompts = said.prompts[part]
        tokens = model.tokens([a + b for a, b in zip(prompts, said.texts[part], strict=True)])
        new = select_continuation(tokens, [*map(len, prompts)])

        def weighted(logits: Tensor, of: Tokens = tokens, new: Tensor = new, above: Tensor = above[part]) -> Tensor:
            return token_log_probs(logits / temperature, of.ids, new).sum(-1) @ above.to(logits.device)

        site = effect.direction.site
        with steer(model, effect.direction, effect.dose):
            found = capture_gradients(model, tokens, [site], weighted)
        at = tokens.content.to(found.gradients[site].device)
        slope += found.gradients[site][at].float().sum(0).cpu()
    return slope


@dataclass(frozen=True)
class _Trial:
    model: Model
    prompts: Sequence[str]
    names: Callable[[str], bool]
    sampling: Sampling
    progress: bool

    def best(self, doses: Sequence[tuple[Direction, float]]) -> list[Effect]:
        """The few best directions, each at the fluent dose that names it most often, from rounds of fewer and fewer."""
        drawn, found = [*ROUNDS, (self.sampling.per_prompt, 1)], list[Effect]()
        for seed, (per_prompt, kept) in enumerate(drawn, self.sampling.seed):
            found = self._fluent(doses, replace(self.sampling, per_prompt=per_prompt, seed=seed)) if doses else []
            doses = [(one.direction, one.dose) for one in found[:kept]]
        distinct: dict[str, Effect] = {}
        for one in found:
            distinct.setdefault(one.direction.source, one)
        return list(distinct.values())

    def _fluent(self, doses: Sequence[tuple[Direction, float]], sampling: Sampling) -> list[Effect]:
        found = measure_effects(self.model, doses, self.prompts, self.names, sampling=sampling, progress=self.progress)
        return sorted(
            (one for one in found if one.ratio.value <= FLUENT),
            key=lambda one: (-one.samples.naming.value, one.ratio.value),
        )


def _slope(model: Model, one: Effect, sampling: Sampling) -> Float[Tensor, "d_model"]:
    """`estimate_naming_slope`; flat where nothing is drawn at random."""
    greedy = sampling.temperature == 0
    return torch.zeros(model.d_model) if greedy else estimate_naming_slope(model, one, temperature=sampling.temperature)


def _wider(sae: SAE, one: Effect, slope: Float[Tensor, "d_model"], given: Sequence[Direction]) -> list[Direction]:
    """u ± w u_j along the rows steepest across u (more of u is another dose), or where all is flat the rows given."""
    u = one.direction.unit.float().cpu()
    rows = normalize(sae.W_dec.detach().float().cpu(), dim=1)
    steep = sae._join(rows @ (slope - (slope @ u) * u)).where(sae.max_activation.cpu() > 0, torch.zeros(()))
    steepest = steep.abs().topk(min(STEEPEST, sae.d_sae)).indices.tolist()
    further = [(sae.direction(j), float(steep[j].sign())) for j in steepest if steep[j] != 0]
    further = further or [(row, 1.0) for row in given if row is not one.direction]
    return [_with(one.direction, row, sign * w) for row, sign in further for w in WEIGHTS]


def _with(v: Direction, row: Direction, weight: float) -> Direction:
    """u + w u_j, at length 1 and the same scale."""
    together = v.unit + weight * row.unit.to(v.vector)
    source = f"{v.source} {'+' if weight > 0 else '-'} {abs(weight):g} * {row.source}"
    return replace(v, vector=together / together.norm(), source=source)
