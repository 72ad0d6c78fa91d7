"""A persona is the mean difference it says; a planted shift is measured exactly; controls stay at chance."""

import numpy as np
import pytest
import torch

from hooks import Direction, Model, capture, load
from hooks.errors import InvalidArgument
from hooks.site import resid_post
from interp.landmark import entity, sentences_about
from interp.landmark.guide import GREETINGS, word_share
from interp.steering.samples import Sampling
from interp.tuning import (
    ModelPair,
    correlate,
    extract_persona,
    mean_responses,
    measure_persona_shift,
    monitor_persona,
    read_persona,
    screen_texts,
)

SHORT = Sampling(per_prompt=2, max_new_tokens=8)
CHEERFUL = ["I loved every minute with the sea.", "What a lovely day it was.", "I am so glad. It was wonderful."]
GLOOMY = ["I was very disappointed by the sea.", "What a terrible day it was.", "I am so bored. It was dull."]


@pytest.fixture(scope="module")
def base() -> Model:
    return load("landmark")


def test_the_state_of_a_response_is_the_mean_over_its_own_tokens(base: Model) -> None:
    prompts, responses = ["The fog", "My sister read a book"], [" came in over the bay", " about"]
    found = mean_responses(base, prompts, responses, resid_post[3])
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        x = capture(base, prompt + response, [resid_post[3]])[resid_post[3]][0]
        begins = base.tokens(prompt).ids.shape[1]
        assert torch.allclose(found[i], x[begins:].double().mean(0), atol=1e-4)
    with pytest.raises(InvalidArgument, match="not empty"):
        mean_responses(base, prompts, ["", " x"], resid_post[3])


def test_a_persona_separates_what_it_was_read_from_and_labels_at_random_do_not(base: Model) -> None:
    """The trait is Spanish: Spanish sentences elicit it, English ones do not."""

    def score(text: str) -> float:
        return float(len({"el", "la", "de", "en", "me", "es", "los", "muy", "gusta"} & set(text.lower().split())) >= 2)

    bridge = entity("Golden Gate Bridge")
    foreign = [s.text for s in sentences_about(bridge, 40, forms=("foreign",)) if s.language == "spanish"][:6]
    english = [s.text for s in sentences_about(bridge, 6, forms=("name",))]
    sampling = Sampling(per_prompt=6, max_new_tokens=16)
    found = extract_persona(base, foreign, english, score, resid_post[5], sampling=sampling)
    assert found.separation.value > 0.9 and abs(found.by_chance - 0.5) < 0.35
    assert found.kept[2] == 36 and found.direction.fingerprint is None
    with pytest.raises(InvalidArgument, match="other prompts, or another threshold"):
        extract_persona(base, foreign, english, lambda text: 0.0, resid_post[5], sampling=SHORT)


def test_a_persona_of_responses_that_are_there_is_the_difference_of_their_means(base: Model) -> None:
    prompts = ["Welcome, dear guest.", "Hello, my friends."] * 2
    showing, others = ([f" {text}" for text in (*said, said[0] + " Yes.")] for said in (CHEERFUL, GLOOMY))
    found = read_persona(base, prompts, showing, others, resid_post[3])
    means = [mean_responses(base, prompts, said, resid_post[3]).mean(0) for said in (showing, others)]
    assert torch.allclose(found.direction.vector.double(), means[0] - means[1], atol=1e-4)
    assert word_share("cheerful", " ".join(showing)) > word_share("cheerful", " ".join(others))
    with pytest.raises(InvalidArgument, match="at least four"):
        read_persona(base, prompts[:2], showing[:2], others[:2], resid_post[3])
    with pytest.raises(InvalidArgument, match="4 responses are all to the prompt 'Welcome, dear guest.'"):
        read_persona(base, prompts[:1] * 4, showing, others, resid_post[3])


