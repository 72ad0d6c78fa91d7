"""Latents chosen by what the model says when they are turned up, on a model where one of them writes a known letter."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from hooks import Direction, Model
from hooks.site import resid_post
from interp.common.statistics import Estimate
from interp.sae import TopK
from interp.steering import Effect, Samples, Sampling, add_direction, choose_by_effect, measure_effects, sample

PROMPTS = ["fog", "the bay", "a red", "I saw"]
SAMPLING = Sampling(per_prompt=3, max_new_tokens=8, temperature=0.05)
Z, Y, LEAST = 7, 11, 3  # latents that write a letter each, and one that writes what is never said


def says_z(text: str) -> bool:
    return "zz" in text


def says_both(text: str) -> bool:
    return "y" in text and "z" in text


@pytest.fixture(scope="module")
def sae(model: Model) -> TopK:
    """Latents at the last stream: two have the unembedding rows of letters, one the row of the least likely token."""
    made = TopK(model.d_model, 16, k=4)
    letters = model.hf.lm_head.weight.detach()[model.tokenizer.convert_tokens_to_ids(["z", "y"])]
    plane = torch.linalg.qr(letters.T).Q
    rows = torch.randn(16, model.d_model, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        made.W_dec.copy_(normalize(rows - rows @ plane @ plane.T, dim=1))
        made.W_dec[[Z, Y]] = normalize(letters, dim=1)
        least = int(model.run(PROMPTS[:2]).log_softmax(-1).mean((0, 1)).argmin())
        made.W_dec[LEAST] = normalize(model.hf.lm_head.weight.detach()[least], dim=0)
        made.max_activation.fill_(float(letters.norm(dim=1).mean()))
    made.site, made.fingerprint = resid_post[model.n_layers - 1], model.fingerprint
    return made


def test_a_text_of_a_shared_batch_is_steered_as_it_is_alone(model: Model, sae: TopK) -> None:
    greedy = replace(SAMPLING, per_prompt=1, temperature=0.0, batch_size=3)
    doses = [(sae.direction(Z), 3.0), (sae.direction(Y), 200.0), (sae.direction(0), 50.0)]
    together = measure_effects(model, doses, PROMPTS, says_z, sampling=greedy)
    plain = sample(model, PROMPTS, says_z, sampling=greedy)
    assert len(together) == 3
    for effect, (direction, dose) in zip(together, doses, strict=True):
        alone = sample(model, PROMPTS, says_z, [add_direction(direction)], dose, greedy)
        assert effect.samples.texts == alone.texts and effect.dose == dose
        assert effect.samples.prompts == alone.prompts
        assert effect.ratio.value == pytest.approx(alone.perplexity_over(plain).value, rel=1e-5)


def test_every_batch_is_drawn_again(model: Model, sae: TopK) -> None:
    hot = Sampling(per_prompt=4, max_new_tokens=8, temperature=1.0, batch_size=1)
    (effect,) = measure_effects(model, [(sae.direction(0), 0.0)], ["fog"], says_z, sampling=hot)
    assert len(set(effect.samples.texts)) == 4


def test_the_latent_that_writes_the_letter_is_found_among_all(model: Model, sae: TopK) -> None:
    found = choose_by_effect(
        model, sae, range(16), PROMPTS, says_z, doses=(1.0, 200.0), sampling=SAMPLING, progress=False
    )
    assert found.direction.source == sae.direction(Z).source
    assert found.samples.naming.value == 1.0 and found.dose == 200.0
    assert found.direction.cosine(sae.direction(Z)) == pytest.approx(1.0)


def test_no_latent_is_added_where_the_concept_is_named_often_enough(model: Model, sae: TopK) -> None:
    warm = replace(SAMPLING, temperature=0.6, per_prompt=8)
    named = {}
    for enough in (0.0, 0.01, 1.0):
        found = choose_by_effect(
            model, sae, [Y, Z], PROMPTS, says_both, doses=(20.0, 40.0), most=2, enough=enough, sampling=warm,
            progress=False,
        )  # fmt: skip
        named[enough] = found.samples.naming.value, found.direction.source.count("latent")
    assert named[0.0][1] == 1 and named[1.0][1] == 2 and named[1.0][0] > named[0.0][0]
    assert named[0.01] == (named[0.0] if named[0.0][0] >= 0.01 else named[1.0])


def test_two_latents_are_joined_where_neither_alone_says_it_all(model: Model, sae: TopK) -> None:
    warm = replace(SAMPLING, temperature=0.6, per_prompt=8)
    found = choose_by_effect(
        model, sae, [Y, Z], PROMPTS, says_both, doses=(20.0, 40.0), most=2, sampling=warm, progress=False
    )
    alone = measure_effects(model, [(sae.direction(i), 40.0) for i in (Y, Z)], PROMPTS, says_both, sampling=warm)
    assert found.samples.naming.value > max(one.samples.naming.value for one in alone)
    assert {part.rsplit(" * ")[-1] for part in found.direction.source.split(" + ")} == {
        sae.direction(Y).source,
        sae.direction(Z).source,
    }


def test_what_is_drawn_greedily_has_no_slope_and_grows_by_the_latents_given(model: Model, sae: TopK) -> None:
    greedy = replace(SAMPLING, temperature=0.0)
    found = choose_by_effect(model, sae, [0, Y, Z], PROMPTS, says_z, doses=(200.0,), sampling=greedy, progress=False)
    assert found.direction.source == sae.direction(Z).source and found.samples.naming.value == 1.0


def test_the_best_dose_comes_first_however_little_another_dose_of_its_direction_does(
    model: Model, sae: TopK, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {(Z, 1.0): 9, (Y, 1.0): 8, (Y, 2.0): 7, (Z, 2.0): 3}

    def message(_model: Model, doses: Sequence[tuple[Direction, float]], *_: object, **__: object) -> list[Effect]:
        found = []
        for direction, dose in doses:
            named = torch.arange(10) < rates[int(direction.source.split()[-1]), dose]
            made = Samples(
                dose, ("fog",) * 10, ("z",) * 10, named, torch.ones(10), torch.ones(10).long(), torch.ones(10)
            )
            found.append(Effect(direction, made, Estimate(1.0, 1.0, 1.0, 10)))
        return found

    monkeypatch.setattr(sys.modules["interp.steering.effect_search"], "measure_effects", message)
    found = choose_by_effect(
        model, sae, [Y, Z], PROMPTS, says_z, doses=(1.0, 2.0), most=1, sampling=SAMPLING, progress=False
    )
    assert (found.direction.source, found.dose) == (sae.direction(Z).source, 1.0)


def test_a_direction_grows_by_the_live_latents_steepest_across_it_each_with_the_sign_of_its_slope(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 24 rows with a slope: one along u itself is another dose and no other direction, one is never on."""
    made = TopK(model.d_model, 24, k=2)
    along, rises, falls, dead = 1, 2, 3, 4
    with torch.no_grad():
        made.W_dec.copy_(torch.eye(24, model.d_model))
        made.W_dec[along] = 3 * made.W_dec[0]
        made.max_activation.fill_(1.0)[dead] = 0.0
    made.site, made.fingerprint = resid_post[model.n_layers - 1], model.fingerprint
    slope = torch.zeros(model.d_model)
    slope[5:24] = 0.2 - 0.01 * torch.arange(19)
    slope[[0, rises, falls, dead]] = torch.tensor([10.0, 1.0, -0.5, 5.0])
    tried: list[tuple[Direction, float]] = []

    def found_text(_model: Model, doses: Sequence[tuple[Direction, float]], *_: object, **__: object) -> list[Effect]:
        tried.extend(doses)
        one = torch.ones(10)
        return [
            Effect(
                v, Samples(dose, ("fog",) * 10, ("z",) * 10, one > 1, one, one.long(), one), Estimate(1.0, 1.0, 1.0, 10)
            )
            for v, dose in doses
        ]

    module = sys.modules["interp.steering.effect_search"]
    monkeypatch.setattr(module, "measure_effects", found_text)
    monkeypatch.setattr(module, "estimate_naming_slope", lambda *_, **__: slope)
    warm = replace(SAMPLING, temperature=1.0)
    choose_by_effect(model, made, [0], PROMPTS, says_z, most=2, sampling=warm, progress=False)
    first = [dose for v, dose in tried if v.source == made.direction(0).source]
    doses = sorted(set(first))
    assert 1.0 in doses and len(doses) == 5 and all(1.2 < b / a <= 1.5 for a, b in zip(doses, doses[1:], strict=False))
    grown = {v.source: v.unit for v, _ in tried if v.source != made.direction(0).source}
    steepest = [(rises, 1), (falls, -1), *((j, 1) for j in range(5, 11))]
    eye = torch.eye(24, model.d_model)
    expected = [eye[0] + sign * w * eye[j] for j, sign in steepest for w in (0.4, 0.8)]
    assert len(grown) == len(expected)
    for unit in expected:
        assert any(torch.allclose(unit / unit.norm(), one.cpu(), atol=1e-6) for one in grown.values())


