"""Divergence is the sum it says, and the site where a change was planted is where it is held."""

import pytest
import torch
from scipy.stats import entropy

from hooks import Model, load
from hooks.errors import UnknownName
from hooks.site import mlp_out, resid_post
from interp.show import raised_words_panel
from interp.tuning import (
    ModelPair,
    measure_difference,
    measure_site_divergence,
    measure_token_divergence,
    measure_weight_difference,
    read_difference,
)
from tests.conftest import tiny

TEXTS = ["The fog came in over the bay.", "Paris is the capital of", "My sister read a book about the sea."]


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    model = load("landmark")
    u = torch.randn(256, generator=torch.Generator().manual_seed(0))
    model.hf.transformer.h[4].mlp.c_proj.bias.data += 4 * u / u.norm()
    return ModelPair(load("landmark"), load(model.hf, model.tokenizer))


def test_the_divergence_of_each_token_is_that_of_scipy(pair: ModelPair) -> None:
    found = measure_token_divergence(pair, TEXTS, batch_size=2)
    for i, text in enumerate(TEXTS):
        p, q = (model.run(text)[0].double().softmax(-1).detach().numpy() for model in (pair.tuned, pair.base))
        expected = torch.tensor(entropy(p, q, axis=1))[1:]
        assert torch.allclose(found.kl[i].double(), expected, atol=1e-4)
        assert "".join(found.tokens[i]) == text
        assert len(found.said[i]) == len(found.tokens[i])
    whole = torch.cat(found.kl)
    assert found.mean.value == pytest.approx(float(whole.mean()), rel=1e-5)
    assert found.mean.low <= found.mean.value <= found.mean.high
    assert len(found.to_pandas()) == len(whole) and "base" in repr(found)


def test_a_model_next_to_itself_does_not_diverge() -> None:
    base = load("landmark")
    found = measure_token_divergence(ModelPair(base, base), TEXTS)
    assert found.mean.value == 0.0


def test_of_models_that_give_the_same_no_site_holds_anything_and_no_words_are_raised() -> None:
    same = ModelPair(tiny("gpt2"), tiny("gpt2"))
    found = measure_site_divergence(same, TEXTS, progress=False)
    assert {(one.value, one.low, one.high) for one in found.held.values()} == {(0.0, 0.0, 0.0)}
    difference = measure_difference(same, [*TEXTS, "Hm."], first=1, progress=False)
    words = read_difference(same, difference, resid_post[1])
    assert words.base == words.tuned == () and "no words are raised" in str(words)
    assert raised_words_panel(words).caption.endswith("so no words are raised.")
    assert "say the same after every token" in str(measure_token_divergence(same, TEXTS, progress=False))
    weights = measure_weight_difference(same, progress=False)
    assert "none of the 6 matrices that write to the stream differs" in str(weights)


def test_sites_before_a_change_hold_nothing_of_it_and_those_after_all(pair: ModelPair) -> None:
    sites = [resid_post[3], mlp_out[4], resid_post[4], resid_post[7]]
    found = measure_site_divergence(pair, TEXTS, sites)
    held = [found[site].value for site in sites]
    assert held[0] == pytest.approx(0.0, abs=1e-4)
    assert held[1:] == pytest.approx([1.0, 1.0, 1.0], abs=1e-4)
    assert found.whole.value == pytest.approx(measure_token_divergence(pair, TEXTS).mean.value, rel=1e-4)
    assert len(found.to_pandas()) == 4 and "resid_post.7" in repr(found)
    with pytest.raises(UnknownName, match="was not measured"):
        found[resid_post[0]]


def test_the_base_is_left_as_it_was(pair: ModelPair) -> None:
    before = pair.base.run(TEXTS[0])
    measure_site_divergence(pair, TEXTS, resid_post[4])
    assert torch.equal(before, pair.base.run(TEXTS[0]))
    assert isinstance(pair.base, Model)
