"""What is chosen and when trying ends, on continuations that are planted; few texts are drawn here."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from hooks import Direction, Model, capture
from hooks.errors import NoFluentDose
from hooks.site import resid_post
from interp.common.statistics import Estimate
from interp.sae import TopK
from interp.steering import (
    DoseResponse,
    Effect,
    Samples,
    Sampling,
    add_direction,
    choose_by_effect,
    choose_dose,
    clamp_latent,
    compare_methods,
    estimate_naming_slope,
    measure_effects,
    measure_normal_range,
    sample,
    suggest_dose,
)
from interp.steering.dose_choice import OPENINGS
from interp.steering.fluency import measure_distinctness, measure_surprisal
from interp.steering.scorers import score_by_judge, score_by_projection

SITE = resid_post[1]
PROMPTS = ["fog", "the bay", "a red", "I saw", "so it is"]


def made(dose: float, named: float = 0.0, nats: float = 1.0, distinct: float = 1.0, n: int = 20) -> Samples:
    """Continuations of a prompt each: which share names it, nats per token, distinct-2."""
    prompts = tuple(f"prompt {i}" for i in range(n))
    return Samples(
        dose, prompts, prompts, torch.arange(n) < named * n, torch.full((n,), 4 * nats), torch.full((n,), 4),
        torch.full((n,), distinct),
    )  # fmt: skip


def direction_of(model: Model, seed: int = 7, scale: float = 3.0) -> Direction:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))
    return Direction(vector, SITE, f"by hand {seed}", scale, model.fingerprint)


def module(name: str) -> Any:
    return sys.modules[f"interp.steering.{name}"]


@pytest.mark.parametrize(
    ("texts", "dose", "tried"),
    [
        ({0.5: (1.5, 1.0), 1.0: (1.9, 1.0), 2.0: (2.1, 1.0), 4.0: (1.0, 1.0)}, 1.0, 3),  # stops at the first over 2
        ({0.5: (1.5, 1.0), 1.0: (1.9, 0.61), 2.0: (1.9, 0.59), 4.0: (1.0, 1.0)}, 1.0, 3),  # repeats itself
        ({0.5: (2.0, 0.6), 1.0: (2.5, 1.0), 2.0: (1.0, 1.0), 4.0: (1.0, 1.0)}, 0.5, 2),  # the bounds themselves
        ({0.5: (1.0, 1.0), 1.0: (1.0, 1.0), 2.0: (1.0, 1.0), 4.0: (1.0, 1.0)}, 4.0, 4),
        ({0.5: (1.0, 1.0), 1.0: None, 2.0: (1.0, 1.0), 4.0: (1.0, 1.0)}, 0.5, 1),  # all empty
    ],
)
def test_the_dose_suggested_is_the_last_before_the_first_that_does_not_read_well(
    model: Model, monkeypatch: pytest.MonkeyPatch, texts: dict[float, Any], dose: float, tried: int
) -> None:
    seen: list[Any] = []

    def planted(
        _m: Model,
        prompts: Sequence[str],
        _n: object,
        ways: Sequence[Any] = (),
        dose: float = 0.0,
        sampling: Any = None,
        **_: Any,
    ) -> Samples:
        seen.append((tuple(prompts), len(ways), dose, sampling))
        if not ways:
            return made(0.0)
        if texts[dose] is None:
            raise NoFluentDose("empty")
        ratio, distinct = texts[dose]
        return made(dose, nats=1.0 if ratio == 1.0 else 1 + math.log(ratio), distinct=distinct)

    monkeypatch.setattr(module("dose_choice"), "sample", planted)
    most = (
        2.0 if dose != 0.5 or tried != 2 else float(made(1.0, nats=1 + math.log(2.0)).perplexity_over(made(0.0)).value)
    )
    found = suggest_dose(model, add_direction(direction_of(model)), doses=(4.0, 0.5, 2.0, 1.0), most=most)
    assert found.dose == dose and len(found.ratios) == tried and found.most == most
    assert [one for one, _ in found.ratios] == [0.5, 1.0, 2.0, 4.0][:tried]
    assert found.ratio.value == dict(found.ratios)[dose].value
    assert seen[0] == (OPENINGS, 0, 0.0, Sampling(per_prompt=4, max_new_tokens=20, temperature=0.7))
    assert all(one[0] == OPENINGS and one[1] == 1 and one[3] == seen[0][3] for one in seen[1:])
    assert f"dose {dose:g}, measured: the text stays at" in str(found) and len(found.to_pandas()) == tried


def test_doses_are_suggested_from_the_smallest_amount_up_whatever_their_sign(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("dose_choice"), "sample", lambda *given, **_: made(given[4] if len(given) > 4 else 0.0))
    found = suggest_dose(model, add_direction(direction_of(model)), doses=(-2.0, 1.0, -0.5))
    assert [dose for dose, _ in found.ratios] == [-0.5, 1.0, -2.0] and found.dose == -2.0
    monkeypatch.setattr(
        module("dose_choice"), "sample", lambda *given, **_: made(0.0, nats=3.0 if len(given) > 4 else 1.0)
    )
    with pytest.raises(NoFluentDose, match=r"dose -0.5 is too large: against unsteered text it has 7.39 times"):
        suggest_dose(model, add_direction(direction_of(model)), doses=(-2.0, 1.0, -0.5))


def test_the_best_condition_is_fluent_names_most_and_of_equals_is_the_most_fluent() -> None:
    plain = made(0.0)
    at_three = 1 + math.log(3.0)
    some = (made(1.0, 0.4, 1.1), made(2.0, 0.8, 1.9), made(3.0, 0.8, 1.5), made(4.0, 1.0, at_three + 0.01))
    response = DoseResponse("x", "y", plain, some, some)
    assert response.best_dose == 3.0 and [one.dose for one in response.fluent()] == [1.0, 2.0, 3.0]
    assert response.best(most=4.0).dose == 4.0
    just = DoseResponse("x", "y", plain, (made(5.0, 1.0, at_three - 0.01),), some)
    assert just.best_dose == 5.0
    with pytest.raises(NoFluentDose, match="the lowest is 1.11, at dose 1; try other doses"):
        response.best(most=1.05)


def test_a_dose_is_chosen_on_every_second_prompt_and_reported_on_the_others(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = module("dose_choice")
    calls: list[Any] = []

    def response(_m: Model, _s: object, prompts: Sequence[str], _n: object, **how: Any) -> DoseResponse:
        calls.append((list(prompts), how))
        return DoseResponse("x", "y", made(0.0), tuple(made(d, d / 10) for d in how["doses"]), ())

    sampled: list[Any] = []

    def planted(
        _m: Model, prompts: Sequence[str], _n: object, ways: Any = (), dose: float = 0.0, sampling: Any = None, **_: Any
    ) -> Samples:
        sampled.append((list(prompts), [one.source for one in ways], dose))
        return made(dose)

    monkeypatch.setattr(chosen, "measure_dose_response", response)
    monkeypatch.setattr(chosen, "sample", planted)
    way = add_direction(direction_of(model))
    found = choose_dose(model, way, [*PROMPTS, "fog"], lambda _: False, doses=(1.0, 4.0, 2.0), progress=False)
    assert found.dose == 4.0 and calls[0][0] == ["fog", "a red", "so it is"]
    assert calls[0][1]["controls"] == (0, 1, 2) and calls[0][1]["doses"] == (1.0, 4.0, 2.0)
    rest = ["the bay", "I saw"]
    assert sampled == [
        (rest, [], 0.0),
        (rest, [way.source], 4.0),
        (rest, [way.control(seed).source for seed in (0, 1, 2)], 4.0),
    ]


def test_methods_are_compared_on_the_prompts_no_dose_was_chosen_on(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = module("comparison")
    sampled, asked = [], []

    def choose(_m: Model, way: Any, prompts: Sequence[str], _n: object, *, doses: Any, **_: Any) -> Any:
        asked.append((way.source, list(prompts), doses))
        if doses == (9.0,):
            raise NoFluentDose("none")
        response = DoseResponse("x", "y", made(0.0), (), ())
        return module("dose_choice").ChosenDose(doses[0], response, made(0.0), made(2.0, 0.8, 1.2), made(2.0, 0.1, 1.1))

    def planted(
        _m: Model, prompts: Sequence[str], _n: object, sampling: Any = None, preamble: str = "", **_: Any
    ) -> Samples:  # noqa: ARG001
        sampled.append((list(prompts), preamble))
        return made(0.0, 0.6 if preamble else 0.05, 1.3 if preamble else 1.0)

    monkeypatch.setattr(compared, "choose_dose", choose)
    monkeypatch.setattr(compared, "sample", planted)
    ways = {"one": add_direction(direction_of(model, 1)), "two": add_direction(direction_of(model, 2))}
    found = compare_methods(
        model, ways, PROMPTS, lambda _: False, "Talk. ", doses={"one": (2.0, 4.0), "two": (9.0,)}, progress=False
    )
    assert sampled == [(["the bay", "I saw"], ""), (["the bay", "I saw"], "Talk. ")]
    assert [one[1:] for one in asked] == [(PROMPTS, (2.0, 4.0)), (PROMPTS, (9.0,))]
    rows = found.rows()
    assert [row[:2] for row in rows] == [
        ("one", 2.0), ("one: random direction", 2.0), ("prompt", None), ("unsteered", None)
    ]  # fmt: skip
    assert [row[2].value for row in rows] == pytest.approx([0.8, 0.1, 0.6, 0.05])
    assert [row[3].value for row in rows] == pytest.approx([math.exp(0.2), math.exp(0.1), math.exp(0.3), 1.0], rel=1e-6)
    assert found.to_pandas()["perplexity ratio"].tolist() == pytest.approx([row[3].value for row in rows])
    assert "two: no fluent dose" in str(found)


@pytest.fixture
def wide(model: Model) -> TopK:
    sae = TopK(model.d_model, 30, k=2, seed=2)
    with torch.no_grad():
        sae.max_activation.copy_(torch.arange(30) + 1.0)
    sae.site, sae.fingerprint = SITE, model.fingerprint
    return sae


def test_the_best_sixteen_doses_go_on_then_four_each_time_drawn_again_and_none_over_twice_the_perplexity(
    model: Model, wide: TopK, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[Any] = []

    def planted(
        _m: Model,
        doses: Sequence[tuple[Direction, float]],
        prompts: object,
        _n: object,
        *,
        sampling: Sampling,
        progress: bool,
    ) -> list[Effect]:  # noqa: ARG001
        rounds.append(([(int(v.source.split()[-1]), v.scale, dose) for v, dose in doses], sampling))
        found = []
        for v, dose in doses:
            latent = int(v.source.split()[-1])
            ratio = 2.0001 if latent == 29 else 2.0 if latent == 28 else 1.0
            found.append(Effect(v, made(dose, latent / 100, n=100), Estimate(ratio, ratio, ratio, 20)))
        return found

    monkeypatch.setattr(module("effect_search"), "measure_effects", planted)
    sampling = Sampling(per_prompt=6, max_new_tokens=8, temperature=0.5, seed=11)
    best = choose_by_effect(
        model, wide, [*range(30), 3], PROMPTS, lambda _: False, doses=(1.0,), most=1, sampling=sampling, progress=False
    )
    assert best.direction.source.endswith(" 28")
    assert best.direction.scale == max(wide.direction(i).scale for i in range(30))
    assert [len(one[0]) for one in rounds] == [30, 16, 4] and all(
        one[0][0][1] == best.direction.scale for one in rounds
    )
    assert [latent for latent, *_ in rounds[1][0]] == list(range(28, 12, -1))
    assert [latent for latent, *_ in rounds[2][0]] == [28, 27, 26, 25]
    assert [(one[1].per_prompt, one[1].seed, one[1].temperature) for one in rounds] == [
        (1, 11, 0.5), (4, 12, 0.5), (6, 13, 0.5)
    ]  # fmt: skip


@pytest.mark.parametrize(("gain", "most", "joined"), [(0.1, 3, 3), (0.1, 2, 2), (0.0, 3, 1), (0.1, 1, 1)])
def test_a_direction_grows_as_long_as_naming_does_up_to_its_number_of_latents(
    model: Model, wide: TopK, monkeypatch: pytest.MonkeyPatch, gain: float, most: int, joined: int
) -> None:
    tried: list[Any] = []

    def planted(_m: Model, doses: Sequence[tuple[Direction, float]], *_: object, **__: object) -> list[Effect]:
        tried.append(doses)
        one = Estimate(1.0, 1.0, 1.0, 20)
        return [
            Effect(v, made(dose, 0.3 + gain * v.source.count("*") + (dose == 0.6) * 0.05), one) for v, dose in doses
        ]

    monkeypatch.setattr(module("effect_search"), "measure_effects", planted)
    slope = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(module("effect_search"), "estimate_naming_slope", lambda *_, **__: slope)
    best = choose_by_effect(
        model, wide, [0, 1, 2, 3], PROMPTS, lambda _: False, doses=(0.6, 1.0), most=most,
        sampling=Sampling(per_prompt=2, temperature=1.0), progress=False,
    )  # fmt: skip
    assert best.direction.source.count("latent") == joined
    if joined > 1:
        grown = [doses for doses in tried if "*" in doses[0][0].source][0]
        assert len(grown) == 2 * 8 * 2 * 3  # of two, eight rows, two weights and three doses each
        assert sorted({round(dose, 4) for _, dose in grown}) == [0.48, 0.6, 0.75]
        assert all(float(v.vector.norm()) == pytest.approx(1.0, rel=1e-5) for v, _ in grown)


def test_the_slope_of_naming_is_the_score_weighted_by_what_is_named(model: Model) -> None:
    direction = direction_of(model, scale=2.0)
    sampling = Sampling(per_prompt=3, max_new_tokens=4, temperature=1.3)
    (effect,) = measure_effects(
        model, [(direction, 0.7)], PROMPTS[:3], lambda text: len(set(text)) % 2 == 0, sampling=sampling
    )
    said = effect.samples
    v = (0.7 * 2.0 * direction.unit).clone().requires_grad_()
    total = torch.zeros(())
    for prompt, text, named in zip(said.prompts, said.texts, said.named.tolist(), strict=True):
        tokens = model.tokens(prompt + text)
        ids, n = tokens.ids[0], len(prompt) + 1

        def add(_m: object, _i: object, out: Any, v: torch.Tensor = v) -> Any:
            first = out[0] if isinstance(out, tuple) else out
            moved = torch.cat([first[:, :1], first[:, 1:] + v], 1)
            return (moved, *out[1:]) if isinstance(out, tuple) else moved

        hook = model.hf.transformer.h[1].register_forward_hook(add)
        log_p = (model.hf(tokens.ids).logits[0, :-1] / 1.3).log_softmax(-1)
        hook.remove()
        past = (tokens.offsets[0, :, 1] > len(prompt)) & tokens.content[0]
        each = log_p.gather(1, ids[1:, None])[:, 0]
        total = total + (float(named) - float(said.named.float().mean())) / len(said.texts) * each[past[1:]].sum()
        assert n > 1
    (expected,) = torch.autograd.grad(total, v)
    assert 0 < int(said.named.sum()) < len(said.named)
    for size in (64, 4):
        found = estimate_naming_slope(model, effect, temperature=1.3, batch_size=size)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_shared_batches_are_drawn_each_with_a_seed_of_its_own_and_a_dose_of_empty_texts_is_left_out(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = module("effects")
    asked: list[Any] = []

    def drawn(_m: Model, prompts: Sequence[str], sampling: Sampling, **_: bool) -> list[str]:
        model.run("a")  # so that the block has something to change
        asked.append((list(prompts), sampling.seed))
        return ["" if len(asked) in (3, 4) else " so"] * len(prompts)

    monkeypatch.setattr(effects, "sample_continuations", drawn)
    monkeypatch.setattr(effects, "sample", lambda *_, **__: made(0.0))
    sampling = Sampling(per_prompt=2, max_new_tokens=3, seed=5, batch_size=3)
    found = measure_effects(
        model,
        [(direction_of(model, i), 1.0 + i) for i in range(3)],
        PROMPTS[:3],
        lambda t: "so" in t,
        sampling=sampling,
    )
    whole = [p for p in PROMPTS[:3] for _ in range(2)] * 3
    assert asked == [(whole[i : i + 3], 5 + i) for i in range(0, 18, 3)]
    assert [effect.dose for effect in found] == [1.0, 3.0]
    assert found[0].samples.prompts == tuple(whole[:6]) and found[1].samples.naming.value == 1.0


def test_surprisal_is_of_the_tokens_past_the_prompt_in_batches_of_any_size(model: Model) -> None:
    prompts, texts = ["fog", "the bay", "a"], [" over", "", " red sea"]
    nats, lengths = measure_surprisal(model, prompts, texts)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        ids = model.tokens(prompt + text).ids[0]
        log_p = model.run(prompt + text)[0, :-1].detach().log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        assert float(nats[row]) == pytest.approx(-float(log_p[len(prompt) :].sum()), rel=1e-4, abs=1e-6)
        assert int(lengths[row]) == len(text)
    for size in (1, 2):
        other, counts = measure_surprisal(model, prompts, texts, batch_size=size)
        assert torch.allclose(other, nats, rtol=1e-4, atol=1e-5) and torch.equal(counts, lengths)
    assert measure_distinctness("a b a b A B c") == pytest.approx(3 / 6) and measure_distinctness("a") == 1.0
    assert measure_distinctness("a b a b a", 3) == pytest.approx(2 / 3) and measure_distinctness("", 1) == 1.0


def test_several_ways_share_the_continuations_evenly(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def drawn(_m: Model, prompts: Sequence[str], _s: Sampling, **_: bool) -> list[str]:
        model.run("a")  # so that the block has something to change
        asked.append(list(prompts))
        return [" so"] * len(prompts)

    monkeypatch.setattr(module("samples"), "sample_continuations", drawn)
    ways = [add_direction(direction_of(model, i)) for i in range(3)]
    said = sample(model, PROMPTS[:2], lambda _: True, ways, 1.0, Sampling(per_prompt=4), preamble="Say: ")
    whole = [p for p in PROMPTS[:2] for _ in range(4)]
    assert asked == [[f"Say: {p}" for p in whole[i::3]] for i in range(3)]
    assert said.prompts == tuple(whole[0::3] + whole[1::3] + whole[2::3])
    asked.clear()
    sample(model, PROMPTS[:2], lambda _: True, sampling=Sampling(per_prompt=2))
    assert asked == [[p for p in PROMPTS[:2] for _ in range(2)]]


def test_a_clamp_is_the_same_however_many_tokens_are_encoded_at_once(
    model: Model, sae: TopK, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(11, model.d_model, generator=torch.Generator().manual_seed(0))
    whole = clamp_latent(sae, 3).dose(1.5).fn(x, None)
    monkeypatch.setattr(module("clamp"), "ROWS", 4)
    assert torch.allclose(clamp_latent(sae, 3).dose(1.5).fn(x, None), whole, atol=1e-6)
    f = sae.encode(x).detach()[:, 3]
    assert torch.allclose(whole - x, (1.5 * 2.0 - f)[:, None] * sae.W_dec[3].detach(), atol=1e-5)


def test_a_text_is_scored_by_its_mean_projection_or_by_a_judge(model: Model) -> None:
    direction = direction_of(model)
    mean = float((capture(model, "fog over", [SITE]).flat(SITE) @ direction.unit).mean())
    assert score_by_projection(model, direction, mean - 1e-3)("fog over")
    assert not score_by_projection(model, direction, mean + 1e-3)("fog over")
    assert not score_by_projection(model, direction, -1e9)("  ")
    asked: list[str] = []
    judge = score_by_judge(lambda prompt: asked.append(prompt) or " Yes, it is.", "fog")
    assert judge("so") and not score_by_judge(lambda _: "No.", "fog")("so")
    assert asked == ["Is this text about fog? Answer yes or no.\n\nso\n\nAnswer:"]
    with pytest.raises(ValueError, match=f"the answer begins '{'x' * 80}'$"):
        score_by_judge(lambda _: "x" * 99, "fog")("so")


def test_the_normal_range_leaves_half_of_a_hundredth_on_each_side(model: Model) -> None:
    direction, texts = direction_of(model), ["fog over the bay", "a red bridge", "the sea is cold"]
    along = (capture(model, texts, [SITE]).flat(SITE) @ direction.unit).double()
    low, high = measure_normal_range(model, direction, texts)
    assert [low, high] == pytest.approx(along.quantile(torch.tensor([0.005, 0.995]).double()).tolist(), rel=1e-4)
    low, high = measure_normal_range(model, direction, texts, share=0.5)
    assert [low, high] == pytest.approx(along.quantile(torch.tensor([0.25, 0.75]).double()).tolist(), rel=1e-4)


def test_intervals_of_samples_are_of_the_prompts_sums() -> None:
    prompts = ("a", "a", "b", "b", "c")
    said = replace(
        made(1.0, n=5), prompts=prompts, named=torch.tensor([True, False, True, True, False]),
        surprisal=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), lengths=torch.tensor([1, 2, 3, 4, 0]),
        distinct=torch.tensor([1.0, 0.5, 0.2, 0.4, 1.0]),
    )  # fmt: skip
    assert said.naming.value == pytest.approx((0.5 + 1.0 + 0.0) / 3) and said.naming.n == 3
    assert said.perplexity.value == pytest.approx(math.exp(10 / 10)) and said.perplexity.n == 2
    assert said.distinctness.value == pytest.approx(3.1 / 5)
