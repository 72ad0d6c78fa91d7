"""Turn the latent up: choose a dose on half of the neutral prompts, and report what it does on the other half."""

from hooks import Model
from interp import landmark
from interp.demo.settings import Settings
from interp.landmark.genres import phrases
from interp.sae import SAE
from interp.steering import ChosenDose, Names, choose_dose, clamp_latent


def turn_up(model: Model, sae: SAE, latent: int, settings: Settings, *, progress: bool = True) -> ChosenDose:
    """Clamp the latent at every token while the model continues openings of sentences that name nothing.

    ```python
    chosen = turn_up(model, learnt.sae, found.feature.latent, Settings())
    ```
    """
    return choose_dose(
        model,
        clamp_latent(sae, latent),
        phrases()["neutral_openers"],
        Names(landmark.entity(settings.landmark).names),
        doses=settings.doses,
        sampling=settings.sampling,
        progress=progress,
    )
