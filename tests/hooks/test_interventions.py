"""Each intervention is the formula it is called by, on the rows it is given."""

import math
from collections.abc import Callable
from dataclasses import replace as but
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Direction, Intervention, Model, capture, intervene
from hooks.interventions import Rows, add, apply, clamp, mean, noise, project_out, replace, scale, zero
from hooks.position import everywhere, generated, last, prompt
from hooks.site import attn_out, logits, mlp_out, resid_post, resid_pre, z

D = 32


@pytest.fixture
def a() -> Tensor:
    return torch.randn(7, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def v() -> Tensor:
    return torch.randn(D, generator=torch.Generator().manual_seed(1)) * 3


def run(one: Intervention, a: Tensor, row: Tensor | None = None, token: Tensor | None = None) -> Tensor:
    numbers = torch.arange(len(a))
    row = torch.zeros_like(numbers) if row is None else row
    return one.fn(a, Rows(row, numbers, numbers if token is None else token, shape=(int(row.max()) + 1, len(a))))


def test_add_adds_the_vector_strength_times(a: Tensor, v: Tensor) -> None:
    torch.testing.assert_close(run(add(v, 2.5), a), a + 2.5 * v)
    torch.testing.assert_close(run(add(Direction(v, resid_post[0], "by hand", scale=7.0), 2.5), a), a + 2.5 * v)


def test_scale_zero_and_mean_are_what_they_say(a: Tensor, v: Tensor) -> None:
    assert torch.equal(run(scale(-0.5), a), -0.5 * a)
    assert torch.equal(run(zero(), a), torch.zeros(7, D))
    assert torch.equal(run(mean(v), a), v.expand(7, D))


def test_replace_takes_one_value_one_per_row_or_a_whole_capture(a: Tensor, v: Tensor) -> None:
    assert torch.equal(run(replace(v), a), v.expand(7, D))
    assert torch.equal(run(replace(a.flip(0)), a), a.flip(0))
    whole = torch.randn(2, 7, D)
    row = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    assert torch.equal(run(replace(whole), a, row=row), whole[row, torch.arange(7)])


def test_projecting_out_leaves_nothing_along_the_direction_and_the_rest_as_it_was(a: Tensor, v: Tensor) -> None:
    out, unit = run(project_out(v), a), v / v.norm()
    torch.testing.assert_close(out @ unit, torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(a - out, torch.outer(a @ unit, unit))
    torch.testing.assert_close(run(project_out(v), out), out, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run(project_out(-4 * v), a), out)


def test_clamping_sets_the_projection_and_nothing_else(a: Tensor, v: Tensor) -> None:
    out, unit = run(clamp(v, 5.0), a), v / v.norm()
    torch.testing.assert_close(out @ unit, torch.full((7,), 5.0))
    torch.testing.assert_close(run(project_out(v), out), run(project_out(v), a), atol=1e-5, rtol=1e-5)
    own = float(a[0] @ unit)
    torch.testing.assert_close(run(clamp(v, own), a)[0], a[0])


def test_noise_has_the_asked_spread_and_depends_on_seed_row_and_token_alone() -> None:
    a = torch.zeros(60, 400)
    drawn = run(noise(2.0, seed=3), a)
    assert abs(float(drawn.std()) - 2.0) < 0.05
    assert abs(float(drawn.mean())) < 0.05
    assert torch.equal(drawn, run(noise(2.0, seed=3), a))
    assert not torch.equal(drawn, run(noise(2.0, seed=4), a))
    assert torch.equal(run(noise(2.0, seed=3), a[:1], token=torch.tensor([7]))[0], drawn[7])
    other_row = run(noise(2.0, seed=3), a, row=torch.ones(60, dtype=torch.long))
    correlation = torch.corrcoef(torch.stack([drawn.flatten(), other_row.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.05
    neighbours = torch.corrcoef(drawn[:2])[0, 1]
    assert abs(float(neighbours)) < 0.25


def test_any_function_becomes_an_intervention(a: Tensor) -> None:
    one = apply(torch.relu, at=last)
    assert torch.equal(run(one, a), a.relu())
    assert (one.name, one.at) == ("relu", last)
    assert str(one) == "relu(at=last)"


def test_a_vector_may_be_given_flat_where_the_site_has_heads(gpt2: Model) -> None:
    vector = torch.arange(32.0)
    a = torch.zeros(5, 4, 8)
    assert torch.equal(run(add(vector), a)[0].flatten(), vector)
    torch.testing.assert_close(run(clamp(vector, 2.0), a)[0].flatten(), 2 * vector / vector.norm())


def test_adding_and_taking_away_at_one_site_is_identity(gpt2: Model, v: Tensor) -> None:
    plain = gpt2.run("Fog over the bay")
    with intervene(gpt2, {resid_post[1]: [add(v), add(v, -1.0)]}):
        torch.testing.assert_close(gpt2.run("Fog over the bay"), plain, atol=1e-4, rtol=1e-4)
    with intervene(gpt2, {resid_post[1]: add(v, 0.0)}):
        assert torch.equal(gpt2.run("Fog over the bay"), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_a_projection_is_set_as_in_float32_and_rounded_once(dtype: torch.dtype, v: Tensor) -> None:
    u = v / v.norm()
    a = (torch.randn(64, D, generator=torch.Generator().manual_seed(2)) + 300 * u).to(dtype)
    for one in (project_out(u), clamp(u, 100.0)):
        assert torch.equal(run(one, a), run(one, a.float()).to(dtype))


def test_clamping_a_token_to_its_own_projection_changes_nothing(gpt2: Model, v: Tensor) -> None:
    value = float(capture(gpt2, "Fog", mlp_out[1]).flat(mlp_out[1], at=last)[0] @ (v / v.norm()))
    with intervene(gpt2, {mlp_out[1]: clamp(v, value, at=last)}):
        torch.testing.assert_close(gpt2.run("Fog"), gpt2.run("Fog"))
        changed = gpt2.run("Fog")
    torch.testing.assert_close(changed, gpt2.run("Fog"), atol=1e-4, rtol=1e-4)


def test_senseless_values_are_refused_when_the_intervention_is_made(v: Tensor) -> None:
    hole = v.clone()
    hole[3] = math.nan
    makers: list[Callable[[Any], Any]] = [add, mean, replace, project_out, lambda one: clamp(one, 1.0)]
    for make in makers:
        with pytest.raises(ValueError, match=r"was given values that are not finite \(NaN or infinity\)"):
            make(hole)
    with pytest.raises(ValueError, match="strength must be a finite number, got nan"):
        add(v, math.nan)
    with pytest.raises(ValueError, match="factor must be a finite number, got inf"):
        scale(math.inf)
    with pytest.raises(ValueError, match="value must be a finite number"):
        clamp(v, math.nan)
    with pytest.raises(ValueError, match="std is a standard deviation, at least 0; got -1"):
        noise(-1.0, seed=0)
    for make in (project_out, lambda one: clamp(one, 1.0)):
        with pytest.raises(ValueError, match="needs a vector of positive length, got zeros"):
            make(torch.zeros(D))


SHAPES = [
    (resid_post[1], add(torch.ones(31)), r"add at resid_post\.1 needs a value of shape \(32,\), got \(31,\)"),
    (logits, mean(torch.ones(32)), r"mean at logits needs a value of shape \(257,\), got \(32,\)"),
    (mlp_out[0], project_out(torch.ones(3, 32)), r"project_out at mlp_out\.0 needs .* got \(3, 32\)"),
    (
        mlp_out[0],
        replace(torch.ones(2, 9, 31)),
        r"replace at mlp_out\.0 needs a value of shape \(32,\), got \(2, 9, 31\)",
    ),
]


@pytest.mark.parametrize(("site", "one", "said"), SHAPES, ids=[said[:20] for *_, said in SHAPES])
def test_a_value_of_another_shape_is_refused_before_anything_runs(gpt2: Model, site: Any, one: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        intervene(gpt2, {site: one})


def test_replacements_that_do_not_cover_the_tokens_are_refused(gpt2: Model) -> None:
    with (
        pytest.raises(ValueError, match="replace holds 2 values, and 3 tokens are selected: give one each") as error,
        intervene(gpt2, {mlp_out[0]: replace(torch.ones(2, D))}),
    ):
        gpt2.run("Fog")
    assert error.value.__notes__ == ["raised by replace(at=everywhere) at mlp_out.0"]
    with (
        pytest.raises(ValueError, match="1 texts of 4 columns, and column 4 is to be replaced: use at=prompt"),
        intervene(gpt2, {mlp_out[0]: replace(torch.ones(1, 4, D))}),
    ):
        gpt2.generate("Fog", max_new_tokens=3)


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (2, 3), (2, 5)])
def test_a_capture_of_another_number_of_texts_or_columns_is_refused(shape: tuple[int, int], gpt2: Model) -> None:
    said = "values for {} texts of {} columns, and 2 texts of 4 columns are read: capture the same".format(*shape)
    with pytest.raises(ValueError, match=said), intervene(gpt2, {mlp_out[0]: replace(torch.ones(*shape, D))}):
        gpt2.run(["Fog", "Bay"])


def test_a_capture_put_back_while_its_texts_are_read_in_several_batches_is_refused(gpt2: Model) -> None:
    clean = capture(gpt2, texts := ["Fog", "Bay", "Sea", "Sun"], mlp_out[0])[mlp_out[0]]
    for data in (texts, gpt2.tokens(texts)):
        with intervene(gpt2, {mlp_out[0]: replace(clean)}):
            assert torch.equal(capture(gpt2, data, mlp_out[0])[mlp_out[0]], clean)
            with pytest.raises(ValueError, match="values for 4 texts of 4 columns, and 2 texts of 4 columns are read"):
                capture(gpt2, data, mlp_out[0], batch_size=2)


def test_a_capture_padded_on_the_left_changes_no_bit_where_it_is_put_back(
    gpt2: Model, padded_left: Callable[[Model], Model]
) -> None:
    model, texts = padded_left(gpt2), ["The bay", "Fog"]
    acts, plain = capture(model, texts, mlp_out[1]), model.run(texts)
    spoken = model.generate(texts, max_new_tokens=3)
    with intervene(model, {mlp_out[1]: replace(acts[mlp_out[1]], at=prompt)}):
        assert torch.equal(model.run(texts), plain)
        assert model.generate(texts, max_new_tokens=3) == spoken


def test_a_capture_padded_on_the_right_is_not_put_back_where_generate_pads_on_the_left(gpt2: Model) -> None:
    texts = ["The bay", "Fog"]
    clean = capture(gpt2, texts, mlp_out[1])[mlp_out[1]]
    with intervene(gpt2, {mlp_out[1]: replace(clean, at=prompt)}):
        gpt2.run(texts)
        with pytest.raises(ValueError, match=r"at mlp_out\.1 puts back a capture, and generate pads on the left"):
            gpt2.generate(texts, max_new_tokens=3)
    for text, row in zip(texts, clean, strict=True):
        spoken, alone = gpt2.generate(text, max_new_tokens=3), row[None, : len(text) + 1]
        with intervene(gpt2, {mlp_out[1]: replace(alone, at=prompt)}):
            assert gpt2.generate(text, max_new_tokens=3) == spoken


def test_values_per_selected_token_are_refused_where_a_text_is_read_in_pieces(gpt2: Model) -> None:
    """Else one token decoded at a time would get the first value again and again."""
    with (
        pytest.raises(ValueError, match="one per selected token of a whole text, and this pass reads on from column 4"),
        intervene(gpt2, {mlp_out[0]: replace(torch.ones(1, D), at=last | generated)}),
    ):
        gpt2.generate("Fog", max_new_tokens=3)


def test_an_intervention_is_a_value(v: Tensor) -> None:
    one = add(v)
    assert one.at == everywhere
    assert but(one, at=last).at == last


def test_noise_is_drawn_from_its_seed_its_row_and_its_token() -> None:
    """So a run is drawn again by another program: the words of the seed are those of the three numbers' hash."""
    a, row, token = torch.ones(3, 4, 8), torch.tensor([0, 1, 1]), torch.tensor([5, 0, 9])
    drawn = run(noise(0.5, seed=3), a, row=row, token=token)
    for one, r, t in zip(drawn, row.tolist(), token.tolist(), strict=True):
        random = torch.Generator().manual_seed(hash((3, r, t)) & (2**63 - 1))
        torch.testing.assert_close(one, 1 + 0.5 * torch.randn(4, 8, generator=random))


def test_a_vector_of_a_site_with_heads_may_be_flat_and_has_no_other_axes(gpt2: Model) -> None:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    logits_of = []
    for value in (vector, vector.view(4, 8)):
        with intervene(gpt2, {z[1]: add(value)}):
            logits_of.append(gpt2.run("Fog"))
    assert torch.equal(*logits_of)
    for value in (vector.view(8, 4), vector.view(2, 16), vector[:31], vector.view(1, 4, 8)):
        with pytest.raises(ValueError, match=r"add at z\.1 needs a value of shape \(4, 8\), got"):
            intervene(gpt2, {z[1]: add(value)})
    for value in (vector.view(4, 8).expand(3, 4, 8), vector.view(4, 8).expand(1, 4, 4, 8)):
        with intervene(gpt2, {z[1]: replace(value)}):
            put = gpt2.run("Fog")
        with intervene(gpt2, {z[1]: replace(vector)}):
            torch.testing.assert_close(put, gpt2.run("Fog"))


def test_what_sets_a_projection_without_saying_which_undoes_nothing(gpt2: Model, v: Tensor) -> None:
    made = Intervention("twice", everywhere, lambda a, _: 2 * a, sets_projection=True)
    with intervene(gpt2, {mlp_out[0]: [made, made]}):
        once = gpt2.run("Fog")
    with intervene(gpt2, {mlp_out[0]: scale(4.0)}):
        assert torch.equal(gpt2.run("Fog"), once)
    with intervene(gpt2, {mlp_out[0]: [clamp(v, 1.0), made, clamp(v.flip(0), 1.0)]}):
        gpt2.run("Fog")


def test_what_overwrites_the_output_of_a_block_may_come_before_what_changes_the_input_of_the_next(
    gpt2: Model, v: Tensor
) -> None:
    with intervene(gpt2, {resid_pre[1]: add(v), resid_post[0]: zero()}):
        both = gpt2.run("Fog")
    with intervene(gpt2, {resid_post[0]: replace(v)}):
        torch.testing.assert_close(both, gpt2.run("Fog"))
    with intervene(gpt2, {resid_post[1]: add(v), resid_post[0]: zero(), mlp_out[1]: zero(), attn_out[1]: add(v)}):
        gpt2.run("Fog")
