"""What the demonstration is about and how much of it is done; the defaults fit five minutes on two cores."""

from dataclasses import dataclass

from interp.steering import Sampling


@dataclass(frozen=True)
class DictionarySettings:
    """What the dictionary is learnt on, in training steps of `tokens`; its `latents`, and how many are active."""

    documents: int = 6000
    tokens: int = 1_500_000
    latents: int = 1536
    k: int = 6


@dataclass(frozen=True)
class SteeringSettings:
    """How latents are turned up.

    `doses` are multiples of the largest training maximum of the latents turned up, of which there are up to `most`,
    until the model names the landmark in `enough` of the texts they are chosen on.
    """

    doses: tuple[float, ...] = (0.4, 0.6, 0.8, 1.0)
    most: int = 3
    enough: float = 0.9
    sampling: Sampling = Sampling(per_prompt=4, temperature=0.7)


@dataclass(frozen=True)
class Settings:
    """The demonstration's subject and size.

    `layer` is the block whose output stream is read and steered; `sentences` express the concept, twice as many do not;
    `pictures` are looked through for it, and a tenth as many more are drawn of it; `traced` facts say at which layer to
    edit, and `edit_texts` hold what the edit is to leave as it is.
    """

    landmark: str = "Golden Gate Bridge"
    city: str = "Sydney"
    layer: int = 3
    dictionary: DictionarySettings = DictionarySettings()
    sentences: int = 300
    steering: SteeringSettings = SteeringSettings()
    pictures: int = 1200
    traced: int = 24
    edit_texts: int = 1333
    seed: int = 0