def test_what_costs_too_much_fluency_is_not_taken_however_often_it_says_it(model: Model, sae: TopK) -> None:
    least = sample(model, PROMPTS, says_z, [add_direction(sae.direction(LEAST))], 400.0, SAMPLING).texts[0][-1]
    dear = measure_effects(
        model, [(sae.direction(LEAST), 400.0)], PROMPTS, lambda text: least in text, sampling=SAMPLING
    )[0]
    assert dear.samples.naming.value == 1.0 and dear.ratio.value > 2
    found = choose_by_effect(
        model, sae, [LEAST, 0], PROMPTS, lambda text: least in text, doses=(400.0,), sampling=SAMPLING, progress=False
    )
    assert found.direction.source == sae.direction(0).source and found.ratio.value <= 2


@pytest.mark.parametrize(
    ("latents", "most", "doses", "said"),
    [
        ([], 3, (1.0,), "give at least one of each"),
        ([Z], 0, (1.0,), "give at least one of each"),
        ([99], 3, (1.0,), "99"),
        ([LEAST], 1, (400.0,), "no dose of 1 latents has a perplexity ratio of at most 2: try lower doses"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    model: Model, sae: TopK, latents: list[int], most: int, doses: tuple[float, ...], said: str
) -> None:
    with pytest.raises((ValueError, IndexError), match=said):
        choose_by_effect(
            model, sae, latents, PROMPTS, says_z, doses=doses, most=most, sampling=SAMPLING, progress=False
        )


def test_directions_at_two_sites_share_no_batch(model: Model, sae: TopK) -> None:
    elsewhere = replace(sae.direction(Z), site=resid_post[0])
    with pytest.raises(ValueError, match="one site"):
        measure_effects(model, [(sae.direction(Z), 1.0), (elsewhere, 1.0)], PROMPTS, says_z, sampling=SAMPLING)


def test_a_dose_that_is_no_number_and_a_direction_of_another_model_are_refused(model: Model, sae: TopK) -> None:
    with pytest.raises(ValueError, match="the dose is nan: give a finite number"):
        measure_effects(
            model, [(sae.direction(Z), 1.0), (sae.direction(Y), float("nan"))], PROMPTS, says_z, sampling=SAMPLING
        )
    foreign = replace(sae.direction(Y), fingerprint="another")
    with pytest.raises(ValueError, match="another model"):
        measure_effects(model, [(sae.direction(Z), 1.0), (foreign, 1.0)], PROMPTS, says_z, sampling=SAMPLING)
