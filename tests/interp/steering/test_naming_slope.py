"""The slope of naming in the bundled model, against a chance of naming written out over the whole vocabulary."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hooks import Direction, Model, load
from hooks.site import resid_post
from interp.steering import Effect, Sampling, estimate_naming_slope, measure_effects

PROMPTS = ["She speaks", "In the evening he reads"]
TEMPERATURE, DOSE = 0.7, 3.0


def says_about(text: str) -> bool:
    return "about" in text


@pytest.fixture(scope="module")
def model() -> Model:
    return load("landmark")


def drawn(model: Model, per_prompt: int, names: Callable[[str], bool] = says_about) -> Effect:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(5))
    direction = Direction(vector / vector.norm(), resid_post[0], "planted", 1.0, model.fingerprint)
    one_token = Sampling(per_prompt=per_prompt, max_new_tokens=1, temperature=TEMPERATURE, batch_size=300)
    return measure_effects(model, [(direction, DOSE)], PROMPTS, names, sampling=one_token)[0]


def chance_of_naming(model: Model, v: Tensor) -> Tensor:
    """The share of the next token's probability on tokens that say it, v added by a plain hook to every token."""
    tokens = range(model.hf.config.vocab_size)
    said = torch.tensor([float(says_about(model.tokenizer.decode([t]))) for t in tokens])

    def add(_module: object, _inputs: object, output: object) -> object:
        return (output[0] + v, *output[1:]) if isinstance(output, tuple) else output + v

    handle = model.hf.transformer.h[0].register_forward_hook(add)
    try:
        ids = [model.tokens(prompt).ids for prompt in PROMPTS]
        chances = [(model.hf(one).logits[0, -1] / TEMPERATURE).softmax(-1) for one in ids]
    finally:
        handle.remove()
    return torch.stack(chances).mean(0) @ said


def test_the_slope_is_the_gradient_of_the_chance_to_name_it(model: Model) -> None:
    effect = drawn(model, 600)
    v = (DOSE * effect.direction.vector).requires_grad_()
    (exact,) = torch.autograd.grad(chance_of_naming(model, v), v)
    slope = estimate_naming_slope(model, effect, temperature=TEMPERATURE)
    assert float(slope @ exact / exact.dot(exact)) == pytest.approx(1.0, abs=0.2)
    assert torch.cosine_similarity(slope, exact, dim=0) > 0.9


def test_the_batch_the_continuations_are_read_in_does_not_matter(model: Model) -> None:
    effect = drawn(model, 20)
    whole = estimate_naming_slope(model, effect, temperature=TEMPERATURE)
    torch.testing.assert_close(estimate_naming_slope(model, effect, temperature=TEMPERATURE, batch_size=7), whole)


def test_it_is_flat_where_every_continuation_names_it_or_none_does(model: Model) -> None:
    for names in (lambda _: True, lambda _: False):
        assert not estimate_naming_slope(model, drawn(model, 2, names), temperature=TEMPERATURE).any()


def test_a_temperature_that_nothing_is_drawn_at_and_another_model_are_refused(model: Model) -> None:
    effect = drawn(model, 1)
    with pytest.raises(ValueError, match="temperature=0: give the one, above 0, that the continuations were drawn at"):
        estimate_naming_slope(model, effect, temperature=0)
    foreign = replace(effect, direction=replace(effect.direction, fingerprint="another"))
    with pytest.raises(ValueError, match="another model"):
        estimate_naming_slope(model, foreign, temperature=1.0)
