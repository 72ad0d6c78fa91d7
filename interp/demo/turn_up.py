"""Turn the latent up: choose a dose on half of the neutral prompts, and report what it does on the other half."""

import re

from hooks import Model
from interp import landmark
from interp.demo.settings import Settings
from interp.landmark.genres import phrases
from interp.landmark.writing import ARTICLES
from interp.sae import SAE
from interp.steering import ChosenDose, Names, choose_dose, clamp_latent


def names(settings: Settings) -> Names:
    """The landmark's name, aliases and names in other languages, without their articles.

    >>> names(Settings())("Fog hid the Golden Gate Bridge.")
    True
    """
    subject = landmark.entity(settings.landmark)
    named = [mention.text for mention in subject.mentions if mention.form in ("name", "alias", "foreign")]
    article = re.compile("|".join(map(re.escape, ARTICLES)))
    return Names(tuple(article.sub("", text, count=1) if article.match(text) else text for text in named))


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
        names(settings),
        doses=settings.doses,
        sampling=settings.sampling,
        progress=progress,
    )
