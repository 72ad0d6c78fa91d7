"""Results made by hand, so that what a page shows of them is known."""

import pytest
import torch

from interp.steering import Condition, DoseResponse

PROMPTS = ("I saw", "I saw", "the fog", "the fog")


def condition(dose: float, named: int, nats: float) -> Condition:
    texts = tuple(" the Golden Gate" if i < named else " a <b>kettle</b> & cup" for i in range(4))
    return Condition(
        dose=dose,
        prompts=PROMPTS,
        texts=texts,
        named=torch.arange(4) < named,
        surprisal=torch.full((4,), nats * 5),
        lengths=torch.full((4,), 5),
        distinct=torch.ones(4),
    )


@pytest.fixture
def response() -> DoseResponse:
    steered = (condition(1.0, 1, 2.0), condition(2.0, 4, 2.5), condition(4.0, 4, 4.0))
    control = (condition(1.0, 0, 2.0), condition(2.0, 0, 2.2), condition(4.0, 1, 4.5))
    return DoseResponse("clamp of latent 3", "the training maximum", condition(0.0, 0, 2.0), steered, control)
