"""Each way of steering against its equation, and conditional steering against the texts it should leave alone."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hooks import Direction, Model, capture
from hooks.interventions import project_out
from hooks.position import everywhere, generated, index, last, tokens
from hooks.site import resid_post
from interp.steering import (
    Conditional,
    ablate_direction,
    add_direction,
    cap_projection,
    choose_sparing_threshold,
    choose_threshold,
    measure_damage,
    measure_normal_range,
    measure_projections,
    rotate_in_plane,
    set_from_origin,
    set_projection,
    steer,
)
from interp.steering.damage import _Usual

SITE = resid_post[1]
TEXTS = ["fog over the bay", "a red bridge", "sun", "the sea is cold"]


def direction_of(model: Model, seed: int = 7, site=SITE) -> Direction:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))
    return Direction(vector, site, f"by hand {seed}", scale=3.0, fingerprint=model.fingerprint)


@pytest.fixture
def direction(model: Model) -> Direction:
    return direction_of(model)


def states(model: Model, texts: list[str] = TEXTS) -> Tensor:
    return capture(model, texts, [SITE]).flat(SITE)


def steered(model: Model, way, dose: float) -> Tensor:
    with steer(model, way, dose):
        return states(model)


def orthogonal(x: Tensor, u: Tensor) -> Tensor:
    return x - torch.outer(x @ u, u)


def test_setting_leaves_the_rest_and_puts_the_projection_at_the_dose(model: Model, direction: Direction) -> None:
    x, u = states(model), direction.unit
    y = steered(model, set_projection(direction), 2.0)
    assert torch.allclose(y @ u, torch.full((len(x),), 6.0), atol=1e-4)
    assert torch.allclose(orthogonal(y, u), orthogonal(x, u), atol=1e-4)


@pytest.mark.parametrize("dose", [0.0, 0.5, 1.0])
def test_ablating_takes_that_share_of_the_projection(model: Model, direction: Direction, dose: float) -> None:
    x, u = states(model), direction.unit
    y = steered(model, ablate_direction(direction), dose)
    assert torch.allclose(y @ u, (1 - dose) * (x @ u), atol=1e-4)
    assert torch.allclose(orthogonal(y, u), orthogonal(x, u), atol=1e-4)
    assert dose or torch.equal(x, y)


def test_an_affine_dose_of_zero_puts_the_origins_projection_where_ablation_puts_nothing(
    model: Model, direction: Direction
) -> None:
    x, u, mu = states(model), direction.unit, 5.0 * direction.unit + torch.ones(model.d_model)
    for dose in (0.0, 1.5):
        y = steered(model, set_from_origin(direction, mu), dose)
        assert torch.allclose(y @ u, (mu @ u + dose * 3.0).expand(len(x)), atol=1e-4)
        assert torch.allclose(orthogonal(y, u), orthogonal(x, u), atol=1e-4)


def test_a_cap_moves_what_is_outside_to_the_edge_and_no_bit_of_what_is_inside(
    model: Model, direction: Direction
) -> None:
    x, u = states(model), direction.unit
    along = x @ u
    low, high = along.quantile(torch.tensor([0.3, 0.8])).tolist()
    y = steered(model, cap_projection(direction, low, high), 1.0)
    inside = (along > low) & (along < high)
    assert 0 < int(inside.sum()) < len(x) and torch.equal(x[inside], y[inside])
    assert torch.allclose(y @ u, along.clamp(low, high), atol=1e-4)
    middle = steered(model, cap_projection(direction, low, high), 0.0) @ u
    assert torch.allclose(middle, torch.full_like(middle, (low + high) / 2), atol=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 180.0])
def test_turning_keeps_the_length_and_the_rest_and_sets_the_angle(
    model: Model, direction: Direction, degrees: float
) -> None:
    other = direction_of(model, 8)
    x, u = states(model), direction.unit
    w = other.vector - (other.vector @ u) * u
    w = w / w.norm()
    y = steered(model, rotate_in_plane(direction, other), degrees)
    assert torch.allclose(y.norm(dim=1), x.norm(dim=1), atol=1e-3)
    angle = torch.atan2(y @ w, y @ u).cos()
    assert torch.allclose(angle, torch.full_like(angle, math.cos(math.radians(degrees))), atol=1e-3)
    assert torch.allclose(orthogonal(orthogonal(y, u), w), orthogonal(orthogonal(x, u), w), atol=1e-3)


@pytest.mark.parametrize("make", [set_projection, ablate_direction], ids=["set", "ablate"])
def test_doing_it_twice_is_doing_it_once(model: Model, direction: Direction, make) -> None:
    once = steered(model, make(direction), 1.0)
    way = make(direction)
    again = way.dose(1.0).fn(once, None)
    assert torch.allclose(once, again, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_ablates_to_the_rounding_of_its_results(model: Model, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    u = torch.nn.functional.normalize(torch.randn(model.d_model, generator=g), dim=0)
    x = (torch.randn(50, model.d_model, generator=g) + 200 * u).to(dtype)
    v = Direction((37 * u).to(dtype), SITE, "half")
    eps, along = torch.finfo(dtype).eps, v.unit.double()
    for way in (ablate_direction(v).dose(1.0), project_out(v), set_projection(v).dose(0.0)):
        left = (way.fn(x, None).double() @ along).abs()
        assert way.fn(x, None).dtype == dtype
        assert float(left.max()) < 8 * eps  # the results are about 1, and were 200 along v
    turned = rotate_in_plane(v, direction_of(model)).dose(90.0).fn(x, None).double()
    assert torch.allclose(turned.norm(dim=1), x.double().norm(dim=1), rtol=eps / 4)


def test_a_half_precision_direction_and_its_double_span_no_plane(model: Model) -> None:
    for seed in range(20):
        v = direction_of(model, seed)
        half = replace(v, vector=v.vector.bfloat16())
        with pytest.raises(ValueError, match="are parallel, so they span no plane"):
            rotate_in_plane(half, half * 2.0)


def test_a_random_control_of_each_way_acts_along_the_random_direction(model: Model, direction: Direction) -> None:
    control = set_projection(direction).control(0)
    y, u = steered(model, control, 1.0), control.vector / control.vector.norm()
    assert torch.allclose(y @ u, torch.full((len(y),), 3.0), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: set_from_origin(d, torch.zeros(5)), r"the origin has shape \(5,\), and Direction"),
        (lambda d: cap_projection(d, 1.0, 1.0), "give two finite numbers, the lower first"),
        (lambda d: cap_projection(d, 0.0, 1.0).dose(-1.0), "a range is narrowed by a dose from 0 to 1"),
        (lambda d: rotate_in_plane(d, d * 2.0), "are parallel, so they span no plane"),
        (lambda d: rotate_in_plane(d, replace(d, site=resid_post[0])), "needs directions at one site"),
    ],
)
def test_ways_that_make_no_sense_are_refused(direction: Direction, make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(direction)


PROMPTS = ["fog h", "sun", "a bay of fog", "red", "the cold sea", "b"]


@pytest.fixture
def conditional(model: Model) -> Conditional:
    """Acts on the half of the prompts whose projection at an earlier site is above the median."""
    condition = direction_of(model, 11, resid_post[0])
    scores = measure_projections(model, condition, PROMPTS)
    return Conditional(set_projection(direction_of(model)), condition, float(scores.sort().values[2:4].mean()))


@pytest.mark.parametrize("side", ["right", "left"])
def test_it_acts_where_the_condition_holds_and_leaves_the_other_texts_bit_for_bit(
    model: Model, padded_left, conditional: Conditional, side: str
) -> None:
    read = model if side == "right" else padded_left(model)
    tokens, plain = read.tokens(PROMPTS), read.run(PROMPTS)
    on = measure_projections(model, conditional.condition, PROMPTS) > conditional.threshold
    assert on.tolist().count(True) == 3
    with steer(read, conditional, 3.0):
        logits = read.run(PROMPTS)
    with steer(read, conditional.steering, 3.0):
        always = read.run(PROMPTS)
    for row in range(len(PROMPTS)):
        kept = tokens.mask[row]
        assert torch.equal(logits[row][kept], (always if on[row] else plain)[row][kept])
        assert not torch.equal(always[row][kept], plain[row][kept])


def test_while_decoding_the_decision_of_the_prompt_holds_text_by_text(model: Model, conditional: Conditional) -> None:
    gentle = replace(conditional, steering=add_direction(direction_of(model), at=generated))
    on = (measure_projections(model, gentle.condition, PROMPTS) > gentle.threshold).tolist()
    plain = model.generate(PROMPTS, max_new_tokens=6)
    with steer(model, gentle.steering, 8.0):
        always = model.generate(PROMPTS, max_new_tokens=6)
    with steer(model, gentle, 8.0):
        together = model.generate(PROMPTS, max_new_tokens=6)
        backwards = model.generate(PROMPTS[::-1], max_new_tokens=6)[::-1]
    assert together == backwards == [a if yes else p for a, p, yes in zip(always, plain, on, strict=True)]
    assert [a != p for a, p in zip(always, plain, strict=True)].count(True) >= 4


def test_an_earlier_batch_of_other_size_leaves_no_decision(model: Model, conditional: Conditional) -> None:
    with steer(model, conditional, 3.0):
        model.run(PROMPTS)
        again = [model.run(text) for text in PROMPTS]
    on = measure_projections(model, conditional.condition, PROMPTS) > conditional.threshold
    for text, logits, yes in zip(PROMPTS, again, on.tolist(), strict=True):
        assert torch.equal(logits, model.run(text)) != yes


@pytest.mark.parametrize("at", [last, index(0), index(-1), everywhere], ids=str)
def test_every_prompt_of_a_block_is_decided_for_itself_wherever_the_condition_is_read(
    model: Model, conditional: Conditional, at
) -> None:
    texts = ["ab", "the cold sea is over there", "fog", "a bay of fog", "sun"]
    scores = measure_projections(model, conditional.condition, texts, at)
    way = replace(conditional, at=at, threshold=float(scores.sort().values[1:3].mean()))
    with steer(model, way, 3.0):
        together = [model.run(text) for text in texts]
    moved = [not torch.equal(logits, model.run(text)) for text, logits in zip(texts, together, strict=True)]
    assert moved == (scores > way.threshold).tolist()


def test_a_prompt_of_which_the_condition_reads_nothing_is_not_decided_by_the_one_before(
    model: Model, conditional: Conditional
) -> None:
    z = int(model.tokens("z").ids[0, -1])
    way = replace(conditional, at=tokens(z), threshold=-1e9)
    said = "the condition selects no token of a prompt's text"
    with pytest.raises(ValueError, match=said), steer(model, way, 3.0):
        model.run("abc")
    with pytest.raises(ValueError, match=said), steer(model, way, 3.0):
        model.run("zab")
        model.run("abc")
    with pytest.raises(ValueError, match=r"tokens\(\[\d+\]\) selects no token of text 1 \('abc'\)"):
        measure_projections(model, way.condition, ["zab", "abc"], tokens(z))


def test_a_threshold_is_found_that_tells_the_prompts_apart(model: Model) -> None:
    condition = direction_of(model, 11, resid_post[0])
    scores = measure_projections(model, condition, PROMPTS)
    order = [PROMPTS[i] for i in scores.argsort().tolist()]
    threshold = choose_threshold(model, condition, order[3:], order[:3])
    assert scores.sort().values[2] < threshold < scores.sort().values[3]


@pytest.mark.parametrize("recall", [1.0, 0.8, 0.5, 0.01])
def test_a_sparing_threshold_is_the_highest_that_acts_on_the_share_asked_for(model: Model, recall: float) -> None:
    condition = direction_of(model, 11, resid_post[0])
    scores = measure_projections(model, condition, PROMPTS)
    threshold = choose_sparing_threshold(model, condition, PROMPTS, recall)
    assert float((scores > threshold).double().mean()) >= recall
    higher = scores[scores > threshold].min()
    assert float((scores > higher).double().mean()) < recall


@pytest.mark.parametrize(
    ("next_lower", "threshold"),
    [(9.999, 9.9995), (1.0, 9.99), (-30.0, 9.97)],  # halfway to it, or a thousandth of the largest below
)
def test_a_sparing_threshold_is_halfway_to_the_next_prompt_or_a_thousandth_of_the_largest_below(
    model: Model, monkeypatch: pytest.MonkeyPatch, next_lower: float, threshold: float
) -> None:
    values = torch.tensor([next_lower, 10.0])
    monkeypatch.setattr(sys.modules["interp.steering.conditional"], "measure_projections", lambda *_, **__: values)
    found = choose_sparing_threshold(model, direction_of(model), PROMPTS[:2], 0.5)
    assert found == pytest.approx(threshold, abs=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_sparing_threshold_for_all_prompts_steers_each_of_them_alone_and_together(
    model: Model, padded_left, side: str
) -> None:
    read = model if side == "right" else padded_left(model)
    plain = [model.run(text) for text in PROMPTS]
    for seed in range(15):
        condition = direction_of(model, seed, resid_post[0])
        way = Conditional(
            add_direction(direction_of(model)), condition, choose_sparing_threshold(model, condition, PROMPTS, 1.0)
        )
        with steer(read, way, 3.0):
            alone, together = [read.run(text) for text in PROMPTS], read.run(PROMPTS)
        on = read.tokens(PROMPTS).mask
        for row, logits in enumerate(plain):
            assert not torch.equal(alone[row], logits)
            assert not torch.allclose(together[row][on[row]], logits[0], atol=1e-3)


@pytest.mark.parametrize(("texts", "recall"), [([], 0.9), (PROMPTS, 0.0), (PROMPTS, 1.5)])
def test_a_sparing_threshold_without_prompts_or_for_no_share_is_refused(
    model: Model, texts: list[str], recall: float
) -> None:
    with pytest.raises(ValueError, match=r"give prompts to act on, and a share above 0 and at most 1"):
        choose_sparing_threshold(model, direction_of(model, 11), texts, recall)


def test_projections_are_means_over_the_tokens_selected(model: Model) -> None:
    condition = direction_of(model, 11)
    x = capture(model, "a bay of fog", [SITE]).flat(SITE)
    assert float(measure_projections(model, condition, ["sun", "a bay of fog"])[1]) == pytest.approx(
        float((x @ condition.unit).mean()), abs=1e-4
    )
    assert float(measure_projections(model, condition, ["a bay of fog"], at=last)[0]) == pytest.approx(
        float(x[-1] @ condition.unit), abs=1e-4
    )


def test_a_condition_read_after_where_it_acts_is_refused_before_anything_runs(model: Model) -> None:
    late = Conditional(set_projection(direction_of(model)), direction_of(model, 11, resid_post[2]), 0.0)
    with pytest.raises(ValueError, match=r"read at resid_post\.2, after resid_post\.1 where it is to act"):
        steer(model, late, 1.0)


def test_a_condition_at_a_site_the_model_lacks_is_refused_by_name(model: Model) -> None:
    with pytest.raises(ValueError, match=r"resid_post\.9"):
        steer(model, Conditional(set_projection(direction_of(model)), direction_of(model, 11, resid_post[9]), 0.0), 1.0)


def test_no_dose_does_no_damage_and_a_large_one_leaves_the_usual_states(model: Model, direction: Direction) -> None:
    texts = [f"{a} {b}" for a in ("fog over", "a red", "the sea") for b in ("the bay", "bridge", "is cold", "h")]
    none, much = measure_damage(model, direction, 0.0, texts), measure_damage(model, direction, 30.0, texts)
    assert (none.kl.value, none.loss.value, none.correct.value) == (0, 0, 0)
    assert none.beyond.value == none.beyond_before < 0.5
    assert much.kl.value > 0.1 and much.beyond.value == 1.0 and "beyond the usual 100.0%" in str(much)


def test_what_is_usual_is_said_by_other_texts_than_those_reported_on(model: Model, direction: Direction) -> None:
    usual, others = [f"fog over the bay{end}" for end in ("", "y", "b", "a")], ["QX#9", "{7}@", "ZJ%5", "|8*K"]
    texts = [text for pair in zip(usual, others, strict=True) for text in pair]
    found = measure_damage(model, direction, 0.0, texts)
    x = states(model, texts[::2])
    assert torch.linalg.matrix_rank((x - x.mean(0)).double()) < 20  # few states, and others do not lie among them
    assert found.beyond_before > 0.3 and found.beyond.n == 4  # of the usual texts themselves, 0.01


def test_the_usual_is_measured_along_the_fewest_axes_that_hold_99_percent_of_the_variance() -> None:
    axes = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    size = torch.tensor([0.90, 0.095, 0.004, 0.0005, 0.0005], dtype=torch.float64).sqrt()
    x = torch.cat([axes * size[:, None], -axes * size[:, None]])  # variance along axis i is size² / 4.5
    usual = _Usual(x)
    two = usual.distance(axes * size[:, None])
    assert two[:2].tolist() == pytest.approx([4.5**0.5] * 2) and float(two[2:].max()) < 1e-6
    assert usual.most == pytest.approx(4.5**0.5)
    assert usual.outside(3 * axes[:1] * size[0]).tolist() == [True]


def test_first_guesses_lost_count_below_zero(model: Model, direction: Direction) -> None:
    texts = [text + model.generate(text, max_new_tokens=20) for text in ("fog", "a", "sun", "the")]
    correct = measure_damage(model, direction, 50.0, texts).correct
    assert correct.value < -0.2 and correct.high < 0


def test_first_guesses_are_shares_of_each_texts_tokens_and_a_mean_over_texts(
    model: Model, direction: Direction
) -> None:
    texts = [
        text + model.generate(text, max_new_tokens=n) for text, n in (("fog", 20), ("a", 3), ("sun", 9), ("the", 5))
    ]

    def shares() -> list[float]:
        found = []
        for text in texts:
            ids, logits = model.tokens(text).ids[0], model.run(text)[0]
            found.append(float((logits[:-1].argmax(-1) == ids[1:]).double().mean()))
        return found

    plain = shares()
    with steer(model, direction, 50.0):
        moved = shares()
    expected = sum(b - a for a, b in zip(plain, moved, strict=True)) / 4
    assert measure_damage(model, direction, 50.0, texts).correct.value == pytest.approx(expected) != 0


def test_damage_is_the_kl_and_loss_computed_by_hand(model: Model, direction: Direction) -> None:
    texts = ["fog over the bay", "the sun", "a bay", "sea and fog"]
    found = measure_damage(model, direction, 5.0, [*texts, texts[0]])
    kl, loss = torch.tensor([_damage_by_hand(model, direction, text) for text in texts]).mean(0).tolist()
    assert (found.kl.value, found.loss.value) == pytest.approx((kl, loss), rel=1e-4)
    assert found.kl.n == 4


def _damage_by_hand(model: Model, direction: Direction, text: str) -> tuple[float, float]:
    """KL and loss of a dose of 5 on one text."""
    plain = model.run(text)[0, :-1].detach().double().log_softmax(-1)
    with steer(model, direction, 5.0):
        moved = model.run(text)[0, :-1].detach().double().log_softmax(-1)
    ids = model.tokens(text).ids[0, 1:]
    picked = torch.arange(len(ids))
    return float((plain.exp() * (plain - moved)).sum(-1).mean()), float((plain - moved)[picked, ids].mean())


def test_the_normal_range_holds_the_share_asked_for(model: Model, direction: Direction) -> None:
    low, high = measure_normal_range(model, direction, TEXTS, share=0.8)
    along = states(model) @ direction.unit
    assert float(((along >= low) & (along <= high)).double().mean()) == pytest.approx(0.8, abs=0.06)
    with pytest.raises(ValueError, match="give a number between 0 and 1"):
        measure_normal_range(model, direction, TEXTS, share=1.0)


def test_a_sparing_threshold_for_all_leaves_a_thousandth_of_the_largest_projection_as_room(model: Model) -> None:
    condition = direction_of(model, 11, resid_post[0])
    scores = measure_projections(model, condition, PROMPTS)
    threshold = choose_sparing_threshold(model, condition, PROMPTS, 1.0)
    assert float(scores.min()) - threshold == pytest.approx(1e-3 * float(scores.abs().max()), rel=1e-4)
