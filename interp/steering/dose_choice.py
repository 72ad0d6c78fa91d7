"""Choose a dose on half of the prompts, and say what it does on the other half."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hooks import Model
from hooks.errors import InvalidArgument
from interp.common.texts import listed, unique_texts
from interp.steering.conditional import Conditional
from interp.steering.dose_response import DoseResponse, measure_dose_response
from interp.steering.samples import Samples, Sampling, sample
from interp.steering.steering import Steering


@dataclass(frozen=True)
class ChosenDose:
    """A dose, the response it was chosen from, and its conditions on prompts that had no part in the choice."""

    dose: float
    response: DoseResponse
    unsteered: Samples
    steered: Samples
    control: Samples


def choose_dose(
    model: Model,
    steering: Steering | Conditional,
    prompts: Sequence[str],
    names: Callable[[str], bool],
    *,
    doses: Sequence[float],
    sampling: Sampling | None = None,
    controls: Sequence[int] = (0, 1, 2),
    progress: bool = True,
) -> ChosenDose:
    """Take the best fluent dose on every second prompt, and measure it on the others, beside its controls.

    The dose is the one whose continuations name the concept most often at a perplexity ratio of at most 3. A prompt
    given twice counts once.

    Errors: `ValueError` for fewer than two prompts, or when no dose is fluent. Cost: that of `measure_dose_response` on
    half of the prompts, and three conditions on the other half.

    ```python
    chosen = choose_dose(model, clamp_latent(sae, 17), prompts, Names(("Golden Gate Bridge",)), doses=(1.0, 2.0, 4.0))
    chosen.dose, chosen.steered.naming, chosen.control.naming
    ```
    """
    prompts = unique_texts(listed(prompts, "prompts"))
    if len(prompts) < 2:
        raise InvalidArgument(
            f"the prompts are {prompts!r}: give at least two, one to choose a dose on and one to report"
        )
    response = measure_dose_response(
        model,
        steering,
        prompts[::2],
        names,
        doses=doses,
        sampling=sampling,
        controls=controls,
        progress=progress,
    )
    dose, others = response.best_dose, prompts[1::2]
    random = [steering.control(seed) for seed in controls]
    return ChosenDose(
        dose=dose,
        response=response,
        unsteered=sample(model, others, names, sampling=sampling),
        steered=sample(model, others, names, [steering], dose, sampling),
        control=sample(model, others, names, random, dose, sampling),
    )
