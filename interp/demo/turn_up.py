"""Turn up the latents that make the model name the landmark, chosen on half of the prompts and reported on the rest."""

from dataclasses import dataclass

from hooks import Direction, Model
from interp import landmark
from interp.demo.settings import Settings
from interp.features import SearchResult, choose_candidates
from interp.landmark.genres import phrases
from interp.sae import SAE
from interp.steering import ChosenDose, Names, add_direction, choose_by_effect, choose_dose

TELLING = 3  # latents tried: those that detect the landmark best, and those nearest the difference of means
NEARBY = (0.7, 0.85, 1.0, 1.15)  # of the dose at which the latents were chosen


@dataclass(frozen=True, eq=False)
class SteeringOutcome:
    """The latents turned up, as one direction, and what its dose does on prompts that had no part in either choice."""

    direction: Direction
    chosen: ChosenDose


def turn_up(
    model: Model, sae: SAE, found: SearchResult, settings: Settings, *, progress: bool = True
) -> SteeringOutcome:
    """Add what makes the model name the landmark to every token while it continues openings that name nothing.

    On every second opening up to three latents are chosen by what they make the model say, then their dose; the other
    openings say what that does.

    Examples:
        ```python
        turned = turn_up(model, learnt.sae, found.search, Settings())
        ```
    """
    named, prompts = landmark.entity(settings.landmark), phrases()["neutral_openers"]
    names = Names(named.names, named.other_names)
    latents = dict.fromkeys([*found.found_latents, *choose_candidates(sae, found, top=TELLING)])
    best = choose_by_effect(
        model,
        sae,
        [i for i in latents if float(sae.max_activation[i]) > 0],
        prompts[::2],
        names,
        doses=settings.steering.doses,
        most=settings.steering.most,
        enough=settings.steering.enough,
        sampling=settings.steering.sampling,
        progress=progress,
    )
    chosen = choose_dose(
        model,
        add_direction(best.direction),
        prompts,
        names,
        doses=[best.dose * times for times in NEARBY],
        sampling=settings.steering.sampling,
        progress=progress,
    )
    return SteeringOutcome(best.direction, chosen)
