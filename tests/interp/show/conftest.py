"""Results made by hand, so that what a page shows of them is known."""

import pytest
import torch

from hooks.site import resid_post
from interp.features import Score, SearchResult
from interp.steering import DoseResponse, Samples
from probes import Detection

PROMPTS = ("I saw", "I saw", "the fog", "the fog")


def condition(dose: float, named: int, nats: float) -> Samples:
    texts = tuple(" the Golden Gate" if i < named else " a <b>kettle</b> & cup" for i in range(4))
    return Samples(
        dose=dose,
        prompts=PROMPTS,
        texts=texts,
        named=torch.arange(4) < named,
        surprisal=torch.full((4,), nats * 5),
        lengths=torch.full((4,), 5),
        distinct=torch.ones(4),
    )


@pytest.fixture(scope="session")
def response() -> DoseResponse:
    steered = (condition(1.0, 1, 2.0), condition(2.0, 4, 2.5), condition(4.0, 4, 4.0))
    control = (condition(1.0, 0, 2.0), condition(2.0, 0, 2.2), condition(4.0, 1, 4.5))
    return DoseResponse("clamp of latent 3", "the training maximum", condition(0.0, 0, 2.0), steered, control)


def score(name: str, latent: int | None, f1: float) -> Score:
    held_out = Detection(threshold=1.5, precision=0.9, recall=0.8, f1=f1, auroc=0.99)
    return Score(name, latent, None, 0.97, held_out, (0.8, 1.0), {"name": 1.0, "foreign": 0.5})


@pytest.fixture(scope="session")
def found() -> SearchResult:
    return SearchResult(
        concept="the <bridge>",
        unit="token",
        sites=(resid_post[4],),
        latents=(score("latent 7", 7, 0.95), score("latent 9", 9, 0.6)),
        baselines=(score("difference of means", None, 0.93),),
        p_value=0.005,
        null_f1=torch.tensor([0.1, 0.2]),
        searched=(100, 10),
        reported=(90, 9),
    )
