"""The dose-response on a model where the direction's effect is known: it writes one letter, and costs fluency."""

from dataclasses import replace

import pytest
import torch

from hooks import Direction, Model
from hooks.site import resid_post
from interp.steering import Condition, DoseResponse, Sampling, adding, dose_response, sample

PROMPTS = ["fog", "the bay", "a red", "I saw"]
SAMPLING = Sampling(per_prompt=3, max_new_tokens=8)


def says_z(text: str) -> bool:
    return "zz" in text


@pytest.fixture(scope="module")
def planted(model: Model) -> Direction:
    """The unembedding row of one letter, at the last stream: enough of it and nothing else is written."""
    letter = model.tokenizer.convert_tokens_to_ids("z")
    row = model.hf.lm_head.weight.detach()[letter]
    return Direction(row, resid_post[model.n_layers - 1], "the letter z", scale=float(row.norm()))


@pytest.fixture(scope="module")
def response(model: Model, planted: Direction) -> DoseResponse:
    hot = replace(SAMPLING, temperature=0.05)
    return dose_response(model, adding(planted), PROMPTS, says_z, doses=(0.0, 200.0), sampling=hot, progress=False)


def test_the_planted_letter_is_written_at_a_high_dose_and_never_unsteered(response: DoseResponse) -> None:
    assert response.unsteered.naming.value == 0.0
    assert response.steered[1].naming.value == 1.0
    assert response.control[1].naming.value < 0.5


def test_a_dose_of_zero_draws_the_unsteered_continuations(response: DoseResponse) -> None:
    assert response.steered[0].texts == response.unsteered.texts
    assert response.steered[0].perplexity_over(response.unsteered).value == 1.0


def test_every_condition_rests_on_as_many_continuations_and_every_prompt(response: DoseResponse) -> None:
    for condition in (response.unsteered, *response.steered, *response.control):
        assert len(condition.texts) == 12 and sorted(set(condition.prompts)) == sorted(PROMPTS)


def test_perplexity_is_measured_without_the_steering(model: Model, planted: Direction) -> None:
    condition = sample(model, PROMPTS, says_z, [adding(planted)], 200.0, SAMPLING)
    text, prompt = condition.texts[0], condition.prompts[0]
    logits = model.hf(model.tokens(prompt + text).ids).logits[0].log_softmax(-1).detach()
    ids = model.tokens(prompt + text).ids[0]
    expected = -sum(float(logits[t - 1, ids[t]]) for t in range(len(prompt) + 1, len(ids)))
    assert float(condition.surprisal[0]) == pytest.approx(expected, rel=1e-4)


def test_the_same_seed_draws_the_same_text_and_another_seed_another(model: Model) -> None:
    first, again = (sample(model, PROMPTS, says_z, sampling=SAMPLING) for _ in range(2))
    other = sample(model, PROMPTS, says_z, sampling=replace(SAMPLING, seed=1))
    assert first.texts == again.texts
    assert first.texts != other.texts


def condition(dose: float, named: int, nats: float) -> Condition:
    n = 10
    return Condition(
        dose=dose,
        prompts=("fog",) * n,
        texts=("",) * n,
        named=torch.arange(n) < named,
        surprisal=torch.full((n,), nats * 5),
        lengths=torch.full((n,), 5),
        distinct=torch.ones(n),
    )


def test_the_best_dose_names_most_among_those_at_most_three_times_as_perplexing() -> None:
    steered = (condition(1.0, 5, 2.0), condition(2.0, 8, 2.5), condition(3.0, 8, 3.0), condition(4.0, 10, 3.2))
    response = DoseResponse("x", "y", condition(0.0, 0, 2.0), steered, steered)
    assert [c.dose for c in response.fluent()] == [1, 2, 3]
    assert response.best_dose == 2


def test_when_no_dose_is_fluent_there_is_no_best() -> None:
    steered = (condition(4.0, 10, 3.2), condition(5.0, 10, 4.0))
    with pytest.raises(ValueError, match=r"no dose has a perplexity ratio of at most 3: the lowest is 3.32, at dose 4"):
        DoseResponse("x", "y", condition(0.0, 0, 2.0), steered, steered).best()


def test_a_dose_response_needs_doses_and_prompts(model: Model, planted: Direction) -> None:
    with pytest.raises(ValueError, match="give at least one of each"):
        dose_response(model, adding(planted), PROMPTS, says_z, doses=())
    with pytest.raises(ValueError, match="give a list of at least one prompt"):
        dose_response(model, adding(planted), [], says_z, doses=(1.0,), progress=False)
