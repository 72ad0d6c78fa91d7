"""Surprisal is the model's own cross-entropy on the continuation, and repetition is counted by distinct n-grams."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from hooks import Model, load
from interp.steering.fluency import measure_distinctness, measure_surprisal

PROMPTS, TEXTS = ["the fog", "a", "bridge over"], [" rolls in", " long red bridge", ""]


def test_surprisal_is_the_cross_entropy_of_the_continuation_alone(model: Model) -> None:
    nats, lengths = measure_surprisal(model, PROMPTS, TEXTS)
    for prompt, text, total, length in zip(PROMPTS, TEXTS, nats, lengths, strict=True):
        ids = model.tokens(prompt + text).ids
        logits = model.hf(ids).logits[0, len(prompt) : -1].detach()
        expected = cross_entropy(logits, ids[0, len(prompt) + 1 :], reduction="sum") if text else torch.zeros(())
        assert length == len(text)
        assert float(total) == pytest.approx(float(expected), abs=1e-3)


def test_surprisal_does_not_depend_on_the_batch(model: Model) -> None:
    together, alone = measure_surprisal(model, PROMPTS, TEXTS), measure_surprisal(model, PROMPTS, TEXTS, batch_size=1)
    assert torch.allclose(together[0], alone[0], atol=1e-3)
    assert torch.equal(together[1], alone[1])


def test_under_a_model_that_knows_nothing_perplexity_is_the_size_of_the_vocabulary(model: Model) -> None:
    hf = type(model.hf)(model.hf.config)
    with torch.no_grad():
        hf.lm_head.weight.zero_()
    nats, lengths = measure_surprisal(load(hf, model.tokenizer), PROMPTS[:2], TEXTS[:2])
    assert math.exp(float(nats.sum() / lengths.sum())) == pytest.approx(257, rel=1e-4)


def test_each_prompt_needs_its_continuation(model: Model) -> None:
    with pytest.raises(ValueError, match="1 continuations were given with 3 prompts: give one for each"):
        measure_surprisal(model, PROMPTS, TEXTS[:1])


def test_a_text_that_says_each_pair_of_words_once_is_fully_distinct() -> None:
    assert measure_distinctness("the fog rolls over the bay") == 1.0


def test_a_word_repeated_n_times_has_one_distinct_pair_in_n_less_one() -> None:
    assert measure_distinctness("fog " * 11) == pytest.approx(1 / 10)


def test_a_text_too_short_to_repeat_a_pair_does_not() -> None:
    assert measure_distinctness("fog") == 1.0
