"""The gain of a memory is the ratio of perplexities written out; its controls keep all but what they are to break."""

import pytest
import torch

from hooks import Model, load
from hooks.site import mlp_in
from interp.memory.outside import (
    ChosenMixture,
    TokenMemory,
    explain_vote,
    flip_weight,
    make_token_memory,
    measure_mixture,
    predict_mixture,
)

SITE = mlp_in[7]
TEXTS = ["The fog came in over the bay.", "She played an old guitar for an hour before dinner."]


@pytest.fixture(scope="module")
def model() -> Model:
    return load("landmark")


@pytest.fixture(scope="module")
def memory(model: Model) -> TokenMemory:
    return make_token_memory(model, ["The harbour of Vell is red.", "The fog over the bay was grey."], SITE)


def test_the_control_keeps_tokens_and_draws_normal_keys_of_the_same_mean_and_spread_in_each_dimension() -> None:
    random = torch.Generator().manual_seed(7)
    spread = torch.tensor([0.5, 2.0, 10.0])
    keys = torch.tensor([3.0, -1.0, 100.0]) + spread * torch.randn(20_000, 3, generator=random)
    memory = TokenMemory(keys, torch.arange(20_000), torch.zeros(20_000).long(), SITE, "none")
    control = memory.with_random_keys()
    assert torch.equal(control.tokens, memory.tokens) and torch.equal(control.document, memory.document)
    assert torch.allclose(control.keys.mean(0), keys.mean(0), atol=0.2)
    assert torch.allclose(control.keys.std(0), spread, rtol=0.05)
    assert float(torch.corrcoef(torch.cat([keys, control.keys], 1).T)[:3, 3:].abs().max()) < 0.05
    assert not torch.equal(memory.with_random_keys(1).keys, control.keys)
    again = memory.shuffle()
    assert torch.equal(again.keys, keys) and not torch.equal(again.tokens, memory.tokens)
    assert torch.equal(again.tokens.sort().values, memory.tokens)


def test_the_gain_is_the_ratio_of_perplexities_by_what_each_text_is_predicted_to_be(
    model: Model, memory: TokenMemory
) -> None:
    mixture = ChosenMixture(share=0.3, temperature=50.0, k=6, nats=0.0)
    found = measure_mixture(model, memory, TEXTS, mixture)

    def nats(one: TokenMemory, weight: float) -> torch.Tensor:
        each = []
        for text in TEXTS:
            log_p = predict_mixture(model, one, text, weight=weight, temperature=50.0, k=6)
            ids = model.tokens(text).ids[0, 1:]
            each.append(-log_p[:-1].gather(1, ids[1:, None])[:, 0])
        return torch.cat(each).double()

    plain = nats(memory, 0.0)
    for estimate, one in (
        (found.ratio, memory),
        (found.shuffled, memory.shuffle()),
        (found.random, memory.with_random_keys()),
    ):
        assert estimate.value == pytest.approx(float((nats(one, 0.3) - plain).mean().exp()), rel=1e-3)
        assert estimate.low <= estimate.value <= estimate.high
    assert found.model.value == pytest.approx(float(plain.mean().exp()), rel=1e-3)


def test_a_share_of_the_vote_falls_by_e_for_each_temperature_of_squared_distance(
    model: Model, memory: TokenMemory
) -> None:
    votes = explain_vote(model, memory, "The fog", temperature=40.0, k=5)
    squared = torch.tensor([one.squared for one in votes])
    expected = (-squared / 40.0).softmax(0)
    assert torch.allclose(torch.tensor([one.share for one in votes]), expected, atol=1e-5)
    assert squared.tolist() == sorted(squared.tolist()) and len(votes) == 5


@pytest.mark.parametrize("p", [(0.8, 0.1), (0.5, 0.4), (0.1, 0.3)])
@pytest.mark.parametrize("q", [(0.0, 0.7), (0.2, 0.9), (0.0, 1.0)])
def test_at_the_weight_that_flips_both_answers_are_as_likely(p: tuple[float, float], q: tuple[float, float]) -> None:
    weight = flip_weight(*p, *q)
    mixed = [weight * by_memory + (1 - weight) * by_model for by_model, by_memory in zip(p, q, strict=True)]
    assert mixed[0] == pytest.approx(mixed[1])
    assert flip_weight(*p, q[1], q[0]) is None
