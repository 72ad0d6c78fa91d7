"""The dose-response on a model where the direction's effect is known: it writes one letter, and costs fluency."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from hooks import Direction, Model
from hooks.errors import InvalidArgument, NoFluentDose
from hooks.site import resid_post
from interp.steering import (
    DoseResponse,
    Samples,
    Sampling,
    Steering,
    add_direction,
    measure_dose_response,
    sample,
    suggest_dose,
)

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
    return measure_dose_response(
        model, add_direction(planted), PROMPTS, says_z, doses=(0.0, 200.0), sampling=hot, progress=False
    )


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
    condition = sample(model, PROMPTS, says_z, [add_direction(planted)], 200.0, SAMPLING)
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


def condition(dose: float, named: int, nats: float) -> Samples:
    n = 10
    return Samples(
        dose=dose,
        prompts=("fog",) * n,
        texts=("",) * n,
        named=torch.arange(n) < named,
        surprisal=torch.full((n,), nats * 5),
        lengths=torch.full((n,), 5),
        distinct=torch.ones(n),
    )


def drawn(prompts: int, per_prompt: int, seed: int = 0) -> Samples:
    """Continuations of which those of a prompt are copies of one another."""
    g = torch.Generator().manual_seed(seed)
    nats, named = torch.rand(prompts, generator=g) * 20 + 5, torch.rand(prompts, generator=g) < 0.5
    of = torch.arange(prompts).repeat_interleave(per_prompt)
    lengths, distinct = torch.randint(3, 9, (prompts,), generator=g), torch.rand(prompts, generator=g)
    pieces_of = tuple(f"prompt {i}" for i in of.tolist())
    return Samples(1.0, pieces_of, pieces_of, named[of], nats[of], lengths[of], distinct[of])


def test_copies_of_a_continuation_make_no_interval_narrower() -> None:
    one, four = drawn(12, 1), drawn(12, 4)
    for a, b in (
        (one.naming, four.naming),
        (one.perplexity, four.perplexity),
        (one.distinctness, four.distinctness),
        (one.perplexity_over(drawn(12, 1, 1)), four.perplexity_over(drawn(12, 4, 1))),
    ):
        assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high)) and a.n == b.n == 12
        assert a.low < a.value < a.high


def test_intervals_hold_the_truth_where_the_continuations_of_a_prompt_are_alike() -> None:
    g, held = torch.Generator().manual_seed(0), 0
    for _ in range(300):
        rates = (torch.rand(20, generator=g) < 0.3).double() * 0.8 + 0.1  # the mean rate is 0.34
        named = (torch.rand(20, 10, generator=g) < rates[:, None]).flatten()
        prompts = tuple(str(i // 10) for i in range(200))
        said = Samples(1.0, prompts, prompts, named, torch.ones(200), torch.ones(200).long(), torch.ones(200))
        held += said.naming.low <= 0.34 <= said.naming.high
    assert held >= 0.95 * 300


def test_the_continuations_of_a_single_prompt_are_its_cases() -> None:
    one = condition(1.0, 5, 2.0)
    assert (one.naming.n, one.naming.value, one.perplexity.n) == (10, 0.5, 10)


def test_empty_continuations_have_no_part_in_the_draws_of_a_perplexity() -> None:
    some = drawn(6, 1)
    empty = torch.arange(6) > 1
    said = replace(some, lengths=some.lengths.where(~empty, 0), surprisal=some.surprisal.where(~empty, 0.0))
    found = said.perplexity
    assert 0 < found.low <= found.value <= found.high < float("inf") and found.n == 2
    assert found.value == pytest.approx(float((some.surprisal[:2].sum() / some.lengths[:2].sum()).exp()))


def test_greedily_each_prompt_is_continued_once_and_a_way_without_a_prompt_is_left_out(
    model: Model, planted: Direction
) -> None:
    greedy = replace(SAMPLING, temperature=0.0)
    assert sample(model, PROMPTS, says_z, sampling=greedy).prompts == tuple(PROMPTS)
    ways = [add_direction(planted).control(seed) for seed in range(3)]
    said = sample(model, PROMPTS[:2], says_z, ways, 1.0, greedy)
    assert said.prompts == tuple(PROMPTS[:2])
    for i in range(2):
        assert said.texts[i] == sample(model, [PROMPTS[i]], says_z, [ways[i]], 1.0, greedy).texts[0]


@pytest.mark.parametrize("wrong", [{"per_prompt": 0}, {"batch_size": 0}, {"max_new_tokens": 0}])
def test_a_sampling_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="were given: each must be at least 1"):
        Sampling(**wrong)


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
        measure_dose_response(model, add_direction(planted), PROMPTS, says_z, doses=())
    with pytest.raises(ValueError, match="give a list of at least one prompt"):
        measure_dose_response(model, add_direction(planted), [], says_z, doses=(1.0,), progress=False)


def never(text: str) -> bool:  # noqa: ARG001
    return False


@pytest.fixture
def message(model: Model, monkeypatch: pytest.MonkeyPatch) -> Steering:
    """A steering of perplexity ratio e^0.1, e^0.5, e^2, e^0.2 at doses 1, 2, 4, 8; at 3 the text repeats itself."""
    nats = {0.0: 1.0, 1.0: 1.1, 2.0: 1.5, 3.0: 1.2, 4.0: 3.0, 8.0: 1.2}

    def said(
        _m: Model, _p: object, _n: object, _w: object = (), dose: float = 0.0, *_: object, **__: object
    ) -> Samples:
        made = condition(abs(dose), 0, nats[abs(dose)])
        return replace(made, distinct=torch.full((10,), 0.1 if dose == 3.0 else 0.9))

    monkeypatch.setattr("interp.steering.dose_choice.sample", said)
    return add_direction(Direction(torch.ones(model.d_model), resid_post[0], "ones", scale=1.0))


@pytest.mark.parametrize(
    ("doses", "most", "expected"),
    [
        ((8.0, 4.0, 2.0, 1.0), 2.0, 2.0),
        ((1.0, 2.0, 4.0), 1.5, 1.0),
        ((1.0, 2.0), 9.0, 2.0),
        ((1.0, 2.0, 3.0, 8.0), 2.0, 2.0),
        ((-2.0, -1.0, -4.0), 2.0, -2.0),
    ],
)
def test_the_suggested_dose_is_the_last_before_the_first_that_is_not_fluent(
    model: Model, message: Steering, doses: tuple[float, ...], most: float, expected: float
) -> None:
    assert suggest_dose(model, message, PROMPTS, doses=doses, most=most).dose == expected


def test_a_dose_that_breaks_the_text_is_refused_with_what_it_costs(model: Model, message: Steering) -> None:
    with pytest.raises(NoFluentDose, match=r"dose 4 is too large: against unsteered text it has 7.39 times its perp"):
        suggest_dose(model, message, PROMPTS, doses=(8.0, 4.0))
    with pytest.raises(NoFluentDose, match="or repeats itself"):
        suggest_dose(model, message, PROMPTS, doses=(3.0,))
    with pytest.raises(InvalidArgument, match="give at least one, none of them 0"):
        suggest_dose(model, message, PROMPTS, doses=(0.0, 1.0))


def test_by_default_a_dose_is_sought_among_half_octaves_from_an_eighth_to_4_on_twenty_short_texts(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fluent(
        _m: Model, prompts: Any, _n: object, _w: object = (), dose: float = 0.0, sampling: Any = None, **named: Any
    ) -> Samples:
        asked.append((dose, len(prompts), named.get("sampling", sampling)))
        return condition(dose, 0, 1.0)

    monkeypatch.setattr("interp.steering.dose_choice.sample", fluent)
    found = suggest_dose(model, add_direction(Direction(torch.ones(model.d_model), resid_post[0], "ones", scale=1.0)))
    doses = [dose for dose, _, _ in asked if dose]
    assert found.dose == 4.0 == doses[-1] and doses[0] == 1 / 8 and 1.0 in doses
    assert all(1.3 < b / a <= 2 for a, b in zip(doses, doses[1:], strict=False))
    for _, prompts, drawn in asked:
        assert prompts * drawn.per_prompt == 20 and drawn.max_new_tokens == 20 and drawn.temperature == 0.7


@pytest.mark.parametrize(
    ("ratio", "distinct", "fluent"), [(2.0, 0.9, True), (2.01, 0.9, False), (1.0, 0.55, True), (1.0, 0.53, False)]
)
def test_by_default_text_reads_well_up_to_twice_the_perplexity_and_from_three_fifths_of_the_variety(
    model: Model, monkeypatch: pytest.MonkeyPatch, ratio: float, distinct: float, fluent: bool
) -> None:
    def said(
        _m: Model, _p: object, _n: object, _w: object = (), dose: float = 0.0, *_: object, **__: object
    ) -> Samples:
        made = condition(dose, 0, 1.0 + (math.log(ratio) if dose == 2.0 else 0.0))
        return replace(made, distinct=torch.full((10,), distinct if dose == 2.0 else 0.9))

    monkeypatch.setattr("interp.steering.dose_choice.sample", said)
    way = add_direction(Direction(torch.ones(model.d_model), resid_post[0], "ones", scale=1.0))
    assert suggest_dose(model, way, PROMPTS, doses=(1.0, 2.0)).dose == (2.0 if fluent else 1.0)


def test_what_is_suggested_rests_on_text_sampled_with_and_without_the_steering(
    model: Model, planted: Direction
) -> None:
    way, drawn = add_direction(planted), Sampling(per_prompt=2, max_new_tokens=8, temperature=0.7)
    found = suggest_dose(model, way, PROMPTS, doses=(0.5, 4.0), most=100.0, sampling=drawn)
    plain = sample(model, PROMPTS, never, sampling=drawn)
    for dose, ratio in found.ratios:
        assert ratio == sample(model, PROMPTS, never, [way], dose, drawn).perplexity_over(plain)
    assert found.dose == 4.0 and "dose 4, measured: the text stays at" in str(found)


def test_naming_variety_and_perplexity_are_the_means_of_all_continuations_not_of_prompts() -> None:
    made = Samples(
        dose=1.0,
        prompts=("fog", "fog", "bay", "bay", "sun", "sun"),
        texts=("",) * 6,
        named=torch.tensor([True, False, True, True, False, False]),
        surprisal=torch.tensor([2.0, 4.0, 6.0, 0.0, 3.0, 9.0]),
        lengths=torch.tensor([1, 2, 3, 0, 4, 2]),
        distinct=torch.tensor([0.5, 0.9, 0.7, 0.1, 0.3, 0.8]),
    )
    assert made.naming.value == pytest.approx(3 / 6)
    assert made.distinctness.value == pytest.approx(3.3 / 6)
    assert made.perplexity.value == pytest.approx(math.exp(24 / 12))
    other = replace(made, surprisal=torch.full((6,), 2.0), lengths=torch.full((6,), 4))
    assert made.perplexity_over(other).value == pytest.approx(math.exp(24 / 12 - 12 / 24))


def test_a_ratio_of_perplexities_does_not_hang_on_how_prompts_differ() -> None:
    """Twenty prompts from easy to hard, each twice as perplexing when steered: the ratio is 2 whatever is drawn."""
    prompts, nats = tuple(map(str, range(20))), torch.linspace(5, 60, 20)
    plain = Samples(0.0, prompts, ("",) * 20, torch.zeros(20) > 0, nats, torch.full((20,), 10), torch.ones(20))
    ratio = replace(plain, surprisal=nats + 10 * math.log(2)).perplexity_over(plain)
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == pytest.approx((2.0, 2.0, 2.0, 20))
    others = replace(plain, prompts=tuple(f"other {p}" for p in prompts))
    assert plain.perplexity_over(others).low < 0.7


def test_naming_beyond_a_control_is_compared_prompt_by_prompt() -> None:
    """Ten of 20 prompts and four of these ten: intervals of each alone overlap."""
    prompts = tuple(f"prompt {i // 2}" for i in range(40))
    at = torch.arange(40) // 2
    blank = Samples(1.0, prompts, ("",) * 40, at < 10, torch.ones(40), torch.ones(40).int(), torch.ones(40))
    inside, other = replace(blank, named=at < 4), replace(blank, named=(at >= 6) & (at < 16))
    found = blank.naming_beyond(inside)
    assert (found.value, found.n) == (pytest.approx(0.3), 20) and blank.naming.low < inside.naming.high
    assert found.low > 0 and not blank.naming_beyond(other).low > 0
    assert other.naming.value == blank.naming.value and blank.naming_beyond(other).value == 0.0
    with pytest.raises(InvalidArgument, match="not of the same prompts"):
        blank.naming_beyond(replace(blank, prompts=prompts[::-1]))


def test_a_response_shows_itself_in_a_line_and_as_a_table(response: DoseResponse) -> None:
    assert repr(response) == "DoseResponse('the letter z' at doses 0, 200)"
    table = response.to_pandas()
    assert table["way"].tolist() == ["unsteered", "steered", "steered", "random direction", "random direction"]
    assert table["named"].tolist()[:3] == [0.0, 0.0, 1.0] and table["dose"].tolist()[2] == 200.0
    assert repr(response.steered[1]) == "Samples(dose 200: 12 continuations of 4 prompts, 12 name it)"