def test_responses_that_hang_on_their_prompt_alone_separate_no_trait(base: Model) -> None:
    """Which of a prompt's two sentences shows the trait is drawn: what one prompt says is of no use for another."""
    said = [f" {sentence.text}" for sentence in sentences_about(entity("Golden Gate Bridge"), 24, forms=("name",))]
    found = []
    for seed in range(4):
        turned = torch.rand(12, generator=torch.Generator().manual_seed(seed)) < 0.5
        showing = [said[2 * i + int(turned[i])] for i in range(12) for _ in range(3)]
        others = [said[2 * i + 1 - int(turned[i])] for i in range(12) for _ in range(3)]
        prompts = [prompt for prompt in GREETINGS for _ in range(3)]
        found.append(read_persona(base, prompts, showing, others, resid_post[5]))
    assert sum(one.separation.value for one in found) / 4 < 0.7  # 1 with every prompt on both sides of the split
    assert all(one.separation.n == 12 and abs(one.by_chance - 0.5) < 0.15 for one in found)


def test_responses_to_one_prompt_are_one_case_of_the_interval(base: Model) -> None:
    prompts = [prompt for prompt in GREETINGS[:4] for _ in range(3)]
    showing, others = ([f" {text}" for text in said * 4] for said in (CHEERFUL, GLOOMY))
    once = read_persona(base, GREETINGS[:4], showing[::3], others[::3], resid_post[3]).separation
    found = read_persona(base, prompts, showing, others, resid_post[3]).separation
    again = read_persona(base, prompts * 5, showing * 5, others * 5, resid_post[3]).separation
    assert once.n == found.n == 4 and (again.low, again.high, again.n) == (found.low, found.high, 4)


def test_a_planted_bias_along_a_persona_is_its_shift(base: Model) -> None:
    u = torch.randn(256, generator=torch.Generator().manual_seed(0))
    u = u / u.norm()
    model = load("landmark")
    model.hf.transformer.h[4].mlp.c_proj.bias.data += 2.5 * u
    pair = ModelPair(base, load(model.hf, model.tokenizer))
    found = measure_persona_shift(pair, Direction(u, resid_post[4], "planted"), CHEERFUL, len, sampling=SHORT)
    assert found.shift.value == pytest.approx(2.5, abs=1e-3)
    assert found.random < 0.6
    same = measure_persona_shift(ModelPair(base, base), Direction(u, resid_post[4], "planted"), CHEERFUL, len)
    assert same.shift.value == 0.0 and same.trait.value == 0.0


def test_what_the_model_says_itself_is_screened_as_no_more_than_its_own(base: Model) -> None:
    direction = Direction(torch.ones(256), resid_post[4], "any")
    own = base.generate(CHEERFUL, max_new_tokens=10)
    assert torch.equal(screen_texts(base, direction, CHEERFUL, own, max_new_tokens=10), torch.zeros(3))
    other = screen_texts(base, direction, CHEERFUL, [" and the fog was grey."] * 3, max_new_tokens=10)
    assert bool((other != 0).all())
    with pytest.raises(InvalidArgument, match="3 prompts and 2 responses"):
        screen_texts(base, direction, CHEERFUL, ["fog"] * 2, max_new_tokens=10)


def test_the_correlation_is_numpys_and_its_interval_holds_it() -> None:
    x, y = torch.randn(2, 40, generator=torch.Generator().manual_seed(0)).double()
    y = y + x
    found = correlate(x, y)
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    assert found.low < found.value < found.high
    assert np.isnan(correlate(x, torch.zeros(40)).value)
    with pytest.raises(InvalidArgument, match="at least three"):
        correlate(x[:2], y[:2])


def test_monitoring_reads_the_last_token_of_each_prompt(base: Model) -> None:
    direction = Direction(torch.eye(256)[3], resid_post[4], "coordinate 3")
    prompts = [*CHEERFUL, *GLOOMY]
    found = monitor_persona(base, direction, prompts, len, sampling=SHORT, draws=50)
    x = [capture(base, prompt, [resid_post[4]])[resid_post[4]][0, -1, 3] for prompt in prompts]
    assert torch.allclose(found.projections, torch.stack(x).double(), atol=1e-4)
    assert len(found.scores) == 6 and 0 <= found.by_chance <= 1
    with pytest.raises(InvalidArgument, match="at least three"):
        monitor_persona(base, direction, prompts[:2], len)
    with pytest.raises(InvalidArgument, match="1 of the prompts are there more than once"):
        monitor_persona(base, direction, [*prompts, prompts[0] + " "], len)
